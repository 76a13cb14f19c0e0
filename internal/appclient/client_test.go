// SPDX-License-Identifier: Apache-2.0

package appclient_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/appclient"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	rotateAt = v1alpha1.AnnotationRotateKeyRequestedAt
	revokeAt = v1alpha1.AnnotationRevokeKeyRequestedAt
)

func interval(d time.Duration) func(*v1alpha1.WeChatAppClient) {
	return func(c *v1alpha1.WeChatAppClient) { c.Spec.Key.RotationInterval = &metav1.Duration{Duration: d} }
}

func retain(c *v1alpha1.WeChatAppClient) { c.Spec.Key.DeletionPolicy = v1alpha1.DeletionRetain }

// A new client costs two writes, and nothing afterwards, whatever passes; a restart costs one read.
func TestNewClient(t *testing.T) {
	w := newWorld(t)
	current := w.ready()
	s := w.secret()
	if keys := slices.Sorted(maps.Keys(s.Data)); !slices.Equal(keys, []string{"app_id", "app_secret", "ca.crt", "host"}) ||
		string(s.Data["app_id"]) != appID || string(s.Data["host"]) != gatewayURL || string(s.Data["ca.crt"]) != gatewayCA {
		t.Errorf("the Secret has %v: app_id %s, host %s", keys, s.Data["app_id"], s.Data["host"])
	}
	c := w.appClient("api")
	if want := map[string]string{
		v1alpha1.AnnotationOwnerUID: string(c.UID), v1alpha1.AnnotationOwnerName: "api", v1alpha1.AnnotationOwnerKind: "WeChatAppClient",
		v1alpha1.AnnotationDeletionPolicy: "Delete", v1alpha1.AnnotationAppID: appID,
	}; !maps.Equal(s.Annotations, want) || s.Labels[v1alpha1.LabelManagedBy] != v1alpha1.ManagedByValue {
		t.Errorf("annotations %v, labels %v", s.Annotations, s.Labels)
	}
	if len(s.OwnerReferences) != 1 || s.OwnerReferences[0].UID != c.UID || s.OwnerReferences[0].Kind != "WeChatAppClient" {
		t.Errorf("owner references %v", s.OwnerReferences)
	}
	if k := c.Status.Key; k.Fingerprint != token.NewValue(current).Fingerprint() || k.PreviousFingerprint != "" || k.PreviousUntilTime != nil ||
		w.now().Sub(k.CreateTime.Time) > time.Minute {
		t.Errorf("status.key is %+v", k)
	}
	if got, want := w.requests(), map[string]int{"create secrets": 1, "patch wechatappclients/status": 1}; !maps.Equal(got, want) {
		t.Errorf("a new client costs %v, want %v", got, want)
	}
	before := w.requests()
	w.must(w.Patch(w.Context(), w.appClient("api"), clientPatch(`{"metadata":{"labels":{"a":"b"},"annotations":{"c":"d"}}}`)))
	time.Sleep(time.Second)
	if got := w.since(before); len(got) > 0 {
		t.Errorf("a client that nobody asks anything of costs %v", got)
	}
	w.start()
	w.touch()
	if got, want := w.requests(), map[string]int{"get secrets": 1, "patch wechatappclients/status": 1}; !maps.Equal(got, want) {
		t.Errorf("a restart and a changed spec cost %v, want %v", got, want)
	}
	if after, _ := w.good(); after != current {
		t.Error("a restart made a new key")
	}
}

// A client of ServiceAccounts alone has no key, and is ready with its token.
func TestClientWithoutKey(t *testing.T) {
	w := newWorld(t)
	w.createToken()
	w.createClient("api", func(c *v1alpha1.WeChatAppClient) {
		c.Spec.Key = nil
		c.Spec.ServiceAccounts = []v1alpha1.ServiceAccountReference{{Namespace: w.namespace, Name: "api"}}
		c.Annotations = map[string]string{rotateAt: "1"}
	})
	w.Eventually(func() metav1.ConditionStatus { return w.condition("api", v1alpha1.ConditionReady).Status }).Should(gomega.Equal(metav1.ConditionTrue))
	w.ask(revokeAt, "2")
	w.Eventually(func() *v1alpha1.HandledClientRequests { return w.appClient("api").Status.HandledRequests }).Should(
		gomega.Equal(&v1alpha1.HandledClientRequests{RotateKey: "1", RevokeKey: "2"}))
	if w.secret() != nil || w.appClient("api").Status.Key != nil {
		t.Error("it got a key")
	}
}

// The old key stays good for the overlap, and in the Secret until its last tokens have ended. A second rotation waits for that.
func TestRotation(t *testing.T) {
	for name, ask := range map[string]func(w *world, n int){
		"by interval": func(w *world, _ int) { w.advance(1000 * time.Hour) },
		"on request":  func(w *world, n int) { w.ask(rotateAt, fmt.Sprint(n)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.createToken()
			w.createClient("api", interval(1000*time.Hour), func(c *v1alpha1.WeChatAppClient) { c.Annotations = map[string]string{rotateAt: "0"} })
			first := w.eventuallyReady()
			w.touch()
			if now, _ := w.good(); now != first || w.appClient("api").Status.HandledRequests.RotateKey != "0" {
				t.Fatal("a value that was there from the beginning was not just recorded")
			}
			before := w.requests()
			ask(w, 1)
			w.touch()
			second := w.eventuallyAnother(first)
			if _, previous := w.good(); previous != first {
				t.Fatal("the key before is not good any more")
			}
			if u := w.appClient("api").Status.Key.PreviousUntilTime; u.Sub(w.now()).Round(time.Minute) != 24*time.Hour {
				t.Errorf("it buys tokens until %s", u)
			}
			if got := w.since(before); got["patch secrets"] != 1 || got["get secrets"] != 1 || got["create events"] != 1 {
				t.Errorf("a rotation costs %v", got)
			}
			w.ask(rotateAt, "waits")
			w.advance(27 * time.Hour)
			w.touch()
			if now, previous := w.good(); now != second || previous != first {
				t.Fatal("tokens that were bought with the key before are dead, or a second rotation did not wait")
			}
			if m := w.condition("api", v1alpha1.ConditionReady).Message; !strings.Contains(m, "the requested rotation waits until") {
				t.Errorf("Ready says %q", m)
			}
			w.advance(2 * time.Hour)
			w.touch()
			third := w.eventuallyAnother(second)
			if _, previous := w.good(); previous != second {
				t.Error("the second rotation forgot the key before")
			}
			w.advance(29 * time.Hour)
			w.touch()
			w.Eventually(func() []byte { return w.secret().Data["previous_app_secret"] }).Should(gomega.BeNil())
			if now, previous := w.good(); now != third || previous != "" || w.appClient("api").Status.Key.PreviousUntilTime != nil {
				t.Error("the key before did not end")
			}
			if e := w.events(); !slices.Equal(e, []string{"KeyRotated", "KeyRotated"}) {
				t.Errorf("events %v", e)
			}
		})
	}
}

// A revoke ends both keys, even of a client that is suspended.
func TestRevoke(t *testing.T) {
	for _, suspended := range []bool{false, true} {
		t.Run(fmt.Sprint(suspended), func(t *testing.T) {
			w := newWorld(t)
			first := w.ready()
			w.ask(rotateAt, "1")
			second := w.eventuallyAnother(first)
			w.update(func(c *v1alpha1.WeChatAppClient) { c.Spec.Suspend = suspended })
			w.ask(revokeAt, "1")
			w.Eventually(func() string { now, _ := w.good(); return now }).ShouldNot(gomega.BeElementOf("", first, second))
			if _, previous := w.good(); previous != "" || w.secret().Data["previous_app_secret"] != nil {
				t.Error("the key before is there still")
			}
			w.Eventually(func() string { return w.appClient("api").Status.HandledRequests.RevokeKey }).Should(gomega.Equal("1"))
			now, _ := w.good()
			w.touch()
			if again, _ := w.good(); again != now {
				t.Error("it was revoked twice")
			}
		})
	}
}

// While the Secret cannot be written, a revoke takes the key out of the status, and so ends it too.
func TestRevokeWithoutSecret(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	w.must(w.Delete(w.Context(), &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "shop"}}))
	w.eventuallyReason("api", v1alpha1.ReasonTokenNotFound)
	w.ask(revokeAt, "1")
	w.Eventually(func() *v1alpha1.ClientKeyStatus { return w.appClient("api").Status.Key }).Should(gomega.BeNil())
	w.Eventually(w.events).Should(gomega.ContainElement("KeyRevoked"))
	w.must(w.Create(w.Context(), &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "shop"},
		Spec:       v1alpha1.WeChatAppTokenSpec{AppID: appID, CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"}},
	}))
	w.eventuallyAnother(first)
}

func TestSuspend(t *testing.T) {
	w := newWorld(t)
	first := w.ready(interval(30 * time.Hour))
	w.update(func(c *v1alpha1.WeChatAppClient) { c.Spec.Suspend = true })
	w.eventuallyReason("api", v1alpha1.ReasonSuspended)
	secret := w.secret()
	w.advance(1000 * time.Hour)
	w.ask(rotateAt, "1")
	w.touch()
	if w.secret().ResourceVersion != secret.ResourceVersion {
		t.Error("something changed besides the condition")
	}
	w.update(func(c *v1alpha1.WeChatAppClient) { c.Spec.Suspend = false })
	w.eventuallyAnother(first)
}

// What somebody else writes into the Secret is no key: the operator replaces it, and says so.
func TestDrift(t *testing.T) {
	forged := strings.Repeat("f", 32)
	for name, spoil := range map[string]func(*world){
		"another value": func(w *world) {
			w.updateSecret(func(s *corev1.Secret) { s.Data["app_secret"] = []byte(forged) })
		},
		"no value": func(w *world) { w.updateSecret(func(s *corev1.Secret) { delete(s.Data, "app_secret") }) },
		"deleted":  func(w *world) { w.must(w.Delete(w.Context(), w.secret())) },
		"replaced": func(w *world) {
			s := w.secret()
			w.operator.stop()
			w.must(w.Delete(w.Context(), s))
			s.ResourceVersion, s.UID, s.Data["app_secret"] = "", "", []byte(forged)
			w.must(w.Create(w.Context(), s))
			w.start()
		},
		"while the operator is away": func(w *world) {
			w.operator.stop()
			w.updateSecret(func(s *corev1.Secret) { s.Data["app_secret"] = []byte(forged) })
			w.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.ready()
			spoil(w)
			second := w.eventuallyAnother(first)
			if second == forged {
				t.Error("what somebody wrote became a key")
			}
			w.Eventually(w.events).Should(gomega.ContainElement("KeyRepaired"))
		})
	}
}

// The cache of a new leader does not know yet that the last leader has rotated or revoked the key. It must not take that for a crash, and
// not do it once more when it knows.
func TestNewLeaderWithAnOldCache(t *testing.T) {
	for _, c := range []struct{ request, event string }{{rotateAt, "KeyRotated"}, {revokeAt, "KeyRevoked"}} {
		t.Run(c.event, func(t *testing.T) {
			w := newWorld(t)
			first := w.ready()
			before := w.appClient("api")
			metav1.SetMetaDataAnnotation(&before.ObjectMeta, c.request, "1")
			w.ask(c.request, "1")
			second := w.eventuallyAnother(first)
			_, previous := w.good()
			w.operator.stop()
			w.stale.Store(before)
			w.start()
			time.Sleep(time.Second)
			w.stale.Store(nil)
			for range 2 {
				w.touch()
				if now, before := w.good(); now != second || before != previous {
					t.Fatal("the key that the last leader made is no key any more")
				}
				if m := w.condition("api", v1alpha1.ConditionReady).Message; strings.Contains(m, "requested rotation") {
					t.Errorf("what the last leader did is to be done again: %q", m)
				}
			}
			if e := w.events(); !slices.Equal(e, []string{c.event}) {
				t.Errorf("events %v", e)
			}
		})
	}
}

// Whoever removes the key before from the Secret ends it, and the programs that use it. There is nothing to write, but an event says so.
func TestRemovedKeyBefore(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	w.ask(rotateAt, "1")
	second := w.eventuallyAnother(first)
	w.updateSecret(func(s *corev1.Secret) { delete(s.Data, "previous_app_secret") })
	w.Eventually(w.events).Should(gomega.ContainElement("KeyRepaired"))
	if key := w.eventuallyReady(); key != second {
		t.Error("the new key was replaced, too")
	}
}

// Everything that is not a key is repaired without a new one. What others put there stays.
func TestRepairOfTheRest(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	w.updateSecret(func(s *corev1.Secret) {
		s.Labels, s.Annotations = map[string]string{"theirs": "1"}, map[string]string{"theirs": strings.Repeat("x", 100_000)}
		s.Data["host"], s.Data["previous_app_secret"], s.Data["theirs"] = []byte("https://elsewhere"), []byte(strings.Repeat("e", 32)), []byte("1")
		delete(s.Data, "app_id")
	})
	w.Eventually(func(g gomega.Gomega) {
		s := w.secret()
		g.Expect(string(s.Data["host"])).To(gomega.Equal(gatewayURL))
		g.Expect(string(s.Data["app_id"])).To(gomega.Equal(appID))
		g.Expect(s.Data).NotTo(gomega.HaveKey("previous_app_secret"))
		g.Expect(s.Data).To(gomega.HaveKey("theirs"))
		g.Expect(s.Annotations).To(gomega.HaveKeyWithValue(v1alpha1.AnnotationOwnerKind, "WeChatAppClient"))
		g.Expect(s.Annotations).To(gomega.HaveKey("theirs"))
		g.Expect(s.Labels).To(gomega.HaveKeyWithValue(v1alpha1.LabelManagedBy, v1alpha1.ManagedByValue))
		g.Expect(s.Labels).To(gomega.HaveKey("theirs"))
	}).Should(gomega.Succeed())
	if now, _ := w.good(); now != first {
		t.Error("it has a new key")
	}
	before := w.requests()
	w.touch()
	if got := w.since(before); got["get secrets"]+got["patch secrets"] > 0 {
		t.Errorf("a pass over a Secret with large annotations costs %v", got)
	}
}

// A Secret that somebody keeps rewriting is repaired ever more slowly, whatever he changes in it.
func TestContested(t *testing.T) {
	for name, spoil := range map[string]func(*corev1.Secret){
		"key":        func(s *corev1.Secret) { s.Data["app_secret"] = []byte("mine") },
		"host":       func(s *corev1.Secret) { s.Data["host"] = []byte("https://elsewhere") },
		"key before": func(s *corev1.Secret) { s.Data["previous_app_secret"] = []byte("x") },
		"label":      func(s *corev1.Secret) { delete(s.Labels, v1alpha1.LabelManagedBy) },
		"annotation": func(s *corev1.Secret) { s.Annotations[v1alpha1.AnnotationAppID] = "wx" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ready()
			repaired := func() {
				t.Helper()
				w.Eventually(func() bool {
					s := w.secret()
					now := s.DeepCopy()
					spoil(s)
					return !reflect.DeepEqual(s.ObjectMeta, now.ObjectMeta) || !reflect.DeepEqual(s.Data, now.Data)
				}).Should(gomega.BeTrue())
				w.eventuallyReady()
			}
			w.updateSecret(spoil)
			repaired() // the first time at once
			for i := range 4 {
				w.updateSecret(spoil)
				ready := w.eventuallyReason("api", v1alpha1.ReasonKeySecretConflict)
				if !strings.Contains(ready.Message, "somebody keeps rewriting") || strings.Contains(ready.Message, "a new key") != (name == "key") {
					t.Errorf("Ready says %q", ready.Message)
				}
				if i == 3 {
					before := w.requests()
					w.touch()
					if got := w.since(before); got["patch secrets"] > 0 {
						t.Errorf("a pass meanwhile costs %v", got)
					}
				}
				w.advance(2 * time.Minute)
				w.touch()
				repaired()
			}
		})
	}
}

// A process that ends between the write of the Secret and that of the status leaves no key that nobody knows of.
func TestCrash(t *testing.T) {
	t.Run("first key", func(t *testing.T) {
		w := newWorld(t)
		w.operator.crashed.Store(true)
		w.createToken()
		w.createClient("api")
		w.Eventually(w.secret).ShouldNot(gomega.BeNil())
		if now, _ := w.good(); now != "" {
			t.Fatal("a key without a status is good")
		}
		w.start()
		w.eventuallyReady()
	})
	t.Run("rotation", func(t *testing.T) {
		w := newWorld(t)
		first := w.ready()
		w.operator.crashed.Store(true)
		w.ask(rotateAt, "1")
		w.Eventually(func() []byte { return w.secret().Data["previous_app_secret"] }).ShouldNot(gomega.BeNil())
		lost := string(w.secret().Data["app_secret"])
		w.start()
		second := w.eventuallyAnother(first)
		if _, previous := w.good(); second == lost || previous != first {
			t.Error("the first key is not the one before")
		}
		w.touch()
		if now, _ := w.good(); now != second || w.appClient("api").Status.HandledRequests.RotateKey != "1" {
			t.Error("the request was carried out again")
		}
	})
	t.Run("revoke", func(t *testing.T) {
		w := newWorld(t)
		first := w.ready()
		w.operator.crashed.Store(true)
		w.ask(revokeAt, "1")
		w.Eventually(func() string { return string(w.secret().Data["app_secret"]) }).ShouldNot(gomega.Equal(first))
		if now, previous := w.good(); now != "" || previous != "" {
			t.Error("the revoked key is good still")
		}
		w.start()
		w.eventuallyAnother(first)
	})
	t.Run("a status that cannot be written for a while", func(t *testing.T) {
		w := newWorld(t)
		w.operator.crashed.Store(true)
		w.createToken()
		w.createClient("api")
		w.Eventually(w.secret).ShouldNot(gomega.BeNil())
		written := string(w.secret().Data["app_secret"])
		w.operator.crashed.Store(false)
		w.Eventually(func() string { now, _ := w.good(); return now }, time.Minute).Should(gomega.Equal(written))
	})
}

func TestTokenMissing(t *testing.T) {
	w := newWorld(t)
	w.createClient("api", func(c *v1alpha1.WeChatAppClient) { c.Annotations = map[string]string{rotateAt: "0"} })
	ready := w.eventuallyReason("api", v1alpha1.ReasonTokenNotFound)
	if h := w.appClient("api").Status.HandledRequests; h == nil || h.RotateKey != "0" {
		t.Errorf("a request that was there from the beginning is not recorded: %+v", h)
	}
	if w.secret() != nil || !strings.Contains(ready.Message, "kubectl get wxtoken -n "+w.namespace) ||
		w.condition("api", v1alpha1.ConditionReconciling).Status != metav1.ConditionTrue {
		t.Errorf("Ready says %q", ready.Message)
	}
	w.createToken()
	w.eventuallyReady()
	if w.condition("api", v1alpha1.ConditionReconciling).Type != "" {
		t.Error("Reconciling stayed")
	}
}

func TestGatewayNotInstalled(t *testing.T) {
	w := newWorld(t, func(w *world) { w.gateway.Store(&appclient.Gateway{}) })
	w.createToken()
	w.createClient("api")
	ready := w.eventuallyReason("api", v1alpha1.ReasonGatewayNotInstalled)
	if w.secret() != nil || !strings.Contains(ready.Message, "gateway.enabled") || w.condition("api", v1alpha1.ConditionStalled).Status != metav1.ConditionTrue {
		t.Errorf("Ready says %q", ready.Message)
	}
	w.gateway.Store(&appclient.Gateway{URL: gatewayURL})
	w.start()
	w.eventuallyReady()
	if _, found := w.secret().Data["ca.crt"]; found {
		t.Error("there is a ca.crt without a CA")
	}
}

// The gateway's certificate authority is not known yet, then it is, and then it is another one. No restart is needed.
func TestGatewayChanges(t *testing.T) {
	const problem = "the file does not exist"
	w := newWorld(t, func(w *world) { w.gateway.Store(&appclient.Gateway{Problem: problem}) })
	w.createToken()
	w.createClient("api")
	ready := w.eventuallyReason("api", v1alpha1.ReasonGatewayNotInstalled)
	if w.secret() != nil || ready.Message != problem || w.condition("api", v1alpha1.ConditionReconciling).Status != metav1.ConditionTrue {
		t.Errorf("Ready says %q", ready.Message)
	}
	for i, ca := range []string{gatewayCA, "2", "3", "4", "5"} { // what others add to the Secret does not make it slower
		if i > 0 {
			w.updateSecret(func(s *corev1.Secret) { s.Data["theirs"] = []byte(ca) })
		}
		w.gateway.Store(&appclient.Gateway{URL: gatewayURL, CA: ca})
		w.operator.clients.GatewayChanged()
		w.eventuallyReady()
		w.Eventually(func() string { return string(w.secret().Data["ca.crt"]) }).Should(gomega.Equal(ca))
	}
	if e := w.events(); len(e) > 0 {
		t.Errorf("events %v", e)
	}
}

func TestLogin(t *testing.T) {
	w := newWorld(t)
	w.createToken()
	w.createClient("api", func(c *v1alpha1.WeChatAppClient) { c.Spec.Login = true })
	ready := w.eventuallyReason("api", v1alpha1.ReasonCredentialsNotLabelled)
	if !strings.Contains(ready.Message, "kubectl label secret -n "+w.namespace+" credentials "+v1alpha1.LabelCredentials+"=true") {
		t.Errorf("Ready says %q", ready.Message)
	}
	credentials := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "credentials"}}
	label := func(v string) {
		w.must(w.Patch(w.Context(), credentials, clientPatch(`{"metadata":{"labels":{"`+v1alpha1.LabelCredentials+`":`+v+`}}}`)))
	}
	label(`"true"`)
	w.eventuallyReady()
	label("null")
	w.eventuallyReason("api", v1alpha1.ReasonCredentialsNotLabelled)
	w.must(w.Delete(w.Context(), credentials))
	w.Eventually(func() string { return w.condition("api", v1alpha1.ConditionReady).Message }).Should(gomega.ContainSubstring("does not exist"))
}

// The Secret follows the appid of the WeChatAppToken, with the same key.
func TestAppIDChanges(t *testing.T) {
	w := newWorld(t)
	first := w.ready()
	shop := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "shop"}}
	w.must(w.Patch(w.Context(), shop, clientPatch(`{"spec":{"appID":"wxfedcba9876543210"}}`)))
	w.Eventually(func() string { return string(w.secret().Data["app_id"]) }).Should(gomega.Equal("wxfedcba9876543210"))
	if now := w.eventuallyReady(); now != first {
		t.Error("it has a new key")
	}
}

// A hint of the gateway makes the operator check the token at once, but not more often than every 10 s.
func TestHint(t *testing.T) {
	w := newWorld(t)
	w.ready()
	shop := &v1alpha1.WeChatAppToken{}
	w.Eventually(func() *v1alpha1.TokenStatus {
		w.must(w.Get(w.Context(), nameOf(w.namespace, "shop"), shop))
		return shop.Status.Token
	}).ShouldNot(gomega.BeNil())
	calls := func() int { return w.wechat.Count(wechattest.Filter{}) }
	hint := func(fingerprint string) {
		c := &v1alpha1.WeChatAppClient{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "api"}}
		w.must(w.Status().Patch(w.Context(), c, clientPatch(fmt.Sprintf(
			`{"status":{"hint":{"refusedFingerprint":%q,"time":%q}}}`, fingerprint, w.now().UTC().Format(time.RFC3339)))))
	}
	before, requests := calls(), w.requests()
	hint("0123456789abcdef")
	w.Consistently(calls).Should(gomega.Equal(before))
	hint(shop.Status.Token.Fingerprint)
	w.Eventually(calls).Should(gomega.Equal(before + 1))
	time.Sleep(time.Second)
	hint(shop.Status.Token.Fingerprint)
	w.Consistently(calls, 3*time.Second).Should(gomega.Equal(before + 1))
	w.Eventually(calls).Should(gomega.Equal(before + 2)) // 10 s after the first
	if got := w.since(requests); len(got) > 0 {
		t.Errorf("hints cost %v", got)
	}

	// A token that somebody replaced by force is replaced at once.
	last := shop.Status.Token.Fingerprint
	w.wechat.RivalForceRefresh(appID)
	w.advance(10 * time.Second)
	hint(last)
	w.Eventually(func() string {
		w.must(w.Get(w.Context(), nameOf(w.namespace, "shop"), shop))
		return shop.Status.Token.Fingerprint
	}).ShouldNot(gomega.Equal(last))
}
