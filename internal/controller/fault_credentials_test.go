// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// A wrong AppSecret is told until a call with another one has worked. That WeChat accepts the token that is in the Secret says
// nothing about it, and no later process may take the wrong AppSecret for the one that the token was issued with.
func TestWrongAppSecretLegacy(t *testing.T) {
	c := newClerk(t)
	for name, restart := range map[string]bool{"stored while no operator runs": true, "stored while one runs": false} {
		t.Run(name, func(t *testing.T) {
			m := newMatrix(t, c, v1alpha1.ModeLegacy)
			s := m.subject("shop", 30*time.Second)
			data := s.issued()
			version := s.token(s.name).Status.CredentialsVersion
			fingerprint := s.secret(s.name).Annotations[v1alpha1.AnnotationCredentialsFingerprint]
			store := func(value string) {
				t.Helper()
				s.updateSecret(s.name+"-credentials", func(secret *corev1.Secret) { secret.Data["appSecret"] = []byte(value) })
				s.decideAnew()
			}
			store(newAppSecret)
			if restart {
				s.restart(10 * time.Second)
			}
			judge := func(when string) {
				t.Helper()
				status, annotations := s.token(s.name).Status, s.secret(s.name).Annotations
				s.expect(when, conditions{"Ready": "TokenValid", "RefreshFailing": v1alpha1.ReasonAppSecretInvalid}, true)
				if status.CredentialsVersion != version {
					t.Errorf("%s: status.credentialsVersion is %s, and no call with that has worked", when, status.CredentialsVersion)
				}
				if annotations[v1alpha1.AnnotationCredentialsFingerprint] != fingerprint {
					t.Errorf("%s: the Secret has the fingerprint of the wrong AppSecret", when)
				}
			}
			s.run(0)
			judge("at once")
			s.run(12 * time.Second)
			judge("12 s later")
			s.update(s.name, annotated(v1alpha1.AnnotationCheckRequestedAt, "1"))
			s.decideAnew()
			s.run(time.Second)
			if got := s.handled(s.name).Check; got != "1" {
				t.Errorf("the check that was handled is %q", got)
			}
			if s.wechat.Count(wechattest.Filter{AppID: s.app, Endpoint: wechattest.EndpointProbe}) == 0 {
				t.Error("WeChat was not asked about the token")
			}
			judge("after WeChat accepted the token")
			s.restart(10 * time.Second)
			s.run(5 * time.Minute)
			judge("5 min later, after a restart")
			s.untouched(data, 0)

			store(appSecret)
			s.run(time.Minute)
			s.expect("with the right AppSecret", conditions{"Ready": "TokenValid"}, false)
			status := s.token(s.name).Status
			if status.LastError != nil {
				t.Errorf("with the right AppSecret lastError is %+v", status.LastError)
			}
			credentials := s.secret(s.name + "-credentials")
			if want := fmt.Sprintf("%s/%s", credentials.UID, credentials.ResourceVersion); status.CredentialsVersion != want {
				t.Errorf("with the right AppSecret status.credentialsVersion is %s, want %s", status.CredentialsVersion, want)
			}
			if got := s.secret(s.name).Annotations[v1alpha1.AnnotationCredentialsFingerprint]; got != fingerprint {
				t.Errorf("with the right AppSecret the Secret has the fingerprint %s, want %s", got, fingerprint)
			}
		})
	}
}

// The time that WeChat itself names binds, whoever touches the credentials Secret meanwhile, and over a restart.
func TestTouchedCredentialsInATimeThatWeChatNamed(t *testing.T) {
	c := newClerk(t)
	for code, wait := range map[int]time.Duration{89506: 24 * time.Hour, 89507: time.Hour} {
		for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
			t.Run(fmt.Sprintf("%d/%s", code, mode), func(t *testing.T) {
				s := blockedSubject(t, c, code, mode)
				for i := range 3 {
					s.updateSecret(s.name+"-credentials", func(secret *corev1.Secret) {
						metav1.SetMetaDataLabel(&secret.ObjectMeta, "touched", fmt.Sprint(i))
					})
					s.decideAnew()
					s.run(time.Minute)
				}
				if n := len(s.calls()); n != 1 {
					t.Errorf("%d calls after the credentials Secret was touched 3 times, want the first alone", n)
				}
				s.restart(10 * time.Second)
				s.run(wait - 10*time.Minute)
				s.expect("within the time", conditions{
					"Ready": v1alpha1.ReasonIPBlocked, "Reconciling": v1alpha1.ReasonIPBlocked, "RefreshFailing": v1alpha1.ReasonIPBlocked,
				}, true)
				s.wechat.ClearFaults()
				s.run(10 * time.Minute)
				if n := len(s.calls()); n != 2 {
					t.Errorf("%d calls in all, want another one when the time was over", n)
				}
				s.expect("after it", conditions{"Ready": "TokenValid"}, false)
			})
		}
	}
}

// A request goes through back-offs of the operator's own, but not through a time that WeChat named: it is handled at once, and its
// event says when another one makes sense.
func TestRequestInATimeThatWeChatNamed(t *testing.T) {
	c := newClerk(t)
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			s := blockedSubject(t, c, 89506, mode)
			s.clock.advance(10 * time.Minute)
			s.update(s.name, annotated(v1alpha1.AnnotationCheckRequestedAt, "1"))
			s.decideAnew()
			s.run(time.Second)
			if got := s.handled(s.name).Check; got != "1" {
				t.Errorf("the check that was handled is %q", got)
			}
			if n := len(s.calls()); n != 1 {
				t.Errorf("%d calls, want none for the request", n-1)
			}
			s.Eventually(func() []string { return s.notes(s.name, v1alpha1.EventRequestedCheck) }, 2*time.Second).
				Should(gomega.ConsistOf(gomega.And(gomega.HavePrefix("Warning: "), gomega.ContainSubstring("not before"))))
		})
	}
}

// blockedSubject is a resource without a token whose first call WeChat has answered with this code.
func blockedSubject(t *testing.T, c *clerk, code int, mode v1alpha1.Mode) *subject {
	t.Helper()
	m := newMatrix(t, c, mode)
	m.wechat.Inject(wechattest.Fault{Errcode: code})
	s := m.subject("blocked", time.Hour)
	s.run(0)
	if n := len(s.calls()); n != 1 {
		t.Fatalf("%d calls at first", n)
	}
	return s
}
