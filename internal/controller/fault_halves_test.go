// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// The Secret is edited while WeChat is called, and the API server cannot be asked what it holds now. What the operator does not
// know must not become status.
func TestSecondLookFails(t *testing.T) {
	c := newClerk(t)
	for name, edit := range map[string]func(*corev1.Secret){
		"the token is overwritten": func(s *corev1.Secret) { s.Data["access_token"] = []byte("mine") },
		"it is said to be another's": func(s *corev1.Secret) {
			s.OwnerReferences = nil
			s.Annotations[v1alpha1.AnnotationOwnerUID] = "7b1d4c1e-0000-4000-8000-000000000000"
			s.Annotations[v1alpha1.AnnotationOwnerName] = "other"
		},
	} {
		for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
			for _, due := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/due=%t", name, mode, due), func(t *testing.T) {
					m := newMatrix(t, c, mode)
					s := m.subject("shop", 30*time.Second)
					s.issued()
					endpoint, later := s.endpoint(), time.Minute
					if due {
						later = 2*time.Hour - 250*time.Second
					} else if mode == v1alpha1.ModeLegacy {
						endpoint = wechattest.EndpointProbe
					}
					live := s.restartWith(0)
					s.run(0) // the first check comes some time after the start
					s.clock.advance(later)
					before := s.token(s.name).Status
					s.wechat.Inject(wechattest.Fault{AppID: s.app, Endpoint: endpoint, DelayAnswer: 1500 * time.Millisecond, Times: 1})
					calls := func() int { return s.wechat.Count(wechattest.Filter{AppID: s.app, Endpoint: endpoint}) }
					asked := calls()
					pass := func() { // it may fail: nothing but the status is judged
						key := client.ObjectKey{Namespace: s.namespace, Name: s.name}
						_, _ = s.process.Reconcile(s.Context(), ctrl.Request{NamespacedName: key})
					}
					done := make(chan struct{})
					go func() { defer close(done); pass() }()
					s.Eventually(calls).Should(gomega.Equal(asked + 1))
					live.failing.Store(true)
					s.updateSecret(s.name, edit)
					s.decideAnew()
					<-done
					judge := func(when string) {
						t.Helper()
						now := s.token(s.name).Status
						if !equality.Semantic.DeepEqual(now.Token, before.Token) {
							t.Errorf("%s: status.token is %+v, and was %+v", when, now.Token, before.Token)
						}
						s.expect(when, conditions{"Ready": "TokenValid"}, false)
					}
					judge("after the pass")
					for range 3 {
						pass()
					}
					judge("after more of them")
					if live.failed.Load() == 0 {
						t.Error("nobody looked at what the Secret holds after the edit")
					}
				})
			}
		}
	}
}
