// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"slices"
	"testing"
	"time"
)

// forced are earlier forced calls of the account.
func forced(times ...time.Time) edit { return func(in *Inputs) { in.Requests.Forced = times } }

// calls of the day: n of them, the first at the given time, then one a minute.
func aDay(first time.Time, n int) []time.Time {
	out := make([]time.Time, n)
	for i := range out {
		out[i] = first.Add(time.Duration(i) * time.Minute)
	}
	return out
}

func TestForcedAt(t *testing.T) {
	const day = 24 * time.Hour
	yesterday := after(-23 * time.Hour)
	tests := map[string]struct {
		forced []time.Time
		n      int
		want   time.Time
	}{
		"none yet":                        {nil, 1, time.Time{}},
		"the last one just now":           {[]time.Time{now}, 1, after(31 * time.Second)},
		"the last one 30.9 s ago":         {[]time.Time{after(-30900 * time.Millisecond)}, 1, after(100 * time.Millisecond)},
		"the last one 31 s ago":           {[]time.Time{after(-31 * time.Second)}, 1, time.Time{}},
		"by a clock that was ahead":       {[]time.Time{after(3 * time.Hour)}, 1, time.Time{}},
		"20 today, one by such a clock":   {append(aDay(yesterday, 19), after(3*time.Hour)), 1, yesterday.Add(day)},
		"unsorted":                        {[]time.Time{after(-time.Second), after(-time.Hour)}, 1, after(30 * time.Second)},
		"19 today":                        {aDay(yesterday, 19), 1, time.Time{}},
		"20 today":                        {aDay(yesterday, 20), 1, yesterday.Add(day)},
		"21 today":                        {aDay(yesterday, 21), 1, yesterday.Add(day + time.Minute)},
		"20 today, unsorted":              {reversed(aDay(yesterday, 20)), 1, yesterday.Add(day)},
		"20, the first 24 h ago":          {aDay(after(-day), 20), 1, time.Time{}},
		"20, the first almost 24 h ago":   {aDay(after(-day+time.Second), 20), 1, after(time.Second)},
		"18 today, two to come":           {aDay(yesterday, 18), 2, time.Time{}},
		"19 today, two to come":           {aDay(yesterday, 19), 2, yesterday.Add(day)},
		"20 today, two to come":           {aDay(yesterday, 20), 2, yesterday.Add(day + time.Minute)},
		"the budget counts over the pace": {append(aDay(yesterday, 19), now), 1, yesterday.Add(day)},
		"the pace counts over the budget": {append(aDay(after(-day+time.Second), 19), now), 1, after(31 * time.Second)},
		"old ones count for nothing":      {aDay(after(-48*time.Hour), 500), 1, time.Time{}},
	}
	for name, test := range tests {
		given := slices.Clone(test.forced)
		if got := ForcedAt(now, given, test.n); !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if !slices.Equal(given, test.forced) {
			t.Errorf("%s: the list of calls was changed", name)
		}
	}
}

func reversed(times []time.Time) []time.Time {
	slices.Reverse(times)
	return times
}

func TestRequests(t *testing.T) {
	started := func(at time.Time) edit { return func(in *Inputs) { in.Requests.RevokeStarted = at } }
	longAgo := after(-time.Hour)
	budgetGone := forced(aDay(after(-23*time.Hour), 20)...)
	almostGone := forced(aDay(after(-23*time.Hour), 19)...)
	soon := after(40 * time.Second)
	tests := map[string]struct {
		edits   []edit
		action  Action
		request RequestKind
		at      time.Time // for Wait
	}{
		"refresh, spacing not kept":          {[]edit{askRefresh, forced(after(-time.Second))}, Wait, "", after(30 * time.Second)},
		"refresh, spacing kept":              {[]edit{askRefresh, forced(after(-31 * time.Second))}, Force, RequestRefresh, time.Time{}},
		"refresh, budget gone":               {[]edit{askRefresh, budgetGone}, Wait, "", time.Time{}},
		"refresh, one call left":             {[]edit{askRefresh, almostGone}, Force, RequestRefresh, time.Time{}},
		"revoke, one call left":              {[]edit{askRevoke, almostGone}, Wait, "", time.Time{}},
		"revoke, then refresh":               {[]edit{askRevoke, askRefresh, almostGone}, Force, RequestRefresh, time.Time{}},
		"check needs no budget":              {[]edit{askRefresh, askCheck, budgetGone}, Check, RequestCheck, time.Time{}},
		"Legacy refresh knows no spacing":    {[]edit{legacy, askRefresh, forced(now)}, Force, RequestRefresh, time.Time{}},
		"Legacy revoke knows no budget":      {[]edit{legacy, askRevoke, budgetGone}, Revoke, RequestRevoke, time.Time{}},
		"a request that waits lets others":   {[]edit{askRefresh, forced(now), tampered}, Issue, "", time.Time{}},
		"refresh, through the back-off":      {[]edit{askRefresh, limited(after(time.Hour))}, Force, RequestRefresh, time.Time{}},
		"revoke, through the back-off":       {[]edit{askRevoke, limited(after(time.Hour))}, Revoke, RequestRevoke, time.Time{}},
		"check, through the back-off":        {[]edit{askCheck, limited(after(time.Hour))}, Check, RequestCheck, time.Time{}},
		"refresh while a write backs off":    {[]edit{askRefresh, unwritten, refused(soon)}, Wait, "", soon},
		"check while a write backs off":      {[]edit{askCheck, unwritten, refused(soon)}, Wait, "", soon},
		"Legacy refresh, write backs off":    {[]edit{legacy, askRefresh, unwritten, refused(soon)}, Wait, "", soon},
		"refresh while suspended":            {[]edit{askRefresh, func(in *Inputs) { in.Suspended = true }}, Wait, "", after(90 * time.Minute)},
		"revoke without credentials":         {[]edit{askRevoke, func(in *Inputs) { in.CredentialsMissing = true }}, Wait, "", time.Time{}},
		"refresh of somebody else's Secret":  {[]edit{askRefresh, func(in *Inputs) { in.Target.Denied = true }}, Wait, "", time.Time{}},
		"revoke, second call 31.9 s later":   {[]edit{askRevoke, started(after(-31900 * time.Millisecond)), forced(after(-31900 * time.Millisecond))}, Wait, "", after(100 * time.Millisecond)},
		"revoke, second call 32 s later":     {[]edit{askRevoke, started(after(-32 * time.Second)), forced(after(-32 * time.Second))}, Revoke, RequestRevoke, time.Time{}},
		"Legacy revoke, second mint":         {[]edit{legacy, askRevoke, started(after(-31 * time.Second))}, Wait, "", after(time.Second)},
		"revoke goes on, annotation gone":    {[]edit{started(longAgo)}, Revoke, RequestRevoke, time.Time{}},
		"revoke goes on, another call since": {[]edit{askRevoke, started(longAgo), forced(after(-time.Second))}, Wait, "", after(30 * time.Second)},
		"revoke goes on with the last call":  {[]edit{askRevoke, started(longAgo), almostGone}, Revoke, RequestRevoke, time.Time{}},
		"revoke goes on after the back-off":  {[]edit{askRevoke, started(longAgo), limited(soon)}, Wait, "", soon},
		"revoke first, refresh after it":     {[]edit{askRevoke, askRefresh, started(after(-10 * time.Second))}, Wait, "", after(22 * time.Second)},
		"check during a revoke":              {[]edit{askCheck, started(after(-10 * time.Second))}, Check, RequestCheck, time.Time{}},
		// The progress is an annotation: a time that no clock can have had must not stop revokes for ever.
		"revoke, a clock that was ahead": {[]edit{askRevoke, started(after(10 * time.Second))}, Wait, "", after(42 * time.Second)},
		"revoke, a time made up":         {[]edit{askRevoke, started(after(9999 * time.Hour))}, Revoke, RequestRevoke, time.Time{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			// Checked now, so that nothing but requests, back-offs and expiry wakes within the minute.
			d := Decide(now, healthy(append([]edit{checked(now)}, test.edits...)...))
			if d.Action != test.action || d.Request != test.request {
				t.Fatalf("got %s %s %q until %s, want %s %q", d.Action, d.Reason, d.Request, d.At, test.action, test.request)
			}
			if test.action != Wait && test.request != "" && d.Reason != RequestExecutable {
				t.Errorf("reason %s", d.Reason)
			}
			if !test.at.IsZero() && !d.At.Equal(test.at) {
				t.Errorf("wakes at %s, want %s", d.At, test.at)
			}
		})
	}
}
