// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// cluster is a control plane with an operator on it, as main starts it.
type cluster struct {
	gomega.Gomega
	client.Client

	metrics string
}

// startCluster starts everything. It can be done once in a process: controller-runtime's registry is one.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	env, err := testenv.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
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
	opts := parse(t, "--wechat-endpoints="+api.URL(), "--metrics-bind-address="+address, "--metrics-secure=false",
		"--health-probe-bind-address=0")
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context())) // until the cleanup
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, opts, logr.Discard(), ctrlmetrics.Registry) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the operator: %v", err)
		}
	})
	scheme := runtime.NewScheme()
	c := &cluster{Gomega: gomega.NewWithT(t), metrics: "http://" + address + "/metrics"}
	c.SetDefaultEventuallyTimeout(30 * time.Second)
	c.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	c.Expect(clientgoscheme.AddToScheme(scheme)).To(gomega.Succeed())
	c.Expect(v1alpha1.AddToScheme(scheme)).To(gomega.Succeed())
	if c.Client, err = client.New(env.Config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	return c
}

// scrape gives the lines of the answer by what is before their value.
func (c *cluster) scrape(g gomega.Gomega) map[string]string {
	httpClient := &http.Client{Timeout: 10 * time.Second}
	res, err := httpClient.Get(c.metrics)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	defer res.Body.Close() //nolint:errcheck // it was read
	g.Expect(res.StatusCode).To(gomega.Equal(http.StatusOK))
	return lines(g, res.Body)
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

func TestMetricsEndToEnd(t *testing.T) {
	c := startCluster(t)
	ctx := t.Context()
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
