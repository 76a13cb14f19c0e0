// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// outage is a transient failure that began at the given time and backs off.
func outage(first time.Time) edit {
	return func(in *Inputs) {
		in.Failure = &Failure{
			Class: token.Transient, Reason: v1alpha1.ReasonUnreachable, Binds: true,
			First: first, Time: now, Attempts: 2, RetryAt: after(time.Second),
		}
	}
}

func told(class token.Class, sameCause bool) edit {
	return func(in *Inputs) { in.Told = Told{Class: class, SameCause: sameCause} }
}

// problems has every problem in the order in which they are told, with what causes it.
var problems = []struct {
	problem Problem
	cause   edit
}{
	{ProblemConflict, func(in *Inputs) { in.Target.Conflict = true }},
	{ProblemTerminating, func(in *Inputs) { in.Target.Terminating = true }},
	{ProblemSuspended, func(in *Inputs) { in.Suspended = true }},
	{ProblemCredentialsMalformed, func(in *Inputs) { in.Credentials.Missing, in.Credentials.Malformed = true, true }},
	{ProblemCredentialsMissing, func(in *Inputs) { in.Credentials.Missing = true }},
	{ProblemFailure, limited(after(time.Minute))},
	{ProblemContested, func(in *Inputs) { in.Target.Contested = true }},
	{ProblemFetcherAsked, func(in *Inputs) { in.Account.FetcherAsked = true }},
	{ProblemNoToken, func(*Inputs) {}},
}

func TestProblemOrder(t *testing.T) {
	for i, first := range problems {
		for _, second := range problems[i:] {
			for name, state := range map[string]edit{"no Secret": missing, "expired": expired, "tampered": tampered} {
				v := Decide(now, healthy(state, second.cause, first.cause)).Verdict
				if v.Problem != first.problem || v.Valid {
					t.Errorf("%s, %s and %s: %s, valid %t", name, first.problem, second.problem, v.Problem, v.Valid)
				}
			}
		}
	}
	if v := Decide(now, healthy()).Verdict; !v.Valid || v.Failing != FailingNothing || v.Tell != TellNothing || v.Class != "" {
		t.Errorf("healthy: %+v", v)
	}
}

func TestValid(t *testing.T) {
	tests := map[string]struct {
		edits []edit
		want  bool
	}{
		"healthy":                   {nil, true},
		"expires in a nanosecond":   {[]edit{expires(after(1))}, true},
		"expires now":               {[]edit{expires(now)}, false},
		"no token":                  {[]edit{missing}, false},
		"unbelievable":              {[]edit{func(in *Inputs) { in.Token.Unbelievable = true }}, false},
		"tampered":                  {[]edit{tampered}, false},
		"of another appid":          {[]edit{appIDChanged}, false},
		"conflict":                  {[]edit{func(in *Inputs) { in.Target.Conflict = true }}, false},
		"terminating":               {[]edit{func(in *Inputs) { in.Target.Terminating = true }}, false},
		"from the other endpoint":   {[]edit{modeChanged}, true},
		"of another AppSecret":      {[]edit{credentialsChanged}, true},
		"outdated":                  {[]edit{outdated}, true},
		"doubtful":                  {[]edit{doubtful}, true},
		"due":                       {[]edit{due}, true},
		"suspended":                 {[]edit{func(in *Inputs) { in.Suspended = true }}, true},
		"no credentials":            {[]edit{func(in *Inputs) { in.Credentials.Missing = true }}, true},
		"contested":                 {[]edit{func(in *Inputs) { in.Target.Contested = true }}, true},
		"another one to be written": {[]edit{unwritten}, true},
		"backing off":               {[]edit{limited(after(time.Hour))}, true},
		"to be replaced by now":     {[]edit{legacy, replaceBy(now)}, true},
	}
	for name, test := range tests {
		if v := Decide(now, healthy(test.edits...)).Verdict; v.Valid != test.want {
			t.Errorf("%s: valid %t", name, v.Valid)
		}
	}
}

func TestHad(t *testing.T) {
	had := func(in *Inputs) { in.Token.Had = true }
	suspended := func(in *Inputs) { in.Suspended = true }
	for name, test := range map[string]struct {
		edits          []edit
		had, suspended bool
	}{
		"a token":              {nil, true, false},
		"none, never":          {[]edit{missing}, false, false},
		"none any more":        {[]edit{missing, had}, true, false},
		"suspended, none yet":  {[]edit{missing, suspended}, false, true},
		"suspended, had a one": {[]edit{missing, had, suspended}, true, true},
	} {
		if v := Decide(now, healthy(test.edits...)).Verdict; v.Had != test.had || v.Suspended != test.suspended {
			t.Errorf("%s: had %t, suspended %t", name, v.Had, v.Suspended)
		}
	}
}

func TestTell(t *testing.T) {
	longAgo, fresh := after(-time.Minute), after(-59*time.Second)
	noCredentials := func(in *Inputs) { in.Credentials.Missing = true }
	const transient, action, noClass = token.Transient, token.Action, token.Class("")
	tests := map[string]struct {
		edits   []edit
		tell    Tell
		class   token.Class
		failing Failing
	}{
		"no failure":                     {nil, TellNothing, noClass, FailingNothing},
		"no failure any more":            {[]edit{told(action, true)}, TellNothing, noClass, FailingNothing},
		"Action at once":                 {[]edit{backedOff(now)}, TellCurrent, action, FailingAttempt},
		"Limited at once":                {[]edit{limited(now)}, TellCurrent, token.Limited, FailingAttempt},
		"Action again":                   {[]edit{backedOff(now), told(action, true)}, TellCurrent, action, FailingAttempt},
		"Transient for a minute":         {[]edit{outage(longAgo)}, TellCurrent, transient, FailingAttempt},
		"Transient, new":                 {[]edit{outage(fresh)}, TellLast, noClass, FailingNothing},
		"Transient, new, due":            {[]edit{outage(fresh), due}, TellCurrent, transient, FailingAttempt},
		"Transient, new, no token":       {[]edit{outage(fresh), missing}, TellCurrent, transient, FailingAttempt},
		"Transient, the first one told":  {[]edit{outage(longAgo), told(transient, true)}, TellLast, transient, FailingAttempt},
		"Transient, another cause told":  {[]edit{outage(longAgo), told(transient, false)}, TellCurrent, transient, FailingAttempt},
		"Transient after Action":         {[]edit{outage(longAgo), told(action, true)}, TellCurrent, transient, FailingAttempt},
		"Transient, new, after Action":   {[]edit{outage(fresh), told(action, true)}, TellLast, action, FailingAttempt},
		"Action after Transient":         {[]edit{backedOff(now), told(transient, true)}, TellCurrent, action, FailingAttempt},
		"no credentials":                 {[]edit{noCredentials}, TellNothing, noClass, FailingCredentials},
		"no credentials, and a failure":  {[]edit{noCredentials, backedOff(now)}, TellCurrent, action, FailingCredentials},
		"suspended, and a failure":       {[]edit{func(in *Inputs) { in.Suspended = true }, backedOff(now)}, TellCurrent, action, FailingAttempt},
		"the back-off does not bind":     {[]edit{backedOff(after(time.Hour)), released, checked(now)}, TellCurrent, action, FailingAttempt},
		"a failure of the clock's hour":  {[]edit{outage(after(time.Hour))}, TellLast, noClass, FailingNothing},
		"unrelated: contested, and none": {[]edit{func(in *Inputs) { in.Target.Contested = true }}, TellNothing, noClass, FailingNothing},
	}
	for name, test := range tests {
		v := Decide(now, healthy(test.edits...)).Verdict
		if v.Tell != test.tell || v.Class != test.class || v.Failing != test.failing {
			t.Errorf("%s: tell %s, class %q, failing %q", name, v.Tell, v.Class, v.Failing)
		}
	}
}

// RetryAt is told whether the back-off holds or not.
func TestRetryAt(t *testing.T) {
	retry := after(time.Hour)
	for name, test := range map[string]struct {
		edits []edit
		want  time.Time
	}{
		"no failure":             {nil, time.Time{}},
		"backing off":            {[]edit{limited(retry)}, retry},
		"it does not bind":       {[]edit{limited(retry), released}, retry},
		"in the handover window": {[]edit{backedOff(retry), due, failureAt(now)}, after(HandoverRetry)},
	} {
		if d := Decide(now, healthy(test.edits...)); !d.RetryAt.Equal(test.want) {
			t.Errorf("%s: again at %s, want %s", name, d.RetryAt, test.want)
		}
	}
}
