// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// TestHostileNetwork runs an operator behind a network that loses large ClientHellos, with a proxy that inspects TLS and whose certificate
// authority is rotated. Each resource gets its token: the first one by a single Legacy mint, one while the file is damaged, and one after
// the rotation.
func TestHostileNetwork(t *testing.T) {
	t.Parallel() // it waits for a process
	g := gomega.NewWithT(t)
	g.SetDefaultEventuallyTimeout(40 * time.Second)
	env := testenv.ForTest(t)
	access, err := env.OperatorKubeConfig(t.Context())
	g.Expect(err).NotTo(gomega.HaveOccurred())
	c := adminOf(t, env)

	address, err := testenv.FreeAddress()
	g.Expect(err).NotTo(gomega.HaveOccurred())
	serve := func() *wechattest.Server {
		s, err := wechattest.NewServer(wechattest.Options{TLS: true, AutoApps: true, Addr: address})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		t.Cleanup(s.Close)
		return s
	}
	carrier, err := wechattest.NewCarrier(address)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	t.Cleanup(carrier.Close)
	file := filepath.Join(t.TempDir(), "ca.crt")
	write := func(content []byte) { g.Expect(os.WriteFile(file, content, 0o600)).To(gomega.Succeed()) }
	created := 0
	ready := func(mode v1alpha1.Mode) {
		t.Helper()
		created++
		name := fmt.Sprintf("shop-%d", created)
		g.Expect(c.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name + "-wechat"},
			Data:       map[string][]byte{"appSecret": []byte("0123456789abcdef0123456789abcdef")},
		})).To(gomega.Succeed())
		r := &v1alpha1.WeChatAppToken{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: v1alpha1.WeChatAppTokenSpec{
				AppID: fmt.Sprintf("wx%016d", created), Mode: mode,
				CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: name + "-wechat"},
			},
		}
		g.Expect(c.Create(t.Context(), r)).To(gomega.Succeed())
		g.Eventually(func(g gomega.Gomega) {
			g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(r), r)).To(gomega.Succeed())
			g.Expect(apimeta.IsStatusConditionTrue(r.Status.Conditions, v1alpha1.ConditionReady)).To(gomega.BeTrue(), "%v", r.Status)
		}).Should(gomega.Succeed())
	}

	first := serve()
	write(first.CACertPEM())
	p := startProcess(t, access, "--health-probe-bind-address=0", "--wechat-ca-file="+file,
		"--wechat-endpoints=https://"+carrier.Addr()+",https://"+carrier.Addr())
	ready(v1alpha1.ModeLegacy)
	g.Expect(first.Count(wechattest.Filter{Endpoint: wechattest.EndpointLegacy})).To(gomega.Equal(1), "Legacy mints")
	g.Expect(carrier.Dropped.Load()).To(gomega.BeEquivalentTo(1), "large ClientHellos")
	write(first.CACertPEM()[:100])
	g.Eventually(p.logged).Should(gomega.ContainSubstring("cannot be read, so those that it held before"))
	ready(v1alpha1.ModeStable)
	first.Close()
	second := serve()
	write(second.CACertPEM())
	g.Eventually(p.logged).Should(gomega.ContainSubstring("its new ones are in use"))
	ready(v1alpha1.ModeStable)
	g.Expect(p.ended).To(gomega.BeEmpty(), "the process runs")
	p.terminate(t, 10*time.Second)
}
