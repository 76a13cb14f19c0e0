// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// A restart costs the spread-out checks and nothing else. What was tampered with, and whose credentials were changed
// while the operator was down, is found at once and does not wait for the checks.
func TestRestart(t *testing.T) {
	const (
		resources      = 100
		tampered       = 3 // from the start of the list
		newCredentials = 3 // after them
	)
	w := newWorld(t, func(o *wechattest.Options) { o.AutoApps = true })
	first := w.startOperator()
	name := func(i int) string { return fmt.Sprintf("shop-%03d", i) }
	app := func(i int) string { return fmt.Sprintf("wx%016d", i) }
	credentials := func(i int) string { return fmt.Sprintf("credentials-%03d", i) }
	for i := range resources {
		w.createSecret(credentials(i), map[string]string{"appSecret": appSecret})
		w.createToken(name(i), func(t *v1alpha1.WeChatAppToken) {
			t.Spec.AppID = app(i)
			t.Spec.CredentialsSecretRef.Name = credentials(i)
			t.Spec.CheckInterval.Duration = time.Hour
		})
	}
	for i := range resources {
		w.eventuallyReady(name(i))
	}
	w.Eventually(func() int { return w.requests(first)["patch wechatapptokens/status"] }).Should(gomega.Equal(resources))
	first.stop()

	for i := range tampered {
		w.updateSecret(name(i), func(s *corev1.Secret) { s.Data["access_token"] = []byte("mine") })
	}
	for i := tampered; i < tampered+newCredentials; i++ {
		w.wechat.SetSecret(app(i), newAppSecret)
		w.updateSecret(credentials(i), func(s *corev1.Secret) { s.Data["appSecret"] = []byte(newAppSecret) })
	}
	issuedBefore := len(w.wechat.Tokens(""))
	start := w.clock.now()
	callsSince := func(app string) (out []wechattest.Call) {
		for _, c := range w.wechat.Calls(wechattest.Filter{AppID: app}) {
			if !c.Clock.Before(start) {
				out = append(out, c)
			}
		}
		return out
	}
	second := w.startOperator()

	w.Eventually(func(g gomega.Gomega) {
		for i := range tampered {
			g.Expect(w.wechat.Valid(w.value(name(i)))).To(gomega.BeTrue(), name(i))
		}
		for i := tampered; i < tampered+newCredentials; i++ {
			g.Expect(callsSince(app(i))).NotTo(gomega.BeEmpty(), name(i))
		}
	}, atOnce).Should(gomega.Succeed())

	urgent := map[string]bool{}
	for i := range tampered + newCredentials {
		urgent[app(i)] = true
	}
	checks := func() (all, early int) {
		for _, c := range callsSince("") {
			if urgent[c.AppID] {
				continue
			}
			all++
			if c.Clock.Sub(start) < 9*time.Second {
				early++
			}
		}
		return all, early
	}
	w.lapse(60*time.Second, func() bool { all, _ := checks(); return all == resources-len(urgent) })
	took := w.clock.now().Sub(start)
	all, early := checks()
	t.Logf("%d first checks within %s, %d of them in the first 9 s", all, took.Round(time.Second), early)
	if all != resources-len(urgent) {
		t.Errorf("%d resources were checked, want %d", all, resources-len(urgent))
	}
	if early > resources/5 {
		t.Errorf("%d checks in the first 9 s, want at most a fifth of %d", early, resources)
	}
	if took > 50*time.Second {
		t.Errorf("the first checks took %s, want 45 s and a little for the start", took)
	}
	if n := len(w.wechat.Tokens("")); n != issuedBefore {
		t.Errorf("%d new tokens", n-issuedBefore)
	}

	reads, err := env.Requests(func(r testenv.Request) bool {
		return r.UserAgent == second.name && r.Verb == "get" && r.Object.Resource == "secrets"
	})
	w.must(err)
	targets := map[string]bool{}
	for i := range resources {
		targets[name(i)] = true
	}
	for i := range tampered {
		delete(targets, name(i)) // verified by one GET
	}
	for _, r := range reads {
		if targets[r.Object.Name] {
			t.Errorf("target Secret %s was read after a restart", r.Object.Name)
		}
	}
}

// A restart takes nothing from the status, which is what proves the token to the next process and to other members of a
// Legacy account, and writes nothing to it.
func TestRestartKeepsTheStatus(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			o := w.startOperator()
			w.createCredentials(appSecret)
			for i := range 8 { // the parts of a second differ
				w.wechat.SetApp(wechattest.App{ID: fmt.Sprintf("wx%016d", i), Secret: appSecret})
				w.createToken(fmt.Sprint("shop-", i), func(t *v1alpha1.WeChatAppToken) {
					t.Spec.AppID, t.Spec.Mode, t.Spec.CheckInterval.Duration = fmt.Sprintf("wx%016d", i), mode, time.Hour
				})
			}
			before := map[string]v1alpha1.WeChatAppTokenStatus{}
			for i := range 8 {
				w.eventuallyReady(fmt.Sprint("shop-", i))
				before[fmt.Sprint("shop-", i)] = w.token(fmt.Sprint("shop-", i)).Status
			}
			o.stop()
			o = w.startOperator()
			w.Consistently(func() int { return w.requests(o)["patch wechatapptokens/status"] }).Should(gomega.Equal(0))
			for name, status := range before {
				w.Expect(w.token(name).Status).To(gomega.Equal(status))
				w.Expect(status.Token.Fingerprint).NotTo(gomega.BeEmpty())
			}
		})
	}
}

// A crash between the write of the Secret and that of the status loses nothing and repeats nothing, also when the clock of the process
// that comes after it is hours behind.
func TestCrashBeforeTheStatusWrite(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		for _, skew := range []time.Duration{0, -3 * time.Hour} {
			t.Run(fmt.Sprintf("%s/%s", mode, skew), func(t *testing.T) {
				w, value := readyWorld(t, mode)
				o := w.operators.last
				o.stop()
				w.loseStatus("shop")
				w.skew.Store(int64(skew))
				w.startOperator()
				w.eventuallyReady("shop")
				if w.value("shop") != value || len(w.wechat.Tokens(appID)) != 1 {
					t.Errorf("the token was replaced; %d were issued", len(w.wechat.Tokens(appID)))
				}
			})
		}
	}
}

// What a process writes beside a token that it did not see WeChat issue, such as a ticket or a label, does not make the next process take that
// token for the one that the status names.
func TestWriteBesideUnattestedToken(t *testing.T) {
	for name, change := range map[string]func(*world){
		"ticket": func(w *world) { w.wechat.RivalTicket(appID, jsapi, 2*time.Hour) },
		"label": func(w *world) {
			w.update("shop", func(t *v1alpha1.WeChatAppToken) {
				t.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"example.com/team": "shop"}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := readyWorld(t, v1alpha1.ModeLegacy, withTickets(jsapi))
			w.settle()
			w.operators.last.stop()
			w.jump(70 * time.Minute) // the token that the status names is due
			held := w.wechat.RivalMint(appID).Token
			w.writeAsAnotherLeader("shop", held, w.clock.now()) // who ended before it wrote the status
			before := w.secret("shop").ResourceVersion
			change(w)
			o := w.startOperator()
			w.advance(time.Minute)
			if now := w.secret("shop"); now.ResourceVersion == before || string(now.Data["access_token"]) != held {
				t.Fatalf("the Secret was not written, or its token was: %v", now.Annotations)
			}
			if w.requests(o)["patch wechatapptokens/status"] == 0 {
				t.Fatal("no status was written")
			}
			o.stop()
			w.startOperator()
			w.advance(time.Minute)
			if w.value("shop") != held || len(w.wechat.Tokens(appID)) != 2 {
				t.Error("a token was minted before each volume can have the one that it replaces")
			}
			w.advance(2 * time.Minute)
			if w.value("shop") == held || !w.wechat.Valid(w.value("shop")) {
				t.Error("a token that nobody saw WeChat issue was not replaced")
			}
		})
	}
}

// loseStatus makes a resource's status what it was before its first write.
func (w *world) loseStatus(name string) {
	w.Helper()
	token := w.token(name)
	token.Status = v1alpha1.WeChatAppTokenStatus{ObservedGeneration: -1}
	w.must(w.Client.Status().Update(w.Context(), token))
}

// A lie about the expiry is found out as soon as WeChat has told the time.
func TestForgedExpiryAndAClockBehind(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeLegacy)
	o := w.operators.last
	o.stop()
	w.writeAsAnotherLeader("shop", value, w.clock.now())
	w.updateSecret("shop", func(s *corev1.Secret) {
		lie := w.clock.now().Add(300 * time.Hour).UTC().Format(time.RFC3339)
		s.Data["expires_at"], s.Annotations[v1alpha1.AnnotationExpiresAt] = []byte(lie), lie
	})
	w.skew.Store(-int64(3 * time.Hour))
	before := w.token("shop").Status.Token
	w.wechat.Inject(wechattest.Fault{Errcode: 40164}) // it tells the time, and nothing about the token
	w.startOperator()
	w.eventuallyReason("shop", v1alpha1.ReasonIPNotAllowed)
	if got := w.token("shop").Status.Token; !equality.Semantic.DeepEqual(got, before) {
		t.Errorf("the status says %+v, and said %+v", got, before)
	}
	w.wechat.ClearFaults()
	w.eventuallyAnother("shop", value)
}

// A restart shortly before the token's end replaces it at once, while it is still valid, also when the status of its last write got lost
// and the clock runs ahead until WeChat answers: what is in the Secret was not looked at later than WeChat was asked.
func TestRestartInTheHandoverWindow(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		for _, skew := range []time.Duration{0, 10 * time.Minute} {
			t.Run(fmt.Sprintf("%s/%s", mode, skew), func(t *testing.T) {
				w, value := readyWorld(t, mode)
				o := w.operators.last
				o.stop()
				w.clock.advance(2*time.Hour - 200*time.Second)
				if skew != 0 {
					w.loseStatus("shop")
					w.skew.Store(int64(skew))
				}
				w.startOperator()
				w.eventuallyAnotherWithin(atOnce, "shop", value)
				if !w.wechat.Valid(value) {
					t.Error("the token before is not valid any more")
				}
				w.Eventually(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(2))
			})
		}
	}
}

// A wall clock that jumps ahead makes a Legacy token look expired, and another process's mark look old, until WeChat's next
// answer. It costs a question, not a mint.
func TestWallClockJumpsAhead(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			w, value := readyWorld(t, v1alpha1.ModeLegacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour })
			o := w.operators.last
			if restart {
				o.stop()
			}
			w.skew.Store(int64(3 * time.Hour))
			w.updateSecret("shop", func(s *corev1.Secret) {
				s.Annotations[v1alpha1.AnnotationMintStarted] = w.clock.now().UTC().Format(time.RFC3339Nano) + "/abcdefgh"
			})
			if restart {
				w.startOperator()
			}
			w.Eventually(func() int { return w.calls(wechattest.EndpointProbe) }).Should(gomega.Equal(1))
			w.Consistently(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(1))
			if ready := w.condition("shop", v1alpha1.ConditionReady); w.value("shop") != value || ready.Status != metav1.ConditionTrue {
				t.Errorf("the token was replaced, or Ready is %+v", ready)
			}
		})
	}
}

// What was put off by a clock that ran hours ahead is not waited for once the clock is right.
func TestWallClockWasAhead(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.wechat.Inject(wechattest.Fault{Status: 503})
			w.skew.Store(int64(3 * time.Hour))
			w.startOperator()
			w.createCredentials(appSecret)
			w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.Eventually(func() *v1alpha1.RefreshError { return w.token("shop").Status.LastError }).ShouldNot(gomega.BeNil())
			w.skew.Store(0)
			w.wechat.ClearFaults()
			w.eventuallyReady("shop")
		})
	}
}

// An operator whose local clock is hours off stores WeChat's time, and takes no token for expired that is not.
func TestWrongLocalClock(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		for _, offset := range []time.Duration{-5 * time.Hour, 5 * time.Hour} {
			t.Run(fmt.Sprintf("%s/%s", mode, offset), func(t *testing.T) {
				w := newWorld(t)
				w.wechat.Advance(offset)
				value := w.ready(mode)
				o := w.operators.last
				issued := w.wechat.Tokens(appID)[0]
				if off := w.token("shop").Status.Token.ExpirationTime.Sub(issued.ExpiresAt); off.Abs() > 5*time.Second {
					t.Errorf("the stored expiry is off by %s", off)
				}
				o.stop()
				o = w.startOperator()
				// The first answer tells the time.
				w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "now"))
				w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal("now"))
				w.Consistently(func() string { return w.value("shop") }, time.Second).Should(gomega.Equal(value))
				if ready := w.condition("shop", v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue {
					t.Errorf("Ready: %+v", ready)
				}
				if n := len(w.wechat.Tokens(appID)); n != 1 {
					t.Errorf("%d tokens were issued, want 1", n)
				}
				if n := w.requests(o)["patch secrets"]; n != 0 {
					t.Errorf("the restart wrote the Secret %d times", n)
				}
			})
		}
	}
}

// An operator that is told to end while it mints writes the token that it gets: a rolling update loses no mint.
func TestToldToEndDuringAMint(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeLegacy)
	o := w.operators.last
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Delay: time.Second})
	w.jump(6 * time.Minute)
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.Eventually(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(2))
	o.stop()
	if now := w.value("shop"); now == value || !w.wechat.Valid(now) {
		t.Error("the token that was minted when the operator was told to end is lost")
	}
	if mark := w.secret("shop").Annotations[v1alpha1.AnnotationMintStarted]; mark != "" {
		t.Errorf("the mark %q was left", mark)
	}
	w.startOperator()
	w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal("1"))
	if n := len(w.wechat.Tokens(appID)); n != 2 {
		t.Errorf("%d tokens were minted, want 2", n)
	}
}

// A resource that is moved to another shard while its operator mints is no deleted one: the token is written, so that the operator of the
// other shard finds no lost mint, whose repetition would end at once the token that pods hold.
func TestMovedToAnotherShardDuringAMint(t *testing.T) {
	shard := func(name string) func(*v1alpha1.WeChatAppToken) {
		return func(t *v1alpha1.WeChatAppToken) { metav1.SetMetaDataLabel(&t.ObjectMeta, "shard", name) }
	}
	w := newWorld(t)
	w.selector = labels.SelectorFromSet(labels.Set{"shard": "a"})
	value := w.ready(v1alpha1.ModeLegacy, shard("a"))
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Delay: time.Second})
	w.jump(6 * time.Minute)
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.Eventually(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(2))
	w.update("shop", shard("b"))
	now := w.eventuallyAnother("shop", value)
	if mark := w.secret("shop").Annotations[v1alpha1.AnnotationMintStarted]; mark != "" {
		t.Errorf("the mark %q was left", mark)
	}
	w.selector = labels.SelectorFromSet(labels.Set{"shard": "b"})
	w.startOperator()
	w.advance(volumeLag)
	if w.value("shop") != now || !w.wechat.Valid(value) || !w.wechat.Valid(now) {
		t.Error("a pod may still hold the old token, and WeChat does not accept it")
	}
}

// writeAsAnotherLeader writes a token and what goes with it into a Secret.
func (w *world) writeAsAnotherLeader(secret, token string, issuedAt time.Time) {
	w.Helper()
	sum := sha256.Sum256([]byte(token))
	expires := issuedAt.Add(2 * time.Hour).UTC().Format(time.RFC3339)
	w.updateSecret(secret, func(s *corev1.Secret) {
		s.Data["access_token"], s.Data["expires_at"] = []byte(token), []byte(expires)
		s.Annotations[v1alpha1.AnnotationTokenFingerprint] = hex.EncodeToString(sum[:])[:16]
		s.Annotations[v1alpha1.AnnotationIssuedAt] = issuedAt.UTC().Format(time.RFC3339)
		s.Annotations[v1alpha1.AnnotationExpiresAt] = expires
	})
}
