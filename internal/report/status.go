// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// Status returns the status of the observed resource.
func Status(o Observation, d refresh.Decision) v1alpha1.WeChatAppTokenStatus {
	last := o.Resource.Status
	s := v1alpha1.WeChatAppTokenStatus{
		ObservedGeneration:    o.Resource.Generation,
		Token:                 tokenStatus(o),
		Tickets:               ticketStatuses(o),
		TargetSecretName:      o.Resource.TargetName(),
		TargetResourceVersion: last.TargetResourceVersion,
		CredentialsVersion:    o.CredentialsSecret.Accepted,
		LastError:             lastError(o, d),
		Delivery:              deliveryStatus(o),
		Revocation:            o.Progress.Revocation,
		NextRefreshTime:       nextRefreshTime(o),
	}
	// The next process takes the data of this version for the token of this status, without a look at it.
	if o.WrittenVersion != "" && o.Holding == target.HoldsKnown {
		s.TargetResourceVersion = o.WrittenVersion
	}
	if o.Progress.Handled != (v1alpha1.HandledRequests{}) {
		handled := o.Progress.Handled
		s.HandledRequests = &handled
	}
	for _, t := range o.Progress.Forced {
		s.ForcedRefreshes = append(s.ForcedRefreshes, wholeSeconds(t))
	}
	s.Conditions = conditions(o, d, s.LastError)
	if onlyMarked(o, s) {
		return last
	}
	return s
}

// onlyMarked reports whether nothing changed but the target's resourceVersion, by the mark of a mint that failed. Writing that once
// for each attempt would cost more than the GET that a restart makes instead.
func onlyMarked(o Observation, next v1alpha1.WeChatAppTokenStatus) bool {
	if o.Failed == nil || o.Record.Mint.IsZero() {
		return false
	}
	next.TargetResourceVersion = o.Resource.Status.TargetResourceVersion
	return equality.Semantic.DeepEqual(next, o.Resource.Status)
}

// tokenStatus describes the stored token; nil without one.
func tokenStatus(o Observation) *v1alpha1.TokenStatus {
	t := o.Stored
	if t.Fingerprint == "" {
		return nil
	}
	last := o.Resource.Status.Token
	contradicted := t.Unattested && last != nil && last.Fingerprint != "" && last.Fingerprint != t.Fingerprint
	if contradicted || !t.Believable(o.Now) {
		return last // what is not proven must not become the proof
	}
	s := &v1alpha1.TokenStatus{Mode: t.Mode, IssueTime: wholeSeconds(t.IssuedAt), ExpirationTime: wholeSeconds(t.ExpiresAt)}
	if !t.Unattested {
		s.Fingerprint = t.Fingerprint
	}
	return s
}

// NextRefresh returns when the stored token is due, from the whole seconds that the status keeps, so that it moves only with the token
// and is the same after a restart. It is zero without a token.
func NextRefresh(o Observation) time.Time {
	return refresh.DueAt(refresh.Inputs{
		UID: o.UID, Traits: o.Traits, CheckInterval: o.CheckInterval,
		Token: refresh.Token{
			Fingerprint: o.Stored.Fingerprint, ReplaceBy: o.Token.ReplaceBy,
			IssuedAt: o.Stored.IssuedAt.Truncate(time.Second), ExpiresAt: o.Stored.ExpiresAt.Truncate(time.Second),
		},
	})
}

// nextRefreshTime returns when the stored token is due; nil without one.
func nextRefreshTime(o Observation) *metav1.Time {
	due := NextRefresh(o)
	if due.IsZero() || !o.Stored.Believable(o.Now) {
		return nil
	}
	at := wholeSeconds(due)
	return &at
}

// lastError returns the failure that the status tells; nil for none.
func lastError(o Observation, d refresh.Decision) *v1alpha1.RefreshError {
	switch d.Verdict.Tell {
	case refresh.TellNothing:
		return nil
	case refresh.TellLast:
		return o.Resource.Status.LastError
	case refresh.TellCurrent:
	}
	f := o.FailureToTell()
	retryTime := wholeSeconds(d.RetryAt)
	attempted := f.Time
	if mark := o.Record.Mint.StartedAt; f.Code != 0 && o.Target.MintStarted.IsZero() {
		// An errcode answers the mark. If the clock ran ahead at the mark, a new process would not see that from the times.
		attempted = refresh.Later(attempted, mark)
	}
	return &v1alpha1.RefreshError{
		Code:               int32(f.Code), //nolint:gosec // errcodes have at most seven digits; the client refuses others
		Reason:             string(f.Reason),
		Message:            f.Message,
		RequestID:          f.RequestID,
		Time:               wholeSeconds(attempted),
		RetryTime:          &retryTime,
		Attempts:           int32(min(f.Attempts, 1<<30)), //nolint:gosec // bounded just here
		Generation:         f.Generation,
		CredentialsVersion: f.CredentialsVersion,
	}
}

// deliveryStatus returns how far pods were told. It changes with the numbers, not with each attempt.
func deliveryStatus(o Observation) *v1alpha1.DeliveryStatus {
	last, d := o.Resource.Status.Delivery, o.Delivery
	switch {
	case !d.Wanted || d.Disabled:
		return nil
	case !d.Known || !d.Counted:
		return last
	}
	next := &v1alpha1.DeliveryStatus{
		Fingerprint: o.DeliveredFingerprint(),
		Pods:        int32(d.Pods),    //nolint:gosec // a namespace has fewer pods
		Reached:     int32(d.Reached), //nolint:gosec // as above
		Time:        wholeSeconds(d.At),
	}
	if last != nil && last.Fingerprint == next.Fingerprint && last.Pods == next.Pods && last.Reached == next.Reached {
		return last
	}
	return next
}

// Unread returns the status of a resource that could not be observed: what it said, except that Ready turns False at the expiry that it
// names, and that a failure to read the API server is told once it has lasted a minute. why is a short phrase without quotes of the
// API server.
func Unread(resource *v1alpha1.WeChatAppToken, since, now time.Time, why string) v1alpha1.WeChatAppTokenStatus {
	s := *resource.Status.DeepCopy()
	if s.ObservedGeneration < 0 {
		return s // nothing was told yet
	}
	c := conditionSet{list: slices.Clone(s.Conditions), generation: s.ObservedGeneration, now: now}
	if c.isTrue(v1alpha1.ConditionReady) && s.Token != nil && !now.Before(s.Token.ExpirationTime.Time) {
		message := noToken(resource.TargetName())
		c.set(v1alpha1.ConditionReady, false, v1alpha1.ReasonTokenExpired, message)
		if !resource.Spec.Suspend {
			c.set(v1alpha1.ConditionReconciling, true, v1alpha1.ReasonTokenExpired, message)
		}
	}
	for _, t := range s.Tickets {
		if c.isTrue(v1alpha1.ConditionReady) && !now.Before(t.ExpirationTime.Time) {
			c.set(v1alpha1.ConditionReady, false, v1alpha1.ReasonTicketExpired, v1alpha1.TicketPrefix(t.Type)+"it is taken to have expired")
		}
	}
	if now.Sub(since) >= refresh.ReportAfter && !c.isTrue(v1alpha1.ConditionRefreshFailing) {
		c.set(v1alpha1.ConditionRefreshFailing, true, v1alpha1.ReasonKubernetesAPIError,
			"the operator cannot read from the API server what it needs: "+why+"; it tries again by itself")
	}
	s.Conditions = c.sorted()
	return s
}

func wholeSeconds(t time.Time) metav1.Time { return metav1.NewTime(t.Truncate(time.Second)) }
