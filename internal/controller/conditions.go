// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// situation is everything that the conditions depend on.
type situation struct {
	// valid: the target holds a token for this spec that WeChat accepts at this moment.
	valid bool
	// had: there is or was a token, so a missing one expired.
	had       bool
	suspended bool
	secret    string
	expiresAt time.Time
	ownership target.Ownership
	// problem with the credentials; "" for none.
	problem, problemMessage string
	contested               bool
	// reported failure; nil for none. class is its class.
	reported *v1alpha1.RefreshError
	class    vocab.Class
	waiting  bool // for the fetcher of a Legacy account
	note     string
}

// verdict is the set of conditions in short.
type verdict struct {
	ready           bool
	reason, message string
	// progress is Reconciling, Stalled or "".
	progress string
	// failing is the reason of RefreshFailing; "" for none.
	failing, failingMessage string
}

// judge turns a situation into conditions. Each row of the table in the documentation is a case.
func (s situation) judge() verdict {
	v := s.unready()
	if s.problem != "" {
		v.failing, v.failingMessage = s.problem, s.problemMessage
	} else if s.reported != nil {
		v.failing, v.failingMessage = s.reported.Reason, s.reported.Message
	}
	if s.valid && s.ownership.Writable() {
		v.ready, v.reason, v.progress = true, v1alpha1.ReasonTokenValid, ""
		v.message = fmt.Sprintf("Secret %q holds a token that is valid until %s", s.secret, target.FormatTime(s.expiresAt))
		if v.failing != "" && (s.problem != "" || s.class == vocab.Action) {
			v.message += ", but it cannot be refreshed: " + v.failingMessage
		}
	}
	if s.suspended {
		v.message += "; suspended: the token is not refreshed until spec.suspend is false"
	}
	if s.note != "" {
		v.message += "; " + s.note
	}
	return v
}

// unready is the verdict for a target without a valid token.
func (s situation) unready() verdict {
	switch {
	case s.ownership.Claim == target.Conflict:
		return verdict{reason: v1alpha1.ReasonTargetConflict, message: s.ownership.Message, progress: v1alpha1.ConditionStalled}
	case s.ownership.Claim == target.Terminating:
		return verdict{reason: v1alpha1.ReasonTargetTerminating, message: s.ownership.Message, progress: v1alpha1.ConditionReconciling}
	case s.suspended:
		return verdict{reason: s.absence(), message: fmt.Sprintf("Secret %q holds no valid token", s.secret)}
	case s.problem == v1alpha1.ReasonCredentialsNotFound:
		return verdict{reason: s.problem, message: s.problemMessage, progress: v1alpha1.ConditionReconciling}
	case s.problem != "":
		return verdict{reason: s.problem, message: s.problemMessage, progress: v1alpha1.ConditionStalled}
	case s.reported != nil && s.class == vocab.Action:
		return verdict{reason: s.reported.Reason, message: s.reported.Message, progress: v1alpha1.ConditionStalled}
	case s.reported != nil:
		return verdict{reason: s.reported.Reason, message: s.reported.Message, progress: v1alpha1.ConditionReconciling}
	case s.contested:
		return verdict{
			reason: v1alpha1.ReasonTargetContested,
			message: fmt.Sprintf("somebody keeps changing Secret %q: find out who from its managedFields; it is repaired ever more slowly",
				s.secret),
			progress: v1alpha1.ConditionReconciling,
		}
	case s.waiting:
		return verdict{
			reason:   s.absence(),
			message:  "another WeChatAppToken with the same appid and AppSecret fetches the token in Legacy mode; it was asked for one",
			progress: v1alpha1.ConditionReconciling,
		}
	}
	return verdict{
		reason:   s.absence(),
		message:  fmt.Sprintf("Secret %q holds no valid token yet", s.secret),
		progress: v1alpha1.ConditionReconciling,
	}
}

func (s situation) absence() string {
	if s.had {
		return v1alpha1.ReasonTokenExpired
	}
	return v1alpha1.ReasonTokenNotIssued
}

// conditions are those of the status, with transition times kept where nothing changed.
func (p *pass) conditions(now time.Time) []metav1.Condition {
	v := p.situation(now).judge()
	conditions := slices.Clone(p.token.Status.Conditions)
	set := func(kind string, status bool, reason, message string) {
		c := metav1.Condition{
			Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: truncate(message, 1024),
			ObservedGeneration: p.token.Generation, LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)),
		}
		if status {
			c.Status = metav1.ConditionTrue
		}
		apimeta.SetStatusCondition(&conditions, c)
	}
	setIf := func(holds bool, kind, reason, message string) {
		if holds {
			set(kind, true, reason, message)
		} else {
			apimeta.RemoveStatusCondition(&conditions, kind)
		}
	}
	set(v1alpha1.ConditionReady, v.ready, v.reason, v.message)
	for _, kind := range [...]string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		setIf(v.progress == kind, kind, v.reason, v.message)
	}
	setIf(v.failing != "", v1alpha1.ConditionRefreshFailing, v.failing, v.failingMessage)
	reason, message := p.deliveryProblem()
	setIf(reason != "", v1alpha1.ConditionDeliveryDegraded, reason, message)
	slices.SortFunc(conditions, func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
	return conditions
}

func (p *pass) situation(now time.Time) situation {
	t := p.tokenInput(now)
	s := situation{
		valid: t.Fingerprint != "" && now.Before(t.ExpiresAt) && p.stored.believable(now) && !p.mem.verified.tampered && !p.putBack() &&
			p.stored.appID == p.token.Spec.AppID,
		had:            t.Fingerprint != "" || p.token.Status.Token != nil,
		suspended:      p.token.Spec.Suspend,
		secret:         p.token.TargetName(),
		expiresAt:      p.stored.expiresAt,
		ownership:      p.ownership,
		problem:        p.credentials.problem,
		problemMessage: p.credentials.message,
		contested:      p.mem.repairs.contested(now),
		reported:       p.mem.reported,
		class:          p.mem.reportedClass,
		waiting:        !p.mem.askedAt.IsZero() && now.Sub(p.mem.askedAt) < 2*askAgainAfter,
		note:           p.note,
	}
	if p.mem.refusedReferences == p.token.Generation {
		s.note = "spec.target.deletionPolicy has no effect, because the API server refuses to change the owner reference: this cluster lets " +
			"only accounts that may delete Secrets do it, or the Secret has another controller. Edit its metadata.ownerReferences by hand"
	}
	return s
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n-3] + "..."
}
