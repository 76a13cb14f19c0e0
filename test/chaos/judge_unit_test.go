// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// t0 is the beginning of each story below.
var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return t0.Add(time.Duration(seconds) * time.Second) }

func issuedAt(token string, from, to int) wechattest.IssuedToken {
	return wechattest.IssuedToken{Token: token, AppID: "wx", Mode: wechattest.Stable, IssuedAt: at(from), ExpiresAt: at(to), By: "call"}
}

// The samples must find each planted value, and a window must excuse no more than what it is for.
func TestJudge(t *testing.T) {
	rotation := []wechattest.IssuedToken{issuedAt("A", 0, 330), issuedAt("B", 40, 370)}
	dead := func(token wechattest.IssuedToken, died int) wechattest.IssuedToken {
		token.DiedAt = at(died)
		return token
	}
	by := func(token wechattest.IssuedToken, who string, forced bool) wechattest.IssuedToken {
		token.By, token.Forced = who, forced
		return token
	}
	tests := map[string]struct {
		history history
		tokens  []wechattest.IssuedToken
		mode    wechattest.Mode
		facts   facts
		until   int
		// invalid: there are invalid samples. excluded is the window that must exclude some; 0 for none.
		invalid  bool
		excluded byte
	}{
		"a rotation in time": {history: history{{at: at(0), token: "A"}, {at: at(60), token: "B"}}, tokens: rotation, until: 360},
		"no rotation":        {history: history{{at: at(0), token: "A"}}, tokens: rotation, until: 360, invalid: true},
		"a rotation too late for a volume": {
			history: history{{at: at(0), token: "A"}, {at: at(250), token: "B"}}, tokens: rotation, until: 360, invalid: true,
		},
		"what is no token": {
			history: history{{at: at(0), token: "A"}, {at: at(50), token: "planted"}, {at: at(51), token: "B"}}, tokens: rotation, until: 200, invalid: true,
		},
		"another app's token": {
			history: history{{at: at(0), token: "A"}, {at: at(50), token: "X"}, {at: at(60), token: "B"}}, tokens: rotation, until: 200, invalid: true,
		},
		"a deleted Secret": {
			history: history{{at: at(0), token: "A"}, {at: at(50), gone: true}, {at: at(60), token: "B"}}, tokens: rotation, until: 200, invalid: true,
		},
		"a deleted Secret that was reported": {
			history: history{{at: at(0), token: "A"}, {at: at(50), gone: true}, {at: at(60), token: "B"}}, tokens: rotation, until: 200,
			facts: facts{edits: []time.Time{at(50)}}, excluded: 'e',
		},
		"an edit that is never repaired": {
			history: history{{at: at(0), token: "A"}, {at: at(50), token: "mine"}}, tokens: rotation, until: 300,
			facts: facts{edits: []time.Time{at(50)}}, excluded: 'e', invalid: true,
		},
		"a crash excuses no Stable token": {
			history: history{{at: at(0), token: "A"}}, tokens: rotation, until: 360, facts: facts{crashes: []time.Time{at(41)}}, invalid: true,
		},
		"an outage before the handover window excuses nothing": {
			history: history{{at: at(0), token: "A"}}, tokens: rotation, until: 360, facts: facts{outages: []span{{at(0), at(60)}}}, invalid: true,
		},
		"an outage of the whole handover window": {
			history: history{{at: at(0), token: "A"}, {at: at(340), token: "B"}}, tokens: rotation, until: 365,
			facts: facts{outages: []span{{at(20), at(335)}}}, excluded: 'c',
		},
		"an outage that leaves 31 s": {
			history: history{{at: at(0), token: "A"}, {at: at(340), token: "B"}}, tokens: rotation, until: 365,
			facts: facts{outages: []span{{at(20), at(100)}, {at(131), at(335)}}}, invalid: true,
		},
		"one forced refresh by a rival that is not seen": {
			history: history{{at: at(0), token: "A"}}, until: 330, invalid: true,
			tokens: []wechattest.IssuedToken{dead(issuedAt("A", 0, 330), 300), by(issuedAt("R", 10, 340), byRival, true)},
		},
		"two forced refreshes by a rival": {
			history: history{{at: at(0), token: "A"}, {at: at(60), token: "S"}}, until: 200, excluded: 'b',
			tokens: []wechattest.IssuedToken{
				dead(issuedAt("A", 0, 330), 45), by(issuedAt("R", 10, 340), byRival, true), by(issuedAt("S", 45, 375), byRival, true),
			},
		},
		"a Legacy mint lost in a crash": {
			mode: wechattest.Legacy, until: 300, facts: facts{crashes: []time.Time{at(101)}}, excluded: 'a',
			history: history{{at: at(0), token: "A"}, {at: at(110), token: "C"}},
			tokens:  []wechattest.IssuedToken{dead(issuedAt("A", 0, 400), 109), issuedAt("B", 100, 500), issuedAt("C", 109, 509)},
		},
		"a Legacy mint lost without a crash": {
			mode: wechattest.Legacy, until: 300, invalid: true,
			history: history{{at: at(0), token: "A"}, {at: at(110), token: "C"}},
			tokens:  []wechattest.IssuedToken{dead(issuedAt("A", 0, 400), 109), issuedAt("B", 100, 500), issuedAt("C", 109, 509)},
		},
		"a short Legacy token that is not replaced": {
			mode: wechattest.Legacy, until: 90, invalid: true,
			history: history{{at: at(0), token: "A"}}, tokens: []wechattest.IssuedToken{issuedAt("A", 0, 60)},
		},
		"a crash that lost no mint": {
			mode: wechattest.Legacy, until: 300, invalid: true, facts: facts{crashes: []time.Time{at(101)}},
			history: history{{at: at(0), token: "A"}, {at: at(101), token: "B"}, {at: at(110), token: "C"}},
			tokens:  []wechattest.IssuedToken{dead(issuedAt("A", 0, 400), 109), issuedAt("B", 100, 500), issuedAt("C", 109, 509)},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &subject{history: tt.history, tokens: tt.tokens, mode: wechattest.Stable, interval: 30 * time.Second, lag: kubeletLag, facts: tt.facts}
			s.landed = map[string]bool{}
			for _, v := range s.history {
				s.landed[v.token] = true
			}
			if tt.mode == wechattest.Legacy {
				s.mode = tt.mode
				for i := range s.tokens {
					s.tokens[i].Mode = tt.mode
				}
			}
			v := verdict{excluded: map[byte]int{}}
			v.judge("target", s, at(tt.until), rand.New(rand.NewPCG(1, 2)))
			if got := v.invalid > 0; got != tt.invalid {
				t.Errorf("%d invalid samples of %d: %v", v.invalid, v.samples, v.examples)
			}
			if tt.excluded != 0 && v.excluded[tt.excluded] == 0 || tt.excluded == 0 && len(v.excluded) > 0 {
				t.Errorf("excluded: %v", v.excluded)
			}
		})
	}
}

// A scenario that proves nothing fails.
func TestRotationsAreCounted(t *testing.T) {
	s := &subject{
		history: history{{at: at(0), token: "A"}, {at: at(60), token: "B"}, {at: at(70), token: "x"}, {at: at(75), token: "B"}},
		tokens:  []wechattest.IssuedToken{issuedAt("A", 0, 330), issuedAt("B", 40, 370)}, mode: wechattest.Stable,
	}
	v := verdict{excluded: map[byte]int{}}
	v.countRotations(s)
	if v.rotations != 1 || v.slowest != 14*time.Second {
		t.Errorf("%d rotations, slowest %s; want 1 and 14s, which is from 330 − 300 + 16 to 60", v.rotations, v.slowest)
	}
}

func TestBusiestMinute(t *testing.T) {
	var calls []wechattest.Call
	for i := range 200 { // one in two seconds, of two apps in turn
		calls = append(calls, wechattest.Call{At: at(2 * i), AppID: []string{"wx1", "wx2"}[i%2]}, wechattest.Call{At: at(2 * i)})
	}
	if got := busiestMinute(calls); got != 15 {
		t.Errorf("%d calls in the busiest minute, want 15", got)
	}
	for i := range 10 {
		calls = append(calls, wechattest.Call{At: at(400 + i), AppID: "wx1"})
	}
	if got := busiestMinute(calls); got != 22 {
		t.Errorf("%d calls in the busiest minute with a burst, want 22", got)
	}
}
