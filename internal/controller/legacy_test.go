// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// A Legacy token is minted once, after a rehearsal of the write, and replaced while the one before is still valid.
func TestLegacyIssueAndRotation(t *testing.T) {
	w := newWorld(t, func(o *wechattest.Options) { o.Life = 40 * time.Second })
	value := w.ready(v1alpha1.ModeLegacy)
	o := w.operators.last
	w.Eventually(func() map[string]int { return w.requests(o) }).Should(gomega.Equal(map[string]int{
		"get secrets": 1, "create secrets": 2, "patch wechatapptokens/status": 1, // one create is the rehearsal
	}))
	before := w.requests(o)
	for range 2 {
		w.advance(19 * time.Second) // to half of its life, but for a second
		w.Eventually(func(g gomega.Gomega) {
			now := w.value("shop")
			if !w.wechat.Valid(now) {
				gomega.StopTrying("the Secret holds a token that WeChat does not accept").Now()
			}
			g.Expect(now).NotTo(gomega.Equal(value))
			value = now
		}).Should(gomega.Succeed())
	}
	// The mark, the token and the status, each time.
	w.Eventually(func() map[string]int { return minus(w.requests(o), before) }).Should(gomega.Equal(map[string]int{
		"patch secrets": 4, "patch wechatapptokens/status": 2,
	}))
	if n := w.calls(wechattest.EndpointLegacy); n != 3 {
		t.Errorf("%d mints, want 3", n)
	}
	if mark := w.secret("shop").Annotations[v1alpha1.AnnotationMintStarted]; mark != "" {
		t.Errorf("the mark %q was left", mark)
	}
}

// Resources of one account, in any namespace, share the token of one mint; who does not hold the AppSecret gets nothing.
func TestLegacyAccountIsShared(t *testing.T) {
	w := newWorld(t)
	other := w.newNamespace()
	w.startOperator(other)
	w.createCredentials(appSecret)
	w.createToken("first", legacy)
	value := w.eventuallyReady("first")
	w.createToken("second", legacy)
	w.eventuallyReady("second")

	there := *w
	there.namespace = other
	there.createCredentials(appSecret)
	there.createToken("third", legacy)
	there.eventuallyReady("third")

	there.createSecret("wrong", map[string]string{"appSecret": newAppSecret})
	there.createToken("thief", legacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CredentialsSecretRef.Name = "wrong" })
	there.eventuallyReason("thief", v1alpha1.ReasonAppSecretInvalid)
	if there.value("thief") != "" {
		t.Error("a token was handed to a resource without the AppSecret")
	}

	for name, got := range map[string]string{"second": w.value("second"), "third": there.value("third")} {
		if got != value {
			t.Errorf("%s holds another token", name)
		}
	}
	if n := len(w.wechat.Tokens(appID)); n != 1 {
		t.Errorf("%d tokens were minted, want 1", n)
	}

	// A member whose Secret was overwritten gets the token back from another; that is no reason to mint.
	w.updateSecret("first", func(s *corev1.Secret) { s.Data["access_token"] = []byte("not-a-token") })
	w.Eventually(func() string { return w.value("first") }).Should(gomega.Equal(value))
	if n := len(w.wechat.Tokens(appID)); n != 1 {
		t.Errorf("%d tokens were minted, want 1", n)
	}

	// A request of one member is carried out once, and everybody has the token.
	w.jump(6 * time.Minute) // no refresh ends a token that a pod may hold
	there.update("third", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	value = there.eventuallyAnother("third", value)
	w.Eventually(func() []string { return []string{w.value("first"), w.value("second"), there.value("third")} }).
		Should(gomega.HaveEach(value))
	w.Eventually(func() string { return there.handled("third").Refresh }).Should(gomega.Equal("1"))
	if n := len(w.wechat.Tokens(appID)); n != 2 {
		t.Errorf("%d tokens were minted, want 2", n)
	}
}

// A fetcher that cannot write, for a reason that is its namespace's alone, does not keep the others from a token.
func TestFetcherThatTheAPIServerFails(t *testing.T) {
	w := newWorld(t)
	there := *w
	there.namespace = w.newNamespace()
	w.startOperator(there.namespace)
	there.createCredentials(appSecret)
	there.createToken("fetcher", legacy)
	value := there.eventuallyReady("fetcher")
	w.createCredentials(appSecret)
	w.createToken("shop", legacy)
	w.eventuallyReady("shop")

	down, sideEffects := "https://127.0.0.1:1", admissionv1.SideEffectClassNone
	hook := &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: there.namespace},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "down.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &sideEffects,
			ClientConfig:      admissionv1.WebhookClientConfig{URL: &down},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: there.namespace}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.OperationAll},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
			}},
		}},
	}
	w.must(w.Create(w.Context(), hook))
	defer func() { w.must(w.Delete(w.Context(), hook)) }()
	w.Eventually(func() error {
		return w.Create(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: there.namespace, GenerateName: "probe-"}}, client.DryRunAll)
	}).ShouldNot(gomega.Succeed())

	w.wechat.RivalMint(appID)
	w.wechat.RivalMint(appID)
	w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "1"))
	w.eventuallyAnother("shop", value)
}

// A rival's mint kills the token sooner or later. It is noticed by the next check, and from the second time on the
// status says who must act.
func TestForeignFetcher(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	token := w.createToken("shop", legacy)
	value := w.eventuallyReady("shop")
	for range 2 {
		w.wechat.RivalMint(appID)
		w.wechat.RivalMint(appID) // two in a row kill ours at once
		if w.wechat.Valid(value) {
			t.Fatal("the rival's mints did not kill the token")
		}
		w.advance(40 * time.Second)
		value = w.eventuallyAnother("shop", value)
	}
	w.Eventually(func() []string { return w.events("shop") }).Should(gomega.ContainElement(v1alpha1.EventForeignFetcher))
	if n := w.calls(wechattest.EndpointLegacy); n != 3 {
		t.Errorf("%d mints, want 3", n)
	}
	if counts, late, _ := w.recorder.take(); counts["foreign "+string(token.UID)] != 2 || len(late) != 0 {
		t.Errorf("of two foreign fetches the recorder was told %v, lateness %v", counts, late)
	}
}

// A mark without a result means that a mint's answer was lost: it is repeated, once.
func TestMintLostInACrash(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeLegacy)
	o := w.operators.last
	w.Eventually(func() string { return w.token("shop").Status.TargetResourceVersion }).Should(gomega.Equal(w.secret("shop").ResourceVersion))
	o.stop()
	w.updateSecret("shop", func(s *corev1.Secret) {
		s.Annotations[v1alpha1.AnnotationMintStarted] = w.clock.now().UTC().Format(time.RFC3339Nano) + "/abcdefgh"
	})
	w.wechat.RivalMint(appID) // the mint whose answer was lost
	w.startOperator()
	w.advance(30 * time.Second) // another process's mint would be over
	w.eventuallyAnother("shop", value)
	w.eventuallyReady("shop")
	w.Consistently(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(2))
	if mark := w.secret("shop").Annotations[v1alpha1.AnnotationMintStarted]; mark != "" {
		t.Errorf("the mark %q was left", mark)
	}
}

// Who may edit a member's Secret can forge marks. That must neither mint again and again, which would end the token that other
// members' pods hold, nor keep the account from its rotation.
func TestForgedMarks(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeLegacy)
	forge := func() {
		w.updateSecret("shop", func(s *corev1.Secret) {
			s.Annotations[v1alpha1.AnnotationMintStarted] = w.clock.now().UTC().Format(time.RFC3339Nano) + "/abcdefgh"
		})
	}
	forge()
	w.Consistently(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(1))
	w.advance(30 * time.Second) // another process's mint would be over
	forge()
	w.Consistently(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(1))
	w.jump(2 * time.Minute)
	forge() // fresh marks put nothing off
	w.eventuallyAnother("shop", value)
	w.Consistently(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(2))
}

// An errcode says that nothing was minted: the mark that is left then causes no second mint, not even after a restart.
func TestMintRefused(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeLegacy)
	o := w.operators.last
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Errcode: 40164})
	w.jump(6 * time.Minute)
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionRefreshFailing).Reason }).
		Should(gomega.Equal(v1alpha1.ReasonIPNotAllowed))
	w.wechat.ClearFaults()
	o.stop()
	w.startOperator()
	w.advance(4 * time.Second)
	w.Consistently(func() string { return w.value("shop") }).Should(gomega.Equal(value))
	if n := len(w.wechat.Tokens(appID)); n != 1 {
		t.Errorf("%d tokens were minted, want 1", n)
	}
}

// For a while WeChat answers 40001 to everything: it refuses the token that was minted a moment ago, and the mint of another one too. The
// token is asked about again before the next mint, which would end the one that volumes still hold, and nothing is minted.
func TestEverythingRefusedForAWhile(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeLegacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = 30 * time.Second })
	w.pass(2*time.Hour-5*time.Minute, "shop")
	w.Eventually(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(2))
	value := w.eventuallyReady("shop")
	w.wechat.Inject(wechattest.Fault{Errcode: 40001})
	w.pass(40*time.Second, "shop")
	w.settle()
	w.advance(11 * time.Second) // the second refusal ends a new token
	w.eventuallyReason("shop", v1alpha1.ReasonAppSecretInvalid)
	w.wechat.ClearFaults()
	w.pass(20*time.Second, "shop")
	w.Eventually(func(g gomega.Gomega) {
		g.Expect(w.condition("shop", v1alpha1.ConditionReady).Status).To(gomega.Equal(metav1.ConditionTrue))
		g.Expect(w.condition("shop", v1alpha1.ConditionRefreshFailing).Status).NotTo(gomega.Equal(metav1.ConditionTrue))
	}).Should(gomega.Succeed())
	if n := len(w.wechat.Tokens(appID)); n != 2 || w.value("shop") != value {
		t.Errorf("%d tokens were minted, want 2: WeChat accepts the second one again", n)
	}
}

// As above, with two members: the younger one asks for a mint in vain, and must not mint by itself without asking about the token again.
func TestEverythingRefusedForAWhileToTwoMembers(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.legacyMembers("oldest", "younger")
	w.pass(2*time.Hour-5*time.Minute, "oldest", "younger")
	w.Eventually(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(2))
	value := w.eventuallyReady("oldest")
	w.Eventually(func() string { return w.value("younger") }).Should(gomega.Equal(value))
	w.wechat.Inject(wechattest.Fault{Errcode: 40001})
	w.ask("younger", v1alpha1.AnnotationCheckRequestedAt, "1")
	w.Eventually(func() string { return w.handled("younger").Check }).Should(gomega.Equal("1"))
	w.advance(11 * time.Second) // the second refusal ends a new token
	w.eventuallyReason("oldest", v1alpha1.ReasonAppSecretInvalid)
	w.advance(2 * time.Second) // the other one has tried as well
	w.wechat.ClearFaults()
	w.advance(24 * time.Second)
	w.eventuallyReady("oldest")
	w.eventuallyReady("younger")
	if n := len(w.wechat.Tokens(appID)); n != 2 || w.value("younger") != value {
		t.Errorf("%d tokens were minted, want 2: WeChat accepts the second one again", n)
	}
}

// WeChat refuses everything for a moment, shortly before the token is due. The attempts that follow rarely come in time for the real end of
// the token, which it keeps if the refusal was a mistake.
func TestRefusedForAMomentBeforeTheRotation(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeLegacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = 30 * time.Second })
	end := w.token("shop").Status.Token.ExpirationTime.Time
	w.pass(2*time.Hour-12*time.Minute, "shop")
	w.wechat.Inject(wechattest.Fault{Errcode: 40001})
	mints := w.calls(wechattest.EndpointLegacy)
	if !w.lapse(2*time.Minute, func() bool { return w.calls(wechattest.EndpointLegacy) >= mints+3 }) {
		t.Fatal("three attempts were not made")
	}
	w.wechat.ClearFaults()
	w.advance(end.Add(-5 * time.Minute).Sub(w.clock.now()))
	if w.value("shop") == value {
		t.Error("WeChat has worked for minutes, and five minutes before the end there is no new token")
	}
}

// WeChat is known to refuse a token once, just after it was issued. That is no reason for another mint, which would end the token that
// volumes still hold. It makes no difference whether the check was asked for.
func TestRefusedJustAfterTheMint(t *testing.T) {
	for name, interval := range map[string]time.Duration{"asked for": time.Hour, "due": 30 * time.Second} {
		t.Run(name, func(t *testing.T) {
			w, old := readyWorld(t, v1alpha1.ModeLegacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = interval })
			w.pass(2*time.Hour-5*time.Minute, "shop")
			value := w.eventuallyAnother("shop", old)
			w.settle()
			w.advance(time.Second)
			w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointProbe, Errcode: 40001, Times: 1})
			if interval == time.Hour {
				w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, 1)
				w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal("1"))
			}
			w.advance(45 * time.Second)
			if n := len(w.wechat.Tokens(appID)); n != 2 || w.value("shop") != value {
				t.Errorf("%d tokens were minted, want 2", n)
			}
			if !w.wechat.ValidAt(old, w.clock.now().Add(volumeLag)) {
				t.Error("a pod may still hold the old token, and WeChat does not accept it")
			}
			// A rival's mints end it just as soon after its issue, and the second refusal replaces it. An answer between the two that tells
			// nothing makes no difference.
			w.wechat.RivalMint(appID)
			w.wechat.RivalMint(appID)
			w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, 2)
			w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal("2"))
			w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointProbe, Errcode: -1, Times: 1})
			w.advance(11 * time.Second)
			w.advance(11 * time.Second)
			w.eventuallyAnotherWithin(5*time.Second, "shop", value)
		})
	}
}

// A mint whose answer got lost is repeated, also when the first repetition is refused: that says nothing about the lost one.
func TestMintLostAndThenRefused(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeLegacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour })
	w.jump(6 * time.Minute) // neither a refresh nor a mark alone causes a mint sooner
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Cut: wechattest.CutAfter, Times: 1})
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Errcode: -1, Times: 1})
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.eventuallyAnother("shop", value)
	w.eventuallyReady("shop")
	w.Consistently(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(4))
}

// An operator whose WeChat answers are cut mints at most three times in five minutes.
func TestMintsArePaced(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.wechat.Inject(wechattest.Fault{Cut: wechattest.CutAfter})
	w.createToken("shop", legacy)
	w.eventuallyReason("shop", v1alpha1.ReasonUnreachable)
	w.advance(4 * time.Minute)
	if n := len(w.wechat.Tokens(appID)); n != 3 {
		t.Errorf("%d mints, want the 3 of the bucket", n)
	}
}

// Members of an account that want their first token at the same moment get one, and the pace of mints is not used up.
func TestLegacyFirstIssueOfManyMembers(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Delay: 500 * time.Millisecond})
	w.createCredentials(appSecret)
	names := []string{"first", "second", "third", "fourth"}
	for _, name := range names {
		w.createToken(name, legacy)
	}
	for _, name := range names {
		w.eventuallyReady(name)
	}
	w.advance(6 * time.Second) // past askAgainAfter
	w.Consistently(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(1))
}

// A mint that hangs takes one worker while it hangs and no other, however many members of the account wait for it. When it ends
// they are woken, and share the next one.
func TestHungMintHoldsOneWorker(t *testing.T) {
	w := newWorld(t)
	w.workers = 3
	w.startOperator()
	const hangs = 5 * time.Second // the client would give up after 10 s
	w.wechat.Inject(wechattest.Fault{AppID: appID, Endpoint: wechattest.EndpointLegacy, Delay: hangs, Cut: wechattest.CutBefore, Times: 1})
	w.createCredentials(appSecret)
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, name := range names {
		w.createToken(name, legacy)
	}
	w.Eventually(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(1))
	hung := time.Now()
	w.update("h", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1")) // a request waits in the same way

	const other = "wxfedcba9876543210"
	w.wechat.SetApp(wechattest.App{ID: other, Secret: appSecret})
	w.createToken("healthy", func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = other })
	w.eventuallyReady("healthy")
	if took := time.Since(hung); took > hangs {
		t.Errorf("a resource of another account waited for %s", took)
	}
	// All ask again shortly before the mint ends, and would not do so for another askAgainAfter.
	time.Sleep(time.Until(hung.Add(hangs - time.Second)))
	w.clock.advance(2 * time.Second)
	w.operators.release()
	for _, name := range names {
		w.eventuallyReady(name)
	}
	if took := time.Since(hung); took > hangs+3500*time.Millisecond {
		t.Errorf("the members waited for %s, but should have been woken when the mint ended", took)
	}
	// The mint handled the request if it began after a pass saw the request. Otherwise the request has a mint of its own, which keeps
	// its distance to the last one.
	w.advance(6 * time.Minute)
	w.Eventually(func() string { return w.handled("h").Refresh }).Should(gomega.Equal("1"))
}

// A fetcher that is being deleted, and stays so for long because of a finalizer, mints no more. The next member takes its place.
func TestFetcherInDeletion(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("fetcher", legacy)
	value := w.eventuallyReady("fetcher")
	w.createToken("younger", legacy)
	w.eventuallyReady("younger")
	w.update("fetcher", func(t *v1alpha1.WeChatAppToken) { t.Finalizers = []string{"example.com/stays"} })
	w.must(w.Delete(w.Context(), w.token("fetcher")))
	w.advance(2*time.Hour - time.Minute)
	w.eventuallyAnother("younger", value)
	w.update("fetcher", func(t *v1alpha1.WeChatAppToken) { t.Finalizers = nil })
}

// Two operators that both think that they lead, because one was stopped past its lease, mint once for each rotation: who
// finds the other's mark lets it finish.
func TestTwoLeadersMintOnce(t *testing.T) {
	w := newWorld(t, func(o *wechattest.Options) { o.Life = 40 * time.Second })
	value := w.ready(v1alpha1.ModeLegacy)
	w.startOperator() // now, because both might make the first token: there is no Secret to mark
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Delay: time.Second})
	before := len(w.wechat.Tokens(appID))
	w.advance(21 * time.Second) // beyond half of its life
	w.eventuallyAnother("shop", value)
	w.advance(5 * time.Second)
	w.Consistently(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(before + 1))
}

// Two operators that both make the first token, because there is no Secret to mark yet, cannot know which mint was the later one.
// Who finds the other's Secret mints once more, so that it holds a token that lives on.
func TestTwoLeadersMintTheFirstToken(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.startOperator()
	// The first mint is answered last, so its token is the one that is written over the other's.
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, DelayAnswer: 1500 * time.Millisecond, Times: 1})
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, DelayAnswer: 200 * time.Millisecond, Times: 1})
	w.createCredentials(appSecret)
	w.createToken("shop", legacy)
	w.eventuallyReady("shop")
	newest := func() string {
		tokens := w.wechat.Tokens(appID)
		return tokens[len(tokens)-1].Token
	}
	w.Eventually(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.BeNumerically(">=", 2))
	w.advance(2 * time.Second)
	w.Eventually(func() bool { return w.value("shop") == newest() }).Should(gomega.BeTrue())
	w.Consistently(func() bool { return w.value("shop") == newest() && len(w.wechat.Tokens(appID)) == 3 }).Should(gomega.BeTrue())
}

// Who may edit the fetcher's Secret can make it look as if another leader had written a token there, a moment from now. WeChat refuses
// it, and the fetcher takes the token that its neighbours hold: a mint, and another one because the first seems to be older, would end
// that.
func TestForgedTokenFromTheFuture(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("fetcher", legacy)
	value := w.eventuallyReady("fetcher")
	w.createToken("neighbour", legacy)
	w.eventuallyReady("neighbour")
	w.writeAsAnotherLeader("fetcher", "a-lie-in-good-order", w.clock.now().Add(time.Hour))
	w.Eventually(func() string { return w.value("fetcher") }).Should(gomega.Equal(value))
	w.Consistently(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(1))
}

// A neighbour with the same AppSecret that uses up the pace of mints, and fills its own Secret with lies, does not keep a
// member from a token that another one holds.
func TestUsedUpPaceKeepsNobodyFromACopy(t *testing.T) {
	w := newWorld(t)
	there := *w
	there.namespace = w.newNamespace()
	w.startOperator(there.namespace)
	w.createCredentials(appSecret)
	there.createCredentials(appSecret)
	there.createToken("liar", legacy)
	value := there.eventuallyReady("liar")
	w.createToken("shop", legacy)
	w.eventuallyReady("shop")
	for i := range 2 { // the bucket holds three
		w.wechat.RivalMint(appID)
		w.wechat.RivalMint(appID)
		w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, i)
		w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal(fmt.Sprint(i)))
		w.advance(11 * time.Second) // the second refusal ends a new token
		value = w.eventuallyAnother("shop", value)
	}
	there.Eventually(func() string { return there.value("liar") }).Should(gomega.Equal(value))
	lie := func() {
		there.updateSecret("liar", func(s *corev1.Secret) { s.Data["access_token"] = []byte("a lie") })
	}
	for end := w.clock.now().Add(30 * time.Second); there.condition("liar", v1alpha1.ConditionReady).Reason != v1alpha1.ReasonTargetContested; {
		if w.clock.now().After(end) {
			t.Fatal("nobody noticed that a Secret is written again and again")
		}
		w.throughout(500*time.Millisecond, lie)
	}

	w.createToken("late", legacy)
	w.Eventually(func() string {
		lie()
		return w.condition("late", v1alpha1.ConditionReady).Reason
	}).Should(gomega.Equal(v1alpha1.ReasonTokenValid))
	if got := w.value("late"); got != value {
		t.Error("the late member holds another token than the others")
	}
	if n := w.calls(wechattest.EndpointLegacy); n != 3 {
		t.Errorf("%d mints, want 3", n)
	}
}
