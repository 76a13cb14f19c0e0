// SPDX-License-Identifier: Apache-2.0

package account

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// wantedFor is how long a member's wish for a mint stands. The member repeats it while it waits.
	wantedFor = 15 * time.Second
	// CopyWithin is how long after a mint of this process a member that was not given the token looks for it before it may mint.
	CopyWithin = time.Minute
	// foreignWithin is the time within which two early deaths of a token are reported as a foreign fetcher.
	foreignWithin = time.Hour
	// maxDeaths bounds the refused tokens that are remembered. Members of one account rarely hold more than two.
	maxDeaths = 16
)

// Account is what the members of one WeChat account share. The zero value is an account without members.
type Account struct {
	mu sync.Mutex
	// flights merges ordinary calls that members make at the same time.
	flights singleflight.Group
	// members has one element for nearly all accounts.
	members []Member
	// waiting are the members to wake when the mint ends that a pass is making; nil while none is made.
	waiting map[types.NamespacedName]bool
	pace    pace
	// Tickets are what was derived from the account's token.
	Tickets Tickets
	// confirmed is WeChat's latest answer about the account's token.
	confirmed Confirmation
	// minted is the last token that this process minted.
	minted Confirmation
	// deaths are the tokens that WeChat refused, the latest last.
	deaths []death
	// wantedAt is when a member last asked for a mint that it may not make itself.
	wantedAt time.Time
}

// Confirmation says that WeChat named or accepted the token with this fingerprint.
type Confirmation struct {
	Fingerprint string
	// At is when the call that confirmed the token was started.
	At        time.Time
	ExpiresAt time.Time
	// Doubted reports that a call whose answer was lost may have replaced the token since.
	Doubted bool
}

// SeekAfter returns how long a member waits before it looks again for the others' token while the account may not mint, given the last
// mint. Just after that, only the status of the one that minted is missing.
func (c Confirmation) SeekAfter(now time.Time) time.Duration {
	if now.Sub(c.At) < CopyWithin {
		return time.Second
	}
	return 10 * time.Second
}

// Replaces reports whether the confirmed token was issued after the one with this fingerprint.
func (c Confirmation) Replaces(fingerprint string, issuedAt time.Time) bool {
	return c.Fingerprint != "" && fingerprint != "" && c.Fingerprint != fingerprint && c.At.After(issuedAt)
}

// death is a token that WeChat refused.
type death struct {
	fingerprint string
	since       time.Time
	// early reports that the token should still have lived.
	early bool
}

// Confirm records an answer and returns the other members when WeChat named another token than before: their Secrets may hold
// an old one. An answer to a call that was started before the one that is recorded already is ignored.
func (a *Account) Confirm(c Confirmation, by types.UID, now time.Time) []types.NamespacedName {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.At.Before(a.confirmed.At) && !refresh.IsInFuture(a.confirmed.At, now) {
		return nil
	}
	changed := a.confirmed.Fingerprint != c.Fingerprint
	a.confirmed = c
	if !changed {
		return nil
	}
	var others []types.NamespacedName
	for _, m := range a.members {
		if m.UID != by {
			others = append(others, m.Name)
		}
	}
	return others
}

// Confirmed returns WeChat's latest answer about the account's token.
func (a *Account) Confirmed() Confirmation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.confirmed
}

// Doubt records that WeChat may have replaced the account's token by a call whose answer was lost.
func (a *Account) Doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.confirmed
	c.Doubted = true
	a.confirmed = c
}

// Minted returns the last token that this process minted for the account.
func (a *Account) Minted() Confirmation {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.minted
}

// HasNewer reports whether this process has minted a later token than the one of a member, whose fingerprint is empty if it has none, and
// another member may have it.
func (a *Account) HasNewer(fingerprint string, issuedAt time.Time) bool {
	m := a.Minted()
	if fingerprint != "" {
		return m.Replaces(fingerprint, issuedAt)
	}
	_, dead := a.DeadSince(m.Fingerprint)
	return m.Fingerprint != "" && !dead && a.Shared()
}

// NoteMinted records a mint. Whoever asked for it has been served.
func (a *Account) NoteMinted(c Confirmation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.minted, a.wantedAt = c, time.Time{}
}

// NoteDead records that WeChat refuses a token. early says that the token should still have lived. It returns how many
// tokens of the account died early within the last hour, or 0 if this death was known already or was not early.
func (a *Account) NoteDead(fingerprint string, early bool, now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.ContainsFunc(a.deaths, func(d death) bool { return d.fingerprint == fingerprint }) {
		return 0
	}
	a.deaths = append(a.deaths, death{fingerprint: fingerprint, since: now, early: early})
	if len(a.deaths) > maxDeaths {
		a.deaths = slices.Delete(a.deaths, 0, len(a.deaths)-maxDeaths)
	}
	if !early {
		return 0
	}
	n := 0
	for _, d := range a.deaths {
		if d.early && now.Sub(d.since) <= foreignWithin {
			n++
		}
	}
	return n
}

// DeadSince returns when WeChat first refused a token, and whether it did.
func (a *Account) DeadSince(fingerprint string) (since time.Time, dead bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.deaths {
		if d.fingerprint == fingerprint {
			return d.since, true
		}
	}
	return time.Time{}, false
}

// NoteAlive records that WeChat accepts a token that it refused before.
func (a *Account) NoteAlive(fingerprint string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.deaths = slices.DeleteFunc(a.deaths, func(d death) bool { return d.fingerprint == fingerprint })
}

// Want records that a member waits, from now on, for a mint that another member has to make; with the zero time, that nobody does.
func (a *Account) Want(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wantedAt = now
}

// Wanted reports whether a member waits for a mint that another member has to make.
func (a *Account) Wanted(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(refresh.EarliestNext(a.wantedAt, wantedFor, now))
}

// Merged makes an ordinary call, or returns the answer to the same call that another member is making.
func (a *Account) Merged(call func() (token.Token, error)) (token.Token, error) {
	if !a.Shared() {
		return call()
	}
	answer, err, _ := a.flights.Do("", func() (any, error) { return call() })
	t, _ := answer.(token.Token)
	return t, err
}

// standing reports whether the account has members, and whether its pacing matters.
func (a *Account) standing(now time.Time) (inUse, paced bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.members) > 0, a.pace.matters(now)
}
