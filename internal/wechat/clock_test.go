// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// skewed is a wall clock that is off.
type skewed struct {
	mu  sync.Mutex
	off time.Duration
}

func (s *skewed) set(off time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = off
}

func (s *skewed) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.off)
}

func TestNowBeforeTheFirstAnswer(t *testing.T) {
	at := time.Date(2026, 5, 1, 8, 0, 0, 0, time.FixedZone("Beijing", 8*3600))
	c := newClient(t, Options{Wall: func() time.Time { return at }})
	if now, synced := c.Clock(); synced || !now.Equal(at) || now.Location() != time.UTC {
		t.Errorf("synced %v, now %v, want %v in UTC", synced, now, at)
	}
	c = newClient(t, Options{})
	if now := c.Now(); time.Since(now).Abs() > time.Minute || strings.Contains(now.String(), "m=") {
		t.Errorf("now %v, want the local clock without a monotonic reading", now)
	}
}

// TestOffset: what is below 5 s is noise. Date is cut to seconds, and was written half-way.
func TestOffset(t *testing.T) {
	received := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		date, way, want time.Duration // against received
	}{
		{0, 0, 0},
		{-time.Second, 2 * time.Second, 0},
		{4 * time.Second, 0, 0},
		{4499 * time.Millisecond, 0, 0},
		{4500 * time.Millisecond, 0, 5 * time.Second},
		{3500 * time.Millisecond, 2 * time.Second, 5 * time.Second},
		{-5499 * time.Millisecond, 0, 0},
		{-5500 * time.Millisecond, 0, -5 * time.Second},
		{-7 * time.Second, 4 * time.Second, 0},
		{time.Hour, 2 * time.Second, time.Hour + 1500*time.Millisecond},
		{-time.Hour, 0, -time.Hour + 500*time.Millisecond},
	} {
		c := newClock(nil, nil)
		mono := time.Now()
		to := instant{wall: received, mono: mono}
		from := instant{wall: received.Add(-tt.way), mono: mono.Add(-tt.way)}
		started := c.learn(received.Add(tt.date).In(time.FixedZone("", 3600)), from, to)
		if want := received.Add(tt.want - tt.way); !started.Equal(want) {
			t.Errorf("Date %v, way %v: started at %v, want %v", tt.date, tt.way, started, want)
		}
		if got := c.at(to); !got.Equal(received.Add(tt.want)) || got.Location() != time.UTC {
			t.Errorf("Date %v, way %v: now is off by %v, want %v; %v", tt.date, tt.way, got.Sub(received), tt.want, got.Location())
		}
	}
}

// TestLocalClockGoesWrong after an answer: elapsed is the larger of what both clocks say.
func TestLocalClockGoesWrong(t *testing.T) {
	for _, offset := range []time.Duration{0, time.Hour} { // of WeChat's clock
		synctest.Test(t, func(t *testing.T) {
			wall := &skewed{}
			c := newClock(wall.now, nil)
			learn := func() {
				now := c.mark()
				c.learn(time.Now().Add(offset), now, now)
			}
			check := func(what string, want time.Duration) {
				t.Helper()
				now, synced := c.now()
				if got := time.Until(now); (got - want).Abs() > time.Second {
					t.Errorf("offset %v, %s: now is ahead by %v, want %v", offset, what, got, want)
				}
				if ahead := want != offset; synced == ahead {
					t.Errorf("offset %v, %s: synced %v", offset, what, synced)
				}
			}
			learn()
			check("after the answer", offset)
			time.Sleep(time.Minute)
			check("a minute later", offset)
			wall.set(-24 * time.Hour)
			check("set back", offset)
			time.Sleep(time.Minute)
			check("set back, a minute later", offset)
			learn()
			check("set back, learnt", offset)
			wall.set(0)
			check("set right, so it jumps", offset+24*time.Hour)
			learn()
			check("set right, learnt", offset)
			wall.set(8 * time.Hour) // the machine slept: the monotonic clock stood still
			check("slept", offset+8*time.Hour)
			time.Sleep(time.Hour)
			check("slept, an hour later", offset+8*time.Hour)
			c.settle(c.mark(), c.mark())
			now, synced := c.now()
			if ahead := time.Until(now); !synced || (ahead-offset-8*time.Hour).Abs() > time.Second {
				t.Errorf("offset %v, an answer without a Date: ahead by %v, synced %v", offset, ahead, synced)
			}
		})
	}
}

// TestLocalClockJumpsDuringACall: nobody knows then when WeChat wrote the Date. The time is never behind, and not relied on.
func TestLocalClockJumpsDuringACall(t *testing.T) {
	for name, jump := range map[string]time.Duration{"set ahead": 6 * time.Hour, "slept": time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			wall := &skewed{}
			c := newClock(wall.now, nil)
			started, date := c.mark(), time.Now()
			time.Sleep(time.Second)
			wall.set(jump)
			c.learn(date, started, c.mark())
			truth := time.Now()
			if name == "slept" {
				truth = truth.Add(jump)
			}
			if now, synced := c.now(); now.Before(truth) || synced {
				t.Errorf("%s: now is %v off, synced %v", name, now.Sub(truth), synced)
			}
			answered := c.mark()
			c.learn(truth, answered, answered)
			if now, synced := c.now(); now.Sub(truth).Abs() > time.Second || !synced {
				t.Errorf("%s, the next answer: now is %v off, synced %v", name, now.Sub(truth), synced)
			}
		})
	}
}

// TestLocalClockJumpsBetweenCallsThatOverlap: the answer to the call that was started after the jump tells the time, also when the
// one to the earlier call comes, or is read, after it.
func TestLocalClockJumpsBetweenCallsThatOverlap(t *testing.T) {
	const jump = 10 * time.Minute
	for name, earlierEnds := range map[string]time.Duration{"before the jump": 0, "after it": 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			wall := &skewed{}
			c := newClock(wall.now, nil)
			earlier, earlierDate := c.mark(), time.Now()
			time.Sleep(time.Second)
			earlierEnd := c.mark()
			wall.set(jump)
			later, laterDate := c.mark(), time.Now()
			time.Sleep(time.Second)
			laterStarted := c.learn(laterDate, later, c.mark())
			time.Sleep(earlierEnds)
			if earlierEnds > 0 {
				earlierEnd = c.mark()
			}
			earlierStarted := c.learn(earlierDate, earlier, earlierEnd)
			if off := laterStarted.Sub(laterDate); off.Abs() > time.Second {
				t.Errorf("%s: the later call was started %v off", name, off)
			}
			if off := earlierStarted.Sub(earlierDate); off.Abs() > time.Second {
				t.Errorf("%s: the earlier call was started %v off", name, off)
			}
			if now, synced := c.now(); time.Until(now).Abs() > time.Second || !synced {
				t.Errorf("%s: now is %v off, synced %v", name, time.Until(now), synced)
			}
		})
	}
}

// dated answers with a Date that is off; "" for none.
func dated(wait time.Duration, date func() string, handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(wait)
		w.Header()["Date"] = nil
		if d := date(); d != "" {
			w.Header().Set("Date", d)
		}
		handler(w, r)
	}
}

func inTime(offset time.Duration) func() string {
	return func() string { return time.Now().Add(offset).UTC().Format(http.TimeFormat) }
}

// TestExpiry: a life counts from the moment at which the connection was ready, on WeChat's clock, with
// what this very answer taught about it.
func TestExpiry(t *testing.T) {
	for _, offset := range []time.Duration{0, time.Hour, -time.Hour} {
		for _, local := range []time.Duration{0, 30 * time.Hour} {
			for _, call := range issuing() {
				synctest.Test(t, func(t *testing.T) {
					wall := &skewed{off: local}
					c := bubble(t, Options{Wall: wall.now}, &host{connect: time.Second, handler: dated(2*time.Second, inTime(offset), answering)})
					begin := time.Now()
					token, err := call.do(t.Context(), c)
					if _, synced := c.Clock(); err != nil || !synced {
						t.Fatalf("synced %v, error %v", synced, err)
					}
					took(t, begin, 3*time.Second)
					// The Date was written at the end of the way, which lasted 2 s.
					want := begin.Add(time.Second + offset)
					if late := token.IssuedAt.Sub(want); late < 0 || late > 1500*time.Millisecond || offset == local && late != 0 {
						t.Errorf("offset %v, local %v: issued at %v, want %v", offset, local, token.IssuedAt, want)
					}
					if token.ExpiresAt.Sub(token.IssuedAt) != 2*time.Hour || token.ExpiresAt.Sub(c.Now()) != 2*time.Hour-2*time.Second {
						t.Errorf("issued %v, expires %v, now %v", token.IssuedAt, token.ExpiresAt, c.Now())
					}
					if token.IssuedAt.Location() != time.UTC || strings.Contains(token.ExpiresAt.String()+token.IssuedAt.String(), "m=") {
						t.Errorf("issued %v, expires %v", token.IssuedAt, token.ExpiresAt)
					}
				})
			}
		}
	}
}

// TestExpiryWhileTheMachineSleeps between request and answer: the life went on.
func TestExpiryWhileTheMachineSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wall := &skewed{}
		date := func() string {
			wall.set(time.Hour)
			return wall.now().UTC().Format(http.TimeFormat)
		}
		c := bubble(t, Options{Wall: wall.now}, &host{handler: dated(time.Second, date, answering)})
		token, err := c.StableToken(t.Context(), testAccount, false)
		if left := token.ExpiresAt.Sub(c.Now()); err != nil || left != time.Hour-time.Second {
			t.Errorf("%v are left, want 1 h less 1 s, error %v", left, err)
		}
	})
}

// TestWhoTellsTheTime: answers of WeChat, also refusals, and nothing else. One without a Date confirms the local clock, for
// there may be no other.
func TestWhoTellsTheTime(t *testing.T) {
	good := inTime(time.Hour)
	for _, tt := range []struct {
		name    string
		date    func() string
		handler http.HandlerFunc
		synced  bool
		told    bool
	}{
		{"answer", good, answering, true, true},
		{"errcode", good, saying(200, refusal(40013, "")), true, true},
		{"unknown errcode", good, saying(200, refusal(7, "")), true, true},
		{"no Date", func() string { return "" }, answering, true, false},
		{"another Date", func() string { return "2026-05-01T00:00:00Z" }, answering, true, false},
		{"web page", good, saying(200, "<html>"), false, false},
		{"no token", good, saying(200, "{}"), false, false},
		{"429", good, saying(429, ""), false, false},
		{"500", good, saying(500, goodBody), false, false},
		{"404", good, saying(404, goodBody), false, false},
		{"302", good, saying(302, goodBody), false, false},
	} {
		for _, call := range allCalls {
			synctest.Test(t, func(t *testing.T) {
				c := bubble(t, Options{}, &host{handler: dated(0, tt.date, tt.handler)})
				_, _ = call.do(t.Context(), c)
				now, synced := c.Clock()
				if ahead := time.Until(now); synced != tt.synced || (ahead > 59*time.Minute) != tt.told {
					t.Errorf("%s, %s: synced %v, ahead by %v", tt.name, call.name, synced, ahead)
				}
			})
		}
	}
}

// TestClockIsShared runs under the race detector.
func TestClockIsShared(t *testing.T) {
	c := clientOf(t, serve(t, answering))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := allCalls[i%len(allCalls)].do(t.Context(), c); err != nil {
				t.Error(err)
			}
			if now, synced := c.Clock(); !synced || time.Since(now).Abs() > time.Minute {
				t.Errorf("now %v, synced %v", now, synced)
			}
		})
	}
	wg.Wait()
}
