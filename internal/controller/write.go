// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/issue"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// writeTakes is the longest time that the write of a token may go on when the process is told to end. It may be sent twice.
const writeTakes = 2 * kube.AnswerWithin

// write stores the token that waits to be written, if any, with the metadata that goes with it.
func (p *pass) write(ctx context.Context, o report.Observation, d refresh.Decision) (report.Effect, error) {
	if gone, err := p.isGone(ctx); gone || err != nil {
		return report.Effect{}, err
	}
	t, readSince := p.state.shared.pendingNow()
	if t != nil && issue.Superseded(o, t, readSince, p.state.membership.account) {
		intent := p.state.intent.Settled(t.Unmarked)
		return report.Effect{Dropped: t, Intent: &intent}, nil
	}
	if t == nil && o.Secret == nil {
		return report.LookAgain(), nil // there is nothing to write, and nothing to write it to
	}
	if t != nil {
		// The process may be told to end while WeChat takes its time: what WeChat issued must not get lost by that.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), writeTakes)
		defer cancel()
	}
	if o.Secret != nil && target.Incomplete(o.Secret) {
		return report.LookAgain(), nil // what the spec set before and does not any more is to go
	}
	return p.put(ctx, o, d, t)
}

// put writes the token, nil for none, and the tickets that wait to be written.
func (p *pass) put(ctx context.Context, o report.Observation, d refresh.Decision, t *report.Pending) (report.Effect, error) {
	tickets := p.state.tickets
	if d.Reason != refresh.TargetOutdated && (t == nil || o.MetadataFailure != nil) {
		o, _ = o.KeepingMetadata() // its own write has failed, or is held back
	}
	record, want := o.Wanted(t, tickets)
	failpoint.Hit("before-secret")
	written, err := p.send(ctx, o, want, o.Content(t, tickets...))
	failpoint.Hit("after-secret")
	if t != nil && err != nil && mayBeOfExtras(o, err, tickets) {
		tickets = nil
		o, _ = o.KeepingMetadata()
		record, want = o.Wanted(t, tickets)
		written, err = p.send(ctx, o, want, o.Content(t))
	}
	if d.Reason == refresh.TicketUnwritten && target.IsRefusal(err) {
		return report.Effect{Tickets: p.refusedTickets(err)}, nil
	}
	if err != nil {
		var e report.Effect
		if failpoint.Off(failpoint.KeptToken) {
			e.Dropped = t
		}
		return p.refused(o, e, err, d.Reason == refresh.TargetOutdated)
	}
	e := report.Effect{
		Wrote: written, DataKept: t == nil, Landed: t, Target: report.KnownTarget{Secret: written, Reverted: want.Outdated(written)},
		Tickets: report.TicketsEffect{Held: o.TicketsAfterWrite(tickets)},
	}
	reason := d.Reason
	if len(tickets) > 0 {
		p.writtenAt = p.WeChat.Now()
	}
	if t != nil {
		p.landed(&e, o, record, t)
		reason = t.Reason // what it was fetched for
	}
	log.FromContext(ctx).Info("wrote the target Secret", "secret", written.Name, "reason", reason, "newToken", t != nil,
		"tickets", len(tickets), "fingerprint", record.TokenFingerprint, "expiresAt", record.ExpiresAt)
	return p.writeReference(ctx, o, want, e)
}

// mayBeOfExtras reports whether the write of a token may have failed because of tickets or new metadata, for which it does not wait.
func mayBeOfExtras(o report.Observation, err error, tickets []report.PendingTicket) bool {
	_, metadata := o.KeepingMetadata()
	return len(tickets) > 0 && target.IsRefusal(err) || metadata && !apierrors.IsConflict(err)
}

// landed adds to the effect what follows from a token that is now in the Secret.
func (p *pass) landed(e *report.Effect, o report.Observation, record target.Record, t *report.Pending) {
	p.recordWrite(o, t)
	stored := target.Recorded(record)
	stored.Unattested = false
	intent := p.state.intent.Settled(false)
	e.Stored, e.Intent = &stored, &intent
	same := record.TokenFingerprint == o.Stored.Fingerprint
	if !same {
		p.writtenAt = p.WeChat.Now()
	}
	if t.Revoke != "" {
		e.Outcomes = append(e.Outcomes, report.Outcome{Kind: refresh.RequestRevoke, Value: t.Revoke})
	}
	if t.Refresh != "" && t.Refresh != p.state.progress.Handled.Refresh {
		e.Outcomes = append(e.Outcomes, report.Outcome{Kind: refresh.RequestRefresh, Value: t.Refresh, Same: same})
	}
}

// send makes the one request that the situation needs.
func (p *pass) send(
	ctx context.Context, o report.Observation, want target.Desired, content *target.Content,
) (*metav1.PartialObjectMetadata, error) {
	switch {
	case o.Secret == nil:
		return p.store.Create(ctx, p.resource, want, *content)
	case content == nil && !want.Outdated(o.Secret):
		return o.Secret, nil // only the owner reference differs
	}
	return p.store.Update(ctx, o.Secret, want, content)
}

// writeReference sets or removes the owner reference. It is a request of its own, because clusters with the admission plugin
// OwnerReferencesPermissionEnforcement refuse it to accounts that may not delete Secrets.
func (p *pass) writeReference(ctx context.Context, o report.Observation, want target.Desired, e report.Effect) (report.Effect, error) {
	if !want.ReferenceOutdated(e.Wrote) || p.state.metadata.RefusedReferences == p.resource.Generation {
		return e, nil
	}
	written, err := p.store.UpdateReferences(ctx, e.Wrote, want)
	switch {
	case target.IsRefusal(err): // of the reference alone: the token must not wait for it
		log.FromContext(ctx).Info("the API server refuses to change the owner reference of the target Secret",
			"refusal", target.RefusalMessage(err, target.AtTarget))
		e.ReferencesRefused = true
		return e, nil
	case err != nil:
		return p.refused(o, e, err, true)
	}
	e.Wrote, e.Target.Secret = written, written
	e.Target.Reverted = e.Target.Reverted || want.ReferenceOutdated(written)
	return e, nil
}

// refused adds to the effect what follows from a write that the API server did not take. A conflict is settled by another look, unless
// it is the second one in a pass or follows a failure; anything else is a failure, so that every write follows a back-off. ofMetadata says
// that the write was of labels, annotations or the owner reference alone.
func (p *pass) refused(o report.Observation, e report.Effect, err error, ofMetadata bool) (report.Effect, error) {
	name := p.resource.TargetName()
	missing := apierrors.IsNotFound(err) && o.Secret == nil // the namespace is gone
	last := p.state.failure
	if ofMetadata {
		last = p.state.metadata.Failed
	}
	again := p.conflicts == 0 && (last == nil || !last.OfWrite)
	conflict := apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) && !missing
	switch {
	case conflict && again:
		p.conflicts++
		e.Target = report.KnownTarget{LookAgain: true}
		return e, nil
	case apierrors.IsInvalid(err) && o.Secret != nil && again:
		p.conflicts++
		e.Target = report.KnownTarget{LookAgain: true} // it may be immutable, which ownership tells better
		return e, nil
	case missing, target.IsRefusal(err):
		e.Failed = &report.Failure{
			Failure: refresh.Failure{Class: token.Action, Reason: v1alpha1.ReasonTargetWriteFailed, OfWrite: true, OfMetadata: ofMetadata},
			Message: target.Refusal(name, err, ofMetadata),
		}
	case errors.Is(err, context.Canceled):
		return e, err // the process ends
	default:
		e.Failed = &report.Failure{
			Failure: refresh.Failure{Class: token.Transient, Reason: v1alpha1.ReasonTargetWriteFailed, OfWrite: true, OfMetadata: ofMetadata},
			Message: fmt.Sprintf("the API server does not write Secret %q: %s; the operator tries again by itself", name, target.DelayMessage(err)),
		}
	}
	e.Target = report.KnownTarget{LookAgain: conflict}
	return e, nil
}
