// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"math"
	"strconv"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// ReportAfter is how long a transient failure lasts before it is reported, unless the handover
	// window is reached earlier.
	ReportAfter = 60 * time.Second
	// HandoverRetry is the longest back-off inside the handover window, which begins when the token is
	// due and ends with its expiry.
	HandoverRetry = 10 * time.Second
	// RejectionsUntilAction is the attempt from which an unknown errcode is somebody's to look at.
	RejectionsUntilAction = 3

	minRetry = 100 * time.Millisecond
)

// Failure is a failed attempt and what follows from it.
type Failure struct {
	Class  token.Class
	Reason token.Reason
	// Code is WeChat's errcode; 0 when WeChat gave none.
	Code int
	// OfWrite reports that the write of the target Secret failed. No call to WeChat did.
	OfWrite bool
	// OfMetadata reports that this write was of labels, annotations or the owner reference alone. No token waits for it, so it has a
	// back-off of its own.
	OfMetadata bool
	// Binds reports that the back-off holds, because spec and credentials are those that failed, or the wait is the account's.
	Binds bool
	// Named is the wait that WeChat itself set before the next attempt; 0 for none.
	Named time.Duration
	// First and Time are the first and the last attempt that failed in a row; Attempts is their number.
	First, Time time.Time
	Attempts    int
	// RetryAt is when the next attempt is due, before the handover window shortens it; zero for at once.
	RetryAt time.Time

	// transient is the number of transient failures in a row, whatever their reasons: an outage shows itself in several ways.
	transient int
	// turns is how often a failed write followed a failed call, or the other way round. Each of them lets the other one be tried at
	// once, so the pair needs a back-off of its own.
	turns int
}

// Next returns the failure of this attempt, given the one before it (nil after a success, or when spec or credentials changed
// meanwhile). seed belongs to the resource.
func Next(previous *Failure, this Failure, now time.Time, seed string) Failure {
	this.First, this.Time, this.Attempts, this.Binds = now, now, 1, true
	if previous != nil {
		this.First = earliest(previous.First, now)
		if previous.Reason == this.Reason {
			this.Attempts = previous.Attempts + 1
		}
	}
	if this.Reason == v1alpha1.ReasonRequestRejected && this.Attempts >= RejectionsUntilAction {
		this.Class = token.Action
	}
	if previous != nil && previous.Class == token.Transient {
		this.transient = max(previous.transient, previous.Attempts) + 1
	}
	if previous != nil {
		if this.turns = previous.turns; previous.OfWrite != this.OfWrite {
			this.turns++
		}
	}
	this.RetryAt = now.Add(max(Backoff(this, seed), turnBackoff(this)))
	return this
}

// Backoff returns the time from a failure to the next attempt.
func Backoff(f Failure, seed string) time.Duration {
	u := unit(seed, strconv.FormatInt(f.Time.UnixNano(), 36), strconv.Itoa(f.Attempts))
	switch {
	case f.Named > 0:
		return f.Named
	case f.Class == token.Limited && f.Reason == v1alpha1.ReasonDailyQuotaExhausted:
		return 30 * time.Minute
	case f.Class == token.Limited:
		return time.Duration((60 + 30*u) * float64(time.Second))
	case f.Class == token.Action:
		return actionBackoff(f)
	}
	n := max(f.Attempts, f.transient, 1) - 1
	ceiling := min(60, math.Pow(2, float64(min(n, 6))))
	return max(minRetry, time.Duration(u*ceiling*float64(time.Second)))
}

// turnBackoff returns the least time to the next attempt after writes and calls have failed in turn: 2 s, 4 s and so on, up to 2 min.
func turnBackoff(f Failure) time.Duration {
	if f.turns < 2 {
		return 0
	}
	return min(2*time.Minute, time.Second<<min(f.turns-1, 7))
}

// actionBackoff returns the back-off of a failure that somebody has to act on. The first two are short, because changes in WeChat's
// console take a moment to work. Allowlists and confirmations work some minutes after somebody acted, so those are tried more often.
func actionBackoff(f Failure) time.Duration {
	first := [...]time.Duration{5 * time.Second, 15 * time.Second}
	attempts := max(f.Attempts, 1)
	if f.Reason == v1alpha1.ReasonRequestRejected {
		attempts = max(attempts-RejectionsUntilAction+1, 1) // those before were transient
	}
	if attempts <= len(first) {
		return first[attempts-1]
	}
	n := min(attempts-len(first)-1, 8)
	switch f.Reason {
	case v1alpha1.ReasonIPNotAllowed, v1alpha1.ReasonAdminConfirmationRequired:
		return min(10*time.Minute, 2*time.Minute<<n)
	default:
		return min(time.Hour, 10*time.Minute<<n, longestWait(f.Time.Sub(f.First)))
	}
}

// longestWait bounds the wait after a failure that lasts this long. Requests and the handover window make attempts before their time, and
// many of them in a few minutes are no reason to wait for an hour. Attempts at their time never come near the bound.
func longestWait(lasts time.Duration) time.Duration {
	return max(10*time.Minute, 2*min(lasts, time.Hour))
}

// binds reports whether the back-off holds now. It may be called on nil.
func (f *Failure) binds(now time.Time) bool { return f != nil && f.Binds && !IsInFuture(f.Time, now) }

// patient reports whether the wait before the next attempt is WeChat's and not ours.
func (f *Failure) patient() bool { return f.Named > 0 || f.Class == token.Limited }

// retryAt returns RetryAt, shortened inside the handover window, from dueAt to expiresAt, unless the wait is WeChat's.
func (f *Failure) retryAt(dueAt, expiresAt time.Time) time.Time {
	if f.patient() || f.RetryAt.IsZero() || dueAt.IsZero() || !f.Time.Before(expiresAt) {
		return f.RetryAt
	}
	return earliest(f.RetryAt, Later(dueAt, f.Time.Add(HandoverRetry)))
}

// Answered reports whether this failure is WeChat's answer to a mint that was marked at that time: an errcode says that nothing was
// minted. It may be called on nil.
func (f *Failure) Answered(mark time.Time) bool {
	// After a restart the failure's time is the status's, which has whole seconds.
	return f != nil && f.Code != 0 && !mark.IsZero() && !f.Time.Before(mark.Truncate(time.Second))
}

// PassesBy reports whether the failure of a call passes by itself, and may have done so: it is transient, or the limit is over.
func (f *Failure) PassesBy(now time.Time) bool {
	return !f.OfWrite && (f.Class == token.Transient || f.Class == token.Limited && !now.Before(f.RetryAt))
}

// reportable reports whether a status may tell the failure. One that passes by itself gets a minute first, unless the token is due or
// there is none.
func (f *Failure) reportable(now, dueAt time.Time) bool {
	return f.Class != token.Transient || dueAt.IsZero() || !now.Before(dueAt) || now.Sub(f.First) >= ReportAfter
}
