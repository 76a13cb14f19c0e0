// SPDX-License-Identifier: Apache-2.0

package appclient_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/appclient"
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

// moveGateway changes the host of all Secrets.
func (w *world) moveGateway(host string) {
	w.gateway.Store(&appclient.Gateway{URL: "https://" + host, CA: gatewayCA})
	w.operator.clients.GatewayChanged()
}

func (w *world) host() string {
	w.Helper()
	return strings.TrimPrefix(string(w.secret().Data["host"]), "https://")
}

// errConflict is what the API server answers to a write of another version than the newest, and a webhook to whatever it likes.
var errConflict = apierrors.NewConflict(corev1.Resource("secrets"), keySecret, errors.New("no"))

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

// A revoke ends the key although the Secret changes before each of its writes.
func TestRevokeUnderConflicts(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	w.patch(func(context.Context, client.Patch, func(client.Patch) error) error { return errConflict })
	w.ask(revokeAt, "1")
	w.Eventually(func() string { now, _ := w.good(); return now }).ShouldNot(gomega.Equal(first))
	w.Eventually(w.events).Should(gomega.Equal([]string{"KeyRevoked"}))
	w.patch(nil)
	w.eventuallyAnother(first)
}

// What answers each write with a conflict is asked ever more seldom, and the status tells of it.
func TestConflictsAreAFailure(t *testing.T) {
	w := newWorld(t)
	w.ready()
	var attempts atomic.Int64
	w.patch(func(context.Context, client.Patch, func(client.Patch) error) error {
		attempts.Add(1)
		return errConflict
	})
	w.moveGateway("elsewhere")
	w.Eventually(attempts.Load).Should(gomega.BeNumerically(">", 2))
	w.Consistently(attempts.Load, 3*time.Second).Should(gomega.BeNumerically("<", 12))
	w.advance(time.Minute)
	ready := w.eventuallyReason("api", v1alpha1.ReasonKeySecretWriteFailed)
	if !strings.Contains(ready.Message, "somebody else keeps writing it") {
		t.Errorf("Ready says %q", ready.Message)
	}
	w.patch(nil)
	w.touch()
	w.eventuallyReady()
	w.Eventually(w.host).Should(gomega.Equal("elsewhere"))
}

// A Secret that its owner made immutable is told to be deleted, and is made anew then.
func TestImmutableSecret(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	w.updateSecret(func(s *corev1.Secret) { s.Immutable = new(true) })
	w.moveGateway("elsewhere")
	ready := w.eventuallyReason("api", v1alpha1.ReasonKeySecretWriteFailed)
	if !strings.Contains(ready.Message, "immutable") || strings.Contains(ready.Message, "spec.target") ||
		!strings.Contains(ready.Message, "kubectl delete secret -n "+w.namespace+" "+keySecret) {
		t.Errorf("Ready says %q", ready.Message)
	}
	w.must(w.Delete(w.Context(), w.secret()))
	w.eventuallyAnother(first)
	w.Eventually(w.host).Should(gomega.Equal("elsewhere"))
}

// A write that was carried out although its answer got lost is no failure that goes on, so a later one is not told at once.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.patch(func(_ context.Context, body client.Patch, send func(client.Patch) error) error {
		return errors.Join(send(body), context.DeadlineExceeded)
	})
	w.moveGateway("elsewhere")
	w.Eventually(w.host).Should(gomega.Equal("elsewhere"))
	w.touch()
	w.advance(1000 * time.Hour)
	var attempts atomic.Int64
	w.patch(func(context.Context, client.Patch, func(client.Patch) error) error {
		attempts.Add(1)
		return apierrors.NewInternalError(errors.New("no"))
	})
	w.moveGateway("another")
	w.Eventually(attempts.Load).Should(gomega.BeNumerically(">", 1))
	if ready := w.condition("api", v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue {
		t.Errorf("Ready says %q", ready.Message)
	}
	w.patch(nil)
	w.Eventually(w.host).Should(gomega.Equal("another"))
}

// A process that does not know WeChat's time ends no key by a clock that is wrong, and notes none of its times.
func TestWrongClock(t *testing.T) {
	w := newWorld(t)
	first := w.ready(interval(30 * time.Hour))
	w.ask(rotateAt, "1")
	second := w.eventuallyAnother(first)
	before := *w.appClient("api").Status.Key
	w.wechat.Close()
	for _, wrong := range []time.Duration{-2 * time.Hour, 1000 * time.Hour} {
		w.offset.Store(int64(wrong))
		w.start()
		w.touch()
		if now, previous := w.good(); now != second || previous != first {
			t.Errorf("a clock that is off by %s ended a key", wrong)
		}
		if after := *w.appClient("api").Status.Key; !after.CreateTime.Equal(&before.CreateTime) || !after.PreviousUntilTime.Equal(before.PreviousUntilTime) {
			t.Errorf("a clock that is off by %s changed %+v to %+v", wrong, before, after)
		}
	}
}
