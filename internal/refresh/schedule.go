// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"hash/fnv"
	"math"
	"time"
)

const (
	// StableOverlap is how long before its expiry WeChat replaces a Stable token upon a call; both
	// tokens are valid meanwhile. An earlier call returns the same token.
	StableOverlap = 300 * time.Second
	// StableRepeat is the least time between two due calls that return the old token.
	StableRepeat = 5 * time.Second

	stableJitterMin  = 1 * time.Second
	stableJitterSpan = 14 * time.Second

	// LegacyLead is how long before its expiry a Legacy token is replaced, plus jitter, and at most half of the token's life.
	LegacyLead       = 600 * time.Second
	legacyJitterSpan = 60 * time.Second

	// RefreshAfterMint is the least time from the last mint of a Legacy account to a refresh on request: the token before the last one
	// lives for five minutes, and every volume has followed by then.
	RefreshAfterMint = 5*time.Minute + 30*time.Second

	// FirstCheckWithin spreads the first checks after a start.
	FirstCheckWithin = 45 * time.Second

	// ExpirySlack is by how much the expiry in a Secret may be off before it is written again. Readers have no use for more precision.
	ExpirySlack = 30 * time.Second

	// checkBeat is the unit of the times of later checks: whole seconds since Inputs.StartedAt. With thousands of resources, waking up
	// for each check alone takes more CPU than the check itself (docs/performance.md).
	checkBeat = time.Second
)

// clockNoise is by how much moments of one clock may seem out of order, because WeChat's Date has whole seconds.
const clockNoise = 5 * time.Second

// IsInFuture reports whether a time that was noted as the present lies ahead of now. The clock that it was noted by ran ahead (see
// wechat.Client.Now), so nothing may be put off because of it.
func IsInFuture(noted, now time.Time) bool { return noted.After(now.Add(clockNoise)) }

// EarliestNext returns last plus wait, or the zero time if there was no last attempt, or if it was noted by a clock that ran ahead.
func EarliestNext(last time.Time, wait time.Duration, now time.Time) time.Time {
	if last.IsZero() || IsInFuture(last, now) {
		return time.Time{}
	}
	return last.Add(wait)
}

// Later returns the later of two times; a zero time is earlier than any other.
func Later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Earlier returns the earlier of two times; a zero time is earlier than any other.
func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// DueAt returns when the stored token is to be replaced; zero without one.
func DueAt(in Inputs) time.Time {
	t := in.Token
	if t.Fingerprint == "" {
		return time.Time{}
	}
	life := t.ExpiresAt.Sub(t.IssuedAt)
	if in.Traits.Overlap == 0 {
		lead := in.Traits.Lead + scale(in.Traits.LeadJitter, in, "lead")
		return earliest(t.ExpiresAt.Add(-min(lead, life/2)), t.ReplaceBy)
	}
	due := t.ExpiresAt.Add(-in.Traits.Overlap + stableJitterMin + scale(stableJitterSpan, in, "due"))
	if life <= in.Traits.Overlap {
		due = t.ExpiresAt.Add(-life / 2)
	}
	// A call just before the overlap, or one that WeChat answered with the old token, is repeated soon but not at once.
	if repeat := t.CheckedAt.Add(StableRepeat); !t.CheckedAt.IsZero() && due.Before(repeat) {
		due = repeat
	}
	return due
}

// CheckAt returns when the stored token is next checked with WeChat; zero without one.
func CheckAt(in Inputs) time.Time {
	if in.Token.Fingerprint == "" {
		return time.Time{}
	}
	if in.Token.CheckedAt.IsZero() {
		// The power keeps the first seconds after a start for what cannot wait: rotations that fell
		// due meanwhile, tampering and new credentials.
		u := unit(in.UID, "", "first-check")
		return in.StartedAt.Add(time.Duration(float64(FirstCheckWithin) * math.Pow(u, 2.0/3)))
	}
	interval := time.Duration(float64(in.CheckInterval) * (0.9 + 0.2*unit(in.UID, in.Token.Fingerprint, "check")))
	return beatFrom(in.StartedAt, in.Token.CheckedAt.Add(interval))
}

// beatFrom returns the first beat that is not before at. Beats count from the start of the process, so processes that started at
// different moments do not call at the same ones.
func beatFrom(start, at time.Time) time.Time {
	late := at.Sub(start) % checkBeat
	if late > 0 {
		late -= checkBeat
	}
	return at.Add(-late)
}

func scale(span time.Duration, in Inputs, purpose string) time.Duration {
	return time.Duration(float64(span) * unit(in.UID, in.Token.Fingerprint, purpose))
}

// unit returns a hash of its arguments as a number in [0, 1).
func unit(uid, fingerprint, purpose string) float64 {
	h := fnv.New64a()
	for _, s := range [...]string{uid, fingerprint, purpose} {
		_, _ = h.Write([]byte(s)) // a hash never fails
		_, _ = h.Write([]byte{0})
	}
	// FNV spreads its last bytes badly over the high bits; one multiplication mixes them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return float64(x>>11) / (1 << 53)
}
