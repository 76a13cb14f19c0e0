// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// A write leaves the pass with a version that the cache has to reach, and with a verdict about what the Secret holds now.
func TestApplyWrite(t *testing.T) {
	judged := target.Verdict{UID: "s", ResourceVersion: "10", Holding: target.HoldsUnattested, Fingerprint: "f", At: ago(time.Minute)}
	kept := judged
	kept.ResourceVersion = "11"
	for name, test := range map[string]struct {
		e    report.Effect
		want target.Verdict
	}{
		"nothing":       {report.Effect{}, judged},
		"a token":       {report.Effect{Wrote: secretAt("shop", "s", "11")}, target.Verdict{UID: "s", ResourceVersion: "11", Holding: target.HoldsKnown}},
		"a new Secret":  {report.Effect{Wrote: secretAt("shop", "t", "11")}, target.Verdict{UID: "t", ResourceVersion: "11", Holding: target.HoldsKnown}},
		"metadata only": {report.Effect{Wrote: secretAt("shop", "s", "11"), DataKept: true}, kept},
		"an answer about what is stored": {
			report.Effect{Stored: &target.Token{Fingerprint: "f"}},
			target.Verdict{UID: "s", ResourceVersion: "10", Holding: target.HoldsKnown, Fingerprint: "f", At: ago(time.Minute)},
		},
	} {
		p := unitPass(t, v1alpha1.ModeStable)
		p.state.target.Verdict = judged
		p.apply(t.Context(), report.Observation{}, refresh.Decision{Action: refresh.Write}, test.e)
		if p.state.target.Verdict != test.want {
			t.Errorf("%s: %+v, want %+v", name, p.state.target.Verdict, test.want)
		}
		if p.state.target.Token != test.e.Stored {
			t.Errorf("%s: stored is %+v", name, p.state.target.Token)
		}
		if w := test.e.Wrote; w != nil && (!p.state.gate.IsOwnWrite(w.UID, "11") || p.state.gate.Written() != "11") {
			t.Errorf("%s: the write is not known", name)
		}
	}
}

// A token stays at hand until it is written or dropped.
func TestApplyPending(t *testing.T) {
	first, second := &report.Pending{Token: token.Token{IssuedAt: ago(time.Second)}}, &report.Pending{Token: token.Token{IssuedAt: unitNow}}
	for name, test := range map[string]struct {
		had  *report.Pending
		e    report.Effect
		want *report.Pending
	}{
		"nothing":                     {first, report.Effect{}, first},
		"issued":                      {nil, report.Effect{Issued: first}, first},
		"issued after another":        {first, report.Effect{Issued: second}, second},
		"written":                     {first, report.Effect{Landed: first}, nil},
		"dropped":                     {first, report.Effect{Dropped: first}, nil},
		"another came during a write": {second, report.Effect{Landed: first}, second},
	} {
		p := unitPass(t, v1alpha1.ModeLegacy)
		if test.had != nil {
			p.state.shared.give(test.had)
		}
		p.apply(t.Context(), report.Observation{}, refresh.Decision{}, test.e)
		if got, _ := p.state.shared.pendingNow(); got != test.want {
			t.Errorf("%s: %+v is pending", name, got)
		}
	}
}

// What a step says besides goes where it belongs.
func TestApplyRest(t *testing.T) {
	p := unitPass(t, v1alpha1.ModeLegacy)
	mark := account.Mark{StartedAt: unitNow, ID: "m"}
	intent := account.Intent{}.Marked(account.Mark{}, mark)
	revocation := &v1alpha1.RevocationStatus{Value: "k"}
	p.resource.Generation = 7
	p.state.last = report.Times{Asked: unitNow, Called: ago(time.Hour)}
	p.apply(t.Context(), report.Observation{}, refresh.Decision{}, report.Effect{
		Intent: &intent, Revocation: revocation, ReferencesRefused: true, Accepted: true,
		Times:    report.Times{Asked: ago(time.Minute), Called: unitNow, Forced: unitNow},
		Outcomes: []report.Outcome{{Kind: refresh.RequestCheck, Value: "c"}, {Kind: refresh.RequestRefresh, Value: "r", Same: true}},

		ForeignDeaths: 2,
	})
	s := p.state
	if !s.intent.Own(mark) || s.progress.Revocation != revocation || s.metadata.RefusedReferences != 7 || s.accepted != "c/1" {
		t.Errorf("intent %+v, revoke %+v, references %d, accepted %s", s.intent, s.progress.Revocation, s.metadata.RefusedReferences, s.accepted)
	}
	if want := (report.Times{Asked: unitNow, Called: unitNow}); s.last != want {
		t.Errorf("times %+v, want %+v", s.last, want)
	}
	if len(s.progress.Forced) != 1 || !s.progress.Forced[0].Equal(unitNow) || s.progress.Handled != (v1alpha1.HandledRequests{Check: "c", Refresh: "r"}) {
		t.Errorf("progress %+v", s.progress)
	}
	for _, want := range []string{"Normal RequestedCheck", "Warning RequestedRefresh", "Warning ForeignFetcher"} {
		if got := nextEvent(t, p); !strings.HasPrefix(got, want) {
			t.Errorf("event %q, want %s", got, want)
		}
	}
	// A step that came to nothing changes nothing.
	p.apply(t.Context(), report.Observation{}, refresh.Decision{}, report.Effect{})
	if p.state.last.Called != unitNow || len(p.state.progress.Forced) != 1 || p.state.metadata.RefusedReferences != 7 || !p.state.intent.Own(mark) {
		t.Errorf("%+v", p.state.last)
	}
}

// nextEvent returns the next event of the pass.
func nextEvent(t *testing.T, p *pass) string {
	t.Helper()
	recorder, ok := p.Events.(*events.FakeRecorder)
	if !ok {
		t.Fatalf("the recorder is a %T", p.Events)
	}
	select {
	case e := <-recorder.Events:
		return e
	default:
		return ""
	}
}

// foreignFetches counts what the recorder is told.
type foreignFetches struct {
	unrecorded

	of []types.UID
}

func (f *foreignFetches) ForeignFetch(uid types.UID) { f.of = append(f.of, uid) }

func TestApplyForeignFetch(t *testing.T) {
	for deaths, told := range map[int]int{0: 0, 1: 0, 2: 1, 7: 1} {
		p := unitPass(t, v1alpha1.ModeLegacy)
		recorder := &foreignFetches{}
		p.Recorder = recorder
		p.apply(t.Context(), report.Observation{}, refresh.Decision{}, report.Effect{ForeignDeaths: deaths})
		if (len(recorder.of) == 1 && recorder.of[0] == "shop") != (deaths > 0) {
			t.Errorf("%d deaths: recorded %v", deaths, recorder.of)
		}
		if e := nextEvent(t, p); strings.HasPrefix(e, "Warning ForeignFetcher") != (told > 0) {
			t.Errorf("%d deaths: event %q", deaths, e)
		}
	}
}

// Which effects end a failure, and which do not.
func TestFailureIsOver(t *testing.T) {
	failed := func(code int, ofWrite bool) *report.Failure {
		f := refresh.Failure{Class: token.Action, Reason: v1alpha1.ReasonIPNotAllowed, Code: code, OfWrite: ofWrite, Attempts: 3, First: ago(time.Minute), Time: unitNow}
		return &report.Failure{Failure: f, Generation: 1, CredentialsVersion: "c/1"}
	}
	write, check := refresh.Decision{Action: refresh.Write}, refresh.Decision{Action: refresh.Check, Reason: refresh.CheckDue}
	wrote := report.Effect{Wrote: secretAt("shop", "s", "11")}
	for name, test := range map[string]struct {
		last *report.Failure
		d    refresh.Decision
		e    report.Effect
		over bool
	}{
		"WeChat issued a token":                      {failed(40164, false), check, report.Effect{Accepted: true}, true},
		"and the API server takes writes":            {failed(0, true), write, wrote, true},
		"a write says nothing of WeChat":             {failed(40164, false), write, wrote, false},
		"a mark is no proof of all writes":           {failed(0, true), check, wrote, false},
		"a good answer about the token":              {failed(40164, false), check, report.Effect{FailureOver: true}, true},
		"nothing happened":                           {failed(40164, false), check, report.Effect{}, false},
		"WeChat accepts, and the API server refused": {failed(0, true), check, report.Effect{Accepted: true}, true},
	} {
		p := unitPass(t, v1alpha1.ModeLegacy)
		p.state.failure = test.last
		mark := account.Mark{StartedAt: ago(time.Second), ID: "m"}
		p.apply(t.Context(), report.Observation{Record: target.Record{Mint: mark}}, test.d, test.e)
		if (p.state.failure == nil) != test.over {
			t.Errorf("%s: %+v", name, p.state.failure)
		}
		// Without the failure, its answer to the mark must not get lost.
		answered := test.over && test.last.Code != 0
		if void := p.state.intent.Unanswered(mark).IsZero(); void != answered {
			t.Errorf("%s: the mark is void: %t", name, void)
		}
	}
}

// A failure in a row counts on, and one of another spec, other credentials or another kind begins anew.
func TestFailuresInARow(t *testing.T) {
	const reason = v1alpha1.ReasonIPNotAllowed
	for name, test := range map[string]struct {
		edit     func(*report.Failure, *pass)
		attempts int
	}{
		"the same":          {func(*report.Failure, *pass) {}, 4},
		"another reason":    {func(f *report.Failure, _ *pass) { f.Reason = v1alpha1.ReasonUnreachable }, 1},
		"another spec":      {func(f *report.Failure, _ *pass) { f.Generation = 2 }, 1},
		"other credentials": {func(f *report.Failure, _ *pass) { f.CredentialsVersion = "c/0" }, 1},
		"not read yet":      {func(_ *report.Failure, p *pass) { p.state.credentials.Version = "" }, 4},
	} {
		p := unitPass(t, v1alpha1.ModeStable)
		last := &report.Failure{
			Failure:    refresh.Failure{Class: token.Action, Reason: reason, Attempts: 3, First: ago(time.Hour), Time: ago(time.Minute)},
			Generation: 1, CredentialsVersion: "c/1", Account: "of a time before",
		}
		p.state.failure = last
		test.edit(last, p)
		e := report.Effect{Failed: &report.Failure{Failure: refresh.Failure{Class: token.Action, Reason: reason, Code: 40164}, Message: "m", RequestID: "rid"}}
		o := report.Observation{CredentialsSecret: report.CredentialsSecret{Version: "c/1"}}
		p.apply(t.Context(), o, refresh.Decision{Action: refresh.Issue, Reason: refresh.RefreshDue}, e)
		f := p.state.failure
		if f.Attempts != test.attempts || !f.Time.Equal(unitNow) || !f.RetryAt.After(unitNow) || f.Code != 40164 {
			t.Errorf("%s: %+v, want %d attempts", name, f.Failure, test.attempts)
		}
		if f.Message != "m" || f.RequestID != "rid" || f.Generation != 1 || f.CredentialsVersion != "c/1" || f.Account != p.state.credentials.Secret.Account() {
			t.Errorf("%s: %+v", name, f)
		}
		if e.Failed.Attempts != 0 {
			t.Errorf("%s: the effect was changed", name)
		}
	}
}

// A failed request has had its attempt; a revoke that is half done goes on.
func TestFailureEndsARequest(t *testing.T) {
	for name, test := range map[string]struct {
		d       refresh.Decision
		started bool // the revoke had its first call
		want    v1alpha1.HandledRequests
	}{
		"no request":             {refresh.Decision{Action: refresh.Issue, Reason: refresh.RefreshDue}, false, v1alpha1.HandledRequests{}},
		"check":                  {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestCheck}, false, v1alpha1.HandledRequests{Check: "check"}},
		"refresh":                {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestRefresh}, false, v1alpha1.HandledRequests{Refresh: "refresh"}},
		"the first of a revoke":  {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestRevoke}, false, v1alpha1.HandledRequests{Revoke: "revoke"}},
		"the second of a revoke": {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestRevoke}, true, v1alpha1.HandledRequests{}},
		"a check during one":     {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestCheck}, true, v1alpha1.HandledRequests{Check: "check"}},
	} {
		p := unitPass(t, v1alpha1.ModeStable)
		p.resource.Annotations = map[string]string{
			v1alpha1.AnnotationCheckRequestedAt: "check", v1alpha1.AnnotationRefreshRequestedAt: "refresh", v1alpha1.AnnotationRevokeRequestedAt: "revoke",
		}
		p.state.progress = report.Progress{Revocation: &v1alpha1.RevocationStatus{Value: "revoke"}}
		o := report.Observation{Resource: p.resource}
		if test.started {
			o.Requests.RevokeStarted = ago(time.Minute)
		}
		e := report.Effect{Failed: &report.Failure{Failure: refresh.Failure{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable}, Message: "what happened"}}
		p.apply(t.Context(), o, test.d, e)
		if got := p.state.progress.Handled; got != test.want {
			t.Errorf("%s: handled %+v, want %+v", name, got, test.want)
		}
		if f := p.state.failure; f == nil || f.Message != "what happened" || f.Attempts != 1 || !f.RetryAt.After(unitNow) {
			t.Errorf("%s: %+v", name, f)
		}
		if done := test.want.Revoke != ""; (p.state.progress.Revocation == nil) != done {
			t.Errorf("%s: the revoke is %+v", name, p.state.progress.Revocation)
		}
	}
}
