// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// Edits of the Secret by hand are repaired at once, and nothing of anybody else's is lost.
func TestTampering(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Secret){
		"the token":             func(s *corev1.Secret) { s.Data["access_token"] = []byte("mine") },
		"the token is emptied":  func(s *corev1.Secret) { s.Data["access_token"] = nil },
		"the token is removed":  func(s *corev1.Secret) { delete(s.Data, "access_token") },
		"expires_at":            func(s *corev1.Secret) { s.Data["expires_at"] = []byte("2099-01-01T00:00:00Z") },
		"app_id":                func(s *corev1.Secret) { delete(s.Data, "app_id") },
		"all data":              func(s *corev1.Secret) { s.Data = nil },
		"the label":             func(s *corev1.Secret) { delete(s.Labels, v1alpha1.LabelManagedBy) },
		"the expiry annotation": func(s *corev1.Secret) { s.Annotations[v1alpha1.AnnotationExpiresAt] = "2099-01-01T00:00:00Z" },
		"a broken annotation":   func(s *corev1.Secret) { s.Annotations[v1alpha1.AnnotationIssuedAt] = "yesterday" },
		"all annotations":       func(s *corev1.Secret) { s.Annotations = nil },
		"token and annotations": func(s *corev1.Secret) {
			s.Data["access_token"] = []byte("mine")
			delete(s.Annotations, v1alpha1.AnnotationTokenFingerprint)
			delete(s.Annotations, v1alpha1.AnnotationAppID)
		},
	} {
		for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
			t.Run(fmt.Sprintf("%s/%s", name, mode), func(t *testing.T) {
				w, _ := readyWorld(t, mode)
				w.updateSecret("shop", func(s *corev1.Secret) {
					s.Data["theirs"] = []byte("stays")
					s.Labels["theirs"], s.Annotations["theirs"] = "stays", "stays"
				})
				before := w.secret("shop")
				w.updateSecret("shop", edit)
				w.Eventually(func(g gomega.Gomega) {
					now := w.secret("shop")
					g.Expect(w.wechat.Valid(string(now.Data["access_token"]))).To(gomega.BeTrue())
					g.Expect(string(now.Data["expires_at"])).To(gomega.Equal(now.Annotations[v1alpha1.AnnotationExpiresAt]))
					g.Expect(string(now.Data["app_id"])).To(gomega.Equal(appID))
					g.Expect(now.Labels).To(gomega.HaveKey(v1alpha1.LabelManagedBy))
					for key := range before.Annotations {
						if strings.HasPrefix(key, v1alpha1.AnnotationPrefix) {
							g.Expect(now.Annotations).To(gomega.HaveKey(key))
						}
					}
					g.Expect(now.ResourceVersion).To(gomega.Equal(w.token("shop").Status.TargetResourceVersion))
				}, atOnce).Should(gomega.Succeed())
				now := w.secret("shop")
				if name != "all data" && string(now.Data["theirs"]) != "stays" || now.Labels["theirs"] != "stays" {
					t.Error("what others put there is gone")
				}
				if mode == v1alpha1.ModeStable && string(now.Data["access_token"]) != string(before.Data["access_token"]) {
					t.Error("the token is another one, although WeChat still has it")
				}
				w.Consistently(func() string { return w.secret("shop").ResourceVersion }, time.Second).Should(gomega.Equal(now.ResourceVersion))
			})
		}
	}
}

func TestTargetDeleted(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)
	uid := w.secret("shop").UID
	w.must(w.Delete(w.Context(), w.secret("shop")))
	w.Eventually(func() string { return w.value("shop") }, atOnce).Should(gomega.Equal(value))
	if w.secret("shop").UID == uid {
		t.Error("the Secret was not deleted")
	}
	w.eventuallyReady("shop")
}

// The labels and annotations of the spec are on the Secret, those that the spec dropped are not, and no call is made.
func TestMetadataOfTheSpec(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("shop", func(t *v1alpha1.WeChatAppToken) {
		t.Labels = map[string]string{"resource": "own"}
		t.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "a", "gone": "soon"}
		t.Spec.Target.Annotations = map[string]v1alpha1.AnnotationValue{"note": "a", "gone": "soon"}
	})
	w.eventuallyReady("shop")
	w.updateSecret("shop", func(s *corev1.Secret) { s.Labels["theirs"] = "stays" })
	w.update("shop", func(t *v1alpha1.WeChatAppToken) {
		t.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "b"}
		t.Spec.Target.Annotations = map[string]v1alpha1.AnnotationValue{"note": "b"}
	})
	w.Eventually(func(g gomega.Gomega) {
		s := w.secret("shop")
		g.Expect(s.Labels).To(gomega.Equal(map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue, "team": "b", "theirs": "stays"}))
		g.Expect(s.Annotations).To(gomega.HaveKeyWithValue("note", "b"))
		g.Expect(s.Annotations).NotTo(gomega.HaveKey("gone"))
	}, atOnce).Should(gomega.Succeed())
	// Edited by hand, it comes back.
	w.updateSecret("shop", func(s *corev1.Secret) { s.Labels["team"] = "c" })
	w.Eventually(func() string { return w.secret("shop").Labels["team"] }, atOnce).Should(gomega.Equal("b"))
	if n := w.calls(wechattest.EndpointStable); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// A Secret that somebody keeps rewriting is repaired ever more slowly, and the status says so. That goes for an older copy of it too,
// which agrees with itself, so that WeChat is asked about it.
func TestContestedTarget(t *testing.T) {
	patch := []byte(`{"data":{"access_token":"bWluZQ=="}}`)
	for name, spoil := range map[string]func(w *world, start time.Time){
		"by hand": func(w *world, _ time.Time) {
			w.must(w.Patch(w.Context(), w.secret("shop"), client.RawPatch(types.MergePatchType, patch)))
		},
		"an older copy": func(w *world, start time.Time) { w.writeAsAnotherLeader("shop", "older", start) },
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := readyWorld(t, v1alpha1.ModeStable)
			o := w.operators.last
			const duration = 12 * time.Second
			start := w.clock.now()
			w.throughout(duration, func() { spoil(w, start) })
			w.eventuallyReason("shop", v1alpha1.ReasonTargetContested)
			// At once, then after 1, 2, 4 and 8 s; the issue itself is a POST.
			if n := w.requests(o)["patch secrets"]; n > 6 {
				t.Errorf("%d repairs in %s", n, duration)
			}
			if n := w.requests(o)["patch wechatapptokens/status"]; n > 15 {
				t.Errorf("%d status writes in %s", n, duration)
			}
			if n := w.calls(wechattest.EndpointStable); n > 7 {
				t.Errorf("%d calls in %s", n, duration)
			}
			w.eventuallyReady("shop")
			w.Eventually(func() []string { return w.events("shop") }).Should(gomega.ContainElement(v1alpha1.EventTargetContested))
		})
	}
}

// Who keeps stripping our metadata is answered ever more slowly too.
func TestMetadataStrippedAgainAndAgain(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable)
	o := w.operators.last
	patch := []byte(`{"metadata":{"labels":null}}`)
	const duration = 8 * time.Second
	w.throughout(duration, func() {
		w.must(w.Patch(w.Context(), w.secret("shop"), client.RawPatch(types.MergePatchType, patch)))
	})
	if n := w.requests(o)["patch secrets"]; n > 6 {
		t.Errorf("%d repairs in %s", n, duration)
	}
	w.Eventually(func() map[string]string { return w.secret("shop").Labels }).Should(gomega.HaveKey(v1alpha1.LabelManagedBy))
}

// An admission policy that changes a label of the Secret back with each write neither ends in endless writes nor keeps the token from being
// checked and replaced.
func TestMetadataThatAdmissionChangesBack(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			o := w.startOperatorThrough(func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodPatch || !strings.Contains(r.URL.Path, "/secrets/") {
						return next.RoundTrip(r)
					}
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return nil, err
					}
					body = bytes.ReplaceAll(body, []byte(`"team":"b"`), []byte(`"team":"a"`))
					changed := r.Clone(r.Context())
					changed.Body, changed.ContentLength, changed.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
					return next.RoundTrip(changed)
				})
			})
			w.createCredentials(appSecret)
			team := func(name v1alpha1.LabelValue) func(*v1alpha1.WeChatAppToken) {
				return func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": name} }
			}
			w.createToken("shop", team("a"), func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			value := w.eventuallyReady("shop")
			before := w.requests(o)
			w.update("shop", team("b"))
			const span = 4 * time.Second
			time.Sleep(span)
			if n := minus(w.requests(o), before)["patch secrets"]; n == 0 || n > 6 {
				t.Errorf("%d writes of the Secret in %s", n, span)
			}
			w.Eventually(func() string {
				return w.condition("shop", v1alpha1.ConditionReady).Message
			}).Should(gomega.ContainSubstring("an admission policy keeps changing"))
			called := w.calls("")
			w.pass(10*time.Minute, "shop")
			w.Eventually(func() int { return w.calls("") }).Should(gomega.BeNumerically(">", called), "the token is checked")
			w.pass(2*time.Hour-13*time.Minute, "shop")
			w.eventuallyAnother("shop", value)
		})
	}
}
