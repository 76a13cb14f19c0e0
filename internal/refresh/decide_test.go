// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// now is the moment of all decisions. It has a fraction of a second, as clocks do.
var now = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

// after gives the time so much after now; before, if it is negative.
func after(d time.Duration) time.Time { return now.Add(d) }

// edit is one thing that differs from a healthy resource.
type edit func(*Inputs)

// healthy has a Stable token that was checked a minute ago and lives for another 90 minutes.
func healthy(edits ...edit) Inputs {
	in := Inputs{
		UID:           "3f8a1c1e-7f0e-4c0a-9a57-0d1c6a2b9e10",
		Traits:        Stable(),
		CheckInterval: 2 * time.Minute,
		StartedAt:     after(-time.Hour),
		ClockSynced:   true,
		Target:        Target{Exists: true},
		Token: Token{
			Fingerprint: "1f0c3a5b7d9e2468", IssuedAt: after(-30 * time.Minute), ExpiresAt: after(90 * time.Minute),
			CheckedAt: after(-time.Minute),
		},
	}
	for _, e := range edits {
		e(&in)
	}
	return in
}

func legacy(in *Inputs)    { in.Traits = Legacy() }
func unsynced(in *Inputs)  { in.ClockSynced = false }
func unwritten(in *Inputs) { in.Token.Unwritten = true }
func missing(in *Inputs) {
	in.Target, in.Token = Target{RepairNotBefore: in.Target.RepairNotBefore}, Token{}
}
func tampered(in *Inputs)       { in.Target.Tampered = true }
func outdated(in *Inputs)       { in.Target.Outdated = true }
func doubtful(in *Inputs)       { in.Token.Doubtful = true }
func hinted(in *Inputs)         { in.Token.Refused = true }
func paced(in *Inputs)          { in.Account.CheckNotBefore = after(4 * time.Second) }
func waiting(in *Inputs)        { in.Failure.RetryAt = after(time.Minute) }
func untold(in *Inputs)         { in.Token = Token{} }
func askCheck(in *Inputs)       { in.Requests.Check = true }
func askRefresh(in *Inputs)     { in.Requests.Refresh = true }
func askRevoke(in *Inputs)      { in.Requests.Revoke = true }
func expires(at time.Time) edit { return func(in *Inputs) { in.Token.ExpiresAt = at } }
func checked(at time.Time) edit { return func(in *Inputs) { in.Token.CheckedAt = at } }

func memberWaiting(in *Inputs) { in.Traits, in.Account.MemberWaiting = Legacy(), true }
func marked(in *Inputs)        { in.Traits, in.Target.MintStarted = Legacy(), after(-10*time.Second) }

// failed is a failure of WeChat that is over: it only tells what the last answer was.
func failed(code int, at time.Time) edit {
	return func(in *Inputs) {
		in.Failure = &Failure{
			Class: token.Action, Reason: v1alpha1.ReasonAccountRestricted, Code: code, Binds: true,
			First: at, Time: at, Attempts: 1, RetryAt: at,
		}
	}
}

// refusedBefore is a failure whose errcode came before the mark.
func refusedBefore(in *Inputs) { in.Failure.Code, in.Failure.Time = 45009, after(-askAtMost) }
func ofWrite(in *Inputs)       { in.Failure.OfWrite = true }
func startedNow(in *Inputs)    { in.StartedAt = now }

// failedSince is an outage of WeChat whose back-off is over.
func failedSince(first time.Time) edit {
	return func(in *Inputs) {
		in.Failure = &Failure{
			Class: token.Transient, Reason: v1alpha1.ReasonUnreachable, Binds: true, First: first, Time: now, RetryAt: now,
		}
	}
}

// rules has every rule that acts or stops, in the order of the design, with what makes it match.
var rules = []struct {
	reason Reason
	action Action
	match  edit
}{
	{Deleting, Wait, func(in *Inputs) { in.Deleting = true }},
	{Suspended, Wait, func(in *Inputs) { in.Suspended = true }},
	{CredentialsMissing, Wait, func(in *Inputs) { in.Credentials.Missing = true }},
	{NotOwner, Wait, func(in *Inputs) { in.Target.Conflict = true }},
	{TokenUnwritten, Write, unwritten},
	{RequestExecutable, Force, askRefresh},
	{TargetMissing, Issue, func(in *Inputs) { in.Target.Exists = false }},
	{AppIDChanged, Issue, func(in *Inputs) { in.Target.AppIDChanged = true }},
	{CredentialsChanged, Issue, func(in *Inputs) { in.Credentials.Changed = true }},
	{ModeChanged, Issue, func(in *Inputs) { in.Target.ModeChanged = true }},
	{MemberWaiting, Issue, memberWaiting},
	{MintUnfinished, Issue, marked},
	{TargetTampered, Issue, tampered},
	{TargetOutdated, Write, outdated},
	{Expired, Issue, expires(now)},
	{RefreshDue, Issue, expires(after(30 * time.Second))},
	{CheckDue, Check, checked(after(-time.Hour))},
	{UpToDate, Wait, func(*Inputs) {}},
}

func TestDecideOrder(t *testing.T) {
	for i, first := range rules {
		if d := Decide(now, healthy(first.match)); d.Reason != first.reason || d.Action != first.action {
			t.Errorf("%s alone: %s %s, want %s", first.reason, d.Action, d.Reason, first.action)
		}
		for _, second := range rules[i+1:] {
			// The later one is set first, so that the earlier one stands where both need the same field.
			d := Decide(now, healthy(second.match, first.match))
			if d.Reason != first.reason || d.Action != first.action {
				t.Errorf("%s and %s: %s %s, want the first: %s", first.reason, second.reason, d.Action, d.Reason, first.action)
			}
		}
	}
}

func TestDecideRules(t *testing.T) {
	tests := map[string]struct {
		edits   []edit
		action  Action
		reason  Reason
		request RequestKind
	}{
		"healthy":                          {nil, Wait, UpToDate, ""},
		"healthy, clock unknown":           {[]edit{unsynced}, Wait, UpToDate, ""},
		"no Secret":                        {[]edit{missing}, Issue, TargetMissing, ""},
		"no Secret, Legacy":                {[]edit{legacy, missing}, Issue, TargetMissing, ""},
		"no Secret, Legacy, clock unknown": {[]edit{legacy, missing, unsynced}, Issue, TargetMissing, ""},

		"revoke asked for":                {[]edit{askRevoke}, Revoke, RequestExecutable, RequestRevoke},
		"refresh asked for":               {[]edit{askRefresh}, Force, RequestExecutable, RequestRefresh},
		"check asked for":                 {[]edit{askCheck}, Check, RequestExecutable, RequestCheck},
		"everything asked for":            {[]edit{askCheck, askRefresh, askRevoke}, Revoke, RequestExecutable, RequestRevoke},
		"refresh and check asked for":     {[]edit{askCheck, askRefresh}, Force, RequestExecutable, RequestRefresh},
		"refresh asked for, no Secret":    {[]edit{missing, askRefresh}, Force, RequestExecutable, RequestRefresh},
		"check asked for, no Secret":      {[]edit{missing, askCheck}, Issue, RequestExecutable, RequestCheck},
		"refresh asked for, then written": {[]edit{askRefresh, unwritten}, Write, TokenUnwritten, ""},
		"Legacy refresh, then written":    {[]edit{legacy, askRefresh, unwritten}, Write, TokenUnwritten, ""},
		"Legacy revoke, then written":     {[]edit{legacy, askRevoke, unwritten}, Write, TokenUnwritten, ""},

		"mark, no answer known":              {[]edit{marked}, Issue, MintUnfinished, ""},
		"mark, clock unknown":                {[]edit{marked, unsynced}, Check, MintUnfinished, ""},
		"mark, tampered, clock unknown":      {[]edit{marked, tampered, unsynced}, Issue, MintUnfinished, ""},
		"mark, asked in vain":                {[]edit{marked, unsynced, failedSince(after(-askAtMost))}, Issue, MintUnfinished, ""},
		"mark, asked in vain for a while":    {[]edit{marked, unsynced, failedSince(after(-askAtMost + 1))}, Check, MintUnfinished, ""},
		"mark, refused long ago":             {[]edit{marked, unsynced, failedSince(after(-askAtMost)), refusedBefore}, Check, MintUnfinished, ""},
		"mark, write refused long ago":       {[]edit{marked, unsynced, failedSince(after(-askAtMost)), ofWrite}, Check, MintUnfinished, ""},
		"mark, asked in vain before a start": {[]edit{marked, unsynced, failedSince(after(-askAtMost)), startedNow}, Check, MintUnfinished, ""},
		"mark, no token, clock unknown":      {[]edit{marked, untold, unsynced}, Issue, MintUnfinished, ""},
		"mark, no errcode came":              {[]edit{marked, failed(0, after(-5*time.Second))}, Issue, MintUnfinished, ""},
		"mark, errcode before it":            {[]edit{marked, failed(50004, after(-12*time.Second))}, Issue, MintUnfinished, ""},
		"mark, errcode with it":              {[]edit{marked, failed(50004, after(-10*time.Second))}, Wait, UpToDate, ""},
		"mark, errcode after it":             {[]edit{marked, failed(50004, after(-9*time.Second))}, Wait, UpToDate, ""},
		"mark, errcode read from the status": {[]edit{marked, failed(50004, after(-10*time.Second).Truncate(time.Second))}, Wait, UpToDate, ""},
		"mark, errcode of the second before": {[]edit{marked, failed(50004, after(-11*time.Second).Truncate(time.Second))}, Issue, MintUnfinished, ""},
		"mark, answered, but the token is due": {[]edit{marked, expires(after(time.Minute)), failed(50004, after(-9*time.Second))},
			Issue, RefreshDue, ""},
		"mark left by Legacy, now Stable": {[]edit{marked, func(in *Inputs) { in.Traits = Stable() }}, Wait, UpToDate, ""},

		"expires now":                    {[]edit{expires(now)}, Issue, Expired, ""},
		"expires in a nanosecond":        {[]edit{expires(after(1))}, Issue, RefreshDue, ""},
		"expired, just checked":          {[]edit{expires(now), checked(now)}, Issue, Expired, ""},
		"expired, clock unknown":         {[]edit{expires(now), unsynced}, Issue, Expired, ""},
		"expired, Legacy":                {[]edit{legacy, expires(now)}, Issue, Expired, ""},
		"expired, Legacy, clock unknown": {[]edit{legacy, expires(now), unsynced}, Check, Expired, ""},
		"due":                            {[]edit{expires(after(4 * time.Minute))}, Issue, RefreshDue, ""},
		"due, Legacy":                    {[]edit{legacy, expires(after(9 * time.Minute))}, Issue, RefreshDue, ""},
		"due, Legacy, clock unknown":     {[]edit{legacy, expires(after(9 * time.Minute)), unsynced}, Check, RefreshDue, ""},
		"due before Stable's overlap":    {[]edit{expires(after(301 * time.Second))}, Wait, UpToDate, ""},

		"check due":                  {[]edit{checked(after(-133 * time.Second))}, Check, CheckDue, ""},
		"checked lately":             {[]edit{checked(after(-107 * time.Second))}, Wait, UpToDate, ""},
		"never checked":              {[]edit{checked(time.Time{})}, Check, CheckDue, ""},
		"failed with another spec":   {[]edit{failed(50004, now), func(in *Inputs) { in.Failure.Binds = false }}, Check, CheckDue, ""},
		"failed with this spec":      {[]edit{failed(50004, now)}, Wait, UpToDate, ""},
		"doubtful":                   {[]edit{doubtful}, Check, CheckDue, ""},
		"refused":                    {[]edit{hinted}, Check, CheckDue, ""},
		"refused, Legacy":            {[]edit{legacy, hinted}, Check, CheckDue, ""},
		"refused, just checked":      {[]edit{hinted, paced}, Wait, UpToDate, ""},
		"refused, in a back-off":     {[]edit{hinted, failed(50004, now), waiting}, Wait, BackingOff, ""},
		"refused, no token":          {[]edit{missing, hinted}, Issue, TargetMissing, ""},
		"refused, suspended":         {[]edit{hinted, func(in *Inputs) { in.Suspended = true }}, Wait, Suspended, ""},
		"a Secret without any token": {[]edit{func(in *Inputs) { in.Token = Token{} }}, Wait, UpToDate, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := healthy(test.edits...)
			d := Decide(now, in)
			if d.Action != test.action || d.Reason != test.reason || d.Request != test.request {
				t.Errorf("got %s %s %q, want %s %s %q", d.Action, d.Reason, d.Request, test.action, test.reason, test.request)
			}
			if d.Action != Wait && !d.At.IsZero() {
				t.Errorf("%s comes with a time", d.Action)
			}
			if want := DueAt(in); !d.DueAt.Equal(want) {
				t.Errorf("DueAt %s, want %s", d.DueAt, want)
			}
		})
	}
}

// A token that a gateway saw refused is looked at once its account may be asked again, and not later than any other.
func TestDecideWakesForARefusedToken(t *testing.T) {
	if d := Decide(now, healthy(hinted, paced)); !d.At.Equal(after(4 * time.Second)) {
		t.Errorf("the next look is at %s", d.At)
	}
	if with, without := Decide(now, healthy(paced)), Decide(now, healthy()); !with.At.Equal(without.At) {
		t.Errorf("without a refusal, the pace changes the next look from %s to %s", without.At, with.At)
	}
}
