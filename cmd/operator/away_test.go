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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// TestAPIServerAwayAndBack starts an operator whose API server is away, and takes it away again from the leader that it became. A start
// waits, the caches try again each second, and a leader that cannot renew its Lease ends.
func TestAPIServerAwayAndBack(t *testing.T) {
	t.Parallel() // it waits for a process
	g := gomega.NewWithT(t)
	g.SetDefaultEventuallyTimeout(30 * time.Second)
	env := testenv.ForTest(t)
	server, err := env.AddAPIServer()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	t.Cleanup(func() { _ = server.Kill() })
	config, err := env.Operator(t.Context(), "")
	g.Expect(err).NotTo(gomega.HaveOccurred())
	config.Host = server.Host
	kubeconfig, err := testenv.KubeConfigOf(config)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	wechat, err := wechattest.NewServer(wechattest.Options{AutoApps: true})
	g.Expect(err).NotTo(gomega.HaveOccurred())
	t.Cleanup(wechat.Close)
	address, err := testenv.FreeAddress()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	c := adminOf(t, env)
	g.Expect(c.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "credentials"},
		StringData: map[string]string{"appSecret": "0123456789abcdef0123456789abcdef"},
	})).To(gomega.Succeed())
	want := func(name string) {
		g.Expect(c.Create(t.Context(), &v1alpha1.WeChatAppToken{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: v1alpha1.WeChatAppTokenSpec{
				AppID: "wx0123456789abcdef", CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"},
			},
		})).To(gomega.Succeed())
	}
	has := func(name string) func() error {
		return func() error {
			return c.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: name}, &corev1.Secret{})
		}
	}
	ready := func() string {
		res, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + address + "/readyz/caches")
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close() //nolint:errcheck // it is read
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	start := func() *process {
		return startProcess(t, kubeconfig, "--leader-elect", "--leader-election-namespace="+testenv.OperatorNamespace,
			"--wechat-endpoints="+wechat.URL(), "--metrics-bind-address=0", "--health-probe-bind-address="+address)
	}
	want("first")
	p := start()
	g.Eventually(ready).Should(gomega.ContainSubstring("the API server cannot be reached"))
	time.Sleep(4 * time.Second) // for further attempts, which are not logged
	if n := strings.Count(p.logged(), "cannot start yet"); n != 1 {
		t.Errorf("%d lines of the log tell that the API server is away, want 1", n)
	}
	g.Expect(server.Start(t.Context())).To(gomega.Succeed())
	g.Eventually(has("first"), 10*time.Second).Should(gomega.Succeed())
	g.Eventually(ready).Should(gomega.Equal("ok"))

	g.Expect(server.Kill()).To(gomega.Succeed())
	gone := time.Now()
	select {
	case err := <-p.ended:
		if err == nil || !strings.Contains(p.logged(), "leader election lost") {
			t.Errorf("the leader ended with %v", err)
		}
		t.Logf("the leader ended %s after the API server", time.Since(gone))
	case <-time.After(leaseDuration + 5*time.Second):
		t.Fatal("a leader without a Lease goes on")
	}
	if !strings.Contains(p.logged(), "the API server cannot be reached, trying again each second") {
		t.Error("the caches do not try again each second")
	}
	p = start()
	g.Eventually(ready).Should(gomega.ContainSubstring("the API server cannot be reached"))
	want("second")
	g.Expect(server.Start(t.Context())).To(gomega.Succeed())
	back := time.Now()
	g.Eventually(has("second")).Should(gomega.Succeed()) // the Lease of the process that ended has to end too
	t.Logf("the second token came %s after the API server", time.Since(back))
	p.terminate(t, 10*time.Second)
}
