// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/yaml"
)

// With metrics.certificate the operator can be verified as the ServiceMonitor tells Prometheus to: by ca.crt of the Secret, for the name of
// the Service.
func TestMetricsCertificate(t *testing.T) {
	w := newWorld(t, shared)
	const values = "metrics: {certificate: {secretName: metrics}}\n"
	var tlsConfig struct {
		CA struct {
			Secret struct{ Name, Key string }
		}
		ServerName string
	}
	var ca []byte
	i := w.install(values, func(namespace string) {
		objects := render(t, release, namespace, values, "--set", "metrics.serviceMonitor.enabled=true")
		monitor := objects["ServiceMonitor "+deployment+"-metrics-monitor"]
		endpoints, ok := specOf(t, monitor)["endpoints"].([]any)
		if !ok {
			t.Fatalf("no endpoints: %s", monitor)
		}
		raw, err := json.Marshal(endpoints[0].(map[string]any)["tlsConfig"]) //nolint:forcetypeassert // a map
		w.must(err)
		w.must(yaml.UnmarshalStrict(raw, &tlsConfig))
		cert, key, err := certutil.GenerateSelfSignedCertKey(tlsConfig.ServerName, nil, nil)
		w.must(err)
		ca = cert
		w.must(w.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: tlsConfig.CA.Secret.Name},
			Data:       map[string][]byte{"tls.crt": cert, "tls.key": key, tlsConfig.CA.Secret.Key: cert},
		}))
	})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	scraper := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: tlsConfig.ServerName}}}
	i.Eventually(func(g gomega.Gomega) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+i.operator.flag("--metrics-bind-address")+"/metrics", nil)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		res, err := scraper.Do(req)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(res.Body.Close()).To(gomega.Succeed())
		return res.StatusCode
	}).Should(gomega.Equal(http.StatusUnauthorized))
}

// Without the Secret of metrics.certificate the operator starts all the same and keeps tokens, because they are worth more than metrics.
func TestMissingMetricsCertificate(t *testing.T) {
	i := install(t, "metrics: {certificate: {secretName: not-there}}\n")
	i.createToken(i.shop)
	i.eventuallyReady(i.shop)
}
