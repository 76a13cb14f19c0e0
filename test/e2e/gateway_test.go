// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	gatewayHost = "wechat-gateway." + operatorSpace + ".svc"
	gatewayUser = "gateway-0"
)

// startGateway adds the gateway to the installation and starts a pod that has nothing but a token of its ServiceAccount.
func (w *world) startGateway(t *testing.T) {
	ca, cert, key := certificateFor(t, gatewayHost)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorSpace, Name: "wechat-gateway-tls"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"ca.crt": ca, corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key},
	}
	if err := w.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	w.helm(t, "upgrade", operator, chartDir, "--reuse-values", "--set", "gateway.enabled=true", "--set", "gateway.namespaces={"+shop+"}",
		"--set", "gateway.tls.secretName=wechat-gateway-tls", "--wait", "--timeout", "3m")
	start := time.Now()
	w.kubectl(t, "-n", shop, "create", "configmap", "wechat-gateway-ca", "--from-literal=ca.crt="+string(ca))
	// The pod does not wait for a Secret, and its calls would be refused until there is a token.
	w.apply(t, tokenManifests(gatewayUser, appIDOf("gateway", 0), ""))
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "wxtoken/"+gatewayUser, "--timeout=1m")
	w.apply(t, gatewayUserManifests())
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "wxclient/"+gatewayUser, "--timeout=1m")
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "pod/"+gatewayUser, "--timeout=3m")
	w.users = append(w.users, tokenUser{name: gatewayUser, delivery: "Gateway"})
	w.table.saw("a pod with nothing but its ServiceAccount calls WeChat by https://%s after %.1f s", gatewayHost, time.Since(start).Seconds())
}

// gatewayUserManifests are a client and its pod. The pod mounts no Secret.
func gatewayUserManifests() string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: ServiceAccount
metadata: {name: %[1]s, namespace: %[2]s}
---
apiVersion: wechat.apptoken.dev/v1alpha1
kind: WeChatAppClient
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  tokenRef: {name: %[1]s}
  serviceAccounts:
  - {namespace: %[2]s, name: %[1]s}
  paths: [/cgi-bin/get_api_domain_ip]
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {app.kubernetes.io/name: token-user}}
spec:
  serviceAccountName: %[1]s
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: token-user
    image: token-user:%[3]s
    imagePullPolicy: Never
    args: [--wechat-url=https://%[4]s, --wechat-ca-file=/etc/wechat-ca/ca.crt, --bearer-file=/var/run/gateway/token]
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    volumeMounts:
    - {name: token, mountPath: /var/run/gateway, readOnly: true}
    - {name: ca, mountPath: /etc/wechat-ca, readOnly: true}
  volumes:
  - name: token
    projected:
      sources:
      - serviceAccountToken: {path: token, audience: wechat-gateway, expirationSeconds: 600}
  - {name: ca, configMap: {name: wechat-gateway-ca}}
`, gatewayUser, shop, firstTag, gatewayHost)
}

// certificateFor returns a certificate for a host with its key, and that of the authority which signed it.
func certificateFor(t *testing.T, host string) (ca, cert, key []byte) {
	t.Helper()
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(template, parent *x509.Certificate, public any, signer *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	end := time.Now().Add(24 * time.Hour)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the gateway's authority"}, NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{host}, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, leafKey := newKey(), newKey()
	der, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return sign(authority, authority, caKey.Public(), caKey), sign(leaf, authority, leafKey.Public(), caKey),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}
