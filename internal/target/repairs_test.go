// SPDX-License-Identifier: Apache-2.0

package target

import (
	"testing"
	"time"
)

func TestRepairs(t *testing.T) {
	var r Repairs
	start := time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)
	if !r.NotBefore(start).IsZero() || r.Contested(start) {
		t.Error("the first repair waits")
	}
	now := start
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		r = r.Noted(now)
		var wait time.Duration
		if at := r.NotBefore(now); !at.IsZero() {
			wait = at.Sub(now)
		}
		if wait != want*time.Second {
			t.Errorf("repair %d waits %s, want %d s", i+1, wait, want)
		}
		if got, want := r.Contested(now), i+1 >= contestedAfter; got != want {
			t.Errorf("contested after %d: %t", i+1, got)
		}
		now = now.Add(wait)
	}
	if r.Contested(now.Add(repairCalm + 1)) {
		t.Error("contested although it has been calm")
	}
	if !r.Contested(r.last.Add(repairCalm)) {
		t.Error("not contested although it has not been calm for long")
	}
	now = now.Add(repairCalm + 1)
	if r = r.Noted(now); !r.NotBefore(now).IsZero() {
		t.Error("a repair waits because of long ago")
	}
	if r = r.Noted(now); !r.NotBefore(now.Add(-time.Hour)).IsZero() {
		t.Error("a repair waits for a time that was noted by a clock an hour ahead")
	}
	many := Repairs{last: now, count: 1 << 40}
	if got := many.NotBefore(now); !got.Equal(now.Add(repairMax)) {
		t.Errorf("after very many the next one is at %s", got)
	}
}
