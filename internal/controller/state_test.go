// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestStates(t *testing.T) {
	s := newStates()
	resource := resourceNamed("shop", v1alpha1.ModeStable)
	if s.find(named("shop")) != nil || s.drop(named("shop")) != nil {
		t.Error("a state before the first pass")
	}
	first, discarded := s.of(resource)
	if discarded != nil || first.uid != "shop" {
		t.Errorf("%+v, in place of %v", first, discarded)
	}
	if again, discarded := s.of(resource); again != first || discarded != nil || s.find(named("shop")) != first {
		t.Error("the same resource has another state")
	}
	if other, _ := s.of(resourceNamed("other", v1alpha1.ModeStable)); other == first {
		t.Error("two resources share a state")
	}
	// A resource that takes the name of another one does not get its state.
	successor := resource.DeepCopy()
	successor.UID = "successor"
	second, discarded := s.of(successor)
	if second == first || discarded != first || s.find(named("shop")) != second {
		t.Errorf("it replaces %v", discarded)
	}
	if s.drop(named("shop")) != second || s.find(named("shop")) != nil || s.drop(named("shop")) != nil {
		t.Error("a state that was dropped is there")
	}
	if len(s.byName) != 1 {
		t.Errorf("%d states are left", len(s.byName))
	}
}

// A resource that takes the name of another one ends the other's membership of its account.
func TestDiscardedStateLeavesItsAccount(t *testing.T) {
	p := unitPass(t, v1alpha1.ModeLegacy)
	if !p.accounts.Knows(v1alpha1.ModeLegacy, unitAppID) {
		t.Fatal("it has no account")
	}
	successor := p.resource.DeepCopy()
	successor.UID = "successor"
	_, discarded := p.states.of(successor)
	if p.leaveAccount(discarded); p.accounts.Knows(v1alpha1.ModeLegacy, unitAppID) || discarded.membership.account != nil {
		t.Error("it is still a member")
	}
	p.leaveAccount(discarded)
	p.leaveAccount(nil)
	q := unitPass(t, v1alpha1.ModeLegacy)
	if q.forget(named("shop")); q.accounts.Knows(v1alpha1.ModeLegacy, unitAppID) || q.states.find(named("shop")) != nil {
		t.Error("a resource that is gone is remembered")
	}
	q.forget(named("shop"))
}

// Of two tokens, the one that WeChat issued later is kept, whichever comes last.
func TestPending(t *testing.T) {
	issued := func(ago time.Duration) *pendingToken {
		return &pendingToken{Token: token.Token{IssuedAt: unitNow.Add(-ago)}}
	}
	older, first, same, second := issued(5*time.Second), issued(0), issued(0), issued(-time.Second)
	s := &resourceState{}
	expect := func(step string, want *pendingToken) {
		t.Helper()
		if got := s.pendingNow(); got != want {
			t.Errorf("%s: %v is pending, want %v", step, got, want)
		}
	}
	expect("nothing", nil)
	s.take(first)
	s.noteRead()
	expect("nothing to take", nil)
	s.give(first)
	expect("the first", first)
	s.give(older)
	expect("an older one", first)
	s.give(same)
	expect("one of the same moment", same)
	if s.noteRead(); !same.readSinceIssued || first.readSinceIssued {
		t.Error("the read of the Secret is noted for another token")
	}
	writing := s.pendingNow()
	s.give(second)
	s.take(writing)
	expect("one that came during the write", second)
	if second.readSinceIssued {
		t.Error("a token that came after the read was read before")
	}
	s.take(second)
	expect("all written", nil)
}

// What a status says of a resource is all that the next process knows.
func TestNewState(t *testing.T) {
	long := string(make([]byte, v1alpha1.RequestValueMaxLength+1))
	forced := metav1.NewTime(ago(time.Hour).In(time.FixedZone("CST", 8*3600)))
	asked := func(r *v1alpha1.WeChatAppToken) {
		r.Annotations = map[string]string{
			v1alpha1.AnnotationCheckRequestedAt: "c", v1alpha1.AnnotationRefreshRequestedAt: "r", v1alpha1.AnnotationRevokeRequestedAt: "k",
		}
	}
	seen := func(r *v1alpha1.WeChatAppToken) { r.Status.ObservedGeneration = 1 }
	for name, test := range map[string]struct {
		edits   []func(*v1alpha1.WeChatAppToken)
		handled v1alpha1.HandledRequests
		wants   bool // all requests are carried out
	}{
		"a new resource":             {nil, v1alpha1.HandledRequests{}, false},
		"requests that came with it": {[]func(*v1alpha1.WeChatAppToken){asked}, v1alpha1.HandledRequests{Check: "c", Refresh: "r", Revoke: "k"}, false},
		"requests that came since":   {[]func(*v1alpha1.WeChatAppToken){asked, seen}, v1alpha1.HandledRequests{}, true},
		"requests that another process made": {[]func(*v1alpha1.WeChatAppToken){asked, seen, func(r *v1alpha1.WeChatAppToken) {
			r.Status.HandledRequests = &v1alpha1.HandledRequests{Check: "c", Refresh: "r", Revoke: "k"}
		}}, v1alpha1.HandledRequests{Check: "c", Refresh: "r", Revoke: "k"}, false},
		"a value too long for a status": {[]func(*v1alpha1.WeChatAppToken){asked, func(r *v1alpha1.WeChatAppToken) {
			r.Annotations[v1alpha1.AnnotationCheckRequestedAt] = long
		}}, v1alpha1.HandledRequests{Refresh: "r", Revoke: "k"}, false},
	} {
		resource := resourceNamed("shop", v1alpha1.ModeStable)
		for _, e := range test.edits {
			e(resource)
		}
		s := newState(resource)
		if s.progress.Handled != test.handled {
			t.Errorf("%s: handled %+v", name, s.progress.Handled)
		}
		p := &pass{state: s, resource: resource}
		for _, kind := range refresh.RequestKinds() {
			if p.wants(kind) != test.wants {
				t.Errorf("%s: wants %s is %t", name, kind, !test.wants)
			}
		}
	}

	resource := resourceNamed("shop", v1alpha1.ModeStable)
	resource.Status = v1alpha1.WeChatAppTokenStatus{
		ObservedGeneration: 1, CredentialsVersion: "c/7", ForcedRefreshes: []metav1.Time{forced},
		Revocation: &v1alpha1.RevocationStatus{Value: "k", Victim: "f", FirstForcedTime: &forced},
		LastError:  &v1alpha1.RefreshError{Reason: v1alpha1.ReasonRateLimited},
	}
	s := newState(resource)
	if s.uid != "shop" || s.credentials.accepted != "c/7" || s.told != token.Limited || s.failure == nil {
		t.Errorf("%+v", s)
	}
	if got := s.progress.Forced; len(got) != 1 || !got[0].Equal(ago(time.Hour)) || got[0].Location() != time.UTC {
		t.Errorf("forced: %v", got)
	}
	if !reflect.DeepEqual(s.progress.Revocation, resource.Status.Revocation) || s.progress.Revocation == resource.Status.Revocation {
		t.Errorf("the revoke: %+v", s.progress.Revocation)
	}
	if s.stored != nil || s.verdict.UID != "" || s.pendingNow() != nil {
		t.Error("a status is taken for proof of what the Secret holds")
	}
}

func TestRecallFailure(t *testing.T) {
	at, retry := metav1.NewTime(ago(time.Minute).Truncate(time.Second)), metav1.NewTime(unitNow.Add(time.Hour).Truncate(time.Second))
	of := func(reason string, attempts int32) *v1alpha1.RefreshError {
		return &v1alpha1.RefreshError{
			Code: 40164, Reason: reason, Message: "what WeChat said", RequestID: "rid", Time: at, RetryTime: &retry, Attempts: attempts,
			Generation: 3, CredentialsVersion: "c/7",
		}
	}
	if recallFailure(nil) != nil {
		t.Error("a failure out of nothing")
	}
	for name, test := range map[string]struct {
		e     *v1alpha1.RefreshError
		class token.Class
		edit  func(*refresh.Failure) // of what is expected
	}{
		"Action":                        {of(v1alpha1.ReasonIPNotAllowed, 2), token.Action, func(f *refresh.Failure) { f.RetryAt = retry.UTC() }},
		"Limited":                       {of(v1alpha1.ReasonRateLimited, 2), token.Limited, func(f *refresh.Failure) { f.RetryAt = retry.UTC() }},
		"the day's quota":               {of(v1alpha1.ReasonDailyQuotaExhausted, 2), token.Limited, func(f *refresh.Failure) { f.RetryAt = retry.UTC() }},
		"a wait that WeChat named":      {of(v1alpha1.ReasonIPBlocked, 2), token.Limited, func(f *refresh.Failure) { f.RetryAt, f.Named = retry.UTC(), retry.Sub(at.Time) }},
		"Transient: at once":            {of(v1alpha1.ReasonSystemBusy, 2), token.Transient, nil},
		"Unreachable":                   {of(v1alpha1.ReasonUnreachable, 2), token.Transient, nil},
		"a bad answer":                  {of(v1alpha1.ReasonBadResponse, 2), token.Transient, nil},
		"an unknown errcode":            {of(v1alpha1.ReasonRequestRejected, 2), token.Transient, nil},
		"an unknown errcode, often":     {of(v1alpha1.ReasonRequestRejected, 3), token.Action, func(f *refresh.Failure) { f.RetryAt = retry.UTC() }},
		"a refused write":               {of(v1alpha1.ReasonTargetWriteFailed, 2), token.Action, func(f *refresh.Failure) { f.RetryAt, f.OfWrite = retry.UTC(), true }},
		"a reason of another version":   {of("Other", 2), token.Action, func(f *refresh.Failure) { f.RetryAt = retry.UTC() }},
		"a status without a retry time": {func() *v1alpha1.RefreshError { e := of(v1alpha1.ReasonIPNotAllowed, 2); e.RetryTime = nil; return e }(), token.Action, nil},
	} {
		f := recallFailure(test.e)
		want := refresh.Failure{
			Class: test.class, Reason: token.Reason(test.e.Reason), Code: 40164, First: at.UTC(), Time: at.UTC(), Attempts: int(test.e.Attempts),
		}
		if test.edit != nil {
			test.edit(&want)
		}
		if f.Failure != want {
			t.Errorf("%s: %+v, want %+v", name, f.Failure, want)
		}
		if f.Message != "what WeChat said" || f.RequestID != "rid" || f.Generation != 3 || f.CredentialsVersion != "c/7" || f.Account != "" {
			t.Errorf("%s: %+v", name, f)
		}
		if got := classOf(test.e); got != test.class {
			t.Errorf("%s: class %s", name, got)
		}
	}
}

func TestRepairs(t *testing.T) {
	var r repairs
	if !r.notBefore(unitNow).IsZero() || r.contested(unitNow) {
		t.Error("the first repair waits")
	}
	now := unitNow
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		r = r.noted(now)
		var wait time.Duration
		if at := r.notBefore(now); !at.IsZero() {
			wait = at.Sub(now)
		}
		if wait != want*time.Second {
			t.Errorf("repair %d waits %s, want %d s", i+1, wait, want)
		}
		if got, want := r.contested(now), i+1 >= contestedAfter; got != want {
			t.Errorf("contested after %d: %t", i+1, got)
		}
		now = now.Add(wait)
	}
	if r.contested(now.Add(repairCalm + 1)) {
		t.Error("contested although it has been calm")
	}
	if !r.contested(r.last.Add(repairCalm)) {
		t.Error("not contested although it has not been calm for long")
	}
	now = now.Add(repairCalm + 1)
	if r = r.noted(now); !r.notBefore(now).IsZero() {
		t.Error("a repair waits because of long ago")
	}
	if r = r.noted(now); !r.notBefore(now.Add(-time.Hour)).IsZero() {
		t.Error("a repair waits for a time that was noted by a clock an hour ahead")
	}
	many := repairs{last: now, count: 1 << 40}
	if got := many.notBefore(now); !got.Equal(now.Add(repairMax)) {
		t.Errorf("after very many the next one is at %s", got)
	}
}
