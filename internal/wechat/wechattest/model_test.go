// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"
)

// model is the rules once more, as a history: how long a token lives follows from the tokens made after it.
type model struct {
	life, window time.Duration
	lives        bool // Options.LegacyGrandparentLives
	history      []made
}

type made struct {
	token  string
	mode   Mode
	forced bool
	at     time.Time
}

// later lists the tokens of the same kind after the i-th.
func (m *model) later(i int) (list []made) {
	for _, t := range m.history[i+1:] {
		if t.mode == m.history[i].mode {
			list = append(list, t)
		}
	}
	return list
}

// end is when the i-th token stops being valid.
func (m *model) end(i int) time.Time {
	t := m.history[i]
	ends := []time.Time{t.at.Add(m.life)}
	later := m.later(i)
	switch {
	case len(later) == 0:
	case t.mode == Legacy:
		ends = append(ends, later[0].at.Add(m.window))
		if len(later) > 1 && !m.lives {
			ends = append(ends, later[1].at)
		}
	case later[0].forced:
		ends = append(ends, later[0].at.Add(m.window))
		for _, next := range later[1:] {
			if next.forced {
				ends = append(ends, next.at)
				break
			}
		}
	}
	first := ends[0]
	for _, end := range ends {
		if end.Before(first) {
			first = end
		}
	}
	return first
}

func (m *model) validAt(i int, at time.Time) bool {
	return !at.Before(m.history[i].at) && at.Before(m.end(i))
}

// errcode is what a call with the i-th token gets.
func (m *model) errcode(i int, now time.Time) int {
	switch {
	case m.validAt(i, now):
		return 0
	case now.Before(m.history[i].at):
		return codeInvalidToken
	case m.end(i).Equal(m.history[i].at.Add(m.life)):
		return codeTokenExpired
	}
	return codeInvalidCredential
}

// current is the token that an ordinary Stable call gets, -1 for a new one.
func (m *model) current(now time.Time) int {
	for i, t := range slices.Backward(m.history) {
		if t.mode == Stable {
			if m.validAt(i, now) && t.at.Add(m.life).Sub(now) >= m.window {
				return i
			}
			return -1
		}
	}
	return -1
}

// forces are the times of the forced refreshes of the last 24 h.
func (m *model) forces(now time.Time) (list []time.Time) {
	for _, t := range m.history {
		if t.forced && now.Sub(t.at) < 24*time.Hour {
			list = append(list, t.at)
		}
	}
	return list
}

// step does one thing to the server and to the model, and compares.
func (m *model) step(f *fixture, random *rand.Rand) error {
	now := f.Now()
	add := func(token string, mode Mode, forced bool) {
		m.history = append(m.history, made{token, mode, forced, now})
	}
	ordinary := func(token string) error {
		if i := m.current(now); i < 0 {
			add(token, Stable, false)
		} else if token != m.history[i].token {
			return fmt.Errorf("a Stable call did not give the current token, number %d", i)
		}
		return nil
	}
	switch random.IntN(10) {
	case 0, 1, 2:
		return ordinary(f.stable(appID).Token)
	case 3, 4:
		a, forces := f.force(appID), m.forces(now)
		n := len(forces)
		switch {
		case n > 0 && now.Sub(forces[n-1]) >= 0 && now.Sub(forces[n-1]) < 30*time.Second:
			return ordinary(a.Token)
		case n >= 20:
			if a.code() != codeDailyQuota {
				return fmt.Errorf("force number %d of the day got errcode %d", n+1, a.code())
			}
		default:
			add(a.Token, Stable, true)
		}
	case 5, 6:
		add(f.legacy(appID).Token, Legacy, false)
	case 7:
		add(f.RivalMint(appID).Token, Legacy, false)
	case 8:
		add(f.RivalForceRefresh(appID).Token, Stable, true)
	case 9:
		f.Advance(-time.Duration(random.Int64N(int64(m.window)))) // rarely enough to go on
	}
	return nil
}

// check compares what is valid, now and at some other moment, and what calls are told.
func (m *model) check(f *fixture, random *rand.Rand) error {
	now := f.Now()
	issued := f.Tokens(appID)
	if len(issued) != len(m.history) {
		return fmt.Errorf("%d tokens were made, the model has %d", len(issued), len(m.history))
	}
	then := now.Add(time.Duration(random.Int64N(int64(4*m.life))) - 2*m.life)
	for n := range min(len(m.history), 12) {
		i := len(m.history) - 1 - n // the newest ones, and some of the others
		if n >= 8 {
			i = random.IntN(i + 1)
		}
		t, end := m.history[i], m.end(i)
		for _, at := range []time.Time{now, then, t.at.Add(-1), t.at, end.Add(-1), end} {
			if want, got := m.validAt(i, at), f.ValidAt(t.token, at); got != want {
				return fmt.Errorf("token %d at %v: valid is %t, want %t (%+v)", i, at, got, want, issued[i])
			}
		}
		if want, got := m.validAt(i, now), f.Valid(t.token); got != want {
			return fmt.Errorf("token %d now: valid is %t, want %t", i, got, want)
		}
	}
	if len(m.history) == 0 {
		return nil
	}
	i := len(m.history) - 1 - random.IntN(min(4, len(m.history)))
	if want, got := m.errcode(i, now), f.probe(m.history[i].token); got != want {
		return fmt.Errorf("a call with token %d got errcode %d, want %d (%+v)", i, got, want, issued[i])
	}
	return nil
}

func TestLedgerAgainstModel(t *testing.T) {
	steps := 120
	if testing.Short() {
		steps = 30
	}
	for seed := range uint64(24) {
		life := []time.Duration{2 * time.Hour, 10 * time.Minute, 90 * time.Second, 7 * time.Second}[seed%4]
		t.Run(fmt.Sprintf("%v_%d", life, seed), func(t *testing.T) {
			lives := seed%8 >= 4
			f := newFixture(t, Options{Life: life, LegacyGrandparentLives: lives})
			f.SetApp(App{ID: appID, Secret: secret, DailyLegacyQuota: 1e6})
			m := &model{life: life, window: windowOf(life), lives: lives}
			random := rand.New(rand.NewPCG(seed, 1))
			for n := range steps {
				// Short waits often, so that the overlaps are met, and long ones sometimes.
				most := []time.Duration{m.window / 2, m.window, life}[random.IntN(3)]
				f.Advance(time.Duration(random.Int64N(int64(most))))
				if err := m.step(f, random); err != nil {
					t.Fatalf("step %d: %v", n, err)
				}
				if err := m.check(f, random); err != nil {
					t.Fatalf("after step %d: %v", n, err)
				}
			}
			if got := f.Count(Filter{AppID: appID}); got != len(f.Calls(Filter{AppID: appID})) || got == 0 {
				t.Errorf("counted %d calls", got)
			}
		})
	}
}

// A token that another process stored is asked about by value alone.
func TestUnknownToken(t *testing.T) {
	f := newFixture(t, Options{})
	if f.Valid("x") || f.Valid("") || f.ValidAt("x", epoch) {
		t.Error("a token that was never issued is valid")
	}
	if _, ok := f.Current(appID, Stable); ok {
		t.Error("there is a current token before the first call")
	}
	if _, ok := f.Current("unknown", Legacy); ok || f.Tokens("unknown") != nil {
		t.Error("an unknown app has tokens")
	}
	if got := f.must(http.MethodGet, "/cgi-bin/getcallbackip?access_token=x", ""); got.code() != codeInvalidToken {
		t.Errorf("errcode %d", got.code())
	}
}
