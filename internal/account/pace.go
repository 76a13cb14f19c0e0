// SPDX-License-Identifier: Apache-2.0

package account

import (
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

const (
	// mintBurst and mintEvery pace the Legacy mints of an account that nobody asked for, so that nothing can use up the 2,000
	// calls that WeChat allows in a day.
	mintBurst = 3
	mintEvery = 5 * time.Minute
	// mintInHandover paces them in the last minutes of a token instead, in case calls that WeChat did not answer have emptied
	// the bucket: the promise needs an attempt in any 30 s of reachability. It adds at most 15 mints to the life of a token.
	mintInHandover = 20 * time.Second
	// handover is how long these last minutes are.
	handover = 5 * time.Minute
	// markedMintAfter is the least time between a mint of this process and one that only a mark on a Secret asks for; at most a
	// quarter of the token's life. Marks can be forged by whoever may edit a member's Secret, and two mints in a row would end the
	// token that pods of other members hold.
	markedMintAfter = 2 * time.Minute
	// checkEvery is the least time between two checks of the account that are made on request.
	checkEvery = 10 * time.Second
)

// pace limits how often an account is called.
type pace struct {
	// bucket limits mints that nobody asked for; nil until the first one.
	bucket *rate.Limiter
	// lastMint is when the last mint was begun, asked for or not.
	lastMint time.Time
	// lastCheck is when the last check on request was begun.
	lastCheck time.Time
	// forced are the times of forced calls and requested mints.
	forced []time.Time
}

// matters reports whether a member that joined now would find other limits than in a fresh account.
func (p *pace) matters(now time.Time) bool {
	return p.bucket != nil && p.bucket.TokensAt(now) < mintBurst || len(refresh.WithinDay(p.forced, now)) > 0 ||
		now.Sub(p.lastMint) < refresh.RefreshAfterMint && !refresh.IsInFuture(p.lastMint, now)
}

// BeginMint takes the turn to mint, or reports false while another pass has it. No pass waits for its turn, because WeChat may
// take 10 s to answer, and the members of a large account would occupy all workers.
func (a *Account) BeginMint() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting != nil {
		return false
	}
	a.waiting = map[types.NamespacedName]bool{}
	return true
}

// EndMint gives the turn back and returns the members that waited for it.
func (a *Account) EndMint() []types.NamespacedName {
	a.mu.Lock()
	defer a.mu.Unlock()
	waiting := slices.Collect(maps.Keys(a.waiting))
	a.waiting = nil
	return waiting
}

// AwaitMint reports whether another pass has the turn to mint. If so, EndMint returns the member's name.
func (a *Account) AwaitMint(name types.NamespacedName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting != nil {
		a.waiting[name] = true
	}
	return a.waiting != nil
}

// MintNotBefore returns when a mint that nobody asked for may be made; zero for now. The last minutes of a valid token have the quicker
// pace: of the one that this process minted last, and of the asking member's own, which ends at expiresAt; zero if it has none. The
// account's token counts although the member may have lost its copy, because the other members still wait for this one's mint.
func (a *Account) MintNotBefore(expiresAt, now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &a.pace
	if p.bucket == nil {
		return time.Time{}
	}
	if refresh.IsInFuture(p.lastMint, now) {
		p.lastMint = now
		p.bucket.ReserveN(now, 0) // lets the bucket fill from now on, although it was last used at a time that lies ahead
	}
	missing := 1 - p.bucket.TokensAt(now)
	if missing <= 0 {
		return time.Time{}
	}
	// Attempts of the last minutes may have left a debt in the bucket, which must not keep an account from mints for an hour after them.
	at := refresh.Earlier(now.Add(time.Duration(missing*float64(mintEvery))), p.lastMint.Add(mintEvery))
	for _, end := range [...]time.Time{expiresAt, a.minted.ExpiresAt} {
		if now.Before(end) {
			at = refresh.Earlier(at, refresh.Later(end.Add(-handover), p.lastMint.Add(mintInHandover)))
		}
	}
	return at
}

// CountMint counts a mint or a forced call that is about to be made: against the account's budget if it was requested, or else against
// the bucket. The returned function takes it back, for a call that WeChat refused or that was not sent.
func (a *Account) CountMint(now time.Time, requested bool) (undo func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := &a.pace
	last := p.lastMint
	p.lastMint = now
	var taken *rate.Reservation
	if requested {
		p.forced = append(refresh.WithinDay(p.forced, now), now)
	} else {
		if p.bucket == nil {
			p.bucket = rate.NewLimiter(rate.Every(mintEvery), mintBurst)
		}
		taken = p.bucket.ReserveN(now, 1)
	}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.lastMint.Equal(now) {
			p.lastMint = last
		}
		if requested {
			p.forced = slices.DeleteFunc(p.forced, now.Equal)
		} else {
			taken.CancelAt(now)
		}
	}
}

// LastMint returns when the last mint of this process was begun; zero if there was none.
func (a *Account) LastMint() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pace.lastMint
}

// MarkedMintNotBefore returns when a mint may be made that only a mark on a Secret asks for, given the last mint of this process; zero
// before the first one.
func (c Confirmation) MarkedMintNotBefore(now time.Time) time.Time {
	if c.Fingerprint == "" || refresh.IsInFuture(c.At, now) {
		return time.Time{}
	}
	return c.At.Add(min(markedMintAfter, c.ExpiresAt.Sub(c.At)/4))
}

// Forced returns the forced calls and requested mints of the account within 24 hours.
func (a *Account) Forced(now time.Time) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return refresh.WithinDay(a.pace.forced, now)
}

// BeginCheck reports whether a check may be made on request now, and counts it if so.
func (a *Account) BeginCheck(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Before(refresh.EarliestNext(a.pace.lastCheck, checkEvery, now)) {
		return false
	}
	a.pace.lastCheck = now
	return true
}

// CheckNotBefore returns when a check may be made on request; zero for now.
func (a *Account) CheckNotBefore(now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return refresh.EarliestNext(a.pace.lastCheck, checkEvery, now)
}
