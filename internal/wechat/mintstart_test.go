// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestMintEndsByItsOwnDeadline(t *testing.T) {
	for _, mint := range mints() {
		t.Run(mint.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				silent, other := &host{handler: hanging}, &host{}
				c := bubble(t, Options{}, silent, other)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				_, err := mint.do(ctx, c)
				took(t, start, 10*time.Second)
				e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
				if !e.MaybeSent || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("MaybeSent %v, want true, and a deadline in %v", e.MaybeSent, e.Unwrap())
				}
				silent.wantHits(t, 1)
				other.wantHits(t, 0)
			})
		})
	}
}

func TestMintSurvivesItsCaller(t *testing.T) {
	for _, mint := range mints() {
		t.Run(mint.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &host{connect: time.Second, handler: func(w http.ResponseWriter, r *http.Request) {
					time.Sleep(8 * time.Second)
					answering(w, r)
				}}
				c := bubble(t, Options{}, h)
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				tok, err := mint.do(ctx, c)
				if err != nil || tok.Value.Reveal() != freshToken {
					t.Errorf("the token is lost: %v", err)
				}
				h.wantHits(t, 1)
			})
		})
	}
}

// TestMintSharesOutItsStart: hosts that cannot be connected leave half of the deadline for the answer.
func TestMintSharesOutItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, slow := &host{connect: time.Hour}, &host{connect: time.Hour}
		alive := &host{connect: time.Second}
		c := bubble(t, Options{}, dead, slow, alive)
		start := time.Now()
		if _, err := c.LegacyToken(t.Context(), testAccount, time.Time{}); err != nil {
			t.Error(err)
		}
		first := 5 * time.Second / 3
		took(t, start, first+(5*time.Second-first)/2+time.Second)
		dead.wantHits(t, 0)
		slow.wantHits(t, 0)
		alive.wantHits(t, 1)
	})
}

func TestMintWithoutConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &host{connect: time.Hour}, &host{connect: time.Hour}
		c := bubble(t, Options{}, a, b)
		start := time.Now()
		_, err := c.StableToken(t.Context(), testAccount, true)
		took(t, start, 5*time.Second)
		e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
		if e.MaybeSent || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrStartedTooLate) {
			t.Errorf("MaybeSent %v, want false, and a deadline alone in %v", e.MaybeSent, e.Unwrap())
		}
	})
}

// TestStartBy has what may happen between a mark and its mint.
func TestStartBy(t *testing.T) {
	for _, tt := range []struct {
		name    string
		startBy time.Duration // from now on
		busy    time.Duration // how long all slots are taken
		connect time.Duration
		wall    func(elapsed time.Duration) time.Duration // what the wall clock says has elapsed

		took  time.Duration
		bare  bool // the error itself
		late  bool // a *token.Error with it
		other bool // another *token.Error
	}{
		{name: "in time", startBy: 2 * time.Second, connect: time.Second, took: time.Second},
		{name: "just in time", startBy: 2 * time.Second, busy: time.Second, connect: time.Second - 1, took: 2*time.Second - 1},
		{name: "in the past", startBy: -time.Nanosecond, bare: true},
		{name: "now", startBy: 0, bare: true},
		{name: "waits for a slot", startBy: 2 * time.Second, busy: 3 * time.Second, took: 2 * time.Second, bare: true},
		{name: "connects too slowly", startBy: 2 * time.Second, connect: 3 * time.Second, took: 2 * time.Second, late: true},
		{name: "slot and connection together", startBy: 2 * time.Second, busy: time.Second, connect: time.Second + 1, took: 2 * time.Second, late: true},
		{name: "far ahead, a slot is late", startBy: time.Minute, busy: 8 * time.Second, connect: time.Second, took: 9 * time.Second},
		{name: "far ahead, no connection", startBy: time.Minute, connect: time.Hour, took: 5 * time.Second, other: true},
		{name: "the machine slept while connecting", startBy: 2 * time.Second, connect: time.Second,
			wall: func(d time.Duration) time.Duration { return 3 * d }, took: time.Second, late: true},
		{name: "wall clock set back while connecting", startBy: 2 * time.Second, connect: 3 * time.Second,
			wall: func(d time.Duration) time.Duration { return -d }, took: 2 * time.Second, late: true},
		{name: "wall clock set back while waiting", startBy: 2 * time.Second, busy: 3 * time.Second,
			wall: func(d time.Duration) time.Duration { return -d }, took: 2 * time.Second, bare: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				wall := func() time.Time {
					if tt.wall == nil {
						return time.Now()
					}
					return begin.Add(tt.wall(time.Since(begin)))
				}
				h := &host{connect: tt.connect}
				c := bubble(t, Options{MaxInFlight: 1, Wall: wall}, h)
				if tt.busy > 0 {
					c.slots <- struct{}{}
					time.AfterFunc(tt.busy, c.slots.release)
				}
				_, err := c.LegacyToken(t.Context(), testAccount, c.Now().Add(tt.startBy))
				took(t, begin, tt.took)
				sent := int32(0)
				switch {
				case tt.bare:
					if err != ErrStartedTooLate { //nolint:errorlint // the error itself is promised
						t.Errorf("error %v, want ErrStartedTooLate itself", err)
					}
					if h.dials.Load() != 0 {
						t.Error("it made a connection")
					}
				case tt.late, tt.other:
					e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
					if errors.Is(err, ErrStartedTooLate) != tt.late || e.MaybeSent {
						t.Errorf("MaybeSent %v, cause %v", e.MaybeSent, e.Unwrap())
					}
				case err != nil:
					t.Error(err)
				default:
					sent = 1
				}
				time.Sleep(10 * time.Second) // whatever is still under way
				h.wantHits(t, sent)
			})
		})
	}
}

// TestStartByTriesNoMoreHosts: when the time is over, no other host is asked for a connection.
func TestStartByTriesNoMoreHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, other := &host{connect: time.Second}, &host{}
		begin := time.Now()
		c := bubble(t, Options{Wall: func() time.Time { return begin.Add(10 * time.Since(begin)) }}, slow, other)
		_, err := c.LegacyToken(t.Context(), testAccount, c.Now().Add(3*time.Second))
		if !errors.Is(err, ErrStartedTooLate) {
			t.Errorf("error %v, want ErrStartedTooLate", err)
		}
		time.Sleep(10 * time.Second)
		slow.wantHits(t, 0)
		if other.dials.Load() != 0 {
			t.Error("it made a connection to the next host")
		}
	})
}

// TestStartByAndAnotherClock: startBy was told on a clock that an answer to another call corrects.
func TestStartByAndAnotherClock(t *testing.T) {
	for offset, connect := range map[time.Duration]time.Duration{time.Hour: 1500 * time.Millisecond, -time.Hour: 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			h := &host{connect: connect}
			c := bubble(t, Options{}, h)
			time.AfterFunc(time.Second, func() {
				now := c.clock.mark()
				c.clock.learn(now.wall.Add(offset), now, now)
			})
			_, err := c.LegacyToken(t.Context(), testAccount, c.Now().Add(2*time.Second))
			if !errors.Is(err, ErrStartedTooLate) {
				t.Errorf("offset %v: error %v, want ErrStartedTooLate", offset, err)
			}
			time.Sleep(10 * time.Second)
			h.wantHits(t, 0)
		})
	}
}

func TestMintCancelledBeforeItStarts(t *testing.T) {
	for _, mint := range mints() {
		t.Run(mint.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &host{}
				c := bubble(t, Options{MaxInFlight: 1}, h)
				c.slots <- struct{}{}
				for want, end := range map[error]func(context.Context) (context.Context, context.CancelFunc){
					context.Canceled: func(ctx context.Context) (context.Context, context.CancelFunc) {
						ctx, cancel := context.WithCancel(ctx)
						time.AfterFunc(time.Second, cancel)
						return ctx, cancel
					},
					context.DeadlineExceeded: func(ctx context.Context) (context.Context, context.CancelFunc) {
						return context.WithTimeout(ctx, time.Second)
					},
				} {
					ctx, cancel := end(t.Context())
					defer cancel()
					_, err := mint.do(ctx, c)
					e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
					if !errors.Is(err, want) || errors.Is(err, ErrStartedTooLate) || e.MaybeSent {
						t.Errorf("MaybeSent %v, cause %v, want %v", e.MaybeSent, e.Unwrap(), want)
					}
				}
				c.slots.release()
				h.wantHits(t, 0)
			})
		})
	}
}

func TestGate(t *testing.T) {
	allowed := true
	for _, tt := range []struct {
		name   string
		steps  func(g *gate)
		passed bool
	}{
		{"untouched", func(*gate) {}, false},
		{"passed", func(g *gate) { g.pass() }, true},
		{"shut", func(g *gate) { g.shut() }, false},
		{"shut, then ready", func(g *gate) { g.shut(); g.pass() }, false},
		{"passed, then the limit", func(g *gate) { g.pass(); g.shut() }, true},
		{"passed twice", func(g *gate) { g.pass(); g.pass() }, true},
		{"not allowed", func(g *gate) { allowed = false; g.pass() }, false},
		{"not allowed, then allowed", func(g *gate) { allowed = false; g.pass(); allowed = true; g.pass() }, false},
		{"passed, then not allowed", func(g *gate) { g.pass(); allowed = false; g.pass() }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			allowed = true
			g := &gate{allowed: func() bool { return allowed }}
			tt.steps(g)
			if g.passed() != tt.passed {
				t.Errorf("passed is %v, want %v", g.passed(), tt.passed)
			}
		})
	}
}
