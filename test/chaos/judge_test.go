// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	tokenKey = "access_token"
	byRival  = "rival"
	// sampleEvery is the time between two samples of a target; lagSteps readers with a different lag sample with it.
	sampleEvery = time.Second
	lagSteps    = 9
)

// verdict is what the samples of some targets showed.
type verdict struct {
	rotations int
	samples   int
	excluded  map[byte]int
	longest   time.Duration // window
	invalid   int
	slowest   time.Duration // recovery
	examples  []string
	// never is how many targets never held what is judged.
	never int
}

// judge samples a target from the moment it first held a token, or a ticket of the subject's type.
func (v *verdict) judge(name string, s *subject, until time.Time, rng *rand.Rand) {
	first, ok := s.firstToken()
	if !ok {
		v.never++
		return
	}
	v.countRotations(s)
	v.take(name, s, first, until, rng)
}

// take samples a target from one moment to another: once without lag, and through volumes that lag by up to the kubelet's 90 s. Each
// volume's lag is drawn anew for each sample, from its own ninth of the range, so that a value that was there for a second is seen too.
func (v *verdict) take(name string, s *subject, from, until time.Time, rng *rand.Rand) {
	first, ok := s.firstToken()
	if !ok {
		return
	}
	if from.Before(first) {
		from = first
	}
	windows := s.windows()
	for _, w := range windows {
		if w.to.After(until) {
			w.to = until
		}
		v.longest = max(v.longest, w.to.Sub(w.from))
	}
	for at := from.Add(time.Duration(rng.Int64N(int64(sampleEvery)))); at.Before(until); at = at.Add(sampleEvery) {
		held, _ := s.history.at(at)
		v.sample(name, s, windows, held, at, 0)
		for step := range lagSteps {
			lag := time.Duration((float64(step) + rng.Float64()) * float64(s.lag) / lagSteps)
			if synced := at.Add(-lag); !synced.Before(first) {
				held, _ = s.history.mounted(synced)
				v.sample(name, s, windows, held, at, lag)
			}
		}
	}
}

func (s *subject) firstToken() (time.Time, bool) {
	for _, v := range s.history {
		if _, ok := s.find(v.token); ok && !v.gone {
			return v.at, true
		}
	}
	return time.Time{}, false
}

func (v *verdict) sample(name string, s *subject, windows []window, held version, at time.Time, lag time.Duration) {
	v.samples++
	for _, w := range windows {
		if !at.Before(w.from) && at.Before(w.to) {
			v.excluded[w.kind]++
			return
		}
	}
	if !held.gone && s.valid(held.token, at) {
		return
	}
	v.invalid++
	if len(v.examples) < 8 {
		v.examples = append(v.examples, fmt.Sprintf("%s at %s with a lag of %s: %s", name, clockTime(at), lag.Round(time.Second), s.explain(held)))
	}
	if len(v.examples) == 1 {
		v.examples = append(v.examples, s.before(at)...)
	}
}

func clockTime(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// explain says what is wrong with a value, without showing it.
func (s *subject) explain(held version) string {
	t, ok := s.find(held.token)
	switch {
	case held.gone:
		return "the Secret is gone since " + clockTime(held.at)
	case !ok:
		return fmt.Sprintf("since %s it holds %d bytes that are no %s of %s", clockTime(held.at), len(held.token), s.what(), s.appID)
	case s.ticket != "":
		return fmt.Sprintf("since %s it holds the %s that was issued at %s and died at %s",
			clockTime(held.at), s.what(), clockTime(t.IssuedAt), clockTime(endOf(t)))
	}
	return fmt.Sprintf("since %s it holds the token that was issued at %s, expires at %s and died at %s",
		clockTime(held.at), clockTime(t.IssuedAt), clockTime(t.ExpiresAt), clockTime(endOf(t)))
}

// before tells what happened to the account within five minutes before a moment.
func (s *subject) before(at time.Time) (out []string) {
	recent := func(t time.Time) bool { return t.After(at.Add(-5*time.Minute)) && !t.After(at) }
	for _, t := range s.tokens {
		if !recent(t.IssuedAt) {
			continue
		}
		by := "the operator"
		if t.By == byRival {
			by = "a rival"
		}
		told := fmt.Sprintf("  before it: %s got a %s at %s, which ended at %s", by, s.what(), clockTime(t.IssuedAt), clockTime(endOf(t)))
		if at, ok := s.landed[t.Token]; s.ticket == "" && !ok {
			told += " and was in no target"
		} else if ok {
			told += " and was in a target at " + clockTime(at)
		}
		out = append(out, told)
	}
	for _, crashed := range s.facts.crashes {
		if recent(crashed) {
			out = append(out, "  before it: a process ended at "+clockTime(crashed))
		}
	}
	return out
}

func (s *subject) what() string {
	if s.ticket == "" {
		return "token"
	}
	return string(s.ticket) + " ticket"
}

// countRotations counts changes from one token to another, and finds the longest time that a target waited for a write
// that was due: a rotation since its time, a repair since the edit, a replacement since another fetcher's.
func (v *verdict) countRotations(s *subject) {
	for i := 1; i < len(s.history); i++ {
		before, now := s.history[i-1], s.history[i]
		to, ok := s.find(now.token)
		if !ok || now.gone {
			continue
		}
		from, was := s.find(before.token)
		if !was || before.gone {
			v.slowest = max(v.slowest, now.at.Sub(before.at))
			continue
		}
		if from.Token == to.Token {
			continue
		}
		v.rotations++
		v.slowest = max(v.slowest, now.at.Sub(s.replacementDue(from)))
	}
}

// replacementDue is when a token was to be replaced, and a ticket could be: when WeChat issued the next one.
func (s *subject) replacementDue(t wechattest.IssuedToken) time.Time {
	next, replaced := s.after(t)
	if s.ticket != "" {
		return next.IssuedAt
	}
	due := t.ExpiresAt.Add(-handoverBegins + 16*time.Second)
	if s.mode == wechattest.Legacy {
		due = t.ExpiresAt.Add(-t.ExpiresAt.Sub(t.IssuedAt) / 2)
	}
	if replaced && next.By == byRival && next.IssuedAt.Before(due) {
		due = next.IssuedAt
	}
	return due
}

// after is the token that was issued after another.
func (s *subject) after(t wechattest.IssuedToken) (wechattest.IssuedToken, bool) {
	for _, next := range s.tokens {
		if next.Mode == s.mode && next.IssuedAt.After(t.IssuedAt) {
			return next, true
		}
	}
	return wechattest.IssuedToken{}, false
}

// busiestMinute is the largest number of calls that were made for one account within a minute. It shows work in a circle, which WeChat
// would answer with a refusal one day, and which no sample need show.
func busiestMinute(calls []wechattest.Call) (most int) {
	recent := map[string][]time.Time{}
	for _, c := range calls {
		if c.AppID == "" { // it ended before anybody knew whose it was
			continue
		}
		old := func(t time.Time) bool { return c.At.Sub(t) >= time.Minute }
		recent[c.AppID] = append(slices.DeleteFunc(recent[c.AppID], old), c.At)
		most = max(most, len(recent[c.AppID]))
	}
	return most
}

func (v *verdict) excludedShare() float64 {
	n := 0
	for _, count := range v.excluded {
		n += count
	}
	return float64(n) / float64(max(v.samples, 1))
}
