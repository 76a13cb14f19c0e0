// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// A member of a Legacy account that could not be written when its token was minted does not get that token hours later, when it is
// dead.
func TestMemberThatMissedAMint(t *testing.T) {
	const long = 50 * time.Minute // between two checks
	for name, tc := range map[string]struct {
		// away keeps the member's Secret from being written, and back ends that.
		away, back func(*world)
	}{
		"a suspended member": {
			away: func(w *world) {
				w.createToken("member", legacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = long })
				w.eventuallyReady("member")
				w.update("member", func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = true })
				w.Eventually(func() string { return w.condition("member", v1alpha1.ConditionReady).Message }).
					Should(gomega.ContainSubstring("suspended"))
			},
			back: func(w *world) { w.update("member", func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = false }) },
		},
		"a conflicting member": {
			away: func(w *world) {
				w.createSecret("member", map[string]string{"theirs": "stays"})
				w.createToken("member", legacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = long })
				w.eventuallyReason("member", v1alpha1.ReasonTargetConflict)
			},
			back: func(w *world) { w.must(w.Delete(w.Context(), w.secret("member"))) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			w.createCredentials(appSecret)
			w.createToken("fetcher", legacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = long })
			value := w.eventuallyReady("fetcher")
			tc.away(w)
			w.jump(2*time.Hour - 250*time.Second)
			w.touch("fetcher")
			missed := w.eventuallyAnother("fetcher", value)
			// The status is written last, so the fetcher has no more to do before the clock moves on.
			w.Eventually(func() string { return w.token("fetcher").Status.TargetResourceVersion }).
				Should(gomega.Equal(w.secret("fetcher").ResourceVersion))
			held := w.tokensIn("member")
			w.jump(3 * time.Hour)
			tc.back(w)
			last := w.eventuallyReady("member")
			w.Eventually(held).Should(gomega.ContainElement(last))
			if slices.Contains(held(), missed) {
				t.Error("the member's Secret was given a token that had been dead for an hour")
			}
		})
	}
}

// A token that the API server does not take until it is dead is not written then.
func TestPendingTokenEndsWithItsLife(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			m := newMatrix(t, newClerk(t), mode)
			s := m.subject("shop", 50*time.Minute)
			s.issued()
			m.clerk.beforeData = func() error {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, s.name, errors.New("the test refuses it"))
			}
			s.clock.advance(2*time.Hour - 250*time.Second)
			s.decideAnew()
			s.run(10 * time.Second)
			tokens := s.wechat.Tokens(s.app)
			if len(tokens) != 2 || s.value(s.name) != tokens[0].Token {
				t.Fatalf("%d tokens were issued, and the second one is to be pending", len(tokens))
			}
			held := s.tokensIn(s.name)
			s.clock.advance(3 * time.Hour)
			m.clerk.beforeData = nil
			s.decideAnew()
			s.run(time.Minute)
			last := s.eventuallyReady(s.name)
			s.Eventually(held).Should(gomega.ContainElement(last))
			if slices.Contains(held(), tokens[1].Token) {
				t.Error("the Secret was given a token that had been dead for an hour")
			}
			if n := s.wechat.Count(wechattest.Filter{AppID: s.app, Endpoint: s.endpoint()}); n > 4 {
				t.Errorf("%d token calls in all", n)
			}
		})
	}
}

// An adopted Secret that somebody replaces again and again, as kubectl replace does it, is filled ever more slowly, like any other
// Secret that somebody keeps rewriting, because each time costs a call.
func TestAdoptedSecretReplacedAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createSecret("shop", map[string]string{"theirs": "stays"})
	w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour })
	theirs := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: "shop", Annotations: map[string]string{v1alpha1.AnnotationAdopt: w.consent("shop")},
		},
		StringData: map[string]string{"theirs": "stays"},
	}
	w.must(w.Update(w.Context(), theirs.DeepCopy()))
	w.eventuallyReady("shop")
	calls, replaced := w.calls(wechattest.EndpointStable), 0
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if w.value("shop") == "" {
			continue
		}
		w.must(w.Update(w.Context(), theirs.DeepCopy()))
		replaced++
	}
	// At once, then after 1, 2 and 4 s.
	if n := w.calls(wechattest.EndpointStable) - calls; n > 5 {
		t.Errorf("%d calls within 4 s for a Secret that was replaced %d times", n, replaced)
	}
	w.eventuallyReady("shop")
}
