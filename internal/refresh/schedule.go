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

	// LegacyLead is how long before its expiry a Legacy token is replaced, plus jitter, and at most
	// half the token's life.
	LegacyLead       = 600 * time.Second
	legacyJitterSpan = 60 * time.Second

	// FirstCheckWithin spreads the first checks after a start.
	FirstCheckWithin = 45 * time.Second

	// checkBeat is what later checks are put off to: whole seconds since Inputs.StartedAt. With thousands of resources, to wake up for
	// each check alone takes more CPU than the check does (docs/performance.md).
	checkBeat = time.Second
)

// clockNoise is by how much moments of one clock may seem out of order, because WeChat's Date has whole seconds.
const clockNoise = 5 * time.Second

// NotedAhead tells whether a moment that was noted as the present lies in the future now. The clock that it was noted by ran ahead
// (see wechat.Client.Now), so nothing may be put off because of it.
func NotedAhead(at, now time.Time) bool { return at.After(now.Add(clockNoise)) }

// DueAt is when the stored token is to be replaced; zero without one.
func DueAt(in Inputs) time.Time {
	t := in.Token
	if t.Fingerprint == "" {
		return time.Time{}
	}
	life := t.ExpiresAt.Sub(t.IssuedAt)
	if in.Legacy {
		lead := LegacyLead + scale(legacyJitterSpan, in, "lead")
		return t.ExpiresAt.Add(-min(lead, life/2))
	}
	due := t.ExpiresAt.Add(-StableOverlap + stableJitterMin + scale(stableJitterSpan, in, "due"))
	if life <= StableOverlap {
		due = t.ExpiresAt.Add(-life / 2)
	}
	// A call just before the overlap, or one that WeChat answered with the old token, is repeated soon
	// but not at once.
	if repeat := t.CheckedAt.Add(StableRepeat); !t.CheckedAt.IsZero() && due.Before(repeat) {
		due = repeat
	}
	return due
}

// CheckAt is when the stored token is next checked with WeChat; zero without one.
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

// beatFrom is the first beat that is not before at. Beats are counted from the start, so processes that started at different
// moments do not call in the same ones.
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

// unit hashes its arguments to a number in [0, 1).
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
