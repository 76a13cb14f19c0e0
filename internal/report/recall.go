// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// RecallFailure returns the failure that a status speaks of; nil for none. The back-off of a transient one is not worth keeping.
func RecallFailure(e *v1alpha1.RefreshError) *Failure {
	if e == nil {
		return nil
	}
	f := refresh.Failure{
		Class: ClassOf(e), Reason: token.Reason(e.Reason), Code: int(e.Code), OfWrite: e.Reason == v1alpha1.ReasonTargetWriteFailed,
		First: e.Time.UTC(), Time: e.Time.UTC(), Attempts: int(e.Attempts),
	}
	if e.RetryTime != nil && f.Class != token.Transient {
		f.RetryAt = e.RetryTime.UTC()
	}
	if f.Reason == v1alpha1.ReasonIPBlocked {
		f.Named = f.RetryAt.Sub(f.Time)
	}
	return &Failure{
		Failure: f, Message: e.Message, RequestID: e.RequestID, Generation: e.Generation, CredentialsVersion: e.CredentialsVersion,
	}
}

// ClassOf returns the class of a failure that a status speaks of.
func ClassOf(e *v1alpha1.RefreshError) token.Class {
	switch e.Reason {
	case v1alpha1.ReasonSystemBusy, v1alpha1.ReasonUnreachable, v1alpha1.ReasonBadResponse:
		return token.Transient
	case v1alpha1.ReasonRateLimited, v1alpha1.ReasonDailyQuotaExhausted, v1alpha1.ReasonIPBlocked:
		return token.Limited
	case v1alpha1.ReasonRequestRejected:
		if e.Attempts < refresh.RejectionsUntilAction {
			return token.Transient
		}
	case v1alpha1.ReasonTargetWriteFailed:
		// A refusal is tried again after more than a minute from the third attempt on, and a write that may work the next time is
		// told once it has failed for a minute, which is more than two attempts.
		if e.Attempts > 2 && e.RetryTime != nil && e.RetryTime.Sub(e.Time.Time) <= refresh.ReportAfter {
			return token.Transient
		}
	}
	return token.Action
}

// RecallProgress returns what the status says of a revoke, and which requests were handled; Current adds the rest. Values that are there
// when the resource is first seen are recorded as handled, because GitOps and backups replay annotations when they re-create a resource.
func RecallProgress(resource *v1alpha1.WeChatAppToken) Progress {
	p := Progress{Revocation: resource.Status.Revocation.DeepCopy()}
	if h := resource.Status.HandledRequests; h != nil {
		p.Handled = *h
	}
	if resource.Status.ObservedGeneration >= 0 {
		return p
	}
	for _, kind := range refresh.RequestKinds() {
		if value := request.Value(resource, kind); len(value) <= v1alpha1.RequestValueMaxLength { // a longer one fits no status
			*request.Handled(&p.Handled, kind) = value
		}
	}
	return p
}

// Wants reports whether a request was made that is not handled yet.
func (p Progress) Wants(resource *v1alpha1.WeChatAppToken, kind refresh.RequestKind) bool {
	value := request.Value(resource, kind)
	return value != "" && value != *request.Handled(&p.Handled, kind) && len(value) <= v1alpha1.RequestValueMaxLength
}

// After returns the progress after requests had their attempts.
func (p Progress) After(outcomes []Outcome) Progress {
	for _, o := range outcomes {
		*request.Handled(&p.Handled, o.Kind) = o.Value
		if o.Kind == refresh.RequestRevoke {
			p.Revocation = nil
		}
	}
	return p
}

// Current returns the progress with what the status tells besides, because another process may have gone on with the requests: to carry one
// out again, or to forget a forced call, could revoke a token that pods hold. It leaves out a revoke that is not asked for any more, and
// forced calls that count no more.
func (p Progress) Current(resource *v1alpha1.WeChatAppToken, now time.Time) Progress {
	status := &resource.Status
	for _, kind := range refresh.RequestKinds() {
		if h, value := status.HandledRequests, request.Value(resource, kind); h != nil && value != "" && *request.Handled(h, kind) == value {
			*request.Handled(&p.Handled, kind) = value
		}
	}
	if saved, own := status.Revocation, p.Revocation; saved != nil && (own == nil || own.Value == saved.Value && own.FirstForcedTime == nil) {
		p.Revocation = saved.DeepCopy()
	}
	p.Forced = slices.Clone(p.Forced)
	for _, t := range status.ForcedRefreshes {
		same := func(own time.Time) bool { return own.Truncate(time.Second).Equal(t.Truncate(time.Second)) } // a status has whole seconds
		if !slices.ContainsFunc(p.Forced, same) {
			p.Forced = append(p.Forced, t.UTC())
		}
	}
	wanted := p.Wants(resource, refresh.RequestRevoke)
	if r := p.Revocation; r != nil && (!wanted || r.Value != request.Value(resource, refresh.RequestRevoke)) {
		p.Revocation = nil
	}
	p.Forced = refresh.WithinDay(p.Forced, now)
	return p
}

// IsSaved reports whether the revoke of a status, nil for none, says how far this one has come.
func (p Progress) IsSaved(saved *v1alpha1.RevocationStatus) bool {
	return saved != nil && saved.Value == p.Revocation.Value && (saved.FirstForcedTime != nil) == (p.Revocation.FirstForcedTime != nil)
}

// longRequest reports whether a request was made that is ignored, because its value fits no status.
func longRequest(resource *v1alpha1.WeChatAppToken) bool {
	kinds := refresh.RequestKinds()
	return slices.ContainsFunc(kinds[:], func(kind refresh.RequestKind) bool {
		return len(request.Value(resource, kind)) > v1alpha1.RequestValueMaxLength
	})
}

// Requested returns the value of a request annotation; "" for none.
func (o Observation) Requested(kind refresh.RequestKind) string {
	return request.Value(o.Resource, kind)
}

// HalfRevoked returns the state of a revoke after a forced call that another one has to follow.
func HalfRevoked(r *v1alpha1.RevocationStatus, now time.Time) *v1alpha1.RevocationStatus {
	at := wholeSeconds(now)
	return &v1alpha1.RevocationStatus{Value: r.Value, Victim: r.Victim, FirstForcedTime: &at}
}
