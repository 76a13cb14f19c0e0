// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"slices"
	"time"
)

const (
	// maxWindow is how long before its expiry WeChat replaces a Stable token, and how long a replaced token stays valid.
	maxWindow = 5 * time.Minute
	// forceBudget is the documented number of forced refreshes in a day, and forceSpacing is the documented time between two of them.
	forceBudget  = 20
	forceSpacing = 30 * time.Second
	forcePeriod  = 24 * time.Hour
)

// mint issues a new token for an account.
func (p *platform) mint(a *account, now time.Time, mode Mode, by string, forced bool) *IssuedToken {
	life := a.Life
	if life <= 0 {
		life = p.options.Life
	}
	if life <= 0 {
		life = defaultLife
	}
	t := p.ledger.add(IssuedToken{AppID: a.ID, Mode: mode, IssuedAt: now, ExpiresAt: now.Add(wholeSeconds(life)), By: by, Forced: forced})
	a.issued = append(a.issued, t)
	return t
}

// stableToken processes an ordinary call. It returns the same token until that token's window begins, and then a new one, while the old
// one stays valid until it expires.
func (p *platform) stableToken(a *account, now time.Time) (t *IssuedToken, minted bool) {
	if a.stable != nil && a.stable.validAt(now) && a.stable.ExpiresAt.Sub(now) >= a.stable.window() {
		return a.stable, false
	}
	a.stable = p.mint(a, now, Stable, byCall, false)
	return a.stable, true
}

// forcedToken processes a call with force_refresh.
func (p *platform) forcedToken(a *account, now time.Time) (t *IssuedToken, minted bool, errcode int) {
	a.forget(now)
	if n := len(a.forcedAt); n > 0 {
		if since := now.Sub(a.forcedAt[n-1]); since >= 0 && since < forceSpacing {
			t, minted = p.stableToken(a, now)
			return t, minted, 0
		}
	}
	if len(a.forcedAt) >= forceBudget {
		return nil, false, codeDailyQuota
	}
	return p.force(a, now, byCall), true, 0
}

// force replaces the Stable token. It immediately invalidates the token that the previous forced refresh replaced, so that two forced
// calls in a row invalidate a leaked token.
func (p *platform) force(a *account, now time.Time, by string) *IssuedToken {
	if a.forcedOut != nil {
		a.forcedOut.endBy(now)
	}
	if a.stable != nil {
		a.stable.endBy(now.Add(a.stable.window()))
	}
	a.forcedOut = a.stable
	a.stable = p.mint(a, now, Stable, by, true)
	a.forcedAt = append(a.forcedAt, now)
	return a.stable
}

// forget removes the forced refreshes that no longer count.
func (a *account) forget(now time.Time) {
	a.forcedAt = slices.DeleteFunc(a.forcedAt, func(at time.Time) bool { return now.Sub(at) >= forcePeriod })
}

// legacyToken processes a Legacy call. By the documentation only the new token and, for five minutes, the previous one are valid.
func (p *platform) legacyToken(a *account, now time.Time, by string) *IssuedToken {
	if a.legacyBefore != nil && !p.options.LegacyGrandparentLives {
		a.legacyBefore.endBy(now)
	}
	if a.legacy != nil {
		a.legacy.endBy(now.Add(a.legacy.window()))
	}
	a.legacyBefore = a.legacy
	a.legacy = p.mint(a, now, Legacy, by, false)
	return a.legacy
}

// RivalForceRefresh simulates a forced refresh of the Stable token by another program. It counts towards the budget and spacing
// of the account, but is never refused.
func (s *Server) RivalForceRefresh(appID string) IssuedToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, now := s.platform.account(appID), s.platform.now()
	a.forget(now)
	return *s.platform.force(a, now, byRival)
}

// RivalMint simulates a Legacy mint by another program. It counts towards the daily quota, but is never refused.
func (s *Server) RivalMint(appID string) IssuedToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, now := s.platform.account(appID), s.platform.now()
	a.legacyUse.count(now)
	return *s.platform.legacyToken(a, now, byRival)
}
