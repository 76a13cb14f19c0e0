// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"math"
	"slices"
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
	// OfWrite: the API server refused the write of the target Secret. No call to WeChat failed.
	OfWrite bool
	// Binds: spec and credentials are those that failed, so the back-off holds.
	Binds bool
	// Named is the time that WeChat itself set for the next attempt; 0 for none.
	Named time.Duration
	// First and Time are the first and the last attempt that failed in a row; Attempts is their number.
	First, Time time.Time
	Attempts    int
	// RetryAt is when the next attempt is due, before the handover window shortens it; zero for at once.
	RetryAt time.Time

	// transient is the number of transient failures in a row, of whatever reason: an outage has many faces.
	transient int
}

// Next makes the failure of this attempt, given the one before it (nil after a success, or when spec
// or credentials changed meanwhile). seed belongs to the resource.
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
	this.RetryAt = now.Add(Backoff(this, seed))
	return this
}

// Backoff is the time from a failure to the next attempt.
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

// actionBackoff: two quick attempts, because WeChat's console takes a moment to take effect, then
// patience. Allowlists and confirmations heal by themselves minutes after somebody acted.
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
		return min(time.Hour, 10*time.Minute<<n)
	}
}

// retryAt shortens RetryAt inside the handover window, from dueAt to expiresAt, except where WeChat
// asked for patience.
func (f *Failure) retryAt(dueAt, expiresAt time.Time) time.Time {
	patient := f.Named > 0 || f.Class == token.Limited
	if patient || f.RetryAt.IsZero() || dueAt.IsZero() || !f.Time.Before(expiresAt) {
		return f.RetryAt
	}
	return earliest(f.RetryAt, Later(dueAt, f.Time.Add(HandoverRetry)))
}

// Answered tells whether this failure is WeChat's answer to a mint that was marked at that time: an errcode says that
// nothing was minted. It may be asked of nil.
func (f *Failure) Answered(mark time.Time) bool {
	// After a restart the failure's time is the status's, which has whole seconds.
	return f != nil && f.Code != 0 && !mark.IsZero() && !f.Time.Before(mark.Truncate(time.Second))
}

// EffectiveRetryAt is when the next attempt follows, given the token that is stored.
func (f *Failure) EffectiveRetryAt(dueAt time.Time, tok Token) time.Time {
	return f.retryAt(dueAt, tok.ExpiresAt)
}

// Reportable tells whether status may speak of the failure: one that ends by itself gets a minute
// first, unless the token is due or there is none.
func (f *Failure) Reportable(now, dueAt time.Time) bool {
	return f.Class != token.Transient || dueAt.IsZero() || !now.Before(dueAt) ||
		now.Sub(f.First) >= ReportAfter
}

func nthOldest(times []time.Time, n int) time.Time {
	slices.SortFunc(times, time.Time.Compare)
	return times[n-1]
}
