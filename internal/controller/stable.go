// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// expirySlack is by how much the stored expiry may be off before it is written again. Readers have no use for more precision.
const expirySlack = 30 * time.Second

// stable issues tokens by POST /cgi-bin/stable_token. A normal call issues, checks and heals alike, because WeChat answers with the
// token that is valid now.
type stable struct{ *pass }

func (s stable) issue(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	credentials, ok, err := s.appSecret(ctx)
	if err != nil || !ok {
		return effect{}, err
	}
	acct := s.state.membership.account
	e := effect{calledAt: s.WeChat.Now()}
	if d.Request == refresh.RequestCheck {
		acct.NoteCheck(e.calledAt)
	}
	answer, err := acct.Merged(func() (token.Token, error) {
		failpoint.Hit("before-wechat")
		return s.WeChat.StableToken(ctx, credentials, false)
	})
	failpoint.Hit("after-wechat")
	if err != nil {
		return failed(ctx, e, err)
	}
	e.accepted, e.outcomes = true, s.checked()
	s.confirm(ctx, answer)
	t := s.pending(o, d, answer, credentials)
	if mustWrite(o, t) {
		if t.Value.Fingerprint() == o.Stored.Fingerprint && !o.Stored.IssuedAt.IsZero() {
			t.IssuedAt = refresh.Earlier(o.Stored.IssuedAt, t.IssuedAt) // a clock that was ahead may have noted it
		}
		e.issued = t
		return e, nil
	}
	attested := o.Stored
	attested.Credentials, attested.Unattested = t.credentials, false
	e.stored = &attested
	return e, nil
}

func (s stable) check(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	return s.issue(ctx, o, d)
}

// mustWrite reports whether the Secret needs the token that WeChat named.
func mustWrite(o report.Observation, t *pendingToken) bool {
	return t.Value.Fingerprint() != o.Stored.Fingerprint || o.Target.Tampered || o.Target.AppIDChanged || o.Target.ModeChanged ||
		o.Credentials.Changed || t.ExpiresAt.Sub(o.Stored.ExpiresAt).Abs() > expirySlack
}

// confirm records WeChat's answer for the account, and wakes the members whose Secrets may hold another token.
func (p *pass) confirm(ctx context.Context, t token.Token) {
	c := account.Confirmation{Fingerprint: t.Value.Fingerprint(), At: t.IssuedAt, ExpiresAt: t.ExpiresAt}
	p.wakeAll(ctx, p.state.membership.account.Confirm(c, p.resource.UID, p.WeChat.Now()))
}

func (p *pass) wakeAll(ctx context.Context, names []types.NamespacedName) {
	for _, name := range names {
		p.wake.send(ctx, name)
	}
}

// refresh asks WeChat first. If it names another token than the status, perhaps because a crash lost the answer to our own forced call,
// nothing needs to be forced: two forced calls in a row would end a token that pods still use.
func (s stable) refresh(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	credentials, ok, err := s.appSecret(ctx)
	if err != nil || !ok {
		return effect{}, err
	}
	known := o.Stored.Fingerprint
	if t := s.resource.Status.Token; t != nil && t.Fingerprint != "" {
		known = t.Fingerprint
	}
	e := effect{calledAt: s.WeChat.Now()}
	answer, err := s.WeChat.StableToken(ctx, credentials, false)
	if err != nil {
		return failed(ctx, e, err)
	}
	if answer.Value.Fingerprint() == known {
		if e, err = s.force(ctx, o, d); err != nil || e.issued == nil {
			return e, err
		}
	} else {
		s.confirm(ctx, answer)
		e.accepted, e.issued = true, s.pending(o, d, answer, credentials)
		e.issued.forced = true
	}
	e.issued.refresh = requested(s.resource, refresh.RequestRefresh)
	return e, nil
}

func (s stable) force(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	credentials, ok, err := s.appSecret(ctx)
	if err != nil || !ok {
		return effect{}, err
	}
	acct, now := s.state.membership.account, s.WeChat.Now()
	undo := acct.BeginRequestedMint(now)
	e := effect{calledAt: now, forcedAt: now}
	log.FromContext(ctx).Info("forcing a new token on request", "request", d.Request)
	failpoint.Hit("before-force")
	answer, err := s.WeChat.StableToken(ctx, credentials, true)
	failpoint.Hit("after-force")
	if err != nil {
		if refused, ok := errors.AsType[*token.Error](err); ok && refused.MaybeSent {
			acct.Doubt() // in Legacy mode the mark on the Secret says so
		} else {
			undo()
			e.forcedAt = time.Time{}
		}
		return failed(ctx, e, err)
	}
	s.confirm(ctx, answer)
	e.accepted, e.issued = true, s.pending(o, d, answer, credentials)
	e.issued.forced = true
	return e, nil
}
