// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"text/template"
	"time"
)

// authority signs what the components show each other.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// writePKI makes a new authority and all certificates and kubeconfigs. Nobody keeps the authority's key.
func (c *cluster) writePKI(apiServer string) error {
	ca, err := c.newAuthority()
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	inside := "https://" + net.JoinHostPort(nodeIP, apiPort)
	return errors.Join(
		c.writeServiceAccountKey(),
		c.issueServer(ca, "apiserver",
			[]string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			[]string{"127.0.0.1", apiIP, nodeIP}),
		c.issueServer(ca, "kubelet", []string{nodeName}, []string{nodeIP}),
		c.issueClient(ca, "apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
		c.issueAccess(ca, "admin", "kubernetes-admin", "system:masters", apiServer),
		c.issueAccess(ca, "kube-controller-manager", "system:kube-controller-manager", "", inside),
		c.issueAccess(ca, "kube-scheduler", "system:kube-scheduler", "", inside),
		c.issueAccess(ca, "kube-proxy", "system:kube-proxy", "", inside),
		c.issueAccess(ca, "kubelet-client", "system:node:"+nodeName, "system:nodes", inside),
	)
}

func (c *cluster) newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t, err := certificate("cluster CA", "")
	if err != nil {
		return nil, err
	}
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	ca := &authority{key: key}
	if ca.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return ca, c.writePEM("ca.crt", "CERTIFICATE", der)
}

// issueServer writes a certificate for a server under these names.
func (c *cluster) issueServer(ca *authority, file string, names, addresses []string) error {
	t, err := certificate(file, "")
	if err != nil {
		return err
	}
	t.DNSNames, t.ExtKeyUsage = names, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, address := range addresses {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(address))
	}
	return c.issue(ca, file, t)
}

// issueClient writes a certificate for a user of a group.
func (c *cluster) issueClient(ca *authority, file, user, group string) error {
	t, err := certificate(user, group)
	if err != nil {
		return err
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return c.issue(ca, file, t)
}

// issueAccess writes a certificate for a user and a kubeconfig with it.
func (c *cluster) issueAccess(ca *authority, file, user, group, server string) error {
	if err := c.issueClient(ca, file, user, group); err != nil {
		return err
	}
	return c.render("kubeconfig.yaml", c.kubeconfig(file), map[string]string{
		"Server": server, "CA": c.pki("ca.crt"), "Certificate": c.pki(file + ".crt"), "Key": c.pki(file + ".key"),
	})
}

func (c *cluster) issue(ca *authority, file string, t *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return fmt.Errorf("certificate of %s: %w", file, err)
	}
	return errors.Join(c.writePEM(file+".crt", "CERTIFICATE", der), c.writeKey(file+".key", key))
}

// writeServiceAccountKey makes the key that signs the tokens of ServiceAccounts.
func (c *cluster) writeServiceAccountKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return c.writeKey("service-account.key", key)
}

func (c *cluster) writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return c.writePEM(file, "EC PRIVATE KEY", der)
}

func (c *cluster) writePEM(file, kind string, der []byte) error {
	return os.WriteFile(c.pki(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// certificate is valid for a year: the cluster is a thing of hours.
func certificate(name, group string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	subject := pkix.Name{CommonName: name}
	if group != "" {
		subject.Organization = []string{group}
	}
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}, nil
}

func (c *cluster) pki(file string) string { return c.path("pki", file) }

func (c *cluster) kubeconfig(user string) string { return c.path("pki", user+".kubeconfig") }

// render writes a file from a template of config/.
func (c *cluster) render(name, to string, values any) error {
	t, err := template.New(name).Option("missingkey=error").ParseFS(configFiles, "config/"+name)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, values); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o600)
}
