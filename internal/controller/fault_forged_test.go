// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// eachMode runs a test for both modes.
func eachMode(t *testing.T, test func(t *testing.T, in func(*v1alpha1.WeChatAppToken))) {
	t.Helper()
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) { test(t, func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode }) })
	}
}

// Who may edit the Secret can write there that a revoke is done, between its two calls. It goes on all the same, and is not called done
// before the leaked token is dead.
func TestRevokeForgedAsDone(t *testing.T) {
	eachMode(t, func(t *testing.T, in func(*v1alpha1.WeChatAppToken)) {
		w := newWorld(t)
		w.startOperator()
		w.createCredentials(appSecret)
		w.createToken("shop", hourly, in)
		leaked := w.eventuallyReady("shop")
		w.ask("shop", v1alpha1.AnnotationRevokeRequestedAt, "leak")
		between := w.eventuallyAnother("shop", leaked)
		if !w.wechat.Valid(leaked) {
			t.Fatal("one call killed the token")
		}
		w.updateSecret("shop", func(s *corev1.Secret) { s.Annotations[v1alpha1.AnnotationPrefix+"revoke"] = "done/x/leak" })
		calledDone := func() bool { return w.handled("shop").Revoke == "leak" && w.wechat.Valid(leaked) }
		if w.holdsWithin(2*time.Second, calledDone) {
			t.Error("the revoke is called done, and the leaked token lives")
		}
		w.pass(33*time.Second, "shop")
		called := false
		if !w.holdsWithin(5*time.Second, func() bool {
			called = called || calledDone()
			return !w.wechat.Valid(leaked)
		}) {
			t.Fatal("33 s after the first call the leaked token lives")
		}
		if called {
			t.Error("the revoke was called done before the leaked token was dead")
		}
		w.Eventually(func() string { return w.handled("shop").Revoke }).Should(gomega.Equal("leak"))
		if last := w.eventuallyReady("shop"); last == between || last == leaked {
			t.Error("the Secret does not hold a third token")
		}
		w.Consistently(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(3))
	})
}

// Who may edit the Secret can write there that a refresh was carried out, before it is asked for. It is carried out all the same.
func TestRefreshForgedAsDone(t *testing.T) {
	eachMode(t, func(t *testing.T, in func(*v1alpha1.WeChatAppToken)) {
		w := newWorld(t)
		w.startOperator()
		w.createCredentials(appSecret)
		w.createToken("shop", hourly, in)
		value := w.eventuallyReady("shop")
		w.updateSecret("shop", func(s *corev1.Secret) { s.Annotations[v1alpha1.AnnotationPrefix+"handled-refresh"] = "leak" })
		w.pass(6*time.Minute, "shop")
		w.ask("shop", v1alpha1.AnnotationRefreshRequestedAt, "leak")
		w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal("leak"))
		if w.value("shop") == value {
			t.Error("the refresh is called done, and the Secret holds the token of before")
		}
		if n := len(w.wechat.Tokens(appID)); n != 2 {
			t.Errorf("%d tokens were issued, want 2", n)
		}
	})
}

// Who may edit the Secret of a Legacy resource can put a token of another appid there, with everything that goes with it. WeChat accepts
// that token, but it does not stay.
func TestPlantedTokenOfAnotherApp(t *testing.T) {
	const other = "wxfedcba9876543210"
	for _, restart := range []string{"while the operator runs", "while it does not"} {
		t.Run(strings.ReplaceAll(restart, " ", "_"), func(t *testing.T) {
			w := newWorld(t)
			o := w.startOperator()
			w.createCredentials(appSecret)
			w.createToken("shop", legacy)
			w.eventuallyReady("shop")
			w.wechat.SetApp(wechattest.App{ID: other, Secret: strings.Repeat("f", 32)})
			if restart == "while it does not" {
				o.stop()
			}
			w.jump(time.Minute)
			planted := w.wechat.RivalMint(other).Token
			w.writeAsAnotherLeader("shop", planted, w.clock.now())
			if restart == "while it does not" {
				w.startOperator()
			}
			own := func() bool { return w.ownToken("shop", appID) }
			for passed := time.Duration(0); passed < 8*time.Minute && !w.holdsWithin(500*time.Millisecond, own); passed += 30 * time.Second {
				w.pass(30*time.Second, "shop")
			}
			if !own() {
				t.Errorf("after 8 minutes the Secret holds a token of another appid (%t)", w.value("shop") == planted)
			}
		})
	}
}

// The oldest member of a Legacy account mints for all. Who may edit its Secret can write there that another leader has issued a later token
// and begun another mint. The token that it is repaired with is written all the same, without a second attempt, and the others get the
// next token in time.
func TestForgedRecordOfTheFetcher(t *testing.T) {
	const forged = "0123456789abcdef"
	for name, forgeData := range map[string]bool{"with its data": true, "annotations alone": false} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			w := newWorld(t)
			o := w.startOperator()
			w.legacyMembers("oldest", "younger")
			value := w.value("younger")
			w.pass(time.Hour, "oldest", "younger")
			w.updateSecret("oldest", func(s *corev1.Secret) {
				if forgeData {
					s.Data["access_token"] = []byte("a lie")
				}
				s.Annotations[v1alpha1.AnnotationTokenFingerprint] = forged
				s.Annotations[v1alpha1.AnnotationIssuedAt] = "2099-01-01T00:00:00Z"
				s.Annotations[v1alpha1.AnnotationMintStarted] = w.clock.now().Add(-2*time.Hour).UTC().Format(time.RFC3339Nano) + "/forged"
			})
			if !w.holdsWithin(5*time.Second, func() bool {
				return w.ownToken("oldest", appID) && w.secret("oldest").Annotations[v1alpha1.AnnotationTokenFingerprint] != forged
			}) {
				t.Error("the forged Secret is not repaired")
			}
			if n := w.requests(o)["get secrets"]; n > 20 {
				t.Errorf("the repair took %d reads of Secrets", n)
			}
			w.pass(50*time.Minute, "oldest", "younger")
			if !w.holdsWithin(5*time.Second, func() bool { return w.value("younger") != value && w.ownToken("younger", appID) }) {
				t.Error("the younger member has no new token when it is due")
			}
		})
	}
}

// Consent names the resource and the appid: otherwise whoever may create resources of that name decides which account's token is written.
func TestConsentNamesTheAppID(t *testing.T) {
	for consent, enough := range map[string]bool{
		"shop":                    false,
		"shop/":                   false,
		"shop/wxfedcba9876543210": false,
		"other/" + appID:          false,
		"shop/" + appID + "/":     false,
		"shop/" + appID:           true,
	} {
		t.Run(strings.ReplaceAll(consent, "/", "_of_"), func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			w.createCredentials(appSecret)
			w.createSecret("shop", map[string]string{"theirs": "stays"}, func(s *corev1.Secret) {
				s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: consent}
			})
			w.createToken("shop")
			if enough {
				w.eventuallyReady("shop")
				return
			}
			got := w.eventuallyReason("shop", v1alpha1.ReasonTargetConflict)
			if !strings.Contains(got.Message, "shop/"+appID) {
				t.Errorf("the message does not say what to write: %q", got.Message)
			}
			w.Consistently(func() string { return w.value("shop") }, time.Second).Should(gomega.BeEmpty())
		})
	}
}

// Who may edit the Secret of a younger member can plant a token of another appid there that claims to be from the future. It gives way to
// one mint of the account's fetcher, not to several in a row, which would end the token that the pods of other members hold.
func TestPlantedTokenFromTheFutureOfAMember(t *testing.T) {
	const other = "wxfedcba9876543210"
	w := newWorld(t)
	w.startOperator()
	w.legacyMembers("oldest", "younger")
	w.pass(20*time.Minute, "oldest", "younger") // so that no pace holds mints back
	w.wechat.SetApp(wechattest.App{ID: other, Secret: strings.Repeat("f", 32)})
	w.writeAsAnotherLeader("younger", w.wechat.RivalMint(other).Token, w.clock.now().Add(time.Hour))
	before := len(w.wechat.Tokens(appID))
	w.wakeTargets("younger")
	w.advance(160 * time.Second)
	w.Eventually(func() bool { return w.ownToken("younger", appID) }).Should(gomega.BeTrue())
	if n := len(w.wechat.Tokens(appID)) - before; n != 1 {
		t.Errorf("%d mints in place of the planted token, want 1", n)
	}
}
