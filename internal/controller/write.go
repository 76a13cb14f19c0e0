// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// writeTakes is the longest time that the write of a token may go on when the process is told to end.
const writeTakes = 10 * time.Second

// write stores the token that waits to be written, if any, with the metadata that goes with it.
func (p *pass) write(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	if gone, err := p.isGone(ctx); gone || err != nil {
		return effect{}, err
	}
	t := p.state.pendingNow()
	if t != nil && p.superseded(o, t) {
		intent := p.state.intent.Lost(t.unmarked)
		return effect{dropped: t, intent: &intent}, nil
	}
	if t == nil && o.Secret == nil {
		return lookAgain(), nil // there is nothing to write, and nothing to write it to
	}
	if t != nil {
		// The process may be told to end while WeChat takes its time: what WeChat issued must not get lost by that.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), writeTakes)
		defer cancel()
	}
	record, want := target.Want(p.resource, o.Ownership.Claim, p.wantedRecord(&o, t))
	failpoint.Hit("before-secret")
	written, err := p.send(ctx, o, want, t)
	failpoint.Hit("after-secret")
	if err != nil {
		var e effect
		if failpoint.Off(failpoint.KeptToken) {
			e.dropped = t
		}
		return p.refused(o, e, err)
	}
	e := effect{wrote: written, dataKept: t == nil, landed: t, target: knownTarget{secret: written}}
	reason := d.Reason
	if t != nil {
		p.landed(&e, o, record, t)
		reason = t.reason // what it was fetched for
	}
	log.FromContext(ctx).Info("wrote the target Secret", "secret", written.Name, "reason", reason, "newToken", t != nil,
		"fingerprint", record.TokenFingerprint, "expiresAt", record.ExpiresAt)
	return p.writeReference(ctx, o, want, e)
}

// landed adds to the effect what follows from a token that is now in the Secret.
func (p *pass) landed(e *effect, o report.Observation, record target.Record, t *pendingToken) {
	p.recordWrite(o, t)
	stored := target.Recorded(record)
	stored.Unattested = false
	intent := p.state.intent.Landed()
	e.stored, e.intent = &stored, &intent
	same := record.TokenFingerprint == o.Stored.Fingerprint
	if !same {
		p.writtenAt = p.WeChat.Now()
	}
	if t.revoke != "" {
		e.outcomes = append(e.outcomes, outcome{kind: refresh.RequestRevoke, value: t.revoke})
	}
	if t.refresh != "" && t.refresh != p.state.progress.Handled.Refresh {
		e.outcomes = append(e.outcomes, outcome{kind: refresh.RequestRefresh, value: t.refresh, same: same})
	}
}

// send makes the one request that the situation needs.
func (p *pass) send(ctx context.Context, o report.Observation, want target.Desired, t *pendingToken) (*metav1.PartialObjectMetadata, error) {
	content := p.content(t)
	switch {
	case o.Secret == nil:
		return p.store.Create(ctx, p.resource, want, *content)
	case content == nil && !want.Outdated(o.Secret):
		return o.Secret, nil // only the owner reference differs
	}
	return p.store.Update(ctx, o.Secret, want, content)
}

// content returns the data of the Secret for a token; nil for none.
func (p *pass) content(t *pendingToken) *target.Content {
	if t == nil {
		return nil
	}
	return &target.Content{
		AccessTokenKey: p.resource.Spec.Target.AccessTokenKey, Token: t.Value, ExpiresAt: t.ExpiresAt, AppID: t.appID,
	}
}

// wantedRecord returns what the annotations ought to say, with this token or, if it is nil, with the stored one.
func (p *pass) wantedRecord(o *report.Observation, t *pendingToken) target.Record {
	record := o.Record
	if t == nil {
		if p.state.failure == nil {
			record.Mint = p.state.intent.Unanswered(record.Mint) // not worth a write before the attempts have an end
		}
		s := o.Stored
		record.IssuedAt, record.ExpiresAt, record.TokenFingerprint = s.IssuedAt, s.ExpiresAt, s.Fingerprint
		record.Mode, record.AppID, record.CredentialsFingerprint = s.Mode, s.AppID, s.Credentials
		return record
	}
	record.AppID, record.Mode, record.CredentialsFingerprint = t.appID, t.mode, t.credentials
	record.IssuedAt, record.ExpiresAt, record.TokenFingerprint = t.IssuedAt, t.ExpiresAt, t.Value.Fingerprint()
	record.Mint = account.Mark{}
	return record
}

// superseded reports whether the Secret already holds another token that was issued later, perhaps by a leader that was thought to be
// gone, or by the one that came when this process was stopped. In Stable mode WeChat can be asked which one is right, and is, when the
// answer at hand is older than the last read of the Secret. In Legacy mode the later mint is the one that lives.
//
// A token that was minted before there was a Secret to mark may be of the same moment as the other one, and the times do not tell which
// mint was the later one. Then both give way to a new one, before a volume can have either.
func (p *pass) superseded(o report.Observation, t *pendingToken) bool {
	if o.Secret == nil || o.Record.TokenFingerprint == t.Value.Fingerprint() {
		return false
	}
	unattested, replaced := o.Holding == target.HoldsUnattested, o.Record.TokenFingerprint != t.replaces
	if !o.Traits.EndsOlder {
		return !t.forced && t.readSinceIssued && (unattested || replaced)
	}
	if !unattested && !t.unmarked && (t.replaces == "" || !replaced) {
		return false
	}
	dead := false
	if acct := p.state.membership.account; acct != nil {
		_, dead = acct.DeadSince(o.Record.TokenFingerprint)
	}
	if p.state.intent.Own(o.Record.Mint) || dead {
		return false // nobody wrote a token since this mint began, or WeChat refuses what was written
	}
	return t.unmarked || o.Record.IssuedAt.After(t.IssuedAt)
}

// writeReference sets or removes the owner reference. It is a request of its own, because clusters with the admission plugin
// OwnerReferencesPermissionEnforcement refuse it to accounts that may not delete Secrets.
func (p *pass) writeReference(ctx context.Context, o report.Observation, want target.Desired, e effect) (effect, error) {
	if !want.ReferenceOutdated(e.wrote) || p.state.refusedReferences == p.resource.Generation {
		return e, nil
	}
	written, err := p.store.UpdateReferences(ctx, e.wrote, want)
	switch {
	case isRefusal(err): // of the reference alone: the token must not wait for it
		log.FromContext(ctx).Info("the API server refuses to change the owner reference of the target Secret", "refusal", refusalMessage(err))
		e.referencesRefused = true
		return e, nil
	case err != nil:
		return p.refused(o, e, err)
	}
	e.wrote, e.target.secret = written, written
	return e, nil
}

// refused adds to the effect what follows from a write that the API server did not take. A conflict is settled by another look, unless
// it is the second one in a pass or follows a failure; anything else is a failure, so that every write follows a back-off.
func (p *pass) refused(o report.Observation, e effect, err error) (effect, error) {
	name := p.resource.TargetName()
	missing := apierrors.IsNotFound(err) && o.Secret == nil // the namespace is gone
	again := p.conflicts == 0 && (p.state.failure == nil || !p.state.failure.OfWrite)
	conflict := apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) && !missing
	switch {
	case conflict && again:
		p.conflicts++
		e.target = knownTarget{lookAgain: true}
		return e, nil
	case apierrors.IsInvalid(err) && o.Secret != nil && again:
		p.conflicts++
		e.target = knownTarget{lookAgain: true} // it may be immutable, which ownership tells better
		return e, nil
	case missing, isRefusal(err):
		e.failure = &failure{
			Failure: refresh.Failure{Class: token.Action, Reason: v1alpha1.ReasonTargetWriteFailed, OfWrite: true},
			message: fmt.Sprintf("the API server refuses to write Secret %q: %s", name, refusalMessage(err)),
		}
	case errors.Is(err, context.Canceled):
		return e, err // the process ends
	default:
		e.failure = &failure{
			Failure: refresh.Failure{Class: token.Transient, Reason: v1alpha1.ReasonTargetWriteFailed, OfWrite: true},
			message: fmt.Sprintf("the API server does not write Secret %q: %s; the operator tries again by itself", name, transientMessage(err)),
		}
	}
	e.target = knownTarget{lookAgain: conflict}
	return e, nil
}

// isRefusal reports whether a person must act, because the API server, its admission or a quota said no.
func isRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	switch status.Status().Code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return true
	}
	return false
}

// refusalMessage returns why the API server refuses a write, without the data that its answer may quote.
func refusalMessage(err error) string {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return "its namespace is being deleted"
	case apierrors.IsForbidden(err):
		return "forbidden" + gatekeeper(err) + "; look for a ResourceQuota, an admission policy, or missing permissions of the operator's ServiceAccount"
	case apierrors.IsInvalid(err):
		return "the result would be invalid" + gatekeeper(err) + "; look at spec.target"
	default:
		return "rejected (" + string(apierrors.ReasonForError(err)) + ")" + gatekeeper(err) + "; look for an admission webhook or policy"
	}
}

// transientMessage returns why a write did not happen that may work the next time.
func transientMessage(err error) string {
	var status apierrors.APIStatus
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		return "somebody else keeps writing it"
	case errors.As(err, &status):
		return fmt.Sprintf("it answered %d (%s)%s", status.Status().Code, status.Status().Reason, gatekeeper(err))
	case errors.Is(err, context.DeadlineExceeded):
		return "it did not answer in time"
	}
	return "it cannot be reached"
}

// gatekeeperName finds the name of a webhook or policy in what the API server says.
var gatekeeperName = regexp.MustCompile(`(?:webhook|ValidatingAdmissionPolicy) ["']([-.a-z0-9]{1,253})["']`)

// gatekeeper returns " by <name>" if the API server names the webhook or policy that stopped a request; else "". Nothing else of what it
// says is repeated, because it may quote the Secret.
func gatekeeper(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return ""
	}
	found := gatekeeperName.FindStringSubmatch(status.Status().Message)
	if found == nil {
		return ""
	}
	return fmt.Sprintf(" by %q", found[1])
}
