// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// stable issues tokens by POST /cgi-bin/stable_token. A normal call issues, checks and heals alike, because WeChat answers with the
// token that is valid now.
type stable struct{ Env }

func (stable) Traits() refresh.Traits { return refresh.Stable() }

func (i stable) Issue(ctx context.Context, s Step) (report.Effect, error) {
	if !i.beginCheck(s) {
		return report.Effect{}, nil
	}
	e := report.Effect{Times: report.Times{Called: i.WeChat.Now()}}
	answer, err := s.Account.Merged(func() (token.Token, error) {
		failpoint.Hit("before-wechat")
		return i.WeChat.StableToken(ctx, s.Credentials, false)
	})
	failpoint.Hit("after-wechat")
	if err != nil {
		return failed(ctx, e, err)
	}
	e.Accepted, e.Outcomes = true, s.Checked()
	i.confirm(ctx, s, answer)
	t := s.pending(answer)
	if mustWrite(s, t) {
		if t.Value.Fingerprint() == s.Stored.Fingerprint && !s.Stored.IssuedAt.IsZero() {
			t.IssuedAt = refresh.Earlier(s.Stored.IssuedAt, t.IssuedAt) // a clock that was ahead may have noted it
		}
		e.Issued = &t
		i.fetchTickets(ctx, s, answer.Value, &e)
		return e, nil
	}
	i.fetchTickets(ctx, s, answer.Value, &e)
	attested := s.Stored
	attested.Credentials, attested.Unattested = t.Credentials, false
	e.Stored = &attested
	return e, nil
}

func (i stable) Check(ctx context.Context, s Step) (report.Effect, error) { return i.Issue(ctx, s) }

func (i stable) Tickets(ctx context.Context, s Step) (report.Effect, error) { return i.Issue(ctx, s) }

// mustWrite reports whether the Secret needs the token that WeChat named.
func mustWrite(s Step, t report.Pending) bool {
	return t.Value.Fingerprint() != s.Stored.Fingerprint || s.Target.Tampered || s.Target.AppIDChanged || s.Target.ModeChanged ||
		s.Inputs.Credentials.Changed || t.ExpiresAt.Sub(s.Stored.ExpiresAt).Abs() > refresh.ExpirySlack
}

// Refresh asks WeChat first. If it names another token than the status, perhaps because a crash lost the answer to our own forced call,
// nothing needs to be forced: two forced calls in a row would end a token that pods still use.
func (i stable) Refresh(ctx context.Context, s Step) (report.Effect, error) {
	known := s.Stored.Fingerprint
	if t := s.Resource.Status.Token; t != nil && t.Fingerprint != "" {
		known = t.Fingerprint
	}
	e := report.Effect{Times: report.Times{Called: i.WeChat.Now()}}
	answer, err := i.WeChat.StableToken(ctx, s.Credentials, false)
	if err != nil {
		return failed(ctx, e, err)
	}
	if answer.Value.Fingerprint() == known {
		return i.force(ctx, s, s.Requested(refresh.RequestRefresh))
	}
	return i.forced(ctx, s, e, answer, s.Requested(refresh.RequestRefresh)), nil
}

func (i stable) Force(ctx context.Context, s Step) (report.Effect, error) { return i.force(ctx, s, "") }

// force makes a forced call. handles is the refresh request that it handles; empty for none.
func (i stable) force(ctx context.Context, s Step, handles string) (report.Effect, error) {
	now := i.WeChat.Now()
	undo := s.Account.CountMint(now, true)
	e := report.Effect{Times: report.Times{Called: now, Forced: now}}
	log.FromContext(ctx).Info("forcing a new token on request", "request", s.Decision.Request)
	failpoint.Hit("before-force")
	answer, err := i.WeChat.StableToken(ctx, s.Credentials, true)
	failpoint.Hit("after-force")
	if err != nil {
		if refused, ok := errors.AsType[*token.Error](err); ok && refused.MaybeSent {
			s.Account.Doubt() // in Legacy mode the mark on the Secret says so
		} else {
			undo()
			e.Times.Forced = time.Time{}
		}
		return failed(ctx, e, err)
	}
	return i.forced(ctx, s, e, answer, handles), nil
}

// forced adds to the effect the token that a request brought.
func (i stable) forced(ctx context.Context, s Step, e report.Effect, answer token.Token, handles string) report.Effect {
	i.confirm(ctx, s, answer)
	t := s.pending(answer)
	t.Forced, t.Refresh = true, handles
	e.Accepted, e.Issued = true, &t
	s.Account.Tickets.Doubt()
	return e
}
