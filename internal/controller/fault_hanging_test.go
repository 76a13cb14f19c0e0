// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// hang registers mutating webhooks for the Secrets of the world's namespace that never answer, one for each number of seconds after which
// the API server gives up. It returns when they are in force.
func (w *world) hang(policy admissionv1.FailurePolicyType, seconds ...int32) {
	w.Helper()
	called, end := atomic.Int64{}, make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the API server gives up
		called.Add(1)
		select {
		case <-r.Context().Done():
		case <-end:
		}
	}))
	w.Cleanup(server.Close)
	w.Cleanup(func() { close(end) })
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	hooks := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
	for i, s := range seconds {
		hooks.Webhooks = append(hooks.Webhooks, admissionv1.MutatingWebhook{
			Name: fmt.Sprintf("hangs-%d.example.com", i), AdmissionReviewVersions: []string{"v1"},
			SideEffects: new(admissionv1.SideEffectClassNoneOnDryRun), ClientConfig: admissionv1.WebhookClientConfig{URL: &server.URL, CABundle: ca},
			NamespaceSelector: w.itsNamespace(), Rules: []admissionv1.RuleWithOperations{secretWrites()},
			FailurePolicy: &policy, TimeoutSeconds: &s,
		})
	}
	w.must(w.Create(w.Context(), hooks))
	w.lift(hooks)
	w.Eventually(func() int64 {
		ctx, cancel := context.WithTimeout(w.Context(), 200*time.Millisecond)
		defer cancel()
		probe := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, GenerateName: "probe-"}}
		_ = w.Create(ctx, probe, client.DryRunAll)
		return called.Load()
	}).Should(gomega.BeNumerically(">", 0))
}

// Webhooks that do not answer delay each write by their timeouts, one after the other. What lets the write pass then must not cost the
// token, so the operator waits for as long.
func TestHangingWebhooksThatAreIgnored(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.SetDefaultEventuallyTimeout(2 * patience) // Legacy tries the write before the mint
			w.startOperator()
			w.createCredentials(appSecret)
			w.hang(admissionv1.Ignore, 6, 6)
			began := time.Now()
			w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.eventuallyReady("shop")
			if took := time.Since(began); took < 12*time.Second {
				t.Errorf("the token came after %s, so the webhooks did not hang", took)
			}
			if n := len(w.wechat.Tokens(appID)); n != 1 {
				t.Errorf("%d tokens were issued", n)
			}
		})
	}
}

// A webhook that does not answer, and without which the API server writes nothing, takes ten seconds by default. Then the API server says
// which one it is, if it is still asked.
func TestHangingWebhookIsNamed(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.hang(admissionv1.Fail, 10)
	w.createToken("shop")
	w.Eventually(func() int { return w.secretRequests(w.operators.last, "create")["shop"] }).Should(gomega.BeNumerically(">", 0))
	w.jump(61 * time.Second) // a failure that may pass by itself is told after a minute
	w.operators.release()
	w.Eventually(func() metav1.Condition { return w.condition("shop", v1alpha1.ConditionRefreshFailing) }).Should(gomega.And(
		gomega.HaveField("Reason", v1alpha1.ReasonTargetWriteFailed), gomega.HaveField("Message", gomega.ContainSubstring("hangs-0.example.com"))))
}
