// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"slices"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
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
		if got := ForcedAt(now, given, test.n, ForcedSpacing); !got.Equal(test.want) {
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
		"Legacy refresh, budget gone":        {[]edit{legacy, askRefresh, budgetGone}, Wait, "", time.Time{}},
		"Legacy revoke, budget gone":         {[]edit{legacy, askRevoke, budgetGone}, Wait, "", time.Time{}},
		"Legacy revoke, one call left":       {[]edit{legacy, askRevoke, almostGone}, Wait, "", time.Time{}},
		"Legacy refresh, one call left":      {[]edit{legacy, askRefresh, almostGone}, Force, RequestRefresh, time.Time{}},
		"a request that waits lets others":   {[]edit{askRefresh, forced(now), tampered}, Issue, "", time.Time{}},
		"refresh, through the back-off":      {[]edit{askRefresh, backedOff(after(time.Hour))}, Force, RequestRefresh, time.Time{}},
		"revoke, through the back-off":       {[]edit{askRevoke, backedOff(after(time.Hour))}, Revoke, RequestRevoke, time.Time{}},
		"check, through the back-off":        {[]edit{askCheck, backedOff(after(time.Hour))}, Check, RequestCheck, time.Time{}},
		"refresh while a write backs off":    {[]edit{askRefresh, unwritten, refused(soon)}, Wait, "", soon},
		"check while a write backs off":      {[]edit{askCheck, unwritten, refused(soon)}, Wait, "", soon},
		"Legacy refresh, write backs off":    {[]edit{legacy, askRefresh, unwritten, refused(soon)}, Wait, "", soon},
		"refresh while suspended":            {[]edit{askRefresh, func(in *Inputs) { in.Suspended = true }}, Wait, "", after(90 * time.Minute)},
		"revoke without credentials":         {[]edit{askRevoke, func(in *Inputs) { in.Credentials.Missing = true }}, Wait, "", time.Time{}},
		"refresh of somebody else's Secret":  {[]edit{askRefresh, func(in *Inputs) { in.Target.Conflict = true }}, Wait, "", time.Time{}},
		"revoke, second call 31.9 s later":   {[]edit{askRevoke, started(after(-31900 * time.Millisecond)), forced(after(-31900 * time.Millisecond))}, Wait, "", after(100 * time.Millisecond)},
		"revoke, second call 32 s later":     {[]edit{askRevoke, started(after(-32 * time.Second)), forced(after(-32 * time.Second))}, Revoke, RequestRevoke, time.Time{}},
		"Legacy revoke, second mint":         {[]edit{legacy, askRevoke, started(after(-31 * time.Second))}, Wait, "", after(time.Second)},
		"revoke goes on, annotation gone":    {[]edit{started(longAgo)}, Revoke, RequestRevoke, time.Time{}},
		"revoke goes on, another call since": {[]edit{askRevoke, started(longAgo), forced(after(-time.Second))}, Wait, "", after(30 * time.Second)},
		"revoke goes on with the last call":  {[]edit{askRevoke, started(longAgo), almostGone}, Revoke, RequestRevoke, time.Time{}},
		"revoke goes on after the back-off":  {[]edit{askRevoke, started(longAgo), limited(soon)}, Wait, "", soon},
		"revoke first, refresh after it":     {[]edit{askRevoke, askRefresh, started(after(-10 * time.Second))}, Wait, "", after(22 * time.Second)},
		"check during a revoke":              {[]edit{askCheck, started(after(-10 * time.Second))}, Check, RequestCheck, time.Time{}},
		// A time that was noted by a clock that ran ahead puts nothing off.
		"revoke, whole seconds of WeChat": {[]edit{askRevoke, started(after(4 * time.Second))}, Wait, "", after(36 * time.Second)},
		"revoke, a clock that was ahead":  {[]edit{askRevoke, started(after(10 * time.Second))}, Revoke, RequestRevoke, time.Time{}},
		"revoke, a time made up":          {[]edit{askRevoke, started(after(9999 * time.Hour))}, Revoke, RequestRevoke, time.Time{}},
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

// WeChat will not answer before the wait that it named, so a request ends without an attempt. Any other back-off is the operator's own
// and lets requests through.
func TestDecline(t *testing.T) {
	retry := after(time.Hour)
	named := func(retryAt time.Time) edit { // such as 89506
		return func(in *Inputs) {
			limited(retryAt)(in)
			in.Failure.Reason, in.Failure.Code, in.Failure.Named = v1alpha1.ReasonIPBlocked, 89506, retryAt.Sub(in.Failure.Time)
		}
	}
	namedAction := func(in *Inputs) { named(retry)(in); in.Failure.Class = token.Action }
	quota := func(in *Inputs) { limited(retry)(in); in.Failure.Reason = v1alpha1.ReasonDailyQuotaExhausted }
	halfDone := func(in *Inputs) { in.Requests.Revoke, in.Requests.RevokeStarted = true, after(-time.Hour) }
	budgetGone := forced(aDay(after(-23*time.Hour), 20)...)
	tests := map[string]struct {
		edits   []edit
		action  Action
		request RequestKind
		reason  Reason
	}{
		"refresh":                        {[]edit{askRefresh, named(retry)}, Decline, RequestRefresh, RequestExecutable},
		"revoke":                         {[]edit{askRevoke, named(retry)}, Decline, RequestRevoke, RequestExecutable},
		"check":                          {[]edit{askCheck, named(retry)}, Decline, RequestCheck, RequestExecutable},
		"refresh, Action":                {[]edit{askRefresh, namedAction}, Decline, RequestRefresh, RequestExecutable},
		"check, Action":                  {[]edit{askCheck, namedAction}, Decline, RequestCheck, RequestExecutable},
		"Legacy refresh":                 {[]edit{legacy, askRefresh, named(retry)}, Decline, RequestRefresh, RequestExecutable},
		"check without a target":         {[]edit{legacyMissing, askCheck, named(retry)}, Decline, RequestCheck, RequestExecutable},
		"all of them, the revoke first":  {[]edit{askCheck, askRefresh, askRevoke, named(retry)}, Decline, RequestRevoke, RequestExecutable},
		"one that had to wait anyway":    {[]edit{askRefresh, forced(now), named(retry)}, Decline, RequestRefresh, RequestExecutable},
		"one that no budget allows":      {[]edit{askRefresh, budgetGone, named(retry)}, Decline, RequestRefresh, RequestExecutable},
		"a Legacy refresh after a mint":  {[]edit{legacy, askRefresh, mintedAt(now), named(retry)}, Decline, RequestRefresh, RequestExecutable},
		"the wait is over":               {[]edit{askRefresh, named(now)}, Force, RequestRefresh, RequestExecutable},
		"the wait does not bind":         {[]edit{askRefresh, named(retry), released}, Force, RequestRefresh, RequestExecutable},
		"a clock that was ahead":         {[]edit{askRefresh, named(retry), failureAt(after(time.Minute))}, Force, RequestRefresh, RequestExecutable},
		"a revoke that is half done":     {[]edit{halfDone, named(retry)}, Wait, "", BackingOff},
		"half done, Action":              {[]edit{halfDone, namedAction}, Wait, "", BackingOff},
		"half done, and a check":         {[]edit{halfDone, askCheck, named(retry)}, Decline, RequestCheck, RequestExecutable},
		"half done, and a refresh":       {[]edit{halfDone, askRefresh, named(retry)}, Wait, "", BackingOff},
		"half done, the wait is over":    {[]edit{halfDone, named(now)}, Revoke, RequestRevoke, RequestExecutable},
		"a token that is to be written":  {[]edit{askRefresh, unwritten, named(retry)}, Write, "", TokenUnwritten},
		"suspended":                      {[]edit{askRefresh, named(retry), func(in *Inputs) { in.Suspended = true }}, Wait, "", Suspended},
		"somebody else's Secret":         {[]edit{askRefresh, named(retry), func(in *Inputs) { in.Target.Conflict = true }}, Wait, "", NotOwner},
		"a back-off of our own":          {[]edit{askRefresh, backedOff(retry)}, Force, RequestRefresh, RequestExecutable},
		"the API server refused a write": {[]edit{askRefresh, refused(retry)}, Force, RequestRefresh, RequestExecutable},

		"refresh, limited, no wait named":  {[]edit{askRefresh, limited(retry)}, Force, RequestRefresh, RequestExecutable},
		"revoke, limited, no wait named":   {[]edit{askRevoke, limited(retry)}, Revoke, RequestRevoke, RequestExecutable},
		"check, limited, no wait named":    {[]edit{askCheck, limited(retry)}, Check, RequestCheck, RequestExecutable},
		"refresh, the day's quota is gone": {[]edit{askRefresh, quota}, Force, RequestRefresh, RequestExecutable},
		"revoke, the day's quota is gone":  {[]edit{askRevoke, quota}, Revoke, RequestRevoke, RequestExecutable},
		"check, the day's quota is gone":   {[]edit{askCheck, quota}, Check, RequestCheck, RequestExecutable},
		"Legacy refresh, limited":          {[]edit{legacy, askRefresh, limited(retry)}, Force, RequestRefresh, RequestExecutable},
		"check without a target, limited":  {[]edit{legacyMissing, askCheck, limited(retry)}, Issue, RequestCheck, RequestExecutable},
		"limited, and it has to wait":      {[]edit{askRefresh, forced(now), limited(retry)}, Wait, "", BackingOff},
		"limited, and no budget":           {[]edit{askRefresh, budgetGone, limited(retry)}, Wait, "", BackingOff},
		"limited, half done":               {[]edit{halfDone, limited(retry)}, Wait, "", BackingOff},
		"limited, half done, and a check":  {[]edit{halfDone, askCheck, limited(retry)}, Check, RequestCheck, RequestExecutable},
	}
	for name, test := range tests {
		d := Decide(now, healthy(append([]edit{checked(now)}, test.edits...)...))
		if d.Action != test.action || d.Request != test.request || d.Reason != test.reason {
			t.Errorf("%s: %s %s %q, want %s %s %q", name, d.Action, d.Reason, d.Request, test.action, test.reason, test.request)
		}
		if d.Action == Decline && (!d.RetryAt.Equal(retry) || !d.At.IsZero()) {
			t.Errorf("%s: not before %s, at %s", name, d.RetryAt, d.At)
		}
	}
	// While it backs off, a half-done revoke is woken when the wait is over.
	for name, wait := range map[string]edit{"limited": limited(after(30 * time.Second)), "named": named(after(30 * time.Second))} {
		if d := Decide(now, healthy(checked(now), halfDone, wait)); !d.At.Equal(after(30 * time.Second)) {
			t.Errorf("half done, %s: wakes at %s", name, d.At)
		}
	}
}

// A Legacy token lives for five minutes after the next mint, and a volume follows within 90 s: a refresh must not end one that a pod
// may hold.
func TestLegacyRefreshAfterAMint(t *testing.T) {
	const spacing = 5*time.Minute + 30*time.Second
	tests := map[string]struct {
		edits  []edit
		action Action
		reason Reason
		at     time.Time // for Wait
	}{
		"just minted":            {[]edit{legacy, askRefresh, mintedAt(now)}, Wait, UpToDate, after(spacing)},
		"a second too early":     {[]edit{legacy, askRefresh, mintedAt(after(time.Second - spacing))}, Wait, UpToDate, after(time.Second)},
		"late enough":            {[]edit{legacy, askRefresh, mintedAt(after(-spacing))}, Force, RequestExecutable, time.Time{}},
		"no mint is known":       {[]edit{legacy, askRefresh, mintedAt(time.Time{})}, Force, RequestExecutable, time.Time{}},
		"a clock that was ahead": {[]edit{legacy, askRefresh, mintedAt(after(time.Hour))}, Force, RequestExecutable, time.Time{}},
		"a revoke does not wait": {[]edit{legacy, askRevoke, mintedAt(now)}, Revoke, RequestExecutable, time.Time{}},
		"nor does Stable":        {[]edit{askRefresh, mintedAt(now)}, Force, RequestExecutable, time.Time{}},
		"nor what is due":        {[]edit{legacyDue, askRefresh, mintedAt(now)}, Issue, RefreshDue, time.Time{}},
		"another member mints":   {[]edit{legacy, askRefresh, mintedAt(after(-spacing)), mintEndsBy(after(10 * time.Second))}, Wait, UpToDate, after(10 * time.Second)},
	}
	for name, test := range tests {
		// The check is far, so that nothing but the request wakes.
		d := Decide(now, healthy(append([]edit{every(time.Hour), checked(now)}, test.edits...)...))
		if d.Action != test.action || d.Reason != test.reason || !d.At.Equal(test.at) {
			t.Errorf("%s: %s %s at %s, want %s %s at %s", name, d.Action, d.Reason, d.At, test.action, test.reason, test.at)
		}
	}
}

// Checks on request are paced for the account, and one that has to mint follows the pace of mints.
func TestPaceOfRequestedChecks(t *testing.T) {
	soon := after(8 * time.Second)
	checkAt := func(in *Inputs) { in.Account.CheckNotBefore = soon }
	tests := map[string]struct {
		edits  []edit
		action Action
		at     time.Time
	}{
		"no pace":                        {[]edit{askCheck}, Check, time.Time{}},
		"checked just now":               {[]edit{askCheck, checkAt}, Wait, soon},
		"Legacy, checked just now":       {[]edit{legacy, askCheck, checkAt}, Wait, soon},
		"a refresh needs no such pace":   {[]edit{askRefresh, checkAt}, Force, time.Time{}},
		"what is due does not either":    {[]edit{checked(after(-time.Minute)), due, askCheck, checkAt}, Issue, time.Time{}},
		"no target, Stable":              {[]edit{missing, repairAt(after(time.Minute)), askCheck, checkAt}, Wait, soon},
		"no target, Legacy":              {[]edit{legacyMissing, askCheck, checkAt}, Issue, time.Time{}},
		"no target, Legacy, mints paced": {[]edit{legacyMissing, askCheck, mintAt(soon)}, Wait, soon},
		"no target, another mints":       {[]edit{legacyMissing, askCheck, mintEndsBy(soon)}, Wait, soon},
	}
	for name, test := range tests {
		d := Decide(now, healthy(append([]edit{checked(now)}, test.edits...)...))
		if d.Action != test.action || !d.At.Equal(test.at) {
			t.Errorf("%s: %s %s at %s, want %s at %s", name, d.Action, d.Reason, d.At, test.action, test.at)
		}
	}
}

// The data of a target that was tampered with is not the stored token, so a probe of it tells nothing.
func TestCheckOfATamperedTarget(t *testing.T) {
	soon := after(8 * time.Second)
	for name, test := range map[string]struct {
		edits  []edit
		action Action
		at     time.Time
	}{
		"Stable":              {[]edit{askCheck, tampered}, Check, time.Time{}},
		"Legacy":              {[]edit{legacyTampered, askCheck}, Issue, time.Time{}},
		"Legacy, mints paced": {[]edit{legacyTampered, askCheck, mintAt(soon)}, Wait, soon},
	} {
		if d := Decide(now, healthy(test.edits...)); d.Action != test.action || !d.At.Equal(test.at) {
			t.Errorf("%s: %s %s at %s, want %s at %s", name, d.Action, d.Reason, d.At, test.action, test.at)
		}
	}
}

// Whoever has repaired what kept a mint from working asks for a check. An answer about the token that the mint replaces would not help.
func TestCheckAfterAFailedMint(t *testing.T) {
	soon, later := after(8*time.Second), after(20*time.Minute)
	limits := func(in *Inputs) {
		in.Traits = Legacy()
		failed(45009, after(-time.Minute))(in)
		in.Failure.Class, in.Failure.RetryAt = token.Limited, later
	}
	appIDChanged := func(in *Inputs) { in.Target.AppIDChanged = true }
	for name, test := range map[string]struct {
		edits  []edit
		action Action
		at     time.Time
	}{
		"nothing is due":           {[]edit{limits}, Check, time.Time{}},
		"expired":                  {[]edit{limits, expires(now)}, Issue, time.Time{}},
		"due":                      {[]edit{limits, expires(after(9 * time.Minute))}, Issue, time.Time{}},
		"another appid":            {[]edit{limits, appIDChanged}, Issue, time.Time{}},
		"another AppSecret":        {[]edit{limits, credentialsChanged}, Check, time.Time{}}, // the token is valid until it is due
		"a mint was lost":          {[]edit{limits, marked}, Issue, time.Time{}},
		"no failure":               {[]edit{legacy, expires(now)}, Check, time.Time{}},
		"expired, clock unknown":   {[]edit{limits, expires(now), unsynced}, Check, time.Time{}},
		"expired, mints are paced": {[]edit{limits, expires(now), mintAt(soon)}, Wait, soon},
		"expired, another mints":   {[]edit{limits, expires(now), mintEndsBy(soon)}, Wait, soon},
		"expired, Stable":          {[]edit{limits, expires(now), func(in *Inputs) { in.Traits = Stable() }}, Check, time.Time{}},
	} {
		if d := Decide(now, healthy(append(test.edits, askCheck)...)); d.Action != test.action || !d.At.Equal(test.at) {
			t.Errorf("%s: %s %s at %s, want %s at %s", name, d.Action, d.Reason, d.At, test.action, test.at)
		}
	}
}
