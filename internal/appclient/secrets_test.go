// SPDX-License-Identifier: Apache-2.0

package appclient_test

import (
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// createSecret makes the key Secret as somebody else's.
func (w *world) createSecret(mutate ...func(*corev1.Secret)) {
	w.Helper()
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: keySecret},
		StringData: map[string]string{"theirs": "1", "app_secret": strings.Repeat("a", 32)},
	}
	for _, f := range mutate {
		f(s)
	}
	w.must(w.Create(w.Context(), s))
}

func TestConflict(t *testing.T) {
	for name, c := range map[string]struct {
		secret  func(*corev1.Secret)
		message string
	}{
		"somebody's":   {secret: func(*corev1.Secret) {}, message: "was not made by this WeChatAppClient"},
		"another type": {secret: func(s *corev1.Secret) { s.Type = "example.com/other" }, message: `of type "example.com/other"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.createSecret(c.secret)
			before := w.secret().ResourceVersion
			w.createToken()
			w.createClient("api")
			ready := w.eventuallyReason("api", v1alpha1.ReasonKeySecretConflict)
			if !strings.Contains(ready.Message, c.message) || w.condition("api", v1alpha1.ConditionStalled).Status != metav1.ConditionTrue {
				t.Errorf("Ready says %q", ready.Message)
			}
			if w.secret().ResourceVersion != before {
				t.Error("somebody else's Secret was written")
			}
			w.Eventually(w.events).Should(gomega.Equal([]string{"KeySecretConflict"}))
			w.must(w.Delete(w.Context(), w.secret()))
			w.advance(time.Minute)
			w.touch()
			w.eventuallyReady()
		})
	}
}

// The Secrets of a WeChatAppToken are never written, whether they exist or not.
func TestSecretsOfTokens(t *testing.T) {
	w := newWorld(t)
	w.ready()
	for _, name := range []string{"credentials", "shop"} {
		w.createClient("bad-"+name, func(c *v1alpha1.WeChatAppClient) { c.Spec.Key.SecretName = name })
		w.eventuallyReason("bad-"+name, v1alpha1.ReasonKeySecretConflict)
	}
	w.createClient("second")
	if ready := w.eventuallyReason("second", v1alpha1.ReasonKeySecretConflict); !strings.Contains(ready.Message, `"api"`) {
		t.Errorf("Ready says %q", ready.Message)
	}
	// And the other way round.
	w.must(w.Create(w.Context(), &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: keySecret},
		Spec:       v1alpha1.WeChatAppTokenSpec{AppID: appID, CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"}},
	}))
	other := &v1alpha1.WeChatAppToken{}
	w.Eventually(func() string {
		w.must(w.Get(w.Context(), nameOf(w.namespace, keySecret), other))
		for _, c := range other.Status.Conditions {
			if c.Type == v1alpha1.ConditionReady {
				return c.Message
			}
		}
		return ""
	}).Should(gomega.ContainSubstring("has the key of the WeChatAppClient"))
}

// A Secret that its owner gave is never the operator's to delete.
func TestAdoption(t *testing.T) {
	w := newWorld(t)
	w.createSecret(func(s *corev1.Secret) { s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "api/" + appID} })
	current := w.ready()
	check := func() {
		t.Helper()
		s := w.secret()
		if current == strings.Repeat("a", 32) || string(s.Data["theirs"]) != "1" || len(s.OwnerReferences) > 0 ||
			s.Annotations[v1alpha1.AnnotationDeletionPolicy] != "Retain" {
			t.Errorf("owner references %v, annotations %v", s.OwnerReferences, s.Annotations)
		}
	}
	check()
	w.updateSecret(func(s *corev1.Secret) { delete(s.Annotations, v1alpha1.AnnotationAdopt) })
	w.start()
	w.touch()
	check()
	if now, _ := w.good(); now != current {
		t.Error("it has a new key")
	}
}

// A changed policy is written, and what cannot be done about the owner reference is told: the operator may delete no Secret, so on this
// cluster it may not change the reference of one that exists.
func TestDeletionPolicyChanges(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	w.update(retain)
	w.Eventually(func() string { return w.secret().Annotations[v1alpha1.AnnotationDeletionPolicy] }).Should(gomega.Equal("Retain"))
	noted := func() {
		t.Helper()
		w.Eventually(func() string { return w.condition("api", v1alpha1.ConditionReady).Message }).Should(
			gomega.ContainSubstring("spec.key.deletionPolicy has no effect"))
	}
	noted()
	w.touch()
	noted()
	s := w.secret()
	s.OwnerReferences = nil
	w.must(w.Update(w.Context(), s))
	w.touch()
	w.Eventually(func() string { return w.condition("api", v1alpha1.ConditionReady).Message }).ShouldNot(gomega.ContainSubstring("deletionPolicy"))
	if now, _ := w.good(); now != first {
		t.Error("it has a new key")
	}
}

// With Retain the Secret stays and has no owner reference. Its key is dead. A client of the same name takes it over with a new one.
func TestRetain(t *testing.T) {
	w := newWorld(t)
	first := w.ready(retain)
	if s := w.secret(); len(s.OwnerReferences) > 0 || s.Annotations[v1alpha1.AnnotationDeletionPolicy] != "Retain" {
		t.Errorf("owner references %v, annotations %v", s.OwnerReferences, s.Annotations)
	}
	w.must(w.Delete(w.Context(), w.appClient("api")))
	w.Consistently(w.secret).ShouldNot(gomega.BeNil())
	w.createClient("api", retain)
	if now := w.eventuallyReady(); now == first {
		t.Error("the key of a client that is gone is good again")
	}
}
