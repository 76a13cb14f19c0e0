// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// issuer gets tokens of one WeChat endpoint. To add a kind of credential, implement it.
type issuer interface {
	// issue gets a token because of the decision's reason, without being asked to.
	issue(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error)
	// check asks WeChat about the stored token.
	check(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error)
	// refresh replaces the token on request.
	refresh(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error)
	// force makes one of the two forced calls of a revoke.
	force(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error)
}

// issuer returns that of the resource's mode.
func (p *pass) issuer() issuer {
	if p.resource.Spec.Mode == v1alpha1.ModeLegacy {
		return legacy{p}
	}
	return stable{p}
}

// act carries out one step: the live reads that it needs, then one call or one write. What WeChat or the API server refuse is part of
// the effect; an error means that the API server could not be read.
func (p *pass) act(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	switch d.Action {
	case refresh.Write:
		return p.write(ctx, o, d)
	case refresh.Issue:
		return p.issuer().issue(ctx, o, d)
	case refresh.Check:
		return p.issuer().check(ctx, o, d)
	case refresh.Force:
		return p.issuer().refresh(ctx, o, d)
	case refresh.Revoke:
		return p.revoke(ctx, o, d)
	case refresh.Decline:
		return effect{outcomes: []outcome{{
			kind: d.Request, value: requested(p.resource, d.Request),
			failed: fmt.Sprintf("WeChat named a wait: not before %s. %s", target.FormatTime(d.RetryAt), o.Failed.Message),
		}}}, nil
	case refresh.Wait:
	}
	return effect{}, nil
}

// revoke makes the next step of a revoke: it names the victim, makes the first forced call, or the second one. What the status says of
// it is written before the step that relies on it, so that a new process continues where this one ended.
func (p *pass) revoke(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	now := p.WeChat.Now()
	progress := o.Progress.Revocation
	saved := p.resource.Status.Revocation
	switch {
	case progress == nil:
		victim := o.Stored.Fingerprint
		if t := p.resource.Status.Token; t != nil && t.Fingerprint != "" {
			victim = t.Fingerprint
		}
		value := requested(p.resource, refresh.RequestRevoke)
		return effect{revocation: &v1alpha1.RevocationStatus{Value: value, Victim: victim}, reportFirst: true}, nil
	case saved == nil || saved.Value != progress.Value || (progress.FirstForcedTime != nil) != (saved.FirstForcedTime != nil):
		return effect{reportFirst: true}, nil
	case progress.FirstForcedTime == nil && o.Stored.Fingerprint != "" && o.Stored.Fingerprint != progress.Victim:
		return effect{revocation: half(progress, now), reportFirst: true}, nil // another process made the first call
	}
	e, err := p.issuer().force(ctx, o, d)
	if err != nil || e.issued == nil {
		return e, err
	}
	fingerprint := e.issued.Value.Fingerprint()
	if progress.FirstForcedTime != nil && fingerprint != o.Stored.Fingerprint && fingerprint != progress.Victim {
		e.issued.revoke = progress.Value
		return e, nil
	}
	e.revocation = half(progress, now) // after the first call, or one that WeChat answered with the same token
	return e, nil
}

// half returns the state of a revoke after a forced call that another one has to follow.
func half(r *v1alpha1.RevocationStatus, now time.Time) *v1alpha1.RevocationStatus {
	at := metav1.NewTime(now.Truncate(time.Second))
	return &v1alpha1.RevocationStatus{Value: r.Value, Victim: r.Victim, FirstForcedTime: &at}
}

// pending returns a token of the account that the spec and the credentials name.
func (p *pass) pending(o report.Observation, d refresh.Decision, t token.Token, credentials token.Credentials) *pendingToken {
	return &pendingToken{
		Token: t, appID: p.resource.Spec.AppID, mode: p.resource.Spec.Mode, credentials: credentials.Fingerprint(),
		reason: d.Reason, replaces: o.Stored.Fingerprint,
	}
}

// checked returns the outcome of the check that an answer of WeChat was, for a request that waits for one.
func (p *pass) checked() []outcome {
	if !p.wants(refresh.RequestCheck) {
		return nil
	}
	return []outcome{{kind: refresh.RequestCheck, value: requested(p.resource, refresh.RequestCheck)}}
}
