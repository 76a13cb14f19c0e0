// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"maps"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

var ownLabel = map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue}

// With the admission policy, whoever has the operator's identity can write none but the operator's Secrets; and the
// operator, which has no more than that, does all that it does.
func TestAdmissionPolicy(t *testing.T) {
	i := install(t, "admissionPolicy: {enabled: true}\n")
	i.policyRefuses()
	i.operatorWorks()
	if refused := i.refused(i.operator); len(refused) > 0 {
		t.Errorf("the API server refused requests of the operator: %q", refused)
	}
}

// secret is one in the namespace shop.
func (i *installed) secret(name string, mutate func(*corev1.Secret)) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: i.shop, Name: name}, StringData: map[string]string{"password": "x"}}
	mutate(s)
	return s
}

func (i *installed) policyRefuses() {
	i.Helper()
	thief := i.asOperator()
	create := func(mutate func(*corev1.Secret)) error {
		return thief.Create(i.Context(), i.secret("forged", mutate), client.DryRunAll)
	}
	// A policy is in force a moment after it was made.
	i.Eventually(func() error { return create(func(*corev1.Secret) {}) }).Should(gomega.MatchError(apierrors.IsForbidden, "IsForbidden"))

	foreign := i.secret("foreign", func(*corev1.Secret) {})
	i.must(i.Create(i.Context(), foreign))
	own := i.secret("own", func(s *corev1.Secret) { s.Labels = maps.Clone(ownLabel) })
	i.must(i.Create(i.Context(), own))
	consenting := i.secret("consenting", func(s *corev1.Secret) { s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "shop/" + appID} })
	i.must(i.Create(i.Context(), consenting))
	noted := i.secret("noted", func(s *corev1.Secret) { s.Annotations = map[string]string{v1alpha1.AnnotationOwnerUID: "1"} })
	i.must(i.Create(i.Context(), noted))
	owned := func(name, kind, version string) *corev1.Secret {
		s := i.secret(name, func(s *corev1.Secret) {
			s.OwnerReferences = []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: "x", UID: "1"}}
		})
		i.must(i.Create(i.Context(), s))
		return s
	}
	ours := owned("ours", v1alpha1.Kind, v1alpha1.GroupVersion.String())
	otherGroup, otherKind := owned("other-group", v1alpha1.Kind, "example.com/v1"), owned("other-kind", "Other", v1alpha1.GroupVersion.String())
	patch := func(s *corev1.Secret, mutate func(*corev1.Secret)) error {
		changed := s.DeepCopy()
		mutate(changed)
		return thief.Patch(i.Context(), changed, client.MergeFrom(s), client.DryRunAll)
	}
	labelled := func(s *corev1.Secret) { s.Labels = maps.Clone(ownLabel) }
	filled := func(s *corev1.Secret) { s.StringData = map[string]string{"password": "y"} }
	forged := func(s *corev1.Secret) { labelled(s); s.Annotations = consenting.Annotations }
	other := client.RawPatch(types.MergePatchType, []byte(`{"data":{"a":"eA=="}}`))
	for what, c := range map[string]struct {
		err  error
		says string
	}{
		"a new one without the label": {create(func(*corev1.Secret) {}), "label"},
		"a new one with another value of the label": {create(func(s *corev1.Secret) {
			s.Labels = map[string]string{v1alpha1.LabelManagedBy: "me"}
		}), "label"},
		"a ServiceAccount's token": {create(func(s *corev1.Secret) {
			labelled(s)
			s.Type, s.Annotations = corev1.SecretTypeServiceAccountToken, map[string]string{corev1.ServiceAccountNameKey: "default"}
		}), "Opaque"},
		"a certificate": {create(func(s *corev1.Secret) {
			labelled(s)
			s.Type, s.StringData = corev1.SecretTypeTLS, map[string]string{corev1.TLSCertKey: "x", corev1.TLSPrivateKeyKey: "x"}
		}), "Opaque"},
		"somebody's Secret":                  {patch(foreign, filled), "label"},
		"somebody's Secret, with the label":  {patch(foreign, labelled), "consent"},
		"somebody's, with a forged consent":  {patch(foreign, forged), "consent"},
		"its own, taking off the label":      {patch(own, func(s *corev1.Secret) { s.Labels = nil }), "label"},
		"one that consents, without a label": {patch(consenting, filled), "label"},
		"one of another kind of owner":       {patch(otherKind, labelled), "consent"},
		"one of another group's owner":       {patch(otherGroup, labelled), "consent"},
		"a deletion":                         {i.deleteAs(thief, own), "deletes no Secret"},
	} {
		if !apierrors.IsForbidden(c.err) || !strings.Contains(c.err.Error(), c.says) ||
			!strings.Contains(c.err.Error(), "ValidatingAdmissionPolicy") {
			i.Errorf("%s: %v", what, c.err)
		}
	}
	for what, err := range map[string]error{
		"a new one":             create(labelled),
		"its own":               patch(own, filled),
		"one that consents":     patch(consenting, labelled),
		"one with its UID":      patch(noted, labelled),
		"one that it owns":      patch(ours, labelled),
		"somebody else's write": i.Patch(i.Context(), foreign.DeepCopy(), other),
	} {
		if err != nil {
			i.Errorf("%s: %v", what, err)
		}
	}
	i.must(i.Delete(i.Context(), consenting))
}

// deleteAs tries to delete a Secret with a right that the chart does not give: the policy stands also if RBAC fails.
func (i *installed) deleteAs(thief client.Client, s *corev1.Secret) error {
	i.Helper()
	meta := metav1.ObjectMeta{Namespace: i.shop, Name: "delete"}
	i.must(i.Create(i.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"delete"}},
	}}))
	binding := &rbacv1.RoleBinding{
		ObjectMeta: *meta.DeepCopy(), RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: i.system, Name: deployment}},
	}
	i.must(i.Create(i.Context(), binding))
	var err error
	i.Eventually(func() bool { // until the API server knows the binding
		err = thief.Delete(i.Context(), s, client.DryRunAll)
		return err == nil || strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
	}).Should(gomega.BeTrue(), "the API server still refuses it by RBAC")
	i.must(i.Delete(i.Context(), binding))
	return err
}

// operatorWorks makes the operator do every kind of write to Secrets.
func (i *installed) operatorWorks() {
	i.Helper()
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		namespace := map[v1alpha1.Mode]string{v1alpha1.ModeStable: i.shop, v1alpha1.ModeLegacy: i.blog}[mode]
		i.createToken(namespace, func(r *v1alpha1.WeChatAppToken) { r.Spec.Mode = mode })
		first := i.eventuallyReady(namespace)

		if mode == v1alpha1.ModeStable {
			i.annotate(namespace, v1alpha1.AnnotationRefreshRequestedAt, "now")
		} else { // a refresh would wait until pods have followed the first token
			i.edit(namespace, func(s *corev1.Secret) { s.Data[v1alpha1.DefaultAccessTokenKey] = []byte("not-a-token") })
		}
		i.Eventually(func() string { return i.eventuallyReady(namespace) }).ShouldNot(gomega.Equal(first), "%s: new token", mode)

		i.edit(namespace, func(s *corev1.Secret) { s.Labels, s.Annotations = nil, nil })
		i.Eventually(func() map[string]string { return i.target(namespace).Labels }).Should(gomega.Equal(ownLabel), "%s: repair", mode)
		i.eventuallyReady(namespace)

		i.change(namespace, func(r *v1alpha1.WeChatAppToken) { r.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain })
		i.Eventually(func() []metav1.OwnerReference { return i.target(namespace).OwnerReferences }).
			Should(gomega.BeEmpty(), "%s: owner reference", mode)

		// What it left is taken over, and what consents is adopted.
		i.must(i.Delete(i.Context(), i.token(namespace)))
		i.createToken(namespace, func(r *v1alpha1.WeChatAppToken) {
			r.Spec.Mode, r.Spec.Target.DeletionPolicy = mode, v1alpha1.DeletionRetain
		})
		taken := i.eventuallyReady(namespace)
		i.must(i.Delete(i.Context(), i.token(namespace)))
		i.must(i.Create(i.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "adopted", Annotations: map[string]string{v1alpha1.AnnotationAdopt: "shop/" + appID}}}))
		i.createToken(namespace, func(r *v1alpha1.WeChatAppToken) { r.Spec.Mode, r.Spec.Target.Name = mode, "adopted" })
		if adopted := i.eventuallyReady(namespace); mode == v1alpha1.ModeStable && adopted != taken {
			i.Errorf("%s: another token than the one that serves", mode)
		}
	}
}

func (i *installed) target(namespace string) *corev1.Secret {
	i.Helper()
	s := &corev1.Secret{}
	i.must(i.Get(i.Context(), client.ObjectKey{Namespace: namespace, Name: i.token(namespace).TargetName()}, s))
	return s
}

// edit changes the target Secret by hand.
func (i *installed) edit(namespace string, mutate func(*corev1.Secret)) {
	i.Helper()
	s := i.target(namespace)
	base := s.DeepCopy()
	mutate(s)
	i.must(i.Patch(i.Context(), s, client.MergeFrom(base)))
}

func (i *installed) change(namespace string, mutate func(*v1alpha1.WeChatAppToken)) {
	i.Helper()
	r := i.token(namespace)
	base := r.DeepCopy()
	mutate(r)
	i.must(i.Patch(i.Context(), r, client.MergeFrom(base)))
}
