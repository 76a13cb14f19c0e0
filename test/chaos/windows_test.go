// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"slices"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// reachableFor, handoverBegins and handoverEnds are the promise's: 30 s without a break between T − 300 s and T − 120 s.
	reachableFor   = 30 * time.Second
	handoverBegins = 300 * time.Second
	handoverEnds   = 120 * time.Second
	// crashLoses is how long after a mint a crash can lose its answer: the mint's deadline and a slow write.
	crashLoses = 15 * time.Second
	// namedWithin is how long after the write of a token its status may take.
	namedWithin = 2 * time.Second
	// noticeWithin is added to the check interval: the promise of Legacy mode about a dead token.
	noticeWithin = 30 * time.Second
	// repairWithin is how long the operator may wait with the repair of a Secret that somebody keeps rewriting.
	repairWithin = 75 * time.Second
	// editSeenWithin is how long the observer may take to see an edit.
	editSeenWithin = 2 * time.Second
	// resumeWithin is how long a token that expired in an outage may take once the outage is over: the longest back-off.
	resumeWithin = 90 * time.Second
)

// window is a time in which the promise does not hold for one target, with the letter of the list in docs/reliability.md.
type window struct {
	kind     byte
	from, to time.Time
}

// span is a time that something lasted.
type span struct{ from, to time.Time }

// facts are what the test did to the operator of one scenario. They name no scenario, so the windows that follow from them
// are the same for all.
type facts struct {
	// outages: WeChat or the API server could not be reached.
	outages []span
	// crashes are the ends of operator processes.
	crashes []time.Time
	// edits are the requests by which somebody else wrote or deleted the target.
	edits []span
	// requests are times at which refresh or revoke was asked for.
	requests []time.Time
	// lostCalls are times of calls whose answer did not get through.
	lostCalls []time.Time
	// rivalTickets are the tickets that somebody else's call made WeChat issue.
	rivalTickets map[string]bool
}

// subject is a target Secret with all that is known about it and its account. For a ticket, see ticketSubject.
type subject struct {
	history  history
	appID    string
	mode     wechattest.Mode
	ticket   v1alpha1.TicketType      // that is judged; "" for the token
	tokens   []wechattest.IssuedToken // of the appid, in the order of issue
	replaced map[string]time.Time     // when WeChat replaced a ticket; not there for the present one
	landed   map[string]time.Time     // when a target of the account first held a token
	interval time.Duration            // checkInterval
	lag      time.Duration
	facts    facts
}

// endOf is when WeChat stopped, or will stop, accepting a token.
func endOf(t wechattest.IssuedToken) time.Time {
	if !t.DiedAt.IsZero() && t.DiedAt.Before(t.ExpiresAt) {
		return t.DiedAt
	}
	return t.ExpiresAt
}

func (s *subject) find(token string) (wechattest.IssuedToken, bool) {
	for _, t := range s.tokens {
		if t.Token == token && t.Mode == s.mode {
			return t, true
		}
	}
	return wechattest.IssuedToken{}, false
}

// valid tells whether WeChat accepted the token at that moment, as the token of this appid.
func (s *subject) valid(token string, at time.Time) bool {
	t, ok := s.find(token)
	return ok && !at.Before(t.IssuedAt.Add(-time.Second)) && at.Before(endOf(t))
}

// writeOfNewer is when the target first held a token that was issued at or after a moment; zero if it never did.
func (s *subject) writeOfNewer(issued, after time.Time) time.Time {
	for _, v := range s.history {
		if t, ok := s.find(v.token); ok && !v.gone && !t.IssuedAt.Before(issued) && !v.at.Before(after) {
			return v.at
		}
	}
	return time.Time{}
}

// until is the write plus lag; when the write did not come in time, the window ends at the limit plus lag all the same.
func (s *subject) until(write, limit time.Time) time.Time {
	if write.IsZero() || write.After(limit) {
		write = limit
	}
	return write.Add(s.lag)
}

// windows lists all times in which the promise does not hold.
func (s *subject) windows() []window {
	if s.ticket != "" {
		return s.ticketWindows()
	}
	out := s.lostMints()
	out = append(out, s.rivals()...)
	out = append(out, s.unreachable()...)
	out = append(out, s.asked()...)
	return append(out, s.edited()...)
}

// lostMints are window (a): a Legacy mint whose answer was lost in a crash. Repeating it ends the token that readers hold.
func (s *subject) lostMints() []window {
	if s.mode != wechattest.Legacy {
		return nil
	}
	return s.earlyDeaths('a', noticeWithin, func(x wechattest.IssuedToken) bool {
		return slices.ContainsFunc(s.between(x), func(t wechattest.IssuedToken) bool {
			return t.By != byRival && s.lost(t)
		})
	})
}

// between are the tokens that were issued after one and before its end.
func (s *subject) between(x wechattest.IssuedToken) (out []wechattest.IssuedToken) {
	for _, t := range s.tokens {
		if t.Mode == x.Mode && t.IssuedAt.After(x.IssuedAt) && !t.IssuedAt.After(endOf(x)) {
			out = append(out, t)
		}
	}
	return out
}

// earlyDeaths are the windows that begin when a token that the target held, or that readers still hold, ended before its
// time and for that cause. They end with the write of the next, plus lag, which must come within a limit.
func (s *subject) earlyDeaths(kind byte, limit time.Duration, cause func(wechattest.IssuedToken) bool) (out []window) {
	for i, v := range s.history {
		x, ok := s.find(v.token)
		if !ok || v.gone || !endOf(x).Before(x.ExpiresAt) || !cause(x) {
			continue
		}
		if from, to := endOf(x), s.until(s.nextWrite(i), endOf(x).Add(limit)); to.After(from) {
			out = append(out, window{kind, from, to})
		}
	}
	return out
}

// lost: no target has it, or one has it that is not this one, and the process ended before the status named it, so that the next process
// gives it to nobody.
func (s *subject) lost(t wechattest.IssuedToken) bool {
	landed, ok := s.landed[t.Token]
	if !ok {
		return s.answerLost(t.IssuedAt)
	}
	held := slices.ContainsFunc(s.history, func(v version) bool { return v.token == t.Token })
	return !held && slices.ContainsFunc(s.facts.crashes, func(at time.Time) bool {
		return at.After(landed.Add(-time.Second)) && at.Before(landed.Add(namedWithin))
	})
}

// answerLost: the process ended before it can have stored the answer, or the answer did not get through.
func (s *subject) answerLost(issued time.Time) bool {
	within := func(d time.Duration) func(time.Time) bool {
		return func(t time.Time) bool { return !t.Before(issued.Add(-time.Second)) && t.Before(issued.Add(d)) }
	}
	return slices.ContainsFunc(s.facts.crashes, within(crashLoses)) || slices.ContainsFunc(s.facts.lostCalls, within(time.Second))
}

// rivals are window (b): two forced calls by somebody else, or a Legacy mint by somebody else. A single forced refresh is within
// the promise.
func (s *subject) rivals() []window {
	enough := 1
	if s.mode == wechattest.Stable {
		enough = 2
	}
	return s.earlyDeaths('b', s.interval*11/10+noticeWithin, func(x wechattest.IssuedToken) bool {
		n := 0
		for _, t := range s.between(x) {
			if t.By == byRival {
				n++
			}
		}
		return n >= enough
	})
}

// unreachable is window (c): nobody could get a new token, or store it, in the handover window.
func (s *subject) unreachable() (out []window) {
	for i, v := range s.history {
		t, ok := s.find(v.token)
		opened, closed := s.handover(t)
		if !ok || v.gone || s.reachable(opened, closed, reachableFor) {
			continue
		}
		out = append(out, s.unreachableFrom(t.ExpiresAt, closed, s.nextWrite(i))...)
	}
	return out
}

// unreachableFrom is window (c) of what ended at a moment because nobody could replace it until it was too late for that. It ends with
// the write, plus lag, which must come soon after the outages.
func (s *subject) unreachableFrom(end, closed, write time.Time) []window {
	limit := end
	for _, o := range s.facts.outages {
		if o.from.Before(limit) && o.to.After(closed) && o.to.Add(resumeWithin).After(limit) {
			limit = o.to.Add(resumeWithin)
		}
	}
	if to := s.until(write, limit); to.After(end) {
		return []window{{'c', end, to}}
	}
	return nil
}

// nextWrite is when the target held something else; zero if it never did.
func (s *subject) nextWrite(i int) time.Time {
	if i+1 < len(s.history) {
		return s.history[i+1].at
	}
	return time.Time{}
}

// handover is the time in which a token must be replaced: from T − 300 s to T − 120 s. A Legacy token that lives for less than
// ten minutes is due at half its life; when little is left then, the time is shortened in proportion.
func (s *subject) handover(t wechattest.IssuedToken) (from, to time.Time) {
	begins, ends := handoverBegins, handoverEnds
	if s.mode == wechattest.Legacy {
		begins = min(begins, t.ExpiresAt.Sub(t.IssuedAt)/2)
	}
	if begins < handoverEnds+reachableFor {
		ends = begins * 2 / 5
	}
	return t.ExpiresAt.Add(-begins), t.ExpiresAt.Add(-ends)
}

// reachable: there was such a time without an outage.
func (s *subject) reachable(from, to time.Time, enough time.Duration) bool {
	at := from
	enough = min(enough, to.Sub(from)/2)
	for _, o := range slices.SortedFunc(slices.Values(s.facts.outages), func(a, b span) int { return a.from.Compare(b.from) }) {
		if o.to.Before(at) || o.from.After(to) {
			continue
		}
		if o.from.Sub(at) >= enough {
			return true
		}
		if o.to.After(at) {
			at = o.to
		}
	}
	return to.Sub(at) >= enough
}

// asked is window (d): refresh and revoke end a token on request.
func (s *subject) asked() (out []window) {
	for _, at := range s.facts.requests {
		limit := at.Add(35*time.Second + 2*noticeWithin)
		last := time.Time{}
		for _, t := range s.tokens {
			if t.Mode == s.mode && t.By != byRival && !t.IssuedAt.Before(at) && t.IssuedAt.Before(limit) && (t.Forced || s.mode == wechattest.Legacy) {
				last = t.IssuedAt
			}
		}
		if !last.IsZero() {
			out = append(out, window{'d', at, s.until(s.writeOfNewer(last, last), limit)})
		}
	}
	return out
}

// edited is window (e): somebody else wrote the Secret, until its repair. An edit that left the token alone needs none. One that put an older
// value back does, because that one may end before a volume follows the repair.
func (s *subject) edited() (out []window) {
	for _, e := range s.facts.edits {
		var newest, broken, repaired time.Time
		for _, v := range s.history {
			t, _ := s.find(v.token)
			good := !v.gone && s.valid(v.token, v.at) && !t.IssuedAt.Before(newest)
			switch {
			case v.at.Before(e.from):
				if good {
					newest = t.IssuedAt
				}
			case !good && broken.IsZero() && v.at.Before(e.to.Add(editSeenWithin)):
				broken = v.at
			case good && !broken.IsZero() && repaired.IsZero():
				repaired = v.at
			}
		}
		if !broken.IsZero() {
			out = append(out, window{'e', e.from, s.until(repaired, e.to.Add(repairWithin))})
		}
	}
	return out
}
