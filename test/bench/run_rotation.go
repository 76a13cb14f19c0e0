// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// burstSpread is over how long the tokens of a burst are made, so that with the jitter of up to 15 s all are due within one minute.
const burstSpread = 45 * time.Second

// rotation replaces tokens that were made over spread, and gives the operator the time issue to write all of them before.
type rotation struct {
	run           string
	spread, issue time.Duration
}

// rotationOf makes n tokens due at half of the plain loop's rate, but no closer together than a burst is for the smallest sizes.
func rotationOf(n int, plain result) rotation {
	return rotation{runRotation, max(burstSpread, atHalfRate(n, plain)), issueTime(n, plain)}
}

// burstOf makes n tokens due within one minute.
func burstOf(n int, plain result) rotation {
	return rotation{runBurst, burstSpread, issueTime(n, plain)}
}

// atHalfRate returns how long n tokens take at half of the plain loop's rate, or 0 if that was not measured.
func atHalfRate(n int, plain result) time.Duration {
	if plain.Rate <= 0 {
		return 0
	}
	return time.Duration(2 * float64(n) / plain.Rate * float64(time.Second))
}

// issueTime returns how long a cold start with n resources takes at most. A machine on which the plain loop is slow gets more
// time, because a token that is due before the last one was issued would be replaced twice in the run.
func issueTime(n int, plain result) time.Duration {
	return 15*time.Second + max(time.Duration(n)*8*time.Millisecond, atHalfRate(n, plain))
}

// life is so long that the operator has issued all tokens before the first is due.
func (t rotation) life() time.Duration {
	return (refresh.StableOverlap + t.spread + t.issue).Truncate(time.Second)
}

// measure measures how late each of n tokens is replaced.
func (t rotation) measure(s *stage, ctx context.Context, o *observer, n int) (r result, err error) { //nolint:revive // it is a singleRun
	m, err := s.meter(ctx)
	if err != nil {
		return result{}, err
	}
	if err := s.mintSpread(ctx, n, t.spread); err != nil {
		return result{}, err
	}
	p, _, err := s.launchOperator()
	if err != nil {
		return result{}, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := o.untilReady(ctx, p.process, n, patienceFor(n)); err != nil {
		return result{}, err
	}
	if err := m.begin(ctx, p.process); err != nil {
		return result{}, err
	}
	all := func() bool { return o.rotated() >= n }
	if err := o.until(ctx, p.process, t.life()+patienceFor(n), "all tokens were replaced", all); err != nil {
		return result{}, err
	}
	if r, err = m.end(ctx, p.process, t.run, n, n); err != nil {
		return result{}, err
	}
	if err := s.addLateness(ctx, o, &r, n); err != nil {
		return result{}, err
	}
	r.Memory, err = p.memory()
	return r, err
}

// mintSpread makes WeChat's tokens before the operator asks for them, evenly spread, so that their expiry does not depend
// on how fast the operator starts.
func (s *stage) mintSpread(ctx context.Context, n int, spread time.Duration) error {
	api, err := wechat.New(wechat.Options{
		Endpoints: []string{s.wechatURL}, CAFile: s.wechatCA, Timeout: 10 * time.Second, MaxInFlight: populateWorkers, UserAgent: "bench",
	})
	if err != nil {
		return err
	}
	start := time.Now()
	return parallel(ctx, n, func(ctx context.Context, i int) error {
		due := start.Add(spread * time.Duration(i) / time.Duration(n))
		if err := pause(ctx, time.Until(due)); err != nil {
			return err
		}
		_, err := api.StableToken(ctx, appOf(i).credentials(), false)
		return err
	})
}

// rotated counts the Secrets that hold their second token.
func (o *observer) rotated() int {
	n := 0
	for _, seen := range o.tokens {
		if len(seen) > 1 {
			n++
		}
	}
	return n
}

// addLateness compares when each Secret got its second token with when refresh.DueAt wanted it.
func (s *stage) addLateness(ctx context.Context, o *observer, r *result, n int) error {
	ledger, err := s.readLedger(ctx)
	if err != nil {
		return err
	}
	late := make([]time.Duration, 0, n)
	var first, last, done time.Time
	for i := range n {
		a := appOf(i)
		issued := ledger.tokens[a.id]
		if len(issued) != 2 {
			return fmt.Errorf("%s has %d tokens after one rotation, want 2", a.name, len(issued))
		}
		old, fresh := issued[0], issued[1]
		due, err := dueOf(string(o.uid(a.key())), old, ledger.calls[a.id])
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		at, found := o.writtenAt(a.key(), token.NewValue(fresh.Token).Fingerprint())
		if !found {
			return fmt.Errorf("%s never held its second token", a.name)
		}
		if at.After(old.ExpiresAt) {
			r.More["afterExpiry"]++
		}
		late = append(late, max(0, at.Sub(due)))
		if at.After(done) {
			done = at
		}
		if first.IsZero() || due.Before(first) {
			first = due
		}
		if due.After(last) {
			last = due
		}
	}
	q := quantilesOf(late)
	r.Lateness = &q
	r.More["dueWithinSeconds"] = last.Sub(first).Seconds()
	r.More["doneWithinSeconds"] = done.Sub(first).Seconds()
	return nil
}

// ledger is what the stand-in wrote down, by appid and in order.
type ledger struct {
	tokens map[string][]wechattest.IssuedToken
	calls  map[string][]wechattest.Call
}

func (s *stage) readLedger(ctx context.Context) (ledger, error) {
	out := ledger{tokens: map[string][]wechattest.IssuedToken{}, calls: map[string][]wechattest.Call{}}
	tokens, err := s.wechat.Tokens(ctx, "")
	if err != nil {
		return ledger{}, fmt.Errorf("reading the ledger of %s: %w", filepath.Base(s.dir), err)
	}
	calls, err := s.wechat.Calls(ctx, wechattest.Filter{Endpoint: wechattest.EndpointStable})
	if err != nil {
		return ledger{}, fmt.Errorf("reading the calls of %s: %w", filepath.Base(s.dir), err)
	}
	for _, t := range tokens {
		out.tokens[t.AppID] = append(out.tokens[t.AppID], t)
	}
	for _, c := range calls {
		out.calls[c.AppID] = append(out.calls[c.AppID], c)
	}
	return out, nil
}

// dueOf replays what the operator knew: each answer gives the token's expiry in whole seconds after the call, and
// refresh.DueAt the time from that. The answer that counts is the last one before the token was due; a due call that got
// the old token does not move the time.
func dueOf(uid string, tok wechattest.IssuedToken, calls []wechattest.Call) (time.Time, error) {
	var due time.Time
	for _, c := range calls {
		if !due.IsZero() && (c.Minted || !c.Clock.Before(due)) {
			return due, nil
		}
		if c.Errcode != 0 || !c.Finished || c.Clock.After(tok.ExpiresAt) {
			continue
		}
		expiresAt := c.Clock.Add(tok.ExpiresAt.Sub(c.Clock).Truncate(time.Second))
		due = refresh.DueAt(refresh.Inputs{UID: uid, Traits: refresh.Stable(), Token: refresh.Token{
			Fingerprint: token.NewValue(tok.Token).Fingerprint(),
			IssuedAt:    tok.IssuedAt, ExpiresAt: expiresAt, CheckedAt: c.Clock,
		}})
	}
	return time.Time{}, errors.New("the ledger holds no call that replaced its token")
}
