// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"slices"
	"time"
)

const (
	// maxWindow is how long before its expiry WeChat replaces a Stable token, and how long a replaced one
	// lives on.
	maxWindow = 5 * time.Minute
	// forceBudget is how many forced refreshes WeChat documents for a day, forceSpacing how far apart.
	forceBudget  = 20
	forceSpacing = 30 * time.Second
	forcePeriod  = 24 * time.Hour
)

// mint makes a token of the account.
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

// stableToken is an ordinary call: the same token until its window, then a new one while the old one
// lives out its life.
func (p *platform) stableToken(a *account, now time.Time) (t *IssuedToken, minted bool) {
	if a.stable != nil && a.stable.validAt(now) && a.stable.ExpiresAt.Sub(now) >= a.stable.window() {
		return a.stable, false
	}
	a.stable = p.mint(a, now, Stable, byCall, false)
	return a.stable, true
}

// forcedToken is a call with force_refresh.
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

// force replaces the Stable token. What the last force replaced, and still lives, dies at once: this is
// how two forced calls in a row get rid of a leaked token.
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

// forget drops the forced refreshes that no longer count.
func (a *account) forget(now time.Time) {
	a.forcedAt = slices.DeleteFunc(a.forcedAt, func(at time.Time) bool { return now.Sub(at) >= forcePeriod })
}

// legacyToken mints; documented to live are the new token and, for five minutes, the one before.
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

// RivalForceRefresh is somebody else who forces a refresh of the appid's Stable token. It counts for the
// account's budget and spacing, but is never refused.
func (s *Server) RivalForceRefresh(appID string) IssuedToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, now := s.platform.account(appID), s.platform.now()
	a.forget(now)
	return *s.platform.force(a, now, byRival)
}

// RivalMint is somebody else who mints a Legacy token for the appid. It counts for the daily quota, but
// is never refused.
func (s *Server) RivalMint(appID string) IssuedToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, now := s.platform.account(appID), s.platform.now()
	a.legacyUse.count(now)
	return *s.platform.legacyToken(a, now, byRival)
}
