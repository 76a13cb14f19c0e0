// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"maps"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// createCredentials makes the Secret "credentials".
func (w *world) createCredentials(secret string) *corev1.Secret {
	w.Helper()
	return w.createSecret("credentials", map[string]string{"appSecret": secret})
}

func (w *world) createSecret(name string, data map[string]string, mutate ...func(*corev1.Secret)) *corev1.Secret {
	w.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, StringData: data}
	for _, f := range mutate {
		f(s)
	}
	w.must(w.Create(w.Context(), s))
	return s
}

// createToken makes a resource that uses the Secret "credentials".
func (w *world) createToken(name string, mutate ...func(*v1alpha1.WeChatAppToken)) *v1alpha1.WeChatAppToken {
	w.Helper()
	t := newToken(w.namespace, name, mutate...)
	w.must(w.Create(w.Context(), t))
	return t
}

func newToken(namespace, name string, mutate ...func(*v1alpha1.WeChatAppToken)) *v1alpha1.WeChatAppToken {
	t := &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID:                appID,
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"},
		},
	}
	for _, f := range mutate {
		f(t)
	}
	if t.Spec.CheckInterval.Duration == 0 {
		t.Spec.CheckInterval.Duration = 30 * time.Second
	}
	return t
}

func legacy(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = v1alpha1.ModeLegacy }

func annotated(key, value string) func(*v1alpha1.WeChatAppToken) {
	return func(t *v1alpha1.WeChatAppToken) { metav1.SetMetaDataAnnotation(&t.ObjectMeta, key, value) }
}

// update changes a resource by a merge patch.
func (w *world) update(name string, mutate ...func(*v1alpha1.WeChatAppToken)) {
	w.Helper()
	t := w.token(name)
	base := t.DeepCopy()
	for _, f := range mutate {
		f(t)
	}
	w.must(w.Patch(w.Context(), t, client.MergeFrom(base)))
}

func (w *world) updateSecret(name string, mutate func(*corev1.Secret)) {
	w.Helper()
	s := w.secret(name)
	base := s.DeepCopy()
	mutate(s)
	w.must(w.Patch(w.Context(), s, client.MergeFrom(base)))
}

func (w *world) token(name string) *v1alpha1.WeChatAppToken {
	w.Helper()
	t := &v1alpha1.WeChatAppToken{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, t))
	return t
}

func (w *world) secret(name string) *corev1.Secret {
	w.Helper()
	s := &corev1.Secret{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, s))
	return s
}

// value is the token in a Secret of the world's namespace; "" without one.
func (w *world) value(secret string) string {
	s := &corev1.Secret{}
	if w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: secret}, s) != nil {
		return ""
	}
	return string(s.Data["access_token"])
}

// condition is a condition of the resource; one with an empty type when it is absent.
func (w *world) condition(name, kind string) metav1.Condition {
	w.Helper()
	if c := apimeta.FindStatusCondition(w.token(name).Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// eventuallyReady waits until the resource is Ready and its Secret holds a token that WeChat accepts.
func (w *world) eventuallyReady(name string) string {
	w.Helper()
	var value string
	w.Eventually(func(g gomega.Gomega) {
		ready := w.condition(name, v1alpha1.ConditionReady)
		g.Expect(ready.Status).To(gomega.Equal(metav1.ConditionTrue), ready.Message)
		value = w.value(w.token(name).TargetName())
		g.Expect(w.wechat.Valid(value)).To(gomega.BeTrue(), "the Secret's token is not valid")
	}).Should(gomega.Succeed())
	return value
}

// eventuallyReason waits for the reason of Ready, which must be False, and returns the condition.
func (w *world) eventuallyReason(name, reason string) metav1.Condition {
	w.Helper()
	var ready metav1.Condition
	w.Eventually(func(g gomega.Gomega) {
		ready = w.condition(name, v1alpha1.ConditionReady)
		g.Expect(ready.Reason).To(gomega.Equal(reason), ready.Message)
		g.Expect(ready.Status).To(gomega.Equal(metav1.ConditionFalse))
	}).Should(gomega.Succeed())
	return ready
}

// readyUntilExpiry lets the token of a ready resource expire. The resource stays Ready until then, and turns False for the reason within
// 5 s, by the operator's own timer.
func (w *world) readyUntilExpiry(name, reason string) {
	w.Helper()
	expiry := w.token(name).Status.Token.ExpirationTime.Time
	w.advance(expiry.Add(-time.Second).Sub(w.clock.now()))
	if ready := w.condition(name, v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue {
		w.Errorf("Ready a second before the token expires: %+v", ready)
	}
	w.eventuallyReason(name, reason)
	if late := w.clock.now().Sub(expiry); late > 5*time.Second {
		w.Errorf("Ready turned False %s after expiry", late)
	}
}

// eventuallyAnother waits until the Secret holds another valid token than this one.
func (w *world) eventuallyAnother(secret, than string) string {
	w.Helper()
	return w.eventuallyAnotherWithin(patience, secret, than)
}

// eventuallyAnotherWithin has another patience.
func (w *world) eventuallyAnotherWithin(d time.Duration, secret, than string) string {
	w.Helper()
	var value string
	w.Eventually(func(g gomega.Gomega) {
		value = w.value(secret)
		g.Expect(value).NotTo(gomega.BeElementOf("", than))
		g.Expect(w.wechat.Valid(value)).To(gomega.BeTrue(), "the Secret's token is not valid")
	}, d).Should(gomega.Succeed())
	return value
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// calls counts the calls to an endpoint so far.
func (w *world) calls(e wechattest.Endpoint) int {
	return w.wechat.Count(wechattest.Filter{Endpoint: e})
}

// requests counts an operator's requests so far, without watches and what they begin with, as "verb resource[/sub]".
func (w *world) requests(o *operator) map[string]int {
	w.Helper()
	all, err := env.Requests(func(r testenv.Request) bool {
		return r.UserAgent == o.name && (r.Object.Resource == "secrets" || r.Object.Resource == "wechatapptokens" || r.Object.Resource == "events") &&
			r.Verb != "watch" && r.Verb != "list"
	})
	w.must(err)
	out := map[string]int{}
	for _, r := range all {
		kind := r.Verb + " " + r.Object.Resource
		if r.Object.Subresource != "" {
			kind += "/" + r.Object.Subresource
		}
		out[kind]++
	}
	return out
}

// minus subtracts an earlier count.
func minus(now, before map[string]int) map[string]int {
	out := maps.Clone(now)
	for kind, n := range before {
		if out[kind] -= n; out[kind] == 0 {
			delete(out, kind)
		}
	}
	return out
}

// events are the reasons of the events about a resource.
func (w *world) events(name string) []string {
	w.Helper()
	list := &eventsv1.EventList{}
	w.must(w.List(w.Context(), list, client.InNamespace(w.namespace)))
	var out []string
	for _, e := range list.Items {
		if e.Regarding.Name == name {
			out = append(out, e.Reason)
		}
	}
	return out
}
