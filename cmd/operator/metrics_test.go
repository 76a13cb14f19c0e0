// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// cluster is a control plane with an operator that was started by run.
type cluster struct {
	gomega.Gomega
	client.Client

	env     *testenv.Environment
	metrics string
	https   *http.Client
	// reader is the token of a ServiceAccount that may read the metrics.
	reader string
}

// startCluster starts a control plane and an operator. It can be called once in a process, because controller-runtime has one global
// registry.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	env := testenv.ForTest(t)
	api, err := wechattest.NewServer(wechattest.Options{AutoApps: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	access, err := env.OperatorKubeConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, access, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", path)
	address, err := testenv.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	opts := parse(t, "--wechat-endpoints="+api.URL(), "--metrics-bind-address="+address, "--metrics-secure=true",
		"--health-probe-bind-address=0")
	c := &cluster{Client: adminOf(t, env), Gomega: gomega.NewWithT(t), env: env, metrics: "https://" + address + "/metrics"}
	// The operator's certificate is self-signed.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // on a loopback address
	t.Cleanup(transport.CloseIdleConnections)
	c.https = &http.Client{Timeout: 10 * time.Second, Transport: transport}
	c.SetDefaultEventuallyTimeout(30 * time.Second)
	c.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	c.reader = c.account(t, "prometheus")
	c.Expect(c.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "prometheus"}},
	})).To(gomega.Succeed())
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context())) // t.Context ends before the cleanup
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, opts, logr.Discard(), ctrlmetrics.Registry) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the operator: %v", err)
		}
	})
	return c
}

// account creates a ServiceAccount and returns a token for it.
func (c *cluster) account(t *testing.T, name string) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	c.Expect(c.Create(t.Context(), account)).To(gomega.Succeed())
	request := &authenticationv1.TokenRequest{}
	c.Expect(c.SubResource("token").Create(t.Context(), account, request)).To(gomega.Succeed())
	return request.Status.Token
}

// get requests the metrics with a token, or without one if it is empty.
func (c *cluster) get(g gomega.Gomega, token string) *http.Response {
	req, err := http.NewRequest(http.MethodGet, c.metrics, nil)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := c.https.Do(req)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	return res
}

// status returns the status code of get.
func (c *cluster) status(g gomega.Gomega, token string) int {
	res := c.get(g, token)
	defer res.Body.Close() //nolint:errcheck // only the code is read
	return res.StatusCode
}

// scrape returns the values of all series, by name and labels.
func (c *cluster) scrape(g gomega.Gomega) map[string]string {
	res := c.get(g, c.reader)
	defer res.Body.Close() //nolint:errcheck // it is read
	g.Expect(res.StatusCode).To(gomega.Equal(http.StatusOK))
	return lines(g, res.Body)
}

// reviews returns how many reviews of a kind the operator has requested.
func (c *cluster) reviews(resource string) int {
	requests, err := c.env.Requests(func(r testenv.Request) bool {
		return r.User.Username == testenv.OperatorUser && r.Verb == "create" && r.Object.Resource == resource
	})
	c.Expect(err).NotTo(gomega.HaveOccurred())
	return len(requests)
}

func lines(g gomega.Gomega, body io.Reader) map[string]string {
	out := map[string]string{}
	scanner := bufio.NewScanner(body)
	for scanner.Scan() {
		if at := strings.LastIndexByte(scanner.Text(), ' '); at > 0 && !strings.HasPrefix(scanner.Text(), "#") {
			out[scanner.Text()[:at]] = scanner.Text()[at+1:]
		}
	}
	g.Expect(scanner.Err()).NotTo(gomega.HaveOccurred())
	return out
}

// checkAccess checks that the shipped ClusterRole, and nothing else, lets a caller read the metrics.
func checkAccess(t *testing.T, c *cluster) {
	t.Helper()
	c.Eventually(func(g gomega.Gomega) int { return c.status(g, c.reader) }).Should(gomega.Equal(http.StatusOK), "metrics-reader")
	operator, err := c.env.Operator(t.Context(), "")
	c.Expect(err).NotTo(gomega.HaveOccurred())
	callers := map[string]struct {
		token string
		want  int
	}{
		"no token":                      {"", http.StatusUnauthorized},
		"not a token":                   {"not-a-token", http.StatusUnauthorized},
		"a signature that is not right": {c.reader[:len(c.reader)-8] + "AAAAAAAA", http.StatusUnauthorized},
		"a ServiceAccount":              {c.account(t, "stranger"), http.StatusForbidden},
		"the operator's own":            {operator.BearerToken, http.StatusForbidden},
		"metrics-reader":                {c.reader, http.StatusOK},
	}
	for name, caller := range callers {
		c.Expect(c.status(c, caller.token)).To(gomega.Equal(caller.want), name)
	}
	tokens, accesses := c.reviews("tokenreviews"), c.reviews("subjectaccessreviews")
	c.Expect(tokens).To(gomega.BeNumerically(">=", 5), "each token was reviewed")
	c.Expect(accesses).To(gomega.BeNumerically(">=", 3), "each user was reviewed")
	for name, caller := range callers {
		c.Expect(c.status(c, caller.token)).To(gomega.Equal(caller.want), name)
	}
	c.Expect(c.reviews("tokenreviews")).To(gomega.Equal(tokens), "verdicts are remembered")
	c.Expect(c.reviews("subjectaccessreviews")).To(gomega.Equal(accesses), "verdicts are remembered")
}

// TestMetricsEndToEnd reads the metrics as Prometheus does, with --metrics-secure and the rights that are shipped.
func TestMetricsEndToEnd(t *testing.T) {
	c := startCluster(t)
	ctx := t.Context()
	checkAccess(t, c)
	const own = `{name="shop",namespace="default"}`
	c.Expect(c.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "credentials"},
		StringData: map[string]string{"appSecret": "0123456789abcdef0123456789abcdef"},
	})).To(gomega.Succeed())
	token := &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop"},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID:                "wx0123456789abcdef",
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"},
		},
	}
	c.Expect(c.Create(ctx, token)).To(gomega.Succeed())

	c.Eventually(func(g gomega.Gomega) {
		got := c.scrape(g)
		g.Expect(got).To(gomega.HaveKeyWithValue("wechatapptoken_ready"+own, "1"))
		g.Expect(got).To(gomega.HaveKeyWithValue("wechatapptoken_suspended"+own, "0"))
		g.Expect(got).To(gomega.HaveKeyWithValue(
			`wechatapptoken_info{appid="wx0123456789abcdef",mode="Stable",name="shop",namespace="default",secret="shop"}`, "1"))
		g.Expect(got).To(gomega.HaveKey("wechatapptoken_expiration_timestamp_seconds" + own))
		g.Expect(got).To(gomega.HaveKey("wechatapptoken_next_refresh_timestamp_seconds" + own))
		g.Expect(got).To(gomega.HaveKeyWithValue(`wechatapptoken_refresh_total{reason="TargetMissing",result="success"}`, "1"))
		g.Expect(got).To(gomega.HaveKeyWithValue("wechatapptoken_delivery_duration_seconds_count", "1"))
		g.Expect(got).To(gomega.HaveKeyWithValue("wechatapptoken_rotation_lateness_seconds_count", "0"))
		g.Expect(got).To(gomega.HaveKeyWithValue("wechatapptoken_scrape_success", "1"))
	}).Should(gomega.Succeed())
	called := 0
	for series := range c.scrape(c) {
		if strings.HasPrefix(series, `wechat_api_requests_total{endpoint="stable_token",errcode="",host="127.0.0.1:`) {
			called++
		}
	}
	c.Expect(called).To(gomega.Equal(1), "series of successful calls")

	base := token.DeepCopy()
	token.Spec.Suspend = true
	c.Expect(c.Patch(ctx, token, client.MergeFrom(base))).To(gomega.Succeed())
	c.Eventually(func(g gomega.Gomega) {
		g.Expect(c.scrape(g)).To(gomega.HaveKeyWithValue("wechatapptoken_suspended"+own, "1"))
	}).Should(gomega.Succeed())

	c.Expect(c.Delete(ctx, token)).To(gomega.Succeed())
	c.Eventually(func(g gomega.Gomega) {
		for series := range c.scrape(g) {
			g.Expect(series).NotTo(gomega.ContainSubstring(`name="shop"`))
		}
	}).Should(gomega.Succeed())
}
