// SPDX-License-Identifier: Apache-2.0

package refresh

import "time"

// Limits that WeChat sets on forced calls, per account.
const (
	// ForcedPerDay is the number of forced refreshes in 24 hours.
	ForcedPerDay = 20
	// ForcedSpacing is the least time between two forced calls; a closer one does not refresh. WeChat names
	// 30 s; one more makes up for the way there.
	ForcedSpacing = 31 * time.Second
	// RevokeSpacing is the time between the two forced calls of a revoke. Times on the Secret have whole seconds, so
	// the calls are at least 31 s apart, and the leaked token is dead within 35 s of the request.
	RevokeSpacing = 32 * time.Second
)

// RequestKind is one of the requests that a person or pipeline can make.
type RequestKind string

const (
	RequestCheck   RequestKind = "check"
	RequestRefresh RequestKind = "refresh"
	RequestRevoke  RequestKind = "revoke"
)

// RequestKinds are all of them, the most urgent first.
func RequestKinds() [3]RequestKind {
	return [...]RequestKind{RequestRevoke, RequestRefresh, RequestCheck}
}

// actionFor carries a request out. Who asks for a check of a token that is not there wants one.
func (p *plan) actionFor(kind RequestKind) Action {
	switch kind {
	case RequestRevoke:
		return Revoke
	case RequestRefresh:
		return Force
	case RequestCheck:
		if !p.in.Target.Exists {
			return Issue
		}
		return Check
	}
	return Wait
}

// Requests are those that were made and not handled yet.
type Requests struct {
	Check, Refresh, Revoke bool
	// RevokeStarted is the first forced call of a revoke that is half done; zero for none.
	RevokeStarted time.Time
	// Forced are the account's forced calls; those older than 24 hours do not count.
	Forced []time.Time
}

// executableRequest picks the request that can be carried out now: the most urgent first.
func (p *plan) executableRequest() (RequestKind, bool) {
	if p.in.Unwritten {
		// It may be the very token that was asked for: the request is handled once the Secret holds it.
		return "", false
	}
	for _, kind := range RequestKinds() {
		if at, made := p.executableAt(kind); made && !p.now.Before(at) {
			return kind, true
		}
	}
	return "", false
}

// requestAt is the earliest moment at which a request that waits can be carried out.
func (p *plan) requestAt() time.Time {
	var next time.Time
	for _, kind := range RequestKinds() {
		if at, made := p.executableAt(kind); made {
			next = earliest(next, at)
		}
	}
	return next
}

func (p *plan) executableAt(kind RequestKind) (at time.Time, made bool) {
	r := p.in.Requests
	switch {
	case kind == RequestRevoke && !r.RevokeStarted.IsZero():
		next := r.RevokeStarted.Add(RevokeSpacing)
		if r.RevokeStarted.After(p.now.Add(RevokeSpacing)) {
			next = time.Time{} // no clock is that wrong: somebody edited the Secret, and must not stop a revoke so
		}
		return Later(Later(next, p.forcedAt(1)), p.retryAt), true
	case kind == RequestRevoke && r.Revoke:
		return p.forcedAt(2), true
	case kind == RequestRefresh && r.Refresh && r.RevokeStarted.IsZero():
		return p.forcedAt(1), true
	case kind == RequestCheck && r.Check && p.in.Legacy && !p.in.Target.Exists:
		return Later(p.in.MintNotBefore, p.in.MintEndsBy), true // nobody asked for more mints than the account can bear
	case kind == RequestCheck && r.Check:
		return time.Time{}, true
	}
	return time.Time{}, false
}

// forcedAt is when n forced calls, the first of them now, keep WeChat's limits. Legacy has none, as a
// mint counts against the 2,000 a day, but one mint at a time.
func (p *plan) forcedAt(n int) time.Time {
	if p.in.Legacy {
		return p.in.MintEndsBy
	}
	return ForcedAt(p.now, p.in.Requests.Forced, n)
}

// ForcedAt is the earliest time, zero for now, at which the budget of the account has room for n more
// forced calls and the last one is long enough ago.
func ForcedAt(now time.Time, forced []time.Time, n int) time.Time {
	var last time.Time
	recent := make([]time.Time, 0, len(forced))
	for _, t := range forced {
		if NotedAhead(t, now) {
			t = now.Add(-ForcedSpacing)
		}
		last = Later(last, t)
		if now.Sub(t) < 24*time.Hour {
			recent = append(recent, t)
		}
	}
	var at time.Time
	if !last.IsZero() {
		at = last.Add(ForcedSpacing)
	}
	if excess := len(recent) + n - ForcedPerDay; excess > 0 {
		at = Later(at, nthOldest(recent, excess).Add(24*time.Hour))
	}
	if !now.Before(at) {
		return time.Time{}
	}
	return at
}
