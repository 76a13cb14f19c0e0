// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// wants fails the test unless a command ended with the exit code and printed all texts.
func (w *world) wants(r result, code int, texts ...string) {
	w.Helper()
	if r.code != code {
		w.Errorf("exit code %d, want %d:\n%s%s", r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			w.Errorf("no %q in:\n%s%s", text, r.out, r.err)
		}
	}
}

func TestCheckAndRefresh(t *testing.T) {
	w := newWorld(t, "request")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	first := w.value("shop")

	w.wants(w.wxtoken("check", "shop"), exitOK, "shop: the token in Secret shop-token is the right one (")
	if w.value("shop") != first {
		t.Error("a check replaced the token")
	}
	w.wants(w.wxtoken("refresh", "wxtoken/shop"), exitOK, "shop: token replaced; Secret shop-token holds the new one (")
	second := w.value("shop")
	if second == first || !w.wechat.Valid(second) {
		t.Error("the Secret does not hold a new valid token")
	}
	rivals := w.wechat.RivalForceRefresh(w.appID)
	w.wants(w.wxtoken("check", "shop"), exitOK, "shop: WeChat had another token; Secret shop-token holds it now (")
	if w.value("shop") != rivals.Token {
		t.Error("the Secret does not hold the token that WeChat has")
	}
	// A third check within minutes has no event of its own.
	w.wants(w.wxtoken("check", "shop"), exitOK, "is the right one")
	w.wants(w.wxtoken("check", "shop", "--wait=false"), exitOK, "shop: check requested. This shows the outcome:\n  kubectl wxtoken status shop -n "+w.namespace+"\n")
	w.wants(w.wxtoken("status", "shop"), exitOK, "a new token was forced", "forced calls   1 of the 20", "refresh", "processed")
}

// TestRefreshWaitsForTheLimits checks that a refresh within 31 s of another one waits, and that the command says so.
func TestRefreshWaitsForTheLimits(t *testing.T) {
	w := newWorld(t, "request-limits")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	w.ok("refresh", "shop")
	r := w.wxtoken("refresh", "shop", "--timeout=6s")
	w.wants(r, exitTimeout, "shop: waiting: WeChat's limits (31s between forced calls, 20 in 24 hours) allow it in 2", "shop: no refresh within 6s")
	w.wants(w.wxtoken("status", "shop"), exitOK, "waits until ", "UTC: WeChat's limits (31s between forced calls, 20 in 24 hours)")
	w.wants(w.wxtoken("revoke", "shop", "--wait=false", "--yes"), exitOK, "1 of 20 of the last 24 hours are used, this takes 2", "begins         in 2")
}

// TestRequestsThatFail checks that a command whose request fails exits with an error that says what to do.
func TestRequestsThatFail(t *testing.T) {
	w := newWorld(t, "request-fails")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	before := w.value("shop")
	w.wechat.Inject(wechattest.Fault{Errcode: 40164})
	w.wants(w.wxtoken("check", "shop"), exitBad, "allowlist", "Once that is repaired:\n  kubectl wxtoken check shop -n "+w.namespace+"\n")
	w.wants(w.wxtoken("refresh", "shop"), exitBad, "allowlist", "Once that is repaired:\n  kubectl wxtoken refresh shop -n "+w.namespace+"\n")
	w.wants(w.wxtoken("revoke", "shop", "--yes"), exitBad, "allowlist", "Once that is repaired:\n  kubectl wxtoken revoke shop -n "+w.namespace+"\n")
	w.wants(w.wxtoken("list"), exitOK, "RefreshFailing", "IPNotAllowed", "retry in ")
	w.wants(w.wxtoken("status", "shop"), exitOK, "The token works for another 1h", "errcode 40164", "the operator tries again")
	if w.value("shop") != before {
		t.Error("a failure changed the Secret")
	}
}

// TestRequestsThatAreRefused checks that a request which the operator would not carry out is not made, and that the message says what
// to do instead.
func TestRequestsThatAreRefused(t *testing.T) {
	w := newWorld(t, "request-refused")
	w.createToken("paused", func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = true })
	w.createTokenOnly("empty")
	w.eventuallyState("paused", stateSuspended, v1alpha1.ReasonTokenNotIssued)
	w.eventuallyState("empty", stateReconciling, v1alpha1.ReasonCredentialsNotFound)
	for _, kind := range []string{"check", "refresh", "revoke"} {
		w.wants(w.wxtoken(kind, "paused"), exitFailed, "paused is suspended, so no "+kind+" is made", "kubectl wxtoken resume paused")
		w.wants(w.wxtoken(kind, "nobody"), exitFailed, `has no WeChatAppToken "nobody"`, "kubectl wxtoken list")
		w.wants(w.wxtoken(kind), exitUsage, "This shows their names:\n  kubectl wxtoken list -n "+w.namespace+"\n")
		w.wants(w.wxtoken(kind, "secret/paused"), exitUsage, `"secret/paused" is not a WeChatAppToken`)
	}
	w.wants(w.wxtoken("revoke", "empty"), exitFailed, "empty has no token to revoke")
	w.wants(w.wxtoken("revoke", "paused", "empty"), exitUsage, "name one WeChatAppToken")
	if a := w.token("paused").Annotations; len(a) != 0 {
		t.Errorf("annotations: %v", a)
	}
	w.wants(w.wxtoken("check", "empty", "--timeout=1s"), exitTimeout, "no check within 1s", "CredentialsNotFound")
}

// TestSeveralRequests checks that one refused request does not stop the others.
func TestSeveralRequests(t *testing.T) {
	w := newWorld(t, "request-several")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	w.wants(w.wxtoken("check", "nobody", "shop"), exitFailed, "shop: the token in Secret shop-token is the right one", "nobody")
	// Nor does one that takes all the time.
	w.createTokenOnly("empty")
	w.eventuallyState("empty", stateReconciling, v1alpha1.ReasonCredentialsNotFound)
	w.wants(w.wxtoken("check", "empty", "shop", "--timeout=15s"), exitTimeout, "empty: no check within 15s",
		"shop: the token in Secret shop-token is the right one")
	w.wants(w.wxtoken("wait", "empty", "shop", "--timeout=1s"), exitTimeout, "empty: no valid token within 1s",
		"shop: Secret shop-token holds a token")
}

// TestPatience checks that what is read after the time of a command is over ends with Ctrl-C, and soon.
func TestPatience(t *testing.T) {
	parent, interrupt := context.WithCancel(t.Context())
	ctx, late, end := withPatience(parent, time.Millisecond)
	defer end()
	<-ctx.Done()
	last := reading(ctx, late)
	if until, limited := last.Deadline(); last.Err() != nil || !limited || time.Until(until) > lastLook {
		t.Errorf("a last look: %v, until %s", last.Err(), until)
	}
	if interrupt(); last.Err() != context.Canceled {
		t.Errorf("after Ctrl-C: %v", last.Err())
	}
}

// TestLimitsOfLegacyMode checks that a request which waits for a limit of Legacy mode says so.
func TestLimitsOfLegacyMode(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	r := &v1alpha1.WeChatAppToken{}
	r.Spec.Mode = v1alpha1.ModeLegacy
	r.Status.Token = &v1alpha1.TokenStatus{IssueTime: metav1.NewTime(now.Add(-time.Minute))}
	l := lookAt(r, now)
	if got := l.whyNot(refresh.RequestRefresh); !strings.Contains(got, "the limits of Legacy mode (5m30s after the last mint, 20 on request in 24 hours) allow it in 4m30s") {
		t.Error(got)
	}
	for kind, wait := range map[refresh.RequestKind]time.Duration{
		refresh.RequestRefresh: 270 * time.Second, refresh.RequestRevoke: 0, refresh.RequestCheck: 0,
	} {
		if at := l.allowedAt(kind); max(0, at.Sub(now)) != wait {
			t.Errorf("%s is allowed at %s", kind, at)
		}
	}
	for range refresh.ForcedPerDay {
		r.Status.ForcedRefreshes = append(r.Status.ForcedRefreshes, metav1.NewTime(now.Add(-time.Hour-time.Duration(len(r.Status.ForcedRefreshes))*time.Minute)))
	}
	if at := lookAt(r, now).allowedAt(refresh.RequestRevoke); at.Before(now.Add(time.Hour)) {
		t.Errorf("without a budget, a revoke is allowed at %s", at)
	}
}

// TestBudget checks that the forced calls of all Stable resources with the appid count, those of Legacy resources and of yesterday do
// not, and that revoke says when two more are allowed.
func TestBudget(t *testing.T) {
	w := newBareWorld(t, "budget")
	forced := func(name string, n int, ago time.Duration, mutate ...func(*v1alpha1.WeChatAppToken)) {
		t.Helper()
		w.createTokenOnly(name, mutate...)
		r := w.token(name)
		now := metav1.Now()
		r.Status = v1alpha1.WeChatAppTokenStatus{
			ObservedGeneration: 1,
			Token:              &v1alpha1.TokenStatus{Mode: r.Spec.Mode, IssueTime: now, ExpirationTime: metav1.NewTime(now.Add(time.Hour)), Fingerprint: "0123456789abcdef"},
			Conditions: []metav1.Condition{{
				Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonTokenValid, LastTransitionTime: now,
			}},
		}
		for i := range n {
			r.Status.ForcedRefreshes = append(r.Status.ForcedRefreshes, metav1.NewTime(now.Add(-ago+time.Duration(i)*time.Minute)))
		}
		w.must(w.Client.Status().Update(w.Context(), r))
	}
	forced("shop", 3, 20*time.Hour)
	w.wants(w.answer("n\n", "revoke", "shop"), exitUsage, "3 of 20 of the last 24 hours are used, this takes 2")
	if r := w.answer("n\n", "revoke", "shop"); strings.Contains(r.out, "begins") {
		t.Errorf("there is room for two:\n%s", r.out)
	}
	forced("same-app", 16, 10*time.Hour)
	forced("yesterday", 5, 30*time.Hour)
	forced("legacy", 5, time.Hour, func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = v1alpha1.ModeLegacy })
	forced("other-app", 5, time.Hour, func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = otherAppID })
	// The oldest of the 19 stops to count in four hours.
	w.wants(w.answer("n\n", "revoke", "shop"), exitUsage, "19 of 20 of the last 24 hours are used, this takes 2", "begins         in 3h59m")
	if r := w.token("shop"); len(r.Annotations) > 0 {
		t.Errorf("annotations: %v", r.Annotations)
	}
}

// TestRefreshThatForcesNothing checks that a refresh fails if WeChat answers a forced call with the same token.
func TestRefreshThatForcesNothing(t *testing.T) {
	w := newWorld(t, "request-nothing")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	w.wechat.RivalForceRefresh(w.appID)
	w.wants(w.wxtoken("check", "shop"), exitOK, "WeChat had another token")
	w.wants(w.wxtoken("refresh", "shop"), exitBad, "shop: WeChat returned the same token")
	w.wants(w.wxtoken("status", "shop"), exitOK, "RequestedRefresh: WeChat returned the same token")
}

func TestRevokeAsks(t *testing.T) {
	w := newWorld(t, "revoke-asks")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	w.wants(w.answer("n\n", "revoke", "shop"), exitUsage, "End this token of "+w.namespace+"/shop? [y/N]", "the answer was not yes, so nothing was done")
	w.wants(w.answer("\n", "revoke", "shop"), exitUsage, "nothing was done")
	w.wants(w.wxtoken("revoke", "shop"), exitUsage, "nobody answered, so nothing was done; a script must pass --yes")
	if a := w.token("shop").Annotations; len(a) != 0 {
		t.Errorf("annotations: %v", a)
	}
}

// TestRevoke checks that the leaked token is dead within 35 s of the command, and that the Secret holds the new one.
func TestRevoke(t *testing.T) {
	w := newWorld(t, "revoke")
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	leaked := w.value("shop")
	started := time.Now()
	r := w.answer("yes\n", "revoke", "shop")
	took := time.Since(started)
	w.wants(r, exitOK)
	if w.wechat.Valid(leaked) {
		t.Error("WeChat still accepts the leaked token")
	}
	now := w.value("shop")
	if now == leaked || !w.wechat.Valid(now) {
		t.Error("the Secret does not hold a new valid token")
	}
	var forced []time.Time
	for _, c := range w.wechat.Calls(wechattest.Filter{Endpoint: wechattest.EndpointStable}) {
		if c.Forced {
			forced = append(forced, c.At)
		}
	}
	if len(forced) != 2 || forced[1].Sub(forced[0]) < 30*time.Second {
		t.Errorf("forced calls at %v", forced)
	}
	t.Logf("the command took %s; the second forced call came %s after it began", took, forced[1].Sub(started))
	if died := forced[1].Sub(started); died > 35*time.Second {
		t.Errorf("the leaked token died after %s", died)
	}
	out := regexp.MustCompile(`(?m)^ *\d+\.\d s`).ReplaceAllString(r.out, "  ss.s s")
	out = regexp.MustCompile(`\dh\d\dm\d\ds`).ReplaceAllString(out, "HhMMmSSs")
	w.golden("revoke.txt", out)
	w.wants(w.wxtoken("status", "shop"), exitOK, "RequestedRevoke", "forced calls   2 of the 20")
}
