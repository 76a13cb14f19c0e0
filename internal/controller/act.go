// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/issue"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// act carries out one step: the live reads that it needs, then one call or one write. What WeChat or the API server refuse is part of
// the effect; an error means that the API server could not be read.
func (p *pass) act(ctx context.Context, o report.Observation, d refresh.Decision) (report.Effect, error) {
	switch d.Action {
	case refresh.Write:
		return p.write(ctx, o, d)
	case refresh.Decline:
		return report.Effect{Outcomes: []report.Outcome{{
			Kind: d.Request, Value: o.Requested(d.Request),
			Failed: fmt.Sprintf("WeChat named a wait: not before %s. %s", target.FormatTime(d.RetryAt), o.Failed.Message),
		}}}, nil
	case refresh.Wait, refresh.Issue, refresh.Check, refresh.FetchTickets, refresh.Force, refresh.Revoke:
	}
	joined := p.state.membership.account != nil
	if have, err := p.haveAppSecret(ctx); !have || !joined || err != nil {
		return report.Effect{}, err // what the account knows belongs into the decision
	}
	step := issue.Step{
		Observation: o, Decision: d, Credentials: p.state.credentials.Secret, Account: p.state.membership.account,
		HasPending: func() bool {
			t, _ := p.state.shared.pendingNow()
			return t != nil
		},
	}
	e, err := p.call(ctx, step)
	if refused, ok := errors.AsType[*issue.WriteError](err); ok {
		return p.refused(o, e, refused.Err, false)
	}
	return e, err
}

// call calls WeChat.
func (p *pass) call(ctx context.Context, s issue.Step) (report.Effect, error) {
	issuer := p.issuers.For(p.resource.Spec.Mode)
	switch s.Decision.Action {
	case refresh.Issue:
		return issuer.Issue(ctx, s)
	case refresh.Check:
		return issuer.Check(ctx, s)
	case refresh.FetchTickets:
		return issuer.Tickets(ctx, s)
	case refresh.Force:
		return issuer.Refresh(ctx, s)
	case refresh.Revoke:
		return p.revoke(ctx, issuer, s)
	case refresh.Wait, refresh.Write, refresh.Decline:
	}
	return report.Effect{}, nil
}

// revoke makes the next step of a revoke: it names the victim, makes the first forced call, or the second one. What the status says of
// it is written before the step that relies on it, so that a new process continues where this one ended.
func (p *pass) revoke(ctx context.Context, issuer issue.Issuer, s issue.Step) (report.Effect, error) {
	now := p.WeChat.Now()
	progress := s.Progress.Revocation
	switch {
	case progress == nil:
		victim := s.Stored.Fingerprint
		if t := p.resource.Status.Token; t != nil && t.Fingerprint != "" {
			victim = t.Fingerprint
		}
		value := s.Requested(refresh.RequestRevoke)
		return report.Effect{Revocation: &v1alpha1.RevocationStatus{Value: value, Victim: victim}, StatusFirst: true}, nil
	case !s.Progress.IsSaved(p.resource.Status.Revocation):
		return report.Effect{StatusFirst: true}, nil
	case progress.FirstForcedTime == nil && s.Stored.Fingerprint != "" && s.Stored.Fingerprint != progress.Victim:
		return report.Effect{Revocation: report.HalfRevoked(progress, now), StatusFirst: true}, nil // another process made the first call
	case progress.FirstForcedTime != nil && refresh.IsInFuture(progress.FirstForcedTime.Time, now):
		// A clock that ran ahead noted the first call. When that was is not known, so the second one counts from now.
		return report.Effect{Revocation: report.HalfRevoked(progress, now), StatusFirst: true}, nil
	}
	e, err := issuer.Force(ctx, s)
	if err != nil || e.Issued == nil {
		return e, err
	}
	fingerprint := e.Issued.Value.Fingerprint()
	if progress.FirstForcedTime != nil && fingerprint != s.Stored.Fingerprint && fingerprint != progress.Victim {
		second := *e.Issued
		second.Revoke = progress.Value
		e.Issued = &second
		return e, nil
	}
	e.Revocation = report.HalfRevoked(progress, now) // after the first call, or one that WeChat answered with the same token
	return e, nil
}
