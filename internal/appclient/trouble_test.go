// SPDX-License-Identifier: Apache-2.0

package appclient_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// patch sets what is called in place of each patch of a Secret; nil for none.
func (w *world) patch(f patching) {
	if f == nil {
		w.patching.Store(nil)
		return
	}
	w.patching.Store(&f)
}

// A process that is told to end while it writes a new key writes the status as well. Otherwise the next one would do it once more.
func TestStopDuringARotation(t *testing.T) {
	for _, request := range []string{rotateAt, revokeAt} {
		t.Run(request, func(t *testing.T) {
			w := newWorld(t)
			first := w.ready()
			w.patch(func(ctx context.Context, body client.Patch, send func(client.Patch) error) error {
				err := send(body)
				w.operator.cancel()
				select {
				case <-ctx.Done():
				case <-time.After(time.Second): // long enough for the pass to hear of it
				}
				return err
			})
			w.ask(request, "1")
			w.Eventually(func() string { return string(w.secret().Data["app_secret"]) }).ShouldNot(gomega.Equal(first))
			w.operator.stop()
			w.patch(nil)
			written := string(w.secret().Data["app_secret"])
			if now, _ := w.good(); now != written || w.appClient("api").Status.HandledRequests == nil {
				t.Error("the status does not name the new key")
			}
			w.start()
			w.touch()
			if now, _ := w.good(); now != written {
				t.Error("it was done again")
			}
		})
	}
}

// Without its label the gateway has no key, so a client whose label is taken off at each write is not Ready.
func TestLabelThatDoesNotStay(t *testing.T) {
	w := newWorld(t)
	w.ready()
	var attempts atomic.Int64
	w.patch(func(_ context.Context, body client.Patch, send func(client.Patch) error) error {
		attempts.Add(1)
		raw, err := body.Data(nil)
		w.must(err)
		return send(clientPatch(strings.Replace(string(raw), `"labels":{`, `"labels":{"theirs":"1"},"unknown":{`, 1)))
	})
	w.updateSecret(func(s *corev1.Secret) { delete(s.Labels, v1alpha1.LabelManagedBy) })
	ready := w.eventuallyReason("api", v1alpha1.ReasonKeySecretConflict)
	if !strings.Contains(ready.Message, "labels or annotations") {
		t.Errorf("Ready says %q", ready.Message)
	}
	w.Eventually(w.events).Should(gomega.ContainElement("KeySecretConflict"))
	w.Consistently(attempts.Load, 2*time.Second).Should(gomega.BeNumerically("<", 6))
	w.patch(nil)
	w.advance(2 * time.Minute)
	w.touch()
	w.eventuallyReady()
	if w.secret().Labels[v1alpha1.LabelManagedBy] == "" {
		t.Error("the label is not back")
	}
}
