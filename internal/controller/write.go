// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// writeTakes is the longest time that the write of a token may go on when the process is told to end.
const writeTakes = 10 * time.Second

// writeTarget stores the token that waits to be written, if any, with the metadata that goes with it.
func (p *pass) writeTarget(ctx context.Context) error {
	if gone, err := p.gone(ctx); gone || err != nil {
		return err
	}
	token := p.unwritten()
	if token != nil && p.supersededBySecret(token) {
		p.mem.mintAgain = token.unmarked
		p.mem.written(token)
		return nil
	}
	if token != nil {
		// The process may be told to end while WeChat takes its time: what it issued must not get lost by that.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), writeTakes)
		defer cancel()
	}
	record, want := target.Want(p.token, p.ownership.Claim, p.wantedRecord(token))
	failpoint.Hit("before-secret")
	written, err := p.write(ctx, want, token)
	failpoint.Hit("after-secret")
	if err != nil {
		if token != nil && failpoint.Off(failpoint.KeptToken) {
			p.mem.written(token)
		}
		return p.refusedWrite(ctx, err)
	}
	p.wrote(written, record, token)
	reason := p.decision.Reason
	if token != nil {
		reason = token.reason // it was fetched for
	}
	log.FromContext(ctx).Info("wrote the target Secret", "secret", written.Name, "reason", reason, "newToken", token != nil,
		"fingerprint", p.record.TokenFingerprint, "expiresAt", p.record.ExpiresAt)
	return p.writeReference(ctx, want)
}

// gone tells whether the resource was deleted since the pass began, perhaps while WeChat took its time: a Secret made
// now would belong to nobody. The next decision has nothing to do.
func (p *pass) gone(ctx context.Context) (bool, error) {
	now := &v1alpha1.WeChatAppToken{}
	err := p.Client.Get(ctx, nameOf(p.token), now, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err):
		p.deleted = true
	case err != nil:
		return false, fmt.Errorf("reading WeChatAppToken %s: %w", nameOf(p.token), err)
	default:
		p.deleted = now.UID != p.token.UID || now.DeletionTimestamp != nil
	}
	return p.deleted, nil
}

// write makes the one request that the situation needs.
func (p *pass) write(ctx context.Context, want target.Desired, token *issued) (*metav1.PartialObjectMetadata, error) {
	var content *target.Content
	if token != nil {
		content = p.content(token)
	}
	switch {
	case p.existing == nil && content == nil:
		return nil, errors.New("there is no target Secret and no token to make one from")
	case p.existing == nil:
		return p.store.Create(ctx, p.token, want, *content)
	case content == nil && !want.Outdated(p.existing):
		return p.existing, nil // only the owner reference differs
	default:
		return p.store.Update(ctx, p.existing, want, content)
	}
}

func (p *pass) content(token *issued) *target.Content {
	return &target.Content{
		AccessTokenKey: p.token.Spec.Target.AccessTokenKey,
		Token:          token.Value,
		ExpiresAt:      token.ExpiresAt,
		AppID:          token.appID,
	}
}

// wantedRecord is what the annotations ought to say, with this token or with the one that is stored.
func (p *pass) wantedRecord(token *issued) target.Record {
	record := p.record
	if token == nil {
		if p.mem.failure == nil {
			record.Mint = p.unansweredMark() // not worth a write before the attempts have an end
		}
		record.IssuedAt, record.ExpiresAt = p.stored.issuedAt, p.stored.expiresAt
		record.TokenFingerprint, record.Mode, record.AppID = p.stored.fingerprint, p.stored.mode, p.stored.appID
		if p.mem.stored != nil {
			record.CredentialsFingerprint = p.mem.stored.credentials
		}
		return record
	}
	record.AppID, record.Mode = token.appID, token.mode
	record.IssuedAt, record.ExpiresAt = token.IssuedAt, token.ExpiresAt
	record.TokenFingerprint = token.Value.Fingerprint()
	record.CredentialsFingerprint = token.credentials
	record.Mint = target.Mint{}
	if token.handledRefresh != "" {
		record.HandledRefresh = token.handledRefresh
	}
	if token.revoke != nil {
		record.Revoke = *token.revoke
	}
	return record
}

// supersededBySecret: the Secret already holds another token, that was issued later, perhaps by a leader that was thought to be
// gone, or by the one that came when this process was stopped. In Stable mode WeChat can be asked which one is right, and is, when
// the answer at hand is older than the look at the Secret. In Legacy mode the later mint is the one that lives.
//
// A token that was minted before there was a Secret to mark may be of the same moment as the other one, and the times do not tell
// which mint was the later one. Then both give way to a new one, before a volume can have either.
func (p *pass) supersededBySecret(token *issued) bool {
	if p.existing == nil || !p.mem.verified.doubtful || p.record.TokenFingerprint == token.Value.Fingerprint() {
		return false
	}
	if !p.legacy() {
		return token.handledRefresh == "" && token.revoke == nil && token.beforeLook
	}
	if p.record.Mint.ID != "" && p.record.Mint.ID == p.mem.ownMark || p.mem.account != nil && p.mem.account.isDead(p.record.TokenFingerprint) {
		return false // nobody wrote a token since this mint began, or what was written is refused by WeChat
	}
	return token.unmarked || p.record.IssuedAt.After(token.IssuedAt)
}

// wrote remembers an own write.
func (p *pass) wrote(written *metav1.PartialObjectMetadata, record target.Record, token *issued) {
	p.mem.rememberTarget(written, p.WeChat.Now())
	if token == nil {
		p.mem.verified.resourceVersion = written.ResourceVersion // its data is what it was
	} else {
		p.mem.verified = verification{resourceVersion: written.ResourceVersion}
	}
	p.mem.writtenVersion = written.ResourceVersion
	if token != nil {
		p.recordWrite(record, token)
		if record.TokenFingerprint != p.stored.fingerprint {
			p.writtenAt = p.WeChat.Now()
		}
		s := recorded(record)
		s.unseen = token.unseen
		p.mem.stored = &s
		p.mem.mintAgain = false
		p.mem.written(token)
		if token.revoke != nil && !token.revoke.InProgress() {
			p.handle(refresh.RequestRevoke, token.revoke.Value)
		}
		if token.handledRefresh != "" {
			p.handle(refresh.RequestRefresh, token.handledRefresh)
		}
	}
	if f := p.mem.failure; f != nil && f.OfWrite {
		p.mem.failure = nil
	}
	p.setExisting(written)
}

// writeReference sets or removes the owner reference. It is a request of its own, because clusters with the admission
// plugin OwnerReferencesPermissionEnforcement refuse it to accounts that may not delete Secrets.
func (p *pass) writeReference(ctx context.Context, want target.Desired) error {
	if !want.ReferenceOutdated(p.existing) || p.mem.refusedReferences == p.token.Generation {
		return nil
	}
	written, err := p.store.UpdateReferences(ctx, p.existing, want)
	if isRefusal(err) { // of the reference alone: the token must not wait for it
		p.mem.refusedReferences = p.token.Generation
		log.FromContext(ctx).Info("the API server refuses to change the owner reference of the target Secret", "refusal", refusalMessage(err))
		return nil
	}
	if err != nil {
		return p.refusedWrite(ctx, err)
	}
	p.mem.rememberTarget(written, p.WeChat.Now())
	p.mem.verified.resourceVersion = written.ResourceVersion
	p.mem.writtenVersion = written.ResourceVersion
	p.setExisting(written)
	return nil
}

// refusedWrite sorts the API server's refusals: what a fresh look settles, what somebody must act on, and what comes
// right by trying again, which alone is returned as an error.
func (p *pass) refusedWrite(ctx context.Context, err error) error {
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		if apierrors.IsNotFound(err) && p.existing == nil {
			return p.failWrite(ctx, err) // the namespace is gone
		}
		return p.lookAgain(ctx)
	case apierrors.IsInvalid(err) && p.existing != nil:
		if lookErr := p.lookAgain(ctx); lookErr != nil {
			return lookErr
		}
		if p.mem.verified.refused != "" {
			return nil // immutable: the ownership says so
		}
		return p.failWrite(ctx, err)
	case isRefusal(err):
		return p.failWrite(ctx, err)
	}
	return withoutQuote(err, p.token.TargetName())
}

// withoutQuote is the error of a write that is worth another try. What the API server says may be a webhook's word, which
// may quote the Secret; errors without a status come from the network, and hold no body.
func withoutQuote(err error, name string) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return fmt.Errorf("writing target Secret %q: the API server answered %d (%s)", name, status.Status().Code, status.Status().Reason)
	}
	return err
}

// lookAgain reads the target from the API server; the next decision judges it anew.
func (p *pass) lookAgain(ctx context.Context) error {
	p.mem.verified = verification{}
	snapshot, err := p.store.Read(ctx, p.targetName())
	switch {
	case apierrors.IsNotFound(err):
		p.mem.rememberTarget(nil, p.WeChat.Now())
		return nil
	case err != nil:
		return err
	}
	p.judge(snapshot)
	return nil
}

func (p *pass) failWrite(ctx context.Context, err error) error {
	message := fmt.Sprintf("the API server refuses to write Secret %q: %s", p.token.TargetName(), refusalMessage(err))
	p.fail(ctx, refresh.Failure{Class: vocab.Action, Reason: v1alpha1.ReasonTargetWriteFailed, OfWrite: true}, message, "")
	return nil
}

// isRefusal: a person must act, because the API server, its admission or a quota said no.
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

// refusalMessage is the API server's word, without the data that it may quote.
func refusalMessage(err error) string {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return "its namespace is being deleted"
	case apierrors.IsForbidden(err):
		return "forbidden; look for a ResourceQuota, an admission policy, or missing permissions of the operator's ServiceAccount"
	case apierrors.IsInvalid(err):
		return "the result would be invalid; look at spec.target"
	default:
		return "rejected (" + string(apierrors.ReasonForError(err)) + "); look for an admission webhook or policy"
	}
}
