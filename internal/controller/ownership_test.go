// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// A Secret that is not ours is never touched, costs no call, and its owner learns what to do.
func TestForeignTarget(t *testing.T) {
	immutable := true
	for name, tc := range map[string]struct {
		prepare func(*corev1.Secret)
		says    string
	}{
		"somebody's Secret": {func(*corev1.Secret) {}, v1alpha1.AnnotationAdopt},
		"consent for another resource": {func(s *corev1.Secret) {
			s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "other/" + appID}
		}, v1alpha1.AnnotationAdopt},
		"consent for another appid": {func(s *corev1.Secret) {
			s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "shop/wxfedcba9876543210"}
		}, v1alpha1.AnnotationAdopt},
		"forged owner": {func(s *corev1.Secret) {
			s.Annotations = map[string]string{v1alpha1.AnnotationOwnerUID: "b1e2", v1alpha1.AnnotationOwnerName: "shop"}
		}, v1alpha1.AnnotationAdopt},
		"immutable, with consent": {func(s *corev1.Secret) {
			s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "shop/" + appID}
			s.Immutable = &immutable
		}, "immutable"},
		"another type": {func(s *corev1.Secret) {
			s.Type = "example.com/other"
			s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "shop/" + appID}
		}, "type"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			w.createCredentials(appSecret)
			foreign := w.createSecret("shop", map[string]string{"theirs": "stays"}, tc.prepare)
			w.createToken("shop", legacy) // where a token that cannot be written is lost
			if got := w.eventuallyReason("shop", v1alpha1.ReasonTargetConflict); !strings.Contains(got.Message, tc.says) {
				t.Errorf("the message is %q", got.Message)
			}
			w.kstatus("shop", status.FailedStatus)
			w.Consistently(func() string { return w.secret("shop").ResourceVersion }).Should(gomega.Equal(foreign.ResourceVersion))
			w.Eventually(func() []string { return w.events("shop") }).Should(gomega.ConsistOf(v1alpha1.EventTargetConflict))
			if issued := w.wechat.Tokens(""); len(issued) > 0 {
				t.Errorf("%d tokens were issued for a Secret that cannot be written", len(issued))
			}
		})
	}
}

// With its owner's consent a Secret is filled; it is never collected with the resource.
func TestAdoption(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createSecret("shop", map[string]string{"theirs": "stays"})
	w.createToken("shop")
	w.eventuallyReason("shop", v1alpha1.ReasonTargetConflict)
	w.updateSecret("shop", func(s *corev1.Secret) { s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "shop/" + appID} })
	w.eventuallyReady("shop")
	s := w.secret("shop")
	if string(s.Data["theirs"]) != "stays" || len(s.OwnerReferences) != 0 {
		t.Errorf("data has %d keys, owner references: %v", len(s.Data), s.OwnerReferences)
	}
	// Once it is ours, the consent has done its work.
	w.updateSecret("shop", func(s *corev1.Secret) {
		delete(s.Annotations, v1alpha1.AnnotationAdopt)
		s.Data["access_token"] = []byte("mine")
	})
	w.eventuallyReady("shop")
	if refs := w.secret("shop").OwnerReferences; len(refs) != 0 {
		t.Errorf("owner references: %v", refs)
	}
}

// Of two resources with one target the older gets it, the other is told, and gets it when the first is gone.
func TestTwoResourcesWithOneTarget(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	shared := func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Name = "shared" }
	first := w.createToken("z-first", shared)
	w.eventuallyReady("z-first")
	w.createToken("a-second", shared)
	if got := w.eventuallyReason("a-second", v1alpha1.ReasonTargetConflict); !strings.Contains(got.Message, `"z-first"`) {
		t.Errorf("the message is %q", got.Message)
	}
	owner := func() string { return w.secret("shared").Annotations[v1alpha1.AnnotationOwnerName] }
	w.Consistently(owner).Should(gomega.Equal("z-first"))

	w.must(w.Delete(w.Context(), first))
	// Its Secret waits for the garbage collector, which this control plane does not have.
	w.eventuallyReason("a-second", v1alpha1.ReasonTargetTerminating)
	w.kstatus("a-second", status.InProgressStatus)
	if owner() != "z-first" {
		t.Error("a Secret was taken that waits to be collected")
	}
	w.must(w.Delete(w.Context(), w.secret("shared")))
	w.eventuallyReady("a-second")
	if owner() != "a-second" {
		t.Errorf("the owner is %s", owner())
	}
}

// A Secret that is being deleted is waited for.
func TestTargetBeingDeleted(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createSecret("shop", nil, func(s *corev1.Secret) {
		s.Finalizers = []string{"example.com/wait"}
		s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "shop/" + appID}
	})
	w.must(w.Delete(w.Context(), w.secret("shop")))
	w.createToken("shop")
	w.eventuallyReason("shop", v1alpha1.ReasonTargetTerminating)
	w.updateSecret("shop", func(s *corev1.Secret) { s.Finalizers = nil })
	w.eventuallyReady("shop")
}

// A retained Secret is taken over by the next resource of its name and appid, token and all, without a call that
// could disturb anybody.
func TestRetainedTarget(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			w.createCredentials(appSecret)
			retain := func(t *v1alpha1.WeChatAppToken) {
				t.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain
				t.Spec.Mode = mode
			}
			first := w.createToken("shop", retain)
			value := w.eventuallyReady("shop")
			if refs := w.secret("shop").OwnerReferences; len(refs) != 0 {
				t.Errorf("owner references: %v", refs)
			}
			w.must(w.Delete(w.Context(), first))
			second := w.createToken("shop", retain)
			w.eventuallyReady("shop")
			w.Eventually(func() string { return w.secret("shop").Annotations[v1alpha1.AnnotationOwnerUID] }).
				Should(gomega.Equal(string(second.UID)))
			if w.value("shop") != value || len(w.wechat.Tokens(appID)) != 1 {
				t.Errorf("the token was replaced; %d were issued", len(w.wechat.Tokens(appID)))
			}
		})
	}
}

// Clusters that enforce the permission for owner references, as OpenShift does, refuse to change them on a Secret
// that exists. The token is kept up all the same, and the status tells.
func TestDeletionPolicyChanged(t *testing.T) {
	w := newWorld(t)
	w.expectRefusal("patch secrets")
	w.ready(v1alpha1.ModeStable)
	o := w.operators.last
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain })
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionReady).Message }, atOnce).
		Should(gomega.ContainSubstring("spec.target.deletionPolicy has no effect"))
	w.eventuallyReady("shop")
	s := w.secret("shop")
	if s.Annotations[v1alpha1.AnnotationDeletionPolicy] != "Retain" || len(s.OwnerReferences) != 1 {
		t.Errorf("annotations %v, owner references %v", s.Annotations, s.OwnerReferences)
	}
	w.Consistently(func() int { return w.requests(o)["patch secrets"] }).Should(gomega.Equal(2))
	// Somebody who may takes it away.
	w.updateSecret("shop", func(s *corev1.Secret) { s.OwnerReferences = nil })
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval = metav1.Duration{Duration: time.Minute} })
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionReady).Message }).
		ShouldNot(gomega.ContainSubstring("no effect"))
}

// An owner reference that the API server refuses, here because the Secret has another controller, keeps no token from its rotation.
func TestSecretHasAnotherController(t *testing.T) {
	w := newWorld(t)
	w.expectRefusal("patch secrets")
	value := w.ready(v1alpha1.ModeStable, func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain })
	w.updateSecret("shop", func(s *corev1.Secret) {
		controller := true
		s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "theirs", UID: "theirs", Controller: &controller}}
	})
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.DeletionPolicy = v1alpha1.DeletionDelete })
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionReady).Message }).
		Should(gomega.ContainSubstring("has another controller"))
	w.jump(2*time.Hour - 200*time.Second)
	w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "now"))
	w.eventuallyAnother("shop", value)
}

// A resource deleted in the middle of a fetch leaves nothing behind.
func TestDeletedInTheMiddleOfAFetch(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.wechat.Inject(wechattest.Fault{Delay: 1500 * time.Millisecond})
			w.startOperator()
			w.createCredentials(appSecret)
			token := w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.Eventually(func() int { return w.wechat.Count(wechattest.Filter{}) }).Should(gomega.Equal(1)) // it is under way
			w.must(w.Delete(w.Context(), token))
			w.Eventually(func() []wechattest.IssuedToken { return w.wechat.Tokens(appID) }).Should(gomega.HaveLen(1))
			list := &corev1.SecretList{}
			w.Consistently(func() int {
				w.must(w.List(w.Context(), list, client.InNamespace(w.namespace)))
				return len(list.Items)
			}).Should(gomega.Equal(1), "only the credentials")
		})
	}
}

// What came of a deleted resource's fetch is not told by the status of the one that has its name now.
func TestReplacedInTheMiddleOfAFetch(t *testing.T) {
	w := newWorld(t)
	w.wechat.Inject(wechattest.Fault{Delay: 1500 * time.Millisecond, Errcode: 40164, Times: 1})
	w.startOperator()
	w.createCredentials(appSecret)
	token := w.createToken("shop")
	w.Eventually(func() int { return w.wechat.Count(wechattest.Filter{}) }).Should(gomega.Equal(1)) // it is under way
	w.must(w.Delete(w.Context(), token))
	w.createToken("shop", annotated(v1alpha1.AnnotationRevokeRequestedAt, "replayed"))
	w.eventuallyReady("shop")
	if e := w.token("shop").Status.LastError; e != nil {
		t.Errorf("the status has the error of the one before: %+v", e)
	}
	if got := w.handled("shop").Revoke; got != "replayed" {
		t.Errorf("handled: %q", got)
	}
	if n := w.forcedCalls(); n != 0 {
		t.Errorf("%d forced calls", n)
	}
}

// In a namespace that is being deleted nothing can be made: it is said once, and nothing spins.
func TestNamespaceBeingDeleted(t *testing.T) {
	w := newWorld(t)
	w.expectRefusal("create secrets")
	w.expectRefusal("create events")
	w.createCredentials(appSecret)
	w.createToken("shop")
	w.must(w.Delete(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}))
	o := w.startOperator()
	if got := w.eventuallyReason("shop", v1alpha1.ReasonTargetWriteFailed); !strings.Contains(got.Message, "being deleted") {
		t.Errorf("the message is %q", got.Message)
	}
	w.Consistently(func() int { return w.requests(o)["create secrets"] }).Should(gomega.BeNumerically("<=", 2))
	if n := w.calls(wechattest.EndpointStable); n > 1 {
		t.Errorf("%d calls", n)
	}
}
