// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// A target whose labels and annotations are too many for the cache is kept like any other. What others set stays, what the spec drops
// goes, and the Secret is read when something has changed, not in each pass.
func TestTargetWithManyAnnotations(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)
	o := w.operators.last
	theirs := strings.Repeat("x", 100_000)
	reads := func() int { return w.secretRequests(o, "get")["shop"] }
	w.settle()
	before := reads()
	w.updateSecret("shop", func(s *corev1.Secret) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, "theirs", theirs) })
	w.Eventually(reads).Should(gomega.Equal(before + 1))
	w.advance(20 * time.Minute)
	if n := reads(); n != before+1 {
		t.Errorf("%d reads of a Secret that nobody changed", n-before-1)
	}
	w.update("shop", func(t *v1alpha1.WeChatAppToken) {
		t.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "a", "zone": "b"}
	})
	w.Eventually(func() map[string]string { return w.secret("shop").Labels }).Should(gomega.And(
		gomega.HaveKeyWithValue("team", "a"), gomega.HaveKeyWithValue("zone", "b")))
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "c"} })
	w.Eventually(func() map[string]string { return w.secret("shop").Labels }).Should(gomega.And(
		gomega.HaveKeyWithValue("team", "c"), gomega.Not(gomega.HaveKey("zone"))))
	w.updateSecret("shop", func(s *corev1.Secret) { s.Labels["team"] = "byhand" })
	w.Eventually(func() string { return w.secret("shop").Labels["team"] }).Should(gomega.Equal("c"))

	w.settle()
	before = reads()
	w.advance(100 * time.Minute)
	value = w.eventuallyAnother("shop", value)
	if n := reads(); n > before+1 {
		t.Errorf("%d reads for a rotation", n-before)
	}
	o.stop()
	o = w.startOperator()
	w.advance(time.Minute)
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Labels = nil })
	w.Eventually(func() map[string]string { return maps.Clone(w.secret("shop").Labels) }).ShouldNot(gomega.HaveKey("team"))
	if s := w.secret("shop"); w.value("shop") != value || s.Annotations["theirs"] != theirs {
		t.Error("the token or somebody else's annotation was lost")
	}
}

// An adopted Secret never becomes the operator's to delete, whatever the cache has no room for.
func TestAdoptedTargetWithManyAnnotations(t *testing.T) {
	w := newWorld(t)
	w.createSecret("shop", map[string]string{"theirs": "1"}, func(s *corev1.Secret) {
		s.Annotations = map[string]string{"theirs": strings.Repeat("x", 100_000), v1alpha1.AnnotationAdopt: "shop/" + appID}
	})
	w.ready(v1alpha1.ModeStable)
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "a"} })
	w.Eventually(func() string { return w.secret("shop").Labels["team"] }).Should(gomega.Equal("a"))
	w.advance(3 * time.Hour)
	w.eventuallyReady("shop")
	s := w.secret("shop")
	if len(s.OwnerReferences) > 0 || s.Annotations[v1alpha1.AnnotationDeletionPolicy] != string(v1alpha1.DeletionRetain) || string(s.Data["theirs"]) != "1" {
		t.Errorf("owner references %v, deletion policy %s", s.OwnerReferences, s.Annotations[v1alpha1.AnnotationDeletionPolicy])
	}
}
