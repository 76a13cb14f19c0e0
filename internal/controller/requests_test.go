// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

func (w *world) handled(name string) v1alpha1.HandledRequests {
	w.Helper()
	if h := w.token(name).Status.HandledRequests; h != nil {
		return *h
	}
	return v1alpha1.HandledRequests{}
}

func (w *world) forcedCalls() (n int) {
	for _, c := range w.wechat.Calls(wechattest.Filter{Endpoint: wechattest.EndpointStable}) {
		if c.Forced {
			n++
		}
	}
	return n
}

// A value that came with the resource is a replay by GitOps or a backup: recorded, not carried out.
func TestRequestsThatCameWithTheResource(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable, annotated(v1alpha1.AnnotationRefreshRequestedAt, "old"), annotated(v1alpha1.AnnotationRevokeRequestedAt, "old"))
	w.Eventually(func() v1alpha1.HandledRequests { return w.handled("shop") }).
		Should(gomega.Equal(v1alpha1.HandledRequests{Refresh: "old", Revoke: "old"}))
	if n := w.forcedCalls(); n != 0 {
		t.Errorf("%d forced calls", n)
	}
	if events := w.events("shop"); len(events) != 0 {
		t.Errorf("events: %v", events)
	}
}

// A refresh replaces the token once for each value, and leaves the one before alive for those who still use it.
func TestRefreshRequest(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)
	o := w.operators.last
	before := w.token("shop").Status
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.eventuallyAnother("shop", value)
	w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal("1"))
	if !w.wechat.Valid(value) {
		t.Error("one forced refresh killed the token that pods still use")
	}
	if n := len(w.token("shop").Status.ForcedRefreshes); n != 1 {
		t.Errorf("%d forced refreshes in the status", n)
	}
	w.Eventually(func() []string { return w.events("shop") }).Should(gomega.ConsistOf(v1alpha1.EventRequestedRefresh))

	// A restart does not force again, even if the status was not written.
	o.stop()
	t1 := w.token("shop")
	t1.Status = before
	w.must(w.Client.Status().Update(w.Context(), t1))
	w.startOperator()
	w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "1"))
	w.Eventually(func() v1alpha1.HandledRequests { return w.handled("shop") }).
		Should(gomega.Equal(v1alpha1.HandledRequests{Check: "1", Refresh: "1"}))
	if n := w.forcedCalls(); n != 1 {
		t.Errorf("%d forced calls, want 1", n)
	}
}

// A value that is too long for the status is no reason to write none.
func TestLongRequestThatCameWithTheResource(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable, annotated(v1alpha1.AnnotationRefreshRequestedAt, strings.Repeat("x", 65)), annotated(v1alpha1.AnnotationCheckRequestedAt, "old"))
	if got := w.handled("shop"); got != (v1alpha1.HandledRequests{Check: "old"}) {
		t.Errorf("handled: %+v", got)
	}
	if n := w.forcedCalls(); n != 0 {
		t.Errorf("%d forced calls", n)
	}
}

// When the answer to a forced call gets lost, the token in the Secret may live for five more minutes: WeChat is asked soon.
func TestForcedCallWhoseAnswerIsLost(t *testing.T) {
	for kind, annotation := range map[string]string{"refresh": v1alpha1.AnnotationRefreshRequestedAt, "revoke": v1alpha1.AnnotationRevokeRequestedAt} {
		t.Run(kind, func(t *testing.T) {
			w, value := readyWorld(t, v1alpha1.ModeStable, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour })
			if kind == "refresh" {
				w.wechat.Inject(wechattest.Fault{DelayAnswer: time.Millisecond, Times: 1}) // it asks before it forces
			}
			w.wechat.Inject(wechattest.Fault{Cut: wechattest.CutAfter, Times: 1})
			w.update("shop", annotated(annotation, "1"))
			w.eventuallyAnother("shop", value)
			if n := w.forcedCalls(); n != 1 {
				t.Errorf("%d forced calls", n)
			}
		})
	}
}

// If WeChat has another token already, a refresh only fetches it: two forced calls in a row would be a revoke.
func TestRefreshRequestAfterSomebodyElses(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)
	w.wechat.RivalForceRefresh(appID)
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.eventuallyAnother("shop", value)
	w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal("1"))
	if n := w.forcedCalls(); n != 0 {
		t.Errorf("%d forced calls", n)
	}
}

// A forced call too soon after somebody else's replaces nothing, and is not told as if it had.
func TestRefreshRequestThatForcesNothing(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)
	w.wechat.RivalForceRefresh(appID)
	w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "1"))
	rivals := w.eventuallyAnother("shop", value)
	w.settle() // until the status tells it too: a status that is behind looks like a lost answer
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal("1"))
	if w.value("shop") != rivals || w.forcedCalls() != 1 {
		t.Errorf("%d forced calls", w.forcedCalls())
	}
	w.Eventually(func() []string { return w.notes("shop", v1alpha1.EventRequestedRefresh) }).
		Should(gomega.ConsistOf(gomega.HavePrefix("Warning: WeChat returned the same token")))
}

// Each request has an event with its own outcome, although Kubernetes counts events that are alike.
func TestOutcomesOfRequests(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable)
	check := func(value string) {
		w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, value))
		w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal(value))
	}
	for i, errcode := range []int{40164, 40243} {
		w.wechat.ClearFaults()
		w.wechat.Inject(wechattest.Fault{Errcode: errcode})
		check(fmt.Sprint("failing-", i))
	}
	w.wechat.ClearFaults()
	check("well")
	w.Eventually(func() []string { return w.notes("shop", v1alpha1.EventRequestedCheck) }).Should(gomega.ConsistOf(
		gomega.And(gomega.HavePrefix("Warning: "), gomega.ContainSubstring("does not allow calls from")),
		gomega.And(gomega.HavePrefix("Warning: "), gomega.ContainSubstring("AppSecret is frozen")),
		"Normal: WeChat was asked about the stored token",
	))
	w.Eventually(func() []string { return w.notes("shop", v1alpha1.EventRefreshFailed) }).Should(gomega.HaveLen(2))
}

// notes are type and note of the events about a resource that have a reason.
func (w *world) notes(name, reason string) []string {
	w.Helper()
	list := &eventsv1.EventList{}
	w.must(w.List(w.Context(), list, client.InNamespace(w.namespace)))
	var out []string
	for _, e := range list.Items {
		if e.Regarding.Name == name && e.Reason == reason {
			out = append(out, e.Type+": "+e.Note)
		}
	}
	return out
}

// A forced refresh by somebody else is noticed by the next check.
func TestForcedRefreshBySomebodyElse(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable)
	rivals := w.wechat.RivalForceRefresh(appID)
	w.advance(40 * time.Second)
	w.Eventually(func() string { return w.value("shop") }).Should(gomega.Equal(rivals.Token))
	w.eventuallyReady("shop")
}

// A revoke kills the leaked token by two forced calls at least 30 s apart, also when the operator restarts between them.
func TestRevokeRequest(t *testing.T) {
	w, leaked := readyWorld(t, v1alpha1.ModeStable)
	o := w.operators.last
	asked := w.clock.now()
	w.update("shop", annotated(v1alpha1.AnnotationRevokeRequestedAt, "leak"))
	between := w.eventuallyAnother("shop", leaked)
	o.stop()
	w.startOperator()
	if !w.lapse(time.Minute, func() bool { return !w.wechat.Valid(leaked) }) {
		t.Error("the leaked token is still valid after a minute")
	}
	if took := w.clock.now().Sub(asked); took > 40*time.Second {
		t.Errorf("the leaked token was refused after %s", took)
	}
	w.Eventually(func() string { return w.handled("shop").Revoke }).Should(gomega.Equal("leak"))
	last := w.eventuallyReady("shop")
	if last == between || last == leaked {
		t.Error("the Secret does not hold a third token")
	}
	if n := w.forcedCalls(); n != 2 {
		t.Errorf("%d forced calls, want 2", n)
	}
	if n := len(w.token("shop").Status.ForcedRefreshes); n != 2 {
		t.Errorf("%d forced refreshes in the status", n)
	}
	if got := w.token("shop").Status.Revocation; got != nil {
		t.Errorf("the status speaks of a revoke that is done: %+v", got)
	}
	w.Eventually(func() []string { return w.events("shop") }).Should(gomega.ConsistOf(v1alpha1.EventRequestedRevoke))
}

// The first call of a revoke was noted by a process whose clock ran ahead. The second one keeps its distance all the same, because
// WeChat does not take a forced call that follows another one within 30 s.
func TestRevokeNotedByAClockAhead(t *testing.T) {
	w, leaked := readyWorld(t, v1alpha1.ModeStable)
	o := w.operators.last
	w.update("shop", annotated(v1alpha1.AnnotationRevokeRequestedAt, "leak"))
	w.eventuallyAnother("shop", leaked)
	w.Eventually(func() bool { r := w.token("shop").Status.Revocation; return r != nil && r.FirstForcedTime != nil }).Should(gomega.BeTrue())
	o.stop()
	token := w.token("shop")
	ahead := metav1.NewTime(w.clock.now().Add(20 * time.Second))
	token.Status.Revocation.FirstForcedTime, token.Status.ForcedRefreshes = &ahead, []metav1.Time{ahead}
	w.must(w.Client.Status().Update(w.Context(), token))
	w.startOperator()
	if w.lapse(20*time.Second, func() bool { return w.forcedCalls() > 1 }) {
		t.Error("the second call was made within 30 s of the first one")
	}
	if !w.lapse(time.Minute, func() bool { return !w.wechat.Valid(leaked) }) || w.forcedCalls() != 2 {
		t.Errorf("the leaked token lives after %d forced calls", w.forcedCalls())
	}
}

// A revoke in Legacy mode is two mints, whichever member of the account is asked for it, also when the operator restarts
// between them.
func TestRevokeRequestLegacy(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("fetcher", legacy)
	leaked := w.eventuallyReady("fetcher")
	w.createToken("shop", legacy)
	w.eventuallyReady("shop")
	w.update("shop", annotated(v1alpha1.AnnotationRevokeRequestedAt, "leak"))
	between := w.eventuallyAnother("shop", leaked)
	w.Eventually(func() string { return w.value("fetcher") }).Should(gomega.Equal(between))
	o.stop()
	w.startOperator()
	if !w.lapse(time.Minute, func() bool { return !w.wechat.Valid(leaked) }) {
		t.Error("the leaked token is still valid after a minute")
	}
	last := w.eventuallyAnother("shop", between)
	w.Eventually(func() string { return w.handled("shop").Revoke }).Should(gomega.Equal("leak"))
	w.Eventually(func() string { return w.value("fetcher") }).Should(gomega.Equal(last))
	w.Consistently(func() int { return len(w.wechat.Tokens(appID)) }).Should(gomega.Equal(3))
}

// After a restart a new member of a Legacy account gets its token at once, even if the fetcher has to mint it first.
func TestLegacyFetcherIsAskedAfterARestart(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("fetcher", legacy)
	w.eventuallyReady("fetcher")
	o.stop()
	w.updateSecret("fetcher", func(s *corev1.Secret) { s.Data["access_token"] = []byte("not-a-token") })
	w.startOperator()
	w.createToken("shop", legacy)
	w.eventuallyReady("shop")
}

// Each value makes one attempt, through any back-off, and its outcome is told.
func TestRequestThatFails(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)
	w.wechat.Inject(wechattest.Fault{Errcode: 40243})
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal("1"))
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionRefreshFailing).Reason }).
		Should(gomega.Equal(v1alpha1.ReasonAppSecretFrozen))
	w.Eventually(func() []string { return w.events("shop") }).Should(gomega.ContainElement(v1alpha1.EventRequestedRefresh))
	// Who reads the log finds the other lines of the pass, and what WeChat's support asks for.
	line := regexp.MustCompile(`msg="the attempt failed" .*namespace=` + w.namespace + ` name=shop reconcileID=[0-9a-f-]{36} .*requestID=` +
		regexp.QuoteMeta(w.token("shop").Status.LastError.RequestID) + ` `)
	if !line.MatchString(w.logs.String()) || w.token("shop").Status.LastError.RequestID == "" {
		t.Errorf("no line of the log is like %s", line)
	}
	w.wechat.ClearFaults()
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "2"))
	w.eventuallyAnother("shop", value)
	w.Eventually(func() metav1.Condition { return w.condition("shop", v1alpha1.ConditionRefreshFailing) }).Should(gomega.BeZero())
}

// A value that is too long is refused in the status, not carried out.
func TestRequestWithALongValue(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable)
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, strings.Repeat("x", 65)))
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionReady).Message }).
		Should(gomega.ContainSubstring("longer than 64 characters"))
	if n := w.forcedCalls(); n != 0 {
		t.Errorf("%d forced calls", n)
	}
}

// A check that was asked for makes one attempt in an outage, and one without a token to check gets one, through the
// back-off.
func TestCheckRequestThatFails(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.wechat.Inject(wechattest.Fault{Errcode: 40164})
			w.startOperator()
			w.createCredentials(appSecret)
			w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.eventuallyReason("shop", v1alpha1.ReasonIPNotAllowed)
			// After 5 s and 15 s the next attempt is minutes away.
			w.advance(30 * time.Second)
			w.Eventually(func() int32 { return w.token("shop").Status.LastError.Attempts }).Should(gomega.BeNumerically(">=", 3))
			calls := w.wechat.Count(wechattest.Filter{})
			w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "1"))
			w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal("1"))
			w.Consistently(func() int { return w.wechat.Count(wechattest.Filter{}) }).Should(gomega.Equal(calls + 1))
			w.wechat.ClearFaults()
			w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "2"))
			w.eventuallyReady("shop")
		})
	}
}

// Who has repaired what kept the operator from minting asks for a check, as the runbooks say, and the token that has expired meanwhile, or is
// about to, is replaced. An answer about the old one would help nobody. That holds after a restart too, which ends no back-off.
func TestCheckRequestAfterARepair(t *testing.T) {
	for name, test := range map[string]struct {
		errcode int
		lead    time.Duration // to the end of the token; negative after it
		restart bool
	}{
		"quota, expired":           {45009, -3 * time.Minute, false},
		"quota, about to expire":   {45009, 3 * time.Minute, false},
		"frozen, expired":          {40243, -3 * time.Minute, false},
		"frozen, expired, restart": {40243, -3 * time.Minute, true},
		"about to expire, restart": {45009, 3 * time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, old := readyWorld(t, v1alpha1.ModeLegacy, hourly)
			end := w.token("shop").Status.Token.ExpirationTime.Time
			w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Errcode: test.errcode})
			w.advance(end.Add(-test.lead).Sub(w.clock.now()))
			if test.restart {
				w.operators.last.stop()
				w.startOperator()
				w.advance(time.Second)
			}
			w.wechat.ClearFaults()
			w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, 1)
			w.eventuallyAnother("shop", old)
			w.eventuallyReady("shop")
			w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal("1"))
			if n := len(w.wechat.Tokens(appID)); n != 2 {
				t.Errorf("%d tokens were minted, want 2", n)
			}
		})
	}
}
