// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// TestNamespaceThatCannotBeRead starts an operator for three namespaces, of which one lacks the operator's RoleBinding and one does not
// exist. The third is served, log and metric name the others, what is granted later is served then, and what is lost is told.
func TestNamespaceThatCannotBeRead(t *testing.T) {
	g := gomega.NewWithT(t)
	g.SetDefaultEventuallyTimeout(90 * time.Second)
	env := testenv.ForTest(t)
	wechat, err := wechattest.NewServer(wechattest.Options{AutoApps: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(wechat.Close)
	c := adminOf(t, env)
	for _, name := range []string{"served", "unbound"} {
		g.Expect(c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})).To(gomega.Succeed())
		g.Expect(c.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "credentials"},
			StringData: map[string]string{"appSecret": "0123456789abcdef0123456789abcdef"},
		})).To(gomega.Succeed())
		g.Expect(c.Create(t.Context(), &v1alpha1.WeChatAppToken{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "shop"},
			Spec: v1alpha1.WeChatAppTokenSpec{
				AppID: "wx0123456789abcdef", CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"},
			},
		})).To(gomega.Succeed())
	}
	config, err := env.NamespacedOperator(t.Context(), "some-namespaces", "served")
	if err != nil {
		t.Fatal(err)
	}
	// The process has an API server of its own, whose end is the end of its watches. One that works goes on without rights for minutes.
	server, err := env.AddAPIServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Kill() })
	g.Expect(server.Start(t.Context())).To(gomega.Succeed())
	config.Host = server.Host
	kubeconfig, err := testenv.KubeConfigOf(config)
	if err != nil {
		t.Fatal(err)
	}
	address, err := testenv.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, kubeconfig, "--namespaces=served,unbound,gone", "--wechat-endpoints="+wechat.URL(),
		"--metrics-bind-address="+address, "--metrics-secure=false", "--health-probe-bind-address=0")
	secretIn := func(namespace string) func() error {
		return func() error {
			return c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "shop"}, &corev1.Secret{})
		}
	}
	metrics := func() string {
		res, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + address + "/metrics")
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close() //nolint:errcheck // it is read
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	g.Eventually(secretIn("served")).Should(gomega.Succeed())
	g.Eventually(metrics).Should(gomega.And(
		gomega.ContainSubstring(`wechatapptoken_namespace_served{namespace="served"} 1`),
		gomega.ContainSubstring(`wechatapptoken_namespace_served{namespace="unbound"} 0`),
		gomega.ContainSubstring(`wechatapptoken_namespace_served{namespace="gone"} 0`)))
	if n := strings.Count(p.logged(), "cannot be read, the others are served"); n != 2 {
		t.Errorf("%d lines of the log tell of namespaces that cannot be read, want 2", n)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "unbound", Name: "some-namespaces"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "manager-role"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: testenv.OperatorNamespace, Name: "some-namespaces"}},
	}
	g.Expect(c.Create(t.Context(), binding)).To(gomega.Succeed())
	g.Eventually(secretIn("unbound")).Should(gomega.Succeed())
	g.Eventually(metrics).Should(gomega.ContainSubstring(`wechatapptoken_namespace_served{namespace="unbound"} 1`))
	g.Expect(c.Delete(t.Context(), binding)).To(gomega.Succeed())
	g.Expect(server.Kill()).To(gomega.Succeed())
	g.Expect(server.Start(t.Context())).To(gomega.Succeed())
	// A young API server may refuse everybody for a moment, until it knows the roles.
	g.Eventually(metrics).Should(gomega.And(
		gomega.ContainSubstring(`wechatapptoken_namespace_served{namespace="served"} 1`),
		gomega.ContainSubstring(`wechatapptoken_namespace_served{namespace="unbound"} 0`)))
	if n := strings.Count(p.logged(), `is the operator's Role bound in it?","namespace":"unbound"`); n != 2 {
		t.Errorf("%d lines of the log tell that the namespace cannot be read, want 2", n)
	}
	p.terminate(t, 10*time.Second)
}

// answers is a transport that always answers with a code.
type answers int

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: int(a), Body: io.NopCloser(strings.NewReader("the answer"))}, nil
}

func TestListsThatCountAsEmpty(t *testing.T) {
	const secrets, tokens = "/api/v1/namespaces/shop/secrets", "/apis/wechat.apptoken.dev/v1alpha1/namespaces/shop/wechatapptokens"
	for name, test := range map[string]struct {
		method, url string
		code        int
		empty       bool
	}{
		"a list of Secrets that is forbidden": {http.MethodGet, secrets + "?limit=500", http.StatusForbidden, true},
		"a list of resources":                 {http.MethodGet, tokens + "?resourceVersion=0", http.StatusForbidden, true},
		"no CRD":                              {http.MethodGet, tokens + "?limit=500", http.StatusNotFound, false},
		"a list that works":                   {http.MethodGet, secrets + "?limit=500", http.StatusOK, false},
		"an API server in trouble":            {http.MethodGet, secrets + "?limit=500", http.StatusServiceUnavailable, false},
		"no longer logged in":                 {http.MethodGet, secrets + "?limit=500", http.StatusUnauthorized, false},
		"a watch":                             {http.MethodGet, secrets + "?watch=true&resourceVersion=1", http.StatusForbidden, false},
		"whether there is a CRD":              {http.MethodGet, tokens + "?limit=1", http.StatusForbidden, false},
		"one Secret":                          {http.MethodGet, secrets + "/shop", http.StatusForbidden, false},
		"pods":                                {http.MethodGet, "/api/v1/namespaces/shop/pods?limit=16", http.StatusForbidden, false},
		"all namespaces":                      {http.MethodGet, "/api/v1/secrets?limit=500", http.StatusForbidden, false},
		"a write":                             {http.MethodPost, secrets, http.StatusForbidden, false},
	} {
		transport := newNamespaces([]string{"shop"}, logr.Discard(), func(string, bool) {})(answers(test.code))
		req, err := http.NewRequestWithContext(t.Context(), test.method, "https://kubernetes"+test.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if empty := strings.Contains(string(body), `"items":[]`); empty != test.empty || empty != (res.StatusCode == http.StatusOK && test.code != http.StatusOK) {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
	if got := newNamespaces(nil, logr.Discard(), nil)(answers(http.StatusOK)); got != answers(http.StatusOK) {
		t.Errorf("an operator of all namespaces has a %T", got)
	}
}

// TestNamespaceIsServedWhileNothingIsRefused follows the answers to the lists and watches of a namespace.
func TestNamespaceIsServedWhileNothingIsRefused(t *testing.T) {
	const (
		secrets = "/api/v1/namespaces/shop/secrets"
		tokens  = "/apis/wechat.apptoken.dev/v1alpha1/namespaces/shop/wechatapptokens"
		list    = "?limit=500"
		watch   = "?watch=true"
	)
	type step struct {
		url    string
		code   int // of the API server
		want   int // what the cache sees
		served bool
	}
	ok, no := http.StatusOK, http.StatusForbidden
	for name, test := range map[string]struct {
		steps []step
		lines int // of the log
	}{
		"refused, granted":    {[]step{{secrets + list, no, ok, false}, {secrets + list, ok, ok, true}}, 2},
		"refused for a while": {[]step{{secrets + list, no, ok, false}, {secrets + list, no, ok, false}, {secrets + watch, no, no, false}}, 1},
		// The cache still has what could be read once, so the list does not become empty.
		"lost later": {[]step{
			{secrets + list, ok, ok, true}, {secrets + list, no, no, false}, {secrets + list, no, no, false}, {secrets + watch, no, no, false},
		}, 1},
		"lost and granted": {[]step{
			{secrets + list, ok, ok, true}, {secrets + watch, no, no, false}, {secrets + watch, ok, ok, true},
		}, 2},
		"a watch is also a list": {[]step{{secrets + list, no, ok, false}, {secrets + watch, ok, ok, true}, {secrets + list, no, no, false}}, 3},
		"a list is not a watch":  {[]step{{secrets + watch, no, no, false}, {secrets + list, ok, ok, false}, {secrets + watch, no, no, false}}, 1},
		"one resource of two":    {[]step{{tokens + list, no, ok, false}, {secrets + list, ok, ok, false}, {secrets + watch, ok, ok, false}}, 1},
		"one after the other":    {[]step{{tokens + list, no, ok, false}, {secrets + list, no, ok, false}, {tokens + list, ok, ok, false}}, 1},
		"the API server in trouble": {[]step{
			{tokens + list, ok, ok, true}, {tokens + list, http.StatusServiceUnavailable, http.StatusServiceUnavailable, true},
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var (
				code, lines int
				served      = true
			)
			log := funcr.New(func(string, string) { lines++ }, funcr.Options{})
			transport := newNamespaces([]string{"shop"}, log, func(namespace string, yes bool) { served = yes && namespace == "shop" })(
				roundTripper(func(r *http.Request) (*http.Response, error) { return answers(code).RoundTrip(r) }))
			for i, s := range test.steps {
				code = s.code
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://kubernetes"+s.url, nil)
				res, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if res.StatusCode != s.want || served != s.served {
					t.Errorf("step %d: %d, served %t, want %d, %t", i+1, res.StatusCode, served, s.want, s.served)
				}
			}
			if lines != test.lines {
				t.Errorf("%d lines in the log, want %d", lines, test.lines)
			}
		})
	}
}
