// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// recorder counts what it is told.
type recorder struct {
	mu        sync.Mutex
	counts    map[string]int
	late      []time.Duration
	delivered []time.Duration
	pods      []time.Duration
	checked   map[types.UID]time.Time
}

func (r *recorder) add(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[what]++
}

func (r *recorder) Refreshed(reason refresh.Reason)     { r.add("success " + string(reason)) }
func (r *recorder) RefreshFailed(reason refresh.Reason) { r.add("failure " + string(reason)) }
func (r *recorder) ForeignFetch(uid types.UID)          { r.add("foreign " + string(uid)) }

func (r *recorder) Checked(uid types.UID, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.checked == nil {
		r.checked = map[types.UID]time.Time{}
	}
	r.checked[uid] = at
}

func (r *recorder) Gone(uid types.UID) { r.add("gone " + string(uid)) }
func (r *recorder) PodReached()        { r.add("pod reached") }
func (r *recorder) PodDeliveryFailed() { r.add("pod failed") }

func (r *recorder) PodsDelivered(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods = append(r.pods, after)
}

func (r *recorder) Rotated(late time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = append(r.late, late)
}

func (r *recorder) Delivered(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delivered = append(r.delivered, after)
}

// take gives what was told since the last time.
func (r *recorder) take() (counts map[string]int, late, delivered []time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts, late, delivered = r.counts, r.late, r.delivered
	r.counts, r.late, r.delivered = map[string]int{}, nil, nil
	return counts, late, delivered
}

// The recorder is told of each new token in the Secret, of the reason for it, and of how late a rotation was. What brings
// no new token is no refresh.
func TestRecorder(t *testing.T) {
	w := newWorld(t, func(o *wechattest.Options) { o.Life = 40 * time.Second })
	w.createCredentials("another0another0another0another0")
	w.startOperator()
	token := w.createToken("shop")
	w.eventuallyReason("shop", v1alpha1.ReasonAppSecretInvalid)
	w.updateSecret("credentials", func(s *corev1.Secret) { s.Data["appSecret"] = []byte(appSecret) })
	value := w.eventuallyReady("shop")
	counts, late, delivered := w.recorder.take()
	if counts["failure TargetMissing"] == 0 || counts["success TargetMissing"] != 1 || len(late) != 0 || len(delivered) != 1 {
		t.Fatalf("of a first issue it was told %v, lateness %v, delivery %v", counts, late, delivered)
	}
	checked := func() time.Time {
		w.recorder.mu.Lock()
		defer w.recorder.mu.Unlock()
		return w.recorder.checked[token.UID]
	}
	w.Eventually(checked).ShouldNot(gomega.BeZero(), "the first issue is no check")
	first := checked()

	w.updateSecret("shop", func(s *corev1.Secret) { s.Data["access_token"] = []byte("mine") })
	w.Eventually(func() string { return w.value("shop") }).Should(gomega.Equal(value))
	if counts, _, _ := w.recorder.take(); counts["success TargetTampered"] != 0 {
		t.Errorf("a repair with the same token counts as a refresh: %v", counts)
	}

	w.advance(21 * time.Second) // beyond half of its life
	w.eventuallyAnother("shop", value)
	w.Eventually(func() int { return len(w.recorderLate()) }).Should(gomega.BeNumerically(">", 0))
	counts, late, delivered = w.recorder.take()
	if counts["success RefreshDue"] != 1 || len(late) != 1 || late[0] < 0 || late[0] > 10*time.Second || len(delivered) != 1 {
		t.Errorf("of a rotation it was told %v, lateness %v, delivery %v", counts, late, delivered)
	}
	w.Eventually(func() bool { return checked().After(first) }).Should(gomega.BeTrue(), "the rotation is no check")
	for key := range counts {
		if key == "foreign "+string(token.UID) {
			t.Error("a rotation is called a foreign fetch")
		}
	}
}

func (w *world) recorderLate() []time.Duration {
	w.recorder.mu.Lock()
	defer w.recorder.mu.Unlock()
	return w.recorder.late
}
