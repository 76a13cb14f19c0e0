// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"slices"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func failure(class token.Class, reason token.Reason) Failure {
	return Failure{Class: class, Reason: reason}
}

var (
	busy        = failure(token.Transient, v1alpha1.ReasonSystemBusy)
	unreachable = failure(token.Transient, v1alpha1.ReasonUnreachable)
	rejected    = failure(token.Transient, v1alpha1.ReasonRequestRejected)
	rateLimited = failure(token.Limited, v1alpha1.ReasonRateLimited)
	quota       = failure(token.Limited, v1alpha1.ReasonDailyQuotaExhausted)
	frozen      = failure(token.Action, v1alpha1.ReasonAppSecretFrozen)
)

// row fails n times in a row, each time for the next of the reasons, and gives the last failure.
func row(seed string, at time.Time, n int, reasons ...Failure) Failure {
	var last *Failure
	for i := range n {
		next := Next(last, reasons[i%len(reasons)], at, seed)
		last = &next
	}
	return *last
}

// inTime fails n times in a row, each time when an attempt is due, and gives the last failure.
func inTime(n int, reason Failure) Failure {
	last := Next(nil, reason, now, "uid")
	for range n - 1 {
		last = Next(&last, reason, last.RetryAt, "uid")
	}
	return last
}

func TestActionBackOff(t *testing.T) {
	const s, m = time.Second, time.Minute
	slow := []time.Duration{5 * s, 15 * s, 10 * m, 20 * m, 40 * m, 60 * m, 60 * m}
	quick := []time.Duration{5 * s, 15 * s, 2 * m, 4 * m, 8 * m, 10 * m, 10 * m}
	tests := map[token.Reason][]time.Duration{
		v1alpha1.ReasonIPNotAllowed:              quick,
		v1alpha1.ReasonAdminConfirmationRequired: quick,
		v1alpha1.ReasonAppSecretInvalid:          slow,
		v1alpha1.ReasonAppIDInvalid:              slow,
		v1alpha1.ReasonAppSecretFrozen:           slow,
		v1alpha1.ReasonAccountRestricted:         slow,
		v1alpha1.ReasonUnsupportedAccount:        slow,
		"TargetWriteFailed":                      slow,
	}
	for reason, want := range tests {
		for i, delay := range want {
			if f := inTime(i+1, failure(token.Action, reason)); f.RetryAt.Sub(f.Time) != delay {
				t.Errorf("%s, attempt %d: again after %s, want %s", reason, i+1, f.RetryAt.Sub(f.Time), delay)
			}
		}
		if f := inTime(100, failure(token.Action, reason)); f.RetryAt.Sub(f.Time) != want[len(want)-1] {
			t.Errorf("%s, attempt 100: again after %s", reason, f.RetryAt.Sub(f.Time))
		}
	}
}

// The handover window and requests make attempts before their time. Many in a few minutes are no reason to wait for an hour.
func TestEarlyAttempts(t *testing.T) {
	const m = time.Minute
	for name, test := range map[string]struct {
		attempts    int
		every, want time.Duration
	}{
		"requests":          {6, 10 * time.Second, 10 * m},
		"handover window":   {30, HandoverRetry, 10 * m},
		"for a quarter":     {30, 30 * time.Second, 29 * m},
		"for half a day":    {120, 6 * m, 60 * m},
		"all at one moment": {100, 0, 10 * m},
	} {
		last := Next(nil, frozen, now, "uid")
		for i := range test.attempts - 1 {
			last = Next(&last, frozen, now.Add(time.Duration(i+1)*test.every), "uid")
		}
		if wait := last.RetryAt.Sub(last.Time); wait != test.want {
			t.Errorf("%s: again after %s, want %s", name, wait, test.want)
		}
	}
}

func TestLimitedBackOff(t *testing.T) {
	var s spread
	for i, seed := range uids(3, 1000) {
		s.add(row(seed, now, i%5+1, rateLimited).RetryAt)
	}
	s.within(t, "RateLimited", after(60*time.Second), after(90*time.Second))
	if f := row("uid", now, 7, quota); !f.RetryAt.Equal(after(30 * time.Minute)) {
		t.Errorf("DailyQuotaExhausted: again at %s, want 30 minutes", f.RetryAt)
	}
	for _, named := range []time.Duration{time.Hour, 24 * time.Hour} {
		blocked := failure(token.Limited, v1alpha1.ReasonIPBlocked)
		blocked.Named = named
		if f := row("uid", now, 3, blocked); !f.RetryAt.Equal(after(named)) {
			t.Errorf("IPBlocked for %s: again at %s", named, f.RetryAt)
		}
	}
}

func TestTransientBackOff(t *testing.T) {
	ceilings := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} // seconds
	mixes := map[string][]Failure{
		"one reason": {busy},
		// An outage has many faces. It must not be hammered because they change.
		"changing reasons": {busy, unreachable, failure(token.Transient, v1alpha1.ReasonBadResponse)},
	}
	for name, reasons := range mixes {
		for i, ceiling := range ceilings {
			var s spread
			for _, seed := range uids(4, 1000) {
				s.add(row(seed, now, i+1, reasons...).RetryAt)
			}
			s.within(t, name, after(100*time.Millisecond), after(ceiling*time.Second))
		}
	}
	if f := row("uid", now, 1000, busy); f.RetryAt.After(after(60*time.Second)) || !f.RetryAt.After(now) {
		t.Errorf("attempt 1000: again at %s", f.RetryAt)
	}
	if a, b := row("uid", now, 6, busy), row("uid", now, 6, busy); a != b {
		t.Errorf("the same failure has two back-offs: %v and %v", a, b)
	}
	if a, b := row("uid", now, 6, busy), row("uid", after(time.Second), 6, busy); a.RetryAt.Sub(a.Time) == b.RetryAt.Sub(b.Time) {
		t.Error("the jitter is the same in each round: all resources would meet again")
	}
	last := row("uid", now, 9, frozen)
	if first := Next(&last, busy, now, "uid"); first.RetryAt.After(after(time.Second)) {
		t.Errorf("a first transient failure waits until %s, because one of another kind was there before", first.RetryAt)
	}
}

func TestNextFailure(t *testing.T) {
	first := Next(nil, busy, now, "uid")
	if first.Attempts != 1 || !first.First.Equal(now) || !first.Time.Equal(now) || !first.Binds {
		t.Errorf("first: %+v", first)
	}
	second := Next(&first, busy, after(time.Second), "uid")
	if second.Attempts != 2 || !second.First.Equal(now) || !second.Time.Equal(after(time.Second)) {
		t.Errorf("second: %+v", second)
	}
	other := Next(&second, frozen, after(2*time.Second), "uid")
	if other.Attempts != 1 || !other.First.Equal(now) || other.Class != token.Action {
		t.Errorf("another reason: %+v", other)
	}
	if fresh := Next(nil, frozen, after(3*time.Second), "uid"); !fresh.First.Equal(after(3*time.Second)) || fresh.Attempts != 1 {
		t.Errorf("after a success: %+v", fresh)
	}
	// An unknown errcode is somebody's to look at from the third time.
	classes := make([]token.Class, 0, 4)
	for n := range 4 {
		classes = append(classes, row("uid", now, n+1, rejected).Class)
	}
	want := []token.Class{token.Transient, token.Transient, token.Action, token.Action}
	if !slices.Equal(classes, want) {
		t.Errorf("unknown errcode: %v, want %v", classes, want)
	}
	for i, delay := range []time.Duration{5 * time.Second, 15 * time.Second, 10 * time.Minute, 20 * time.Minute} {
		if f := inTime(RejectionsUntilAction+i, rejected); f.RetryAt.Sub(f.Time) != delay {
			t.Errorf("unknown errcode, time %d: again after %s, want %s", RejectionsUntilAction+i, f.RetryAt.Sub(f.Time), delay)
		}
	}
	if f := row("uid", now, 4, rejected, unreachable); f.Class != token.Transient {
		t.Error("two unknown errcodes and an outage became Action")
	}
}

func TestHandoverWindow(t *testing.T) {
	due, expiry := after(100*time.Second), after(385*time.Second)
	fail := func(class token.Class, at, retryAt time.Time) Failure {
		return Failure{Class: class, Reason: "any", Time: at, RetryAt: retryAt, Attempts: 5}
	}
	hour := after(time.Hour)
	tests := map[string]struct {
		f    Failure
		due  time.Time
		want time.Time
	}{
		"long before the window":            {fail(token.Action, now, hour), due, due},
		"just before the window":            {fail(token.Action, after(95*time.Second), hour), due, after(105 * time.Second)},
		"in the window":                     {fail(token.Action, after(120*time.Second), hour), due, after(130 * time.Second)},
		"in the window, transient":          {fail(token.Transient, after(120*time.Second), after(180*time.Second)), due, after(130 * time.Second)},
		"shorter than the cap":              {fail(token.Transient, after(120*time.Second), after(123*time.Second)), due, after(123 * time.Second)},
		"just before the expiry":            {fail(token.Action, after(384*time.Second), hour), due, after(394 * time.Second)},
		"after the window":                  {fail(token.Action, expiry, hour), due, hour},
		"45011":                             {fail(token.Limited, after(120*time.Second), hour), due, hour},
		"a time that WeChat names":          {Failure{Class: token.Action, Time: after(120 * time.Second), RetryAt: hour, Named: time.Hour}, due, hour},
		"before the window, over before it": {fail(token.Action, now, after(20*time.Second)), due, after(20 * time.Second)},
		"no token":                          {fail(token.Action, now, hour), time.Time{}, hour},
		// A transient failure read from the status after a restart has no time: at once, and not when due.
		"restored": {fail(token.Transient, after(-time.Minute), time.Time{}), due, time.Time{}},
	}
	for name, test := range tests {
		if got := test.f.retryAt(test.due, expiry); !got.Equal(test.want) {
			t.Errorf("%s: again at %s, want %s", name, got, test.want)
		}
	}
	quotaFailed := row("uid", after(120*time.Second), 1, quota)
	if got := quotaFailed.retryAt(due, expiry); !got.Equal(after(120*time.Second + 30*time.Minute)) {
		t.Errorf("45009: again at %s", got)
	}
}

func TestBackOffAfterARestart(t *testing.T) {
	restored := func(class token.Class, retryAt time.Time) edit {
		return func(in *Inputs) {
			in.Failure = &Failure{Class: class, Reason: "any", Binds: true, Attempts: 4, First: after(-time.Minute), Time: after(-time.Minute), RetryAt: retryAt}
			in.StartedAt, in.Token.CheckedAt = after(-45*time.Second), time.Time{}
		}
	}
	for _, class := range []token.Class{token.Limited, token.Action} {
		if d := Decide(now, healthy(restored(class, after(time.Minute)))); d.Reason != BackingOff || !d.At.Equal(after(time.Minute)) {
			t.Errorf("%s: %s until %s, want to go on backing off", class, d.Reason, d.At)
		}
	}
	if d := Decide(now, healthy(restored(token.Transient, time.Time{}))); d.Reason != CheckDue {
		t.Errorf("Transient: %s until %s, want the check that is due", d.Reason, d.At)
	}
	if d := Decide(now, healthy(restored(token.Transient, time.Time{}), tampered)); d.Reason != TargetTampered {
		t.Errorf("Transient: %s until %s, want the repair", d.Reason, d.At)
	}
}

func TestReportable(t *testing.T) {
	due := after(time.Hour)
	tests := map[string]struct {
		class token.Class
		first time.Time
		due   time.Time
		want  bool
	}{
		"Limited at once":                {token.Limited, now, due, true},
		"Action at once":                 {token.Action, now, due, true},
		"Transient, new":                 {token.Transient, now, due, false},
		"Transient, 59.9 s":              {token.Transient, after(-59900 * time.Millisecond), due, false},
		"Transient, 60 s":                {token.Transient, after(-60 * time.Second), due, true},
		"Transient, window in 1 s":       {token.Transient, now, after(time.Second), false},
		"Transient, window begins":       {token.Transient, now, now, true},
		"Transient, no token to rely on": {token.Transient, now, time.Time{}, true},
	}
	for name, test := range tests {
		f := Failure{Class: test.class, First: test.first, Time: now}
		if got := f.reportable(now, test.due); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
