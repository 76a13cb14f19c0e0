// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

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
	t.Parallel() // it waits for a process
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
	if n := strings.Count(p.logged(), `is this program's Role bound in it?","namespace":"unbound"`); n != 2 {
		t.Errorf("%d lines of the log tell that the namespace cannot be read, want 2", n)
	}
	p.terminate(t, 10*time.Second)
}
