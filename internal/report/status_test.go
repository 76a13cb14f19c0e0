// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }

func TestStatus(t *testing.T) {
	o := observation()
	o.Resource.Spec.Target.Name = "shop-token"
	holding(&o)
	o.CredentialsSecret, o.WrittenVersion = CredentialsSecret{Version: "uid/8", Accepted: "uid/7"}, "43"
	o.Resource.Status.TargetResourceVersion = "40"
	o.Progress = Progress{
		Handled:    v1alpha1.HandledRequests{Check: "now"},
		Revocation: &v1alpha1.RevocationStatus{Value: "leaked", Victim: "f"},
		Forced:     []time.Time{after(-time.Hour), after(-time.Minute)},
	}
	s := decided(o)
	switch {
	case s.ObservedGeneration != 3, s.TargetSecretName != "shop-token", s.TargetResourceVersion != "43", s.CredentialsVersion != "uid/7":
		t.Errorf("%+v", s)
	case s.HandledRequests == nil || *s.HandledRequests != o.Progress.Handled, s.Revocation == nil || s.Revocation.Value != "leaked":
		t.Errorf("progress: %+v %+v", s.HandledRequests, s.Revocation)
	case len(s.ForcedRefreshes) != 2 || !s.ForcedRefreshes[0].Time.Equal(after(-time.Hour).Truncate(time.Second)):
		t.Errorf("forced: %v", s.ForcedRefreshes)
	case s.LastError != nil, s.Delivery != nil:
		t.Errorf("error %+v, delivery %+v", s.LastError, s.Delivery)
	}
	want := v1alpha1.TokenStatus{
		Mode: v1alpha1.ModeStable, IssueTime: seconds(expiry.Add(-2 * time.Hour)), ExpirationTime: seconds(expiry), Fingerprint: "1f0c3a5b7d9e2468",
	}
	if s.Token == nil || !equality.Semantic.DeepEqual(*s.Token, want) {
		t.Errorf("token %+v, want %+v", s.Token, want)
	}
	// The version of a Secret that holds something else is not told, because the next process would take that for the token of the status.
	for _, holding := range []target.Holding{target.HoldsUnattested, target.HoldsOther} {
		other := o
		other.Holding = holding
		if s := decided(other); s.TargetResourceVersion != "40" {
			t.Errorf("%s: the version is %s", holding, s.TargetResourceVersion)
		}
	}
	// What was not written by this process stays as the status has it, and an empty progress is absent.
	o.WrittenVersion, o.Progress = "", Progress{}
	if s := decided(o); s.TargetResourceVersion != "40" || s.HandledRequests != nil || s.Revocation != nil || s.ForcedRefreshes != nil {
		t.Errorf("%+v", s)
	}
	// The same observation says the same, and a check moves nothing.
	o.Resource.Status = decided(o)
	o.Now, o.Token.CheckedAt = after(2*time.Minute), after(2*time.Minute)
	if s := decided(o); !equality.Semantic.DeepEqual(s, o.Resource.Status) {
		t.Errorf("a check changed the status:\n%+v\n%+v", o.Resource.Status, s)
	}
}

func TestTokenStatus(t *testing.T) {
	last := &v1alpha1.TokenStatus{Mode: v1alpha1.ModeLegacy, Fingerprint: "of the last status"}
	far := func(o *Observation) { o.Stored.ExpiresAt = after(5 * time.Hour) }
	unattested := func(o *Observation) { o.Stored.Unattested = true }
	unproven := func(o *Observation) { o.Resource.Status.Token = nil }
	for name, test := range map[string]struct {
		edits       []func(*Observation)
		fingerprint string
		none        bool
		next        bool // nextRefreshTime is told
	}{
		"no token":                       {nil, "", true, false},
		"stored":                         {[]func(*Observation){holding}, "1f0c3a5b7d9e2468", false, true},
		"nobody saw WeChat issue it":     {[]func(*Observation){holding, unattested, unproven}, "", false, true},
		"the status names another one":   {[]func(*Observation){holding, unattested}, "of the last status", false, true},
		"an expiry that WeChat gives no": {[]func(*Observation){holding, unattested, far}, "of the last status", false, false},
		"a far expiry of our own":        {[]func(*Observation){holding, far}, "1f0c3a5b7d9e2468", false, true},
	} {
		o := observation()
		o.Resource.Status.Token = last
		for _, e := range test.edits {
			e(&o)
		}
		s := decided(o)
		if (s.Token == nil) != test.none || s.Token != nil && s.Token.Fingerprint != test.fingerprint {
			t.Errorf("%s: %+v", name, s.Token)
		}
		if (s.NextRefreshTime != nil) != test.next {
			t.Errorf("%s: next refresh %v", name, s.NextRefreshTime)
		}
	}
}

// The time comes from the stored whole seconds, so that it moves only with the token and is the same after a restart.
func TestNextRefresh(t *testing.T) {
	o := observation()
	holding(&o)
	whole := NextRefresh(o)
	if early := expiry.Sub(whole); early < 285*time.Second || early > 299*time.Second {
		t.Errorf("%s before the expiry", early)
	}
	o.Stored.IssuedAt, o.Stored.ExpiresAt = o.Stored.IssuedAt.Add(300*time.Millisecond), expiry.Add(900*time.Millisecond)
	// What a check said moves the decision, and not the time that people see.
	o.Token.CheckedAt, o.Token.ExpiresAt = expiry.Add(-10*time.Second), expiry.Add(20*time.Second)
	if got := NextRefresh(o); !got.Equal(whole) {
		t.Errorf("moved from %s to %s", whole, got)
	}
	o.Traits, o.Token.ReplaceBy = refresh.Legacy(), after(time.Minute)
	if got := NextRefresh(o); !got.Equal(after(time.Minute)) {
		t.Errorf("a token to be replaced soon: %s", got)
	}
	if got := NextRefresh(observation()); !got.IsZero() {
		t.Errorf("no token: %s", got)
	}
}

func TestLastError(t *testing.T) {
	o := observation()
	holding(&o)
	fail(&o, token.Action, v1alpha1.ReasonIPNotAllowed, "what WeChat said")
	o.Failed.Code, o.Failed.RequestID, o.Failed.CredentialsVersion = 40164, "rid", "uid/7"
	got := decided(o).LastError
	retry := seconds(after(time.Minute))
	want := &v1alpha1.RefreshError{
		Code: 40164, Reason: "IPNotAllowed", Message: "what WeChat said", RequestID: "rid", Time: seconds(after(-time.Second)),
		RetryTime: &retry, Attempts: 4, Generation: 3, CredentialsVersion: "uid/7",
	}
	if !equality.Semantic.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Which failure the status tells is decided with the verdict.
func TestLastErrorFollowsTheVerdict(t *testing.T) {
	last := &v1alpha1.RefreshError{Reason: v1alpha1.ReasonSystemBusy, Message: "of the last time"}
	fresh := func(o *Observation) { o.Failure.First = after(-time.Second) }
	sameStory := func(o *Observation) { o.Told = refresh.Told{Class: token.Transient, SameCause: true} }
	outage := func(o *Observation) { fail(o, token.Transient, v1alpha1.ReasonUnreachable, "what happened") }
	for name, test := range map[string]struct {
		edits   []func(*Observation)
		reason  string // of lastError, "" for none
		failing string
	}{
		"nothing failed":             {[]func(*Observation){}, "", ""},
		"a failure of an hour":       {[]func(*Observation){outage}, "Unreachable", "Unreachable"},
		"the outage was told before": {[]func(*Observation){outage, sameStory}, "SystemBusy", "SystemBusy"},
		"a fresh outage after one":   {[]func(*Observation){outage, sameStory, fresh}, "SystemBusy", "SystemBusy"},
	} {
		o := observation()
		holding(&o)
		o.Resource.Status.LastError = last
		for _, e := range test.edits {
			e(&o)
		}
		s := decided(o)
		reason := ""
		if s.LastError != nil {
			reason = s.LastError.Reason
		}
		if failing := condition(s, v1alpha1.ConditionRefreshFailing).Reason; reason != test.reason || failing != test.failing {
			t.Errorf("%s: lastError %q, RefreshFailing %q, want %q and %q", name, reason, failing, test.reason, test.failing)
		}
	}
	// Nothing was told yet, and the failure is too fresh to be.
	o := observation()
	holding(&o)
	outage(&o)
	fresh(&o)
	if s := decided(o); s.LastError != nil || condition(s, v1alpha1.ConditionRefreshFailing).Type != "" {
		t.Errorf("%+v", s)
	}
}

// An errcode answers the mark of its mint. A clock that ran ahead at the mark must not hide that from the next process.
func TestLastErrorAnswersTheMark(t *testing.T) {
	attempt, ahead := after(-time.Second), after(time.Hour)
	for name, test := range map[string]struct {
		mark       time.Time
		code       int
		unanswered bool
		want       time.Time
	}{
		"an errcode":               {ahead, 40164, false, ahead},
		"an errcode, no mark":      {time.Time{}, 40164, false, attempt},
		"an errcode, an old mark":  {after(-time.Hour), 40164, false, attempt},
		"no errcode":               {ahead, 0, false, attempt},
		"the mark of another mint": {ahead, 40164, true, attempt},
		"no errcode, another mint": {ahead, 0, true, attempt},
	} {
		o := observation()
		o.Traits = refresh.Legacy()
		holding(&o)
		fail(&o, token.Action, v1alpha1.ReasonIPNotAllowed, "what WeChat said")
		o.Failed.Code, o.Record.Mint = test.code, account.Mark{StartedAt: test.mark, ID: "m"}
		if test.unanswered {
			o.Target.MintStarted = test.mark
		}
		if got := decided(o).LastError.Time; !got.Time.Equal(test.want.Truncate(time.Second)) {
			t.Errorf("%s: the attempt was at %s, want %s", name, got, test.want)
		}
	}
}

// The mark of a mint that failed changes the target's resourceVersion, and that alone is not written once for each attempt.
func TestOnlyMarked(t *testing.T) {
	failing := func() Observation {
		o := observation()
		holding(&o)
		fail(&o, token.Action, v1alpha1.ReasonIPNotAllowed, "what WeChat said")
		o.WrittenVersion, o.Record.Mint = "43", account.Mark{StartedAt: after(-time.Second), ID: "m"}
		o.Resource.Status = decided(o)
		o.WrittenVersion = "44"
		return o
	}
	for name, test := range map[string]struct {
		edit    func(*Observation)
		written bool
	}{
		"another mark":                  {func(*Observation) {}, false},
		"the mark is gone":              {func(o *Observation) { o.Record.Mint = account.Mark{} }, true},
		"the failure is over":           {func(o *Observation) { o.Failed, o.Failure = nil, nil }, true},
		"another attempt":               {func(o *Observation) { o.Failed.Attempts, o.Failure.Attempts = 5, 5 }, true},
		"the token is another one":      {func(o *Observation) { o.Stored.Fingerprint, o.Token.Fingerprint = "f", "f" }, true},
		"a request was handled as well": {func(o *Observation) { o.Progress.Handled.Check = "now" }, true},
	} {
		o := failing()
		test.edit(&o)
		next := decided(o)
		if written := !equality.Semantic.DeepEqual(next, o.Resource.Status); written != test.written {
			t.Errorf("%s: the status is written: %t", name, written)
		}
		want := "43"
		if test.written {
			want = "44"
		}
		if next.TargetResourceVersion != want {
			t.Errorf("%s: resourceVersion %s, want %s", name, next.TargetResourceVersion, want)
		}
	}
}

// The status of the delivery changes with the numbers, and not with each attempt.
func TestDeliveryStatus(t *testing.T) {
	last := &v1alpha1.DeliveryStatus{Fingerprint: "1f0c3a5b7d9e2468", Pods: 3, Reached: 2, Time: seconds(after(-time.Hour))}
	known := func(pods, reached int) Delivery {
		return Delivery{Wanted: true, Known: true, Counted: true, Pods: pods, Reached: reached, At: now}
	}
	told := func(pods, reached int32) *v1alpha1.DeliveryStatus {
		return &v1alpha1.DeliveryStatus{Fingerprint: "1f0c3a5b7d9e2468", Pods: pods, Reached: reached, Time: seconds(now)}
	}
	for name, test := range map[string]struct {
		last *v1alpha1.DeliveryStatus
		d    Delivery
		want *v1alpha1.DeliveryStatus
	}{
		"not wanted":             {last, Delivery{Known: true, Counted: true, Pods: 3}, nil},
		"disabled":               {last, Delivery{Wanted: true, Disabled: true}, nil},
		"not known yet":          {last, Delivery{Wanted: true}, last},
		"pods were not counted":  {last, Delivery{Wanted: true, Known: true, Pods: 9}, last},
		"the first time":         {nil, known(3, 2), told(3, 2)},
		"the same numbers":       {last, known(3, 2), last},
		"one more was reached":   {last, known(3, 3), told(3, 3)},
		"a pod less":             {last, known(2, 2), told(2, 2)},
		"none":                   {nil, known(0, 0), told(0, 0)},
		"of the token before it": {&v1alpha1.DeliveryStatus{Fingerprint: "older", Pods: 3, Reached: 2}, known(3, 2), told(3, 2)},
	} {
		o := observation()
		holding(&o)
		o.Delivery, o.Resource.Status.Delivery = test.d, test.last
		if got := decided(o).Delivery; !equality.Semantic.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// While the API server cannot be read, the status keeps what it said, except for what time alone makes wrong.
func TestUnread(t *testing.T) {
	ready := func() *v1alpha1.WeChatAppToken {
		o := observation()
		holding(&o)
		o.Resource.Status = decided(o)
		return o.Resource
	}
	failing := func() *v1alpha1.WeChatAppToken {
		o := observation()
		holding(&o)
		fail(&o, token.Action, v1alpha1.ReasonIPNotAllowed, "what WeChat said")
		o.Resource.Status = decided(o)
		return o.Resource
	}
	conflict := func() *v1alpha1.WeChatAppToken {
		o := observation()
		o.Ownership, o.Target.Conflict = target.Ownership{Claim: target.Conflict, Message: "whose it is"}, true
		o.Resource.Status = decided(o)
		return o.Resource
	}
	suspended := func() *v1alpha1.WeChatAppToken {
		r := ready()
		r.Spec.Suspend = true
		return r
	}
	const valid, ended = v1alpha1.ReasonTokenValid, v1alpha1.ReasonTokenExpired
	for name, test := range map[string]struct {
		resource       *v1alpha1.WeChatAppToken
		since, at      time.Time
		reason         string // of Ready
		reconciling    bool
		stalled        bool
		failing        string
		transitionedAt time.Time // of Ready
	}{
		"just now":                     {ready(), now, now, valid, false, false, "", now},
		"for a while":                  {ready(), now, after(59900 * time.Millisecond), valid, false, false, "", now},
		"for a minute":                 {ready(), now, after(time.Minute), valid, false, false, "KubernetesAPIError", now},
		"a moment before the expiry":   {ready(), expiry, expiry.Add(-1), valid, false, false, "", now},
		"the token expires":            {ready(), expiry, expiry, ended, true, false, "", expiry},
		"suspended, and it expires":    {suspended(), expiry, expiry, ended, false, false, "", expiry},
		"it has expired for long":      {ready(), now, expiry.Add(time.Hour), ended, true, false, "KubernetesAPIError", expiry.Add(time.Hour)},
		"another failure stays":        {failing(), now, after(time.Hour), valid, false, false, "IPNotAllowed", now},
		"another failure, and expired": {failing(), now, expiry, ended, true, false, "IPNotAllowed", expiry},
		"not Ready before":             {conflict(), now, expiry, v1alpha1.ReasonTargetConflict, false, true, "KubernetesAPIError", now},
	} {
		before := test.resource.DeepCopy()
		s := Unread(test.resource, test.since, test.at, "it answered 500")
		c := condition(s, v1alpha1.ConditionReady)
		if c.Reason != test.reason || (c.Status == metav1.ConditionTrue) != (test.reason == valid) {
			t.Errorf("%s: Ready is %s %s", name, c.Status, c.Reason)
		}
		if !c.LastTransitionTime.Time.Equal(test.transitionedAt.Truncate(time.Second)) {
			t.Errorf("%s: since %s", name, c.LastTransitionTime)
		}
		reconciling, stalled := condition(s, v1alpha1.ConditionReconciling), condition(s, v1alpha1.ConditionStalled)
		if (reconciling.Type != "") != test.reconciling || (stalled.Type != "") != test.stalled {
			t.Errorf("%s: Reconciling %+v, Stalled %+v", name, reconciling, stalled)
		}
		f := condition(s, v1alpha1.ConditionRefreshFailing)
		if f.Reason != test.failing {
			t.Errorf("%s: RefreshFailing is %q", name, f.Reason)
		}
		if f.Reason == v1alpha1.ReasonKubernetesAPIError && !strings.Contains(f.Message, "it answered 500; it tries again by itself") {
			t.Errorf("%s: %q", name, f.Message)
		}
		if !equality.Semantic.DeepEqual(before, test.resource) {
			t.Errorf("%s: the resource was changed", name)
		}
		// Nothing else changes, and nothing changes twice.
		rest, last := s.DeepCopy(), before.Status
		rest.Conditions = last.Conditions
		if !equality.Semantic.DeepEqual(*rest, last) {
			t.Errorf("%s: %+v became %+v", name, last, s)
		}
		test.resource.Status = s
		if again := Unread(test.resource, test.since, test.at.Add(time.Second), "it did not answer"); !equality.Semantic.DeepEqual(again, s) && test.since.Add(time.Minute).Before(test.at) {
			t.Errorf("%s: it changed again: %+v", name, again)
		}
	}
	fresh := resource()
	fresh.Status.ObservedGeneration = -1
	if s := Unread(fresh, now, after(time.Hour), "it did not answer"); len(s.Conditions) > 0 || s.ObservedGeneration != -1 {
		t.Errorf("before the first result: %+v", s)
	}
}
