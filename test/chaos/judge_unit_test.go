// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
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
		// elsewhere is when another member of the account first held a token.
		elsewhere map[string]time.Time
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
			facts: facts{edits: []span{{at(50), at(50)}}}, excluded: 'e',
		},
		"a deletion that took its time": {
			history: history{{at: at(0), token: "A"}, {at: at(55), gone: true}, {at: at(60), token: "B"}}, tokens: rotation, until: 200,
			facts: facts{edits: []span{{at(50), at(56)}}}, excluded: 'e',
		},
		"an edit that is never repaired": {
			history: history{{at: at(0), token: "A"}, {at: at(50), token: "mine"}}, tokens: rotation, until: 300,
			facts: facts{edits: []span{{at(50), at(50)}}}, excluded: 'e', invalid: true,
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
		"a Legacy mint that one member had when the process ended": {
			mode: wechattest.Legacy, until: 300, facts: facts{crashes: []time.Time{at(101)}}, excluded: 'a',
			history:   history{{at: at(0), token: "A"}, {at: at(110), token: "C"}},
			elsewhere: map[string]time.Time{"B": at(100)},
			tokens:    []wechattest.IssuedToken{dead(issuedAt("A", 0, 400), 109), issuedAt("B", 100, 500), issuedAt("C", 109, 509)},
		},
		"a Legacy mint that one member had long before the process ended": {
			mode: wechattest.Legacy, until: 300, facts: facts{crashes: []time.Time{at(106)}}, invalid: true,
			history:   history{{at: at(0), token: "A"}, {at: at(110), token: "C"}},
			elsewhere: map[string]time.Time{"B": at(100)},
			tokens:    []wechattest.IssuedToken{dead(issuedAt("A", 0, 400), 109), issuedAt("B", 100, 500), issuedAt("C", 109, 509)},
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
			s.landed = maps.Clone(tt.elsewhere)
			if s.landed == nil {
				s.landed = map[string]time.Time{}
			}
			for _, v := range s.history {
				s.landed[v.token] = v.at
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

// The samples of tickets are judged in the same way, by windows of their own.
func TestJudgeTickets(t *testing.T) {
	issued := func(ticket string, from int) wechattest.IssuedTicket {
		return wechattest.IssuedTicket{Ticket: ticket, AppID: "wx", Type: v1alpha1.TicketJSAPI, IssuedAt: at(from)}
	}
	replaced := func(ticket wechattest.IssuedTicket, when, died int) wechattest.IssuedTicket {
		ticket.ReplacedAt, ticket.DeadAt = at(when), at(died)
		return ticket
	}
	change := []wechattest.IssuedTicket{replaced(issued("A", 0), 100, 400), issued("B", 100)}
	sudden := []wechattest.IssuedTicket{replaced(issued("A", 0), 100, 100), issued("B", 100)}
	byRivals := facts{rivalTickets: map[string]bool{"B": true}}
	tests := map[string]struct {
		history history
		issued  []wechattest.IssuedTicket
		mode    wechattest.Mode
		facts   facts
		until   int
		// invalid: there are invalid samples. excluded is the window that must exclude some; 0 for none.
		invalid  bool
		excluded byte
	}{
		"a change by a call": {history: history{{at: at(0), token: "A"}, {at: at(101), token: "B"}}, issued: change, until: 600},
		"the present ticket does not end": {
			history: history{{at: at(0), token: "A"}}, issued: []wechattest.IssuedTicket{issued("A", 0)}, until: 20000,
		},
		"a change that is not followed": {history: history{{at: at(0), token: "A"}}, issued: change, until: 600, invalid: true},
		"a change that is followed too late for a volume": {
			history: history{{at: at(0), token: "A"}, {at: at(350), token: "B"}}, issued: change, until: 600, invalid: true,
		},
		"what is no ticket": {
			history: history{{at: at(0), token: "A"}, {at: at(50), token: "planted"}, {at: at(51), token: "A"}}, issued: change, until: 200, invalid: true,
		},
		"a ticket that was removed": {
			history: history{{at: at(0), token: "A"}, {at: at(50)}, {at: at(60), token: "A"}}, issued: change, until: 200, invalid: true,
		},
		"a ticket that was removed, which was reported": {
			history: history{{at: at(0), token: "A"}, {at: at(50)}, {at: at(60), token: "A"}}, issued: change, until: 200,
			facts: facts{edits: []span{{at(50), at(50)}}}, excluded: 'e',
		},
		"an older ticket that was put back and ends soon": {
			history: history{{at: at(0), token: "A"}, {at: at(101), token: "B"}, {at: at(380), token: "A"}, {at: at(384), token: "B"}},
			issued:  change, until: 600, facts: facts{edits: []span{{at(380), at(380)}}}, excluded: 'e',
		},
		"an edit that is never repaired": {
			history: history{{at: at(0), token: "A"}, {at: at(50), token: "mine"}}, issued: change, until: 300,
			facts: facts{edits: []span{{at(50), at(50)}}}, excluded: 'e', invalid: true,
		},
		"a crash excuses nothing": {
			history: history{{at: at(0), token: "A"}}, issued: change, until: 600, facts: facts{crashes: []time.Time{at(101)}}, invalid: true,
		},
		"a lost Legacy mint excuses nothing": {
			mode:    wechattest.Legacy,
			history: history{{at: at(0), token: "A"}}, issued: change, until: 600, facts: facts{crashes: []time.Time{at(101)}}, invalid: true,
		},
		"a request excuses nothing": {
			history: history{{at: at(0), token: "A"}}, issued: sudden, until: 300, facts: facts{requests: []time.Time{at(99)}}, invalid: true,
		},
		"an outage before the change excuses nothing": {
			history: history{{at: at(0), token: "A"}}, issued: change, until: 600, facts: facts{outages: []span{{at(0), at(100)}}}, invalid: true,
		},
		"an outage from the change to its end": {
			history: history{{at: at(0), token: "A"}, {at: at(430), token: "B"}}, issued: change, until: 600,
			facts: facts{outages: []span{{at(100), at(420)}}}, excluded: 'c',
		},
		"an outage that leaves 91 s": {
			history: history{{at: at(0), token: "A"}, {at: at(430), token: "B"}}, issued: change, until: 600,
			facts: facts{outages: []span{{at(100), at(150)}, {at(241), at(420)}}}, invalid: true,
		},
		"an outage after which nothing comes": {
			history: history{{at: at(0), token: "A"}}, issued: change, until: 900, facts: facts{outages: []span{{at(100), at(420)}}},
			excluded: 'c', invalid: true,
		},
		"a change by somebody else": {
			history: history{{at: at(0), token: "A"}, {at: at(900), token: "B"}}, issued: sudden, until: 1200, facts: byRivals, excluded: 'f',
		},
		"a change by somebody else that no poll finds": {
			history: history{{at: at(0), token: "A"}}, issued: sudden, until: 1200, facts: byRivals, excluded: 'f', invalid: true,
		},
		"a change without a time in which both are valid": {
			history: history{{at: at(0), token: "A"}, {at: at(101), token: "B"}}, issued: sudden, until: 300, invalid: true,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			of := &subject{mode: wechattest.Stable, interval: 30 * time.Second, lag: kubeletLag, facts: tt.facts}
			if tt.mode != "" {
				of.mode = tt.mode
			}
			v := verdict{excluded: map[byte]int{}}
			v.judge("target", ticketSubject(of, v1alpha1.TicketJSAPI, tt.history, tt.issued), at(tt.until), rand.New(rand.NewPCG(1, 2)))
			if got := v.invalid > 0; got != tt.invalid {
				t.Errorf("%d invalid samples of %d: %v", v.invalid, v.samples, v.examples)
			}
			if tt.excluded != 0 && v.excluded[tt.excluded] == 0 || tt.excluded == 0 && len(v.excluded) > 0 {
				t.Errorf("excluded: %v", v.excluded)
			}
		})
	}
}

// A ticket that never came leaves nothing to judge, which must not look like success.
func TestTicketsThatNeverCameAreCounted(t *testing.T) {
	v := verdict{excluded: map[byte]int{}}
	of := &subject{mode: wechattest.Stable, lag: kubeletLag}
	held := history{{at: at(0), token: "planted"}}
	v.judge("target", ticketSubject(of, v1alpha1.TicketJSAPI, held, nil), at(100), rand.New(rand.NewPCG(1, 2)))
	if v.never != 1 || v.samples != 0 {
		t.Errorf("%d never came, %d samples; want 1 and 0", v.never, v.samples)
	}
}

func TestTicketChangesAreCounted(t *testing.T) {
	of := &subject{mode: wechattest.Legacy, lag: kubeletLag}
	s := ticketSubject(of, v1alpha1.TicketJSAPI, history{{at: at(0), token: "A"}, {at: at(130), token: "B"}}, []wechattest.IssuedTicket{
		{Ticket: "A", IssuedAt: at(0), ReplacedAt: at(100), DeadAt: at(400)}, {Ticket: "B", IssuedAt: at(100)},
	})
	v := verdict{excluded: map[byte]int{}}
	v.countRotations(s)
	if v.rotations != 1 || v.slowest != 30*time.Second {
		t.Errorf("%d changes, slowest %s; want 1 and 30s, which is from the issue to the write", v.rotations, v.slowest)
	}
}

// The observer keeps the token and each ticket of a Secret apart.
func TestObserverKeepsTicketsApart(t *testing.T) {
	o, name := newObserver(), types.NamespacedName{Namespace: "ns", Name: "shop"}
	secret := func(data map[string]string) *corev1.Secret {
		s := secretNamed(name)
		s.Data = map[string][]byte{}
		for k, v := range data {
			s.Data[k] = []byte(v)
		}
		return s
	}
	o.note(secret(map[string]string{tokenKey: "T1"}), false)
	o.note(secret(map[string]string{tokenKey: "T1", "jsapi_ticket": "J1"}), false)
	o.note(secret(map[string]string{tokenKey: "T2", "jsapi_ticket": "J1"}), false)
	o.note(secret(map[string]string{tokenKey: "T2"}), false)
	o.note(secret(map[string]string{tokenKey: "T2"}), true)
	for key, want := range map[string]string{tokenKey: "T1 T2 gone ", "jsapi_ticket": "J1  gone ", "sdk_ticket": ""} {
		var got string
		for _, v := range o.historyOf(name, key) {
			if v.gone {
				v.token = "gone"
			}
			got += v.token + " "
		}
		if got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
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
