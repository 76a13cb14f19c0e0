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

// expirySlack is by how much the stored expiry may be off before it is written again. Readers have no use for more precision.
const expirySlack = 30 * time.Second

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
		e.Issued = t
		return e, nil
	}
	attested := s.Stored
	attested.Credentials, attested.Unattested = t.Credentials, false
	e.Stored = &attested
	return e, nil
}

func (i stable) Check(ctx context.Context, s Step) (report.Effect, error) { return i.Issue(ctx, s) }

// mustWrite reports whether the Secret needs the token that WeChat named.
func mustWrite(s Step, t *report.Pending) bool {
	return t.Value.Fingerprint() != s.Stored.Fingerprint || s.Target.Tampered || s.Target.AppIDChanged || s.Target.ModeChanged ||
		s.Inputs.Credentials.Changed || t.ExpiresAt.Sub(s.Stored.ExpiresAt).Abs() > expirySlack
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
		if e, err = i.Force(ctx, s); err != nil || e.Issued == nil {
			return e, err
		}
	} else {
		i.confirm(ctx, s, answer)
		e.Accepted, e.Issued = true, s.pending(answer)
		e.Issued.Forced = true
	}
	e.Issued.Refresh = s.Requested(refresh.RequestRefresh)
	return e, nil
}

func (i stable) Force(ctx context.Context, s Step) (report.Effect, error) {
	now := i.WeChat.Now()
	undo := s.Account.BeginRequestedMint(now)
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
	i.confirm(ctx, s, answer)
	e.Accepted, e.Issued = true, s.pending(answer)
	e.Issued.Forced = true
	return e, nil
}
