// SPDX-License-Identifier: Apache-2.0

package report

import (
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestRecallFailure(t *testing.T) {
	at, retry := seconds(after(-time.Minute)), seconds(after(time.Hour))
	of := func(reason string, attempts int32) *v1alpha1.RefreshError {
		return &v1alpha1.RefreshError{
			Code: 40164, Reason: reason, Message: "what WeChat said", RequestID: "rid", Time: at, RetryTime: &retry, Attempts: attempts,
			Generation: 3, CredentialsVersion: "c/7",
		}
	}
	noRetry := of(v1alpha1.ReasonIPNotAllowed, 2)
	noRetry.RetryTime = nil
	if RecallFailure(nil) != nil {
		t.Error("a failure out of nothing")
	}
	soon := func(e *v1alpha1.RefreshError) *v1alpha1.RefreshError {
		next := seconds(at.Add(time.Minute))
		e.RetryTime = &next
		return e
	}
	retries := func(f *refresh.Failure) { f.RetryAt = retry.UTC() }
	for name, test := range map[string]struct {
		e     *v1alpha1.RefreshError
		class token.Class
		edit  func(*refresh.Failure) // of what is expected
	}{
		"Action":                      {of(v1alpha1.ReasonIPNotAllowed, 2), token.Action, retries},
		"Limited":                     {of(v1alpha1.ReasonRateLimited, 2), token.Limited, retries},
		"the day's quota":             {of(v1alpha1.ReasonDailyQuotaExhausted, 2), token.Limited, retries},
		"a wait that WeChat named":    {of(v1alpha1.ReasonIPBlocked, 2), token.Limited, func(f *refresh.Failure) { f.RetryAt, f.Named = retry.UTC(), retry.Sub(at.Time) }},
		"Transient: at once":          {of(v1alpha1.ReasonSystemBusy, 2), token.Transient, nil},
		"Unreachable":                 {of(v1alpha1.ReasonUnreachable, 2), token.Transient, nil},
		"a bad answer":                {of(v1alpha1.ReasonBadResponse, 2), token.Transient, nil},
		"an unknown errcode":          {of(v1alpha1.ReasonRequestRejected, 2), token.Transient, nil},
		"an unknown errcode, often":   {of(v1alpha1.ReasonRequestRejected, 3), token.Action, retries},
		"a refused write":             {of(v1alpha1.ReasonTargetWriteFailed, 2), token.Action, func(f *refresh.Failure) { f.RetryAt, f.OfWrite = retry.UTC(), true }},
		"a write that did not work":   {soon(of(v1alpha1.ReasonTargetWriteFailed, 7)), token.Transient, func(f *refresh.Failure) { f.OfWrite = true }},
		"a write refused often":       {of(v1alpha1.ReasonTargetWriteFailed, 7), token.Action, func(f *refresh.Failure) { f.RetryAt, f.OfWrite = retry.UTC(), true }},
		"a reason of another version": {of("Other", 2), token.Action, retries},
		"without a retry time":        {noRetry, token.Action, nil},
	} {
		f := RecallFailure(test.e)
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
		if got := ClassOf(test.e); got != test.class {
			t.Errorf("%s: class %s", name, got)
		}
	}
}

// requesting lets the resource carry one request of each kind.
func requesting(r *v1alpha1.WeChatAppToken) {
	r.Annotations = map[string]string{
		v1alpha1.AnnotationCheckRequestedAt: "c", v1alpha1.AnnotationRefreshRequestedAt: "r", v1alpha1.AnnotationRevokeRequestedAt: "k",
	}
}

// What a status says of requests is all that the next process knows. Requests that come with a new resource are not carried out.
func TestRecallProgress(t *testing.T) {
	fresh := func(r *v1alpha1.WeChatAppToken) { r.Status.ObservedGeneration = -1 }
	all := v1alpha1.HandledRequests{Check: "c", Refresh: "r", Revoke: "k"}
	type edits []func(*v1alpha1.WeChatAppToken)
	for name, test := range map[string]struct {
		edits   edits
		handled v1alpha1.HandledRequests
		wants   bool // all requests are carried out
	}{
		"a new resource":             {edits{fresh}, v1alpha1.HandledRequests{}, false},
		"requests that came with it": {edits{fresh, requesting}, all, false},
		"requests that came since":   {edits{requesting}, v1alpha1.HandledRequests{}, true},
		"requests that another process handled": {
			edits{requesting, func(r *v1alpha1.WeChatAppToken) { r.Status.HandledRequests = all.DeepCopy() }}, all, false,
		},
		"requests that were handled before": {
			edits{requesting, func(r *v1alpha1.WeChatAppToken) {
				r.Status.HandledRequests = &v1alpha1.HandledRequests{Check: "1", Refresh: "2", Revoke: "3"}
			}}, v1alpha1.HandledRequests{Check: "1", Refresh: "2", Revoke: "3"}, true,
		},
		"a value too long for a status": {
			edits{fresh, requesting, func(r *v1alpha1.WeChatAppToken) {
				r.Annotations[v1alpha1.AnnotationCheckRequestedAt] = strings.Repeat("1", v1alpha1.RequestValueMaxLength+1)
			}}, v1alpha1.HandledRequests{Refresh: "r", Revoke: "k"}, false,
		},
	} {
		r := resource()
		for _, e := range test.edits {
			e(r)
		}
		p := RecallProgress(r)
		if p.Handled != test.handled || p.Revocation != nil || p.Forced != nil {
			t.Errorf("%s: %+v, want %+v handled", name, p, test.handled)
		}
		for _, kind := range refresh.RequestKinds() {
			if p.Wants(r, kind) != test.wants {
				t.Errorf("%s: wants %s is %t", name, kind, !test.wants)
			}
		}
	}

	r := resource()
	forced := metav1.NewTime(after(-time.Hour).In(time.FixedZone("CST", 8*3600)))
	r.Status.ForcedRefreshes = []metav1.Time{forced}
	r.Status.Revocation = &v1alpha1.RevocationStatus{Value: "k", Victim: "f", FirstForcedTime: &forced}
	requesting(r)
	p := RecallProgress(r).Current(r, now)
	if got := p.Forced; len(got) != 1 || !got[0].Equal(forced.Time) || got[0].Location() != time.UTC {
		t.Errorf("forced: %v", got)
	}
	if !reflect.DeepEqual(p.Revocation, r.Status.Revocation) || p.Revocation == r.Status.Revocation {
		t.Errorf("the revoke: %+v", p.Revocation)
	}
}

// A value that is too long is ignored, and a request that had its attempt is not wanted again.
func TestWantsAndAfter(t *testing.T) {
	r := resource()
	var p Progress
	for _, kind := range refresh.RequestKinds() {
		if p.Wants(r, kind) {
			t.Errorf("%s is wanted, and nobody asked", kind)
		}
	}
	requesting(r)
	p.Revocation = &v1alpha1.RevocationStatus{Value: "k"}
	for _, o := range []Outcome{{Kind: refresh.RequestCheck, Value: "c"}, {Kind: refresh.RequestRefresh, Value: "r", Failed: "it failed"}} {
		if !p.Wants(r, o.Kind) {
			t.Errorf("%s is not wanted", o.Kind)
		}
		p = p.After([]Outcome{o})
		if p.Wants(r, o.Kind) || p.Revocation == nil {
			t.Errorf("%s ended: wanted %t, the revoke is %+v", o.Kind, p.Wants(r, o.Kind), p.Revocation)
		}
	}
	p = p.After([]Outcome{{Kind: refresh.RequestRevoke, Value: "k"}})
	if p.Revocation != nil || p.Handled != (v1alpha1.HandledRequests{Check: "c", Refresh: "r", Revoke: "k"}) {
		t.Errorf("all ended: %+v", p)
	}
	r.Annotations[v1alpha1.AnnotationCheckRequestedAt] = strings.Repeat("1", v1alpha1.RequestValueMaxLength)
	if !p.Wants(r, refresh.RequestCheck) {
		t.Error("the longest value is ignored")
	}
	if r.Annotations[v1alpha1.AnnotationCheckRequestedAt] += "1"; p.Wants(r, refresh.RequestCheck) {
		t.Error("a value too long for a status is carried out")
	}
}

// Another process has gone on with the requests, and the status tells how far. What this process knows besides, with parts of a second, stays.
func TestCurrent(t *testing.T) {
	r := resource()
	requesting(r)
	forced := metav1.NewTime(after(-time.Hour))
	own, second := after(-2*time.Hour).Add(300*time.Millisecond), metav1.NewTime(after(-2*time.Hour))
	r.Status.HandledRequests = &v1alpha1.HandledRequests{Check: "before", Refresh: "r"}
	r.Status.ForcedRefreshes = []metav1.Time{second, forced, metav1.NewTime(after(-25 * time.Hour))}
	r.Status.Revocation = &v1alpha1.RevocationStatus{Value: "k", Victim: "f", FirstForcedTime: &forced}
	p := Progress{Handled: v1alpha1.HandledRequests{Check: "later", Refresh: "before"}, Forced: []time.Time{own}}
	for range 2 { // the second time changes nothing
		p = p.Current(r, now)
		if want := (v1alpha1.HandledRequests{Check: "later", Refresh: "r"}); p.Handled != want {
			t.Errorf("handled: %+v, want %+v", p.Handled, want)
		}
		if want := []time.Time{own, forced.UTC()}; !reflect.DeepEqual(p.Forced, want) {
			t.Errorf("forced calls at %v, want %v", p.Forced, want)
		}
		if !reflect.DeepEqual(p.Revocation, r.Status.Revocation) {
			t.Errorf("the revoke: %+v", p.Revocation)
		}
	}
	p.Revocation = &v1alpha1.RevocationStatus{Value: "k", Victim: "f"} // of a leader that did not make the first call
	if p = p.Current(r, now); !reflect.DeepEqual(p.Revocation, r.Status.Revocation) {
		t.Errorf("the revoke that another process has begun: %+v", p.Revocation)
	}
	r.Status.HandledRequests.Revoke = "k"
	if p = p.Current(r, now); p.Revocation != nil || p.Wants(r, refresh.RequestRevoke) || p.Wants(r, refresh.RequestRefresh) || !p.Wants(r, refresh.RequestCheck) {
		t.Errorf("after the other process has ended the revoke: %+v", p)
	}
}
