// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// writeStatus is the one place where status is written, and only when it says something else than the last write.
func (p *pass) writeStatus(ctx context.Context) error {
	if p.decision.Reason == "" || p.deleted {
		return nil // nothing was decided, as the API server could not be asked, or there is nothing left to write to
	}
	next := p.status()
	if equality.Semantic.DeepEqual(next, p.token.Status) || p.onlyMarked(next) {
		return nil
	}
	if gone, err := p.gone(ctx); gone || err != nil {
		return err // another resource may have the name, and would take this status for its own, as long as the informer is not behind
	}
	failpoint.Hit("before-status")
	version, err := p.patchStatus(ctx, next)
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil // deleted meanwhile
		}
		return fmt.Errorf("writing the status of WeChatAppToken %s: %w", nameOf(p.token), err)
	}
	failpoint.Hit("after-status")
	p.mem.wroteStatus(version, next)
	p.announce(p.token.Status, next)
	return nil
}

// patchStatus sends what is different, and asks for nothing but the metadata back.
func (p *pass) patchStatus(ctx context.Context, next v1alpha1.WeChatAppTokenStatus) (resourceVersion string, err error) {
	was, is := &v1alpha1.WeChatAppToken{Status: p.token.Status}, &v1alpha1.WeChatAppToken{Status: next}
	patch, err := client.MergeFrom(was).Data(is)
	if err != nil {
		return "", fmt.Errorf("encoding the patch: %w", err)
	}
	answer := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: p.token.Namespace, Name: p.token.Name}}
	answer.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
	err = p.Client.Status().Patch(ctx, answer, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(target.FieldManager))
	return answer.ResourceVersion, err
}

// onlyMarked: nothing changed but the target's resourceVersion, by the mark of a mint that failed. Attempt after attempt
// would write that; unwritten, it costs one GET after a restart.
func (p *pass) onlyMarked(next v1alpha1.WeChatAppTokenStatus) bool {
	if p.mem.failure == nil || p.record.Mint == (target.Mint{}) {
		return false
	}
	next.TargetResourceVersion = p.token.Status.TargetResourceVersion
	return equality.Semantic.DeepEqual(next, p.token.Status)
}

// status says what this pass saw.
func (p *pass) status() v1alpha1.WeChatAppTokenStatus {
	now := p.WeChat.Now()
	last := p.token.Status
	s := v1alpha1.WeChatAppTokenStatus{
		ObservedGeneration:    p.token.Generation,
		Token:                 p.tokenStatus(now),
		TargetSecretName:      p.token.TargetName(),
		TargetResourceVersion: last.TargetResourceVersion,
		CredentialsVersion:    last.CredentialsVersion,
		LastError:             p.report(now),
		Delivery:              p.deliveryStatus(),
	}
	if p.mem.writtenVersion != "" {
		s.TargetResourceVersion = p.mem.writtenVersion
	}
	if p.credentials.problem == "" && p.credentials.version != "" {
		s.CredentialsVersion = p.credentials.version
	}
	if due := refresh.DueAt(p.storedInputs()); !due.IsZero() && p.stored.believable(now) {
		at := metav1.NewTime(due.Truncate(time.Second))
		s.NextRefreshTime = &at
	}
	if p.handled != (v1alpha1.HandledRequests{}) {
		handled := p.handled
		s.HandledRequests = &handled
	}
	for _, t := range p.forcedRefreshes(now) {
		s.ForcedRefreshes = append(s.ForcedRefreshes, metav1.NewTime(t.Truncate(time.Second)))
	}
	s.Conditions = p.conditions(now)
	return s
}

// storedInputs is what the schedule needs of the stored token alone, so that the published time moves only with it. Its
// times are those of the status, of which a process knows no more after a start.
func (p *pass) storedInputs() refresh.Inputs {
	return refresh.Inputs{
		UID: string(p.token.UID), Legacy: p.legacy(), CheckInterval: p.token.Spec.CheckInterval.Duration,
		Token: refresh.Token{
			Fingerprint: p.stored.fingerprint,
			IssuedAt:    p.stored.issuedAt.Truncate(time.Second), ExpiresAt: p.stored.expiresAt.Truncate(time.Second),
		},
	}
}

func (p *pass) tokenStatus(now time.Time) *v1alpha1.TokenStatus {
	if p.stored.fingerprint == "" {
		return nil
	}
	if !p.stored.believable(now) {
		return p.token.Status.Token // what is not believed must not become what is
	}
	t := &v1alpha1.TokenStatus{
		Mode:           p.stored.mode,
		IssueTime:      metav1.NewTime(p.stored.issuedAt.Truncate(time.Second)),
		ExpirationTime: metav1.NewTime(p.stored.expiresAt.Truncate(time.Second)),
	}
	if !p.stored.unseen {
		t.Fingerprint = p.stored.fingerprint
	}
	return t
}

// report is the failure that status speaks of. A transient one is reported late, and its first reason stands, so that an
// outage costs one write and its end another.
func (p *pass) report(now time.Time) *v1alpha1.RefreshError {
	f := p.mem.failure
	if f == nil {
		p.mem.reported = nil
		return nil
	}
	if !f.Reportable(now, p.decision.DueAt) {
		return p.mem.reported
	}
	if r := p.mem.reported; r != nil && f.Class == wechat.ClassTransient && p.mem.reportedClass == wechat.ClassTransient &&
		r.Generation == p.mem.failedGeneration && r.CredentialsVersion == p.mem.failedCredentials {
		return r
	}
	retryAt := metav1.NewTime(f.EffectiveRetryAt(p.decision.DueAt, p.tokenInput(now)).Truncate(time.Second))
	p.mem.reported = &v1alpha1.RefreshError{
		Code:               int32(f.Code), //nolint:gosec // errcodes have at most seven digits; the client refuses others
		Reason:             f.Reason,
		Message:            p.mem.message,
		RequestID:          p.mem.requestID,
		Time:               metav1.NewTime(f.Time.Truncate(time.Second)),
		RetryTime:          &retryAt,
		Attempts:           int32(min(f.Attempts, 1<<30)), //nolint:gosec // bounded just here
		Generation:         p.mem.failedGeneration,
		CredentialsVersion: p.mem.failedCredentials,
	}
	p.mem.reportedClass = f.Class
	return p.mem.reported
}

// recallFailure restores, in a fresh process, the failure that the status speaks of. The back-off of a transient one
// is not worth keeping.
func (m *memory) recallFailure(token *v1alpha1.WeChatAppToken) {
	e := token.Status.LastError
	if m.recalled || e == nil {
		m.recalled = true
		return
	}
	m.recalled = true
	f := refresh.Failure{
		Class: classOf(e), Reason: e.Reason, Code: int(e.Code), OfWrite: e.Reason == v1alpha1.ReasonTargetWriteFailed,
		First: e.Time.Time, Time: e.Time.Time, Attempts: int(e.Attempts),
	}
	if e.RetryTime != nil && f.Class != wechat.ClassTransient {
		f.RetryAt = e.RetryTime.Time
	}
	if f.Reason == v1alpha1.ReasonIPBlocked {
		f.Named = f.RetryAt.Sub(f.Time)
	}
	m.failure, m.message, m.requestID = &f, e.Message, e.RequestID
	m.failedGeneration, m.failedCredentials = e.Generation, e.CredentialsVersion
	m.reported, m.reportedClass = e, f.Class
}

func classOf(e *v1alpha1.RefreshError) wechat.Class {
	switch e.Reason {
	case v1alpha1.ReasonSystemBusy, v1alpha1.ReasonUnreachable, v1alpha1.ReasonBadResponse:
		return wechat.ClassTransient
	case v1alpha1.ReasonRateLimited, v1alpha1.ReasonDailyQuotaExhausted, v1alpha1.ReasonIPBlocked:
		return wechat.ClassLimited
	case v1alpha1.ReasonRequestRejected:
		if e.Attempts < refresh.RejectionsUntilAction {
			return wechat.ClassTransient
		}
	}
	return wechat.ClassAction
}

func readyCondition(status v1alpha1.WeChatAppTokenStatus) *metav1.Condition {
	return apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
}
