// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"testing"
	"unsafe"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// What the cache holds is no other resource, and shares what others hold too.
func TestShrink(t *testing.T) {
	decoded := func() *v1alpha1.WeChatAppToken {
		token := &v1alpha1.WeChatAppToken{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: strings.Clone("shop"), Name: "shop", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
				Annotations: map[string]string{
					"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x", v1alpha1.AnnotationPrefix + "other": "x",
					v1alpha1.AnnotationCheckRequestedAt: "1", v1alpha1.AnnotationRefreshRequestedAt: strings.Repeat("2", 100_000),
				},
				Labels: map[string]string{"mine": "x"}, Finalizers: []string{"example.com/f"},
				OwnerReferences: []metav1.OwnerReference{{Kind: "Deployment", Name: "web"}},
			},
			Spec: v1alpha1.WeChatAppTokenSpec{AppID: "wx1", Mode: v1alpha1.ModeLegacy},
		}
		token.Status.TargetSecretName = strings.Clone("shop")
		token.Status.Token = &v1alpha1.TokenStatus{Mode: v1alpha1.ModeStable}
		token.Status.Conditions = []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: strings.Clone(v1alpha1.ReasonTokenValid), Message: "m",
		}}
		return token
	}
	shared := &texts{}
	a, b, want := decoded(), decoded(), decoded()
	shrink(a, shared)
	shrink(b, shared)
	want.ManagedFields, want.Labels, want.Finalizers, want.OwnerReferences = nil, nil, nil, nil
	want.Annotations = map[string]string{
		v1alpha1.AnnotationCheckRequestedAt: "1", v1alpha1.AnnotationRefreshRequestedAt: strings.Repeat("2", v1alpha1.RequestValueMaxLength+1),
	}
	if !equality.Semantic.DeepEqual(a, want) {
		t.Errorf("got %+v, want %+v", a, want)
	}
	for what, pair := range map[string][2]string{
		"namespace":   {a.Namespace, b.Namespace},
		"reason":      {a.Status.Conditions[0].Reason, b.Status.Conditions[0].Reason},
		"target name": {a.Status.TargetSecretName, a.Name},
	} {
		if unsafe.StringData(pair[0]) != unsafe.StringData(pair[1]) {
			t.Errorf("two copies of the %s", what)
		}
	}
}
