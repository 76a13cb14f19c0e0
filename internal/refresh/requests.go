// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"slices"
	"time"
)

// Limits on forced calls and requested mints, for each account.
const (
	// ForcedPerDay is the number of forced calls, or of requested mints, in 24 hours. WeChat documents 20 for stable_token.
	ForcedPerDay = 20
	budgetWindow = 24 * time.Hour
	// ForcedSpacing is the least time between two forced calls of a Stable account; a closer one does not refresh. WeChat documents
	// 30 s; one more makes up for the network.
	ForcedSpacing = 31 * time.Second
	// RevokeSpacing is the time between the two forced calls of a revoke. Times in a status have whole seconds, so the calls are at
	// least 31 s apart, and the leaked token is dead within 35 s of the request.
	RevokeSpacing = 32 * time.Second
)

// RequestKind is one of the requests that a person or pipeline can make.
type RequestKind string

const (
	RequestCheck   RequestKind = "check"
	RequestRefresh RequestKind = "refresh"
	RequestRevoke  RequestKind = "revoke"
)

// RequestKinds returns all of them, the most urgent first.
func RequestKinds() [3]RequestKind {
	return [...]RequestKind{RequestRevoke, RequestRefresh, RequestCheck}
}

// actionFor returns the action that carries a request out. Where there is no token to ask about, a check gets one.
func (p *plan) actionFor(kind RequestKind) Action {
	if p.mustDecline(kind) {
		return Decline
	}
	switch kind {
	case RequestRevoke:
		return Revoke
	case RequestRefresh:
		return Force
	case RequestCheck:
		if !p.in.Target.Exists || p.checkNeedsMint() {
			return Issue
		}
		return Check
	}
	return Wait
}

// checkNeedsMint reports whether a check on request needs a mint: there is no token to ask about, or a mint that is due has failed.
// Whoever has repaired what kept it from working asks for a check, and an answer about the old token would not help.
func (p *plan) checkNeedsMint() bool {
	t := p.in.Target
	due := (p.mintUnfinished() || p.expired() || p.refreshDue()) && p.issueOrAsk() == Issue
	failed := p.in.Failure != nil && (due || t.AppIDChanged)
	return p.in.Traits.EndsOlder && (!t.Exists || t.Tampered || failed)
}

// Requests are those that were made and not handled yet.
type Requests struct {
	Check, Refresh, Revoke bool
	// RevokeStarted is the latest forced call of a revoke that is half done; zero for none.
	RevokeStarted time.Time
	// Forced are the account's forced calls and requested mints of the last 24 hours.
	Forced []time.Time
}

// executableRequest returns the most urgent request that can be carried out now, and whether there is one.
func (p *plan) executableRequest() (RequestKind, bool) {
	if p.in.Token.Unwritten {
		// It may be the very token that was asked for: the request is handled once the Secret holds it.
		return "", false
	}
	for _, kind := range RequestKinds() {
		if at, made := p.executableAt(kind); made && (p.mustDecline(kind) || !p.now.Before(at)) {
			return kind, true
		}
	}
	return "", false
}

// mustDecline reports whether a request ends without an attempt, because WeChat named a wait that is not over. A revoke that is half
// done waits instead, or the leaked token would live.
func (p *plan) mustDecline(kind RequestKind) bool {
	f := p.in.Failure
	halfDone := kind == RequestRevoke && !p.in.Requests.RevokeStarted.IsZero()
	return f != nil && f.Named > 0 && p.backingOff() && !halfDone
}

// requestAt returns the earliest moment at which a request that waits can be carried out; zero for none.
func (p *plan) requestAt() time.Time {
	var next time.Time
	for _, kind := range RequestKinds() {
		if at, made := p.executableAt(kind); made {
			next = earliest(next, at)
		}
	}
	return next
}

// executableAt returns when a request can be carried out, zero for now, and whether it was made.
func (p *plan) executableAt(kind RequestKind) (at time.Time, made bool) {
	r := p.in.Requests
	switch {
	case kind == RequestRevoke && !r.RevokeStarted.IsZero():
		next := EarliestNext(r.RevokeStarted, RevokeSpacing, p.now)
		return Later(Later(next, p.forcedAt(1)), p.retryAt), true
	case kind == RequestRevoke && r.Revoke:
		return p.forcedAt(2), true
	case kind == RequestRefresh && r.Refresh && r.RevokeStarted.IsZero():
		return Later(p.forcedAt(1), EarliestNext(p.in.Account.LastMint, p.in.Traits.AfterMint, p.now)), true
	case kind == RequestCheck && r.Check && p.checkNeedsMint():
		// It is a mint, and who asks for checks may not have more mints than the account can bear.
		return Later(p.in.Account.MintNotBefore, p.in.Account.MintEndsBy), true
	case kind == RequestCheck && r.Check:
		return p.in.Account.CheckNotBefore, true
	}
	return time.Time{}, false
}

// forcedAt returns when n forced calls, the first of them now, keep the account's limits.
func (p *plan) forcedAt(n int) time.Time {
	at := ForcedAt(p.now, p.in.Requests.Forced, n, p.in.Traits.ForcedSpacing)
	if p.in.Traits.EndsOlder {
		at = Later(at, p.in.Account.MintEndsBy)
	}
	return at
}

// WithinDay returns the times of the forced calls that count against the budget.
func WithinDay(forced []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(forced), func(t time.Time) bool { return now.Sub(t) >= budgetWindow })
}

// ForcedAt returns the earliest time, zero for now, at which the budget of the account has room for n more forced calls and the last
// one is at least spacing ago.
func ForcedAt(now time.Time, forced []time.Time, n int, spacing time.Duration) time.Time {
	// A status has whole seconds, so times within a second of each other are the same call.
	forced = slices.SortedFunc(slices.Values(forced), time.Time.Compare)
	forced = slices.CompactFunc(forced, func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Second })
	var last time.Time
	recent := make([]time.Time, 0, len(forced))
	for _, t := range forced {
		if IsInFuture(t, now) {
			t = now.Add(-spacing)
		}
		last = Later(last, t)
		recent = append(recent, t)
	}
	recent = WithinDay(recent, now)
	var at time.Time
	if !last.IsZero() {
		at = last.Add(spacing)
	}
	slices.SortFunc(recent, time.Time.Compare)
	if excess := len(recent) + n - ForcedPerDay; excess > 0 {
		at = Later(at, recent[excess-1].Add(budgetWindow))
	}
	if !now.Before(at) {
		return time.Time{}
	}
	return at
}
