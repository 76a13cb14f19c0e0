// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// maxMessage is the longest message of a condition, in bytes.
const maxMessage = 1024

// summary is the set of conditions in short.
type summary struct {
	ready           bool
	reason, message string
	// progress is Reconciling, Stalled or empty.
	progress string
	// failing is the reason of RefreshFailing; empty for none.
	failing, failingMessage string
}

// summarize finds the words for a verdict. told is the failure that the status tells; nil for none.
func summarize(o Observation, v refresh.Verdict, told *v1alpha1.RefreshError) summary {
	s := unready(o, v, told)
	switch v.Failing {
	case refresh.FailingNothing:
	case refresh.FailingCredentials:
		s.failing, s.failingMessage = o.CredentialsSecret.Problem, o.CredentialsSecret.Message
	case refresh.FailingAttempt:
		s.failing, s.failingMessage = told.Reason, told.Message
	}
	if s.failing == "" {
		s.failing, s.failingMessage = ticketFailing(o, v)
	}
	switch {
	case v.Valid && v.Ticket.Type != "":
		if s = s.withTicket(o, v); v.Suspended {
			s.progress = ""
		}
	case v.Valid:
		s.ready, s.reason, s.progress = true, v1alpha1.ReasonTokenValid, ""
		s.message = fmt.Sprintf("Secret %q holds a token that is valid until %s",
			o.Resource.TargetName(), target.FormatTime(validUntil(o))) + validTickets(o)
		if cannotBeRefreshed(o, v) {
			s.message += ", but it cannot be refreshed: " + s.failingMessage
		}
		if o.Target.Contested && !v.Suspended {
			s.message += "; " + contested(o.Resource.TargetName())
		}
	}
	if v.Suspended {
		s.message += "; suspended: the token is not refreshed until spec.suspend is false"
	}
	if note := note(o); note != "" {
		s.message += "; " + note
	}
	return s
}

// cannotBeRefreshed reports whether a valid token will not be replaced before somebody acts. Metadata that cannot be written is no
// obstacle.
func cannotBeRefreshed(o Observation, v refresh.Verdict) bool {
	return v.Failing == refresh.FailingCredentials || v.Class == token.Action && o.Failed != nil
}

// validUntil returns when the stored token ends. One that WeChat has replaced ends before its expiry.
func validUntil(o Observation) time.Time {
	if o.Token.Unwritten {
		return refresh.Earlier(o.Stored.ExpiresAt, o.Token.ExpiresAt)
	}
	return o.Stored.ExpiresAt
}

// unready finds the words for a resource without a valid token.
func unready(o Observation, v refresh.Verdict, told *v1alpha1.RefreshError) summary {
	const reconciling, stalled = v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled
	secret := o.Resource.TargetName()
	absence := v1alpha1.ReasonTokenNotIssued
	if v.Had {
		absence = v1alpha1.ReasonTokenExpired
	}
	switch v.Problem {
	case refresh.ProblemConflict:
		return summary{reason: v1alpha1.ReasonTargetConflict, message: o.Ownership.Message, progress: stalled}
	case refresh.ProblemTerminating:
		return summary{reason: v1alpha1.ReasonTargetTerminating, message: o.Ownership.Message, progress: reconciling}
	case refresh.ProblemSuspended:
		return summary{reason: absence, message: fmt.Sprintf("Secret %q holds no valid token", secret)}
	case refresh.ProblemCredentialsMissing:
		return summary{reason: o.CredentialsSecret.Problem, message: o.CredentialsSecret.Message, progress: reconciling}
	case refresh.ProblemCredentialsMalformed:
		return summary{reason: o.CredentialsSecret.Problem, message: o.CredentialsSecret.Message, progress: stalled}
	case refresh.ProblemFailure:
		s := summary{reason: told.Reason, message: told.Message, progress: reconciling}
		if v.Class == token.Action {
			s.progress = stalled
		}
		return s
	case refresh.ProblemContested:
		return summary{reason: v1alpha1.ReasonTargetContested, message: contested(secret), progress: reconciling}
	case refresh.ProblemFetcherAsked:
		return summary{
			reason:   absence,
			message:  "another WeChatAppToken with the same appid and AppSecret fetches the token in Legacy mode; it was asked for one",
			progress: reconciling,
		}
	case refresh.ProblemNoToken:
	}
	return summary{reason: absence, message: noToken(secret), progress: reconciling}
}

func contested(secret string) string {
	return fmt.Sprintf("somebody or an admission policy keeps changing Secret %q: find out who from its managedFields; "+
		"it is repaired ever more slowly", secret)
}

func noToken(secret string) string { return fmt.Sprintf("Secret %q holds no valid token yet", secret) }

// note returns one more thing that people should know; "" for nothing.
func note(o Observation) string {
	switch {
	case o.Metadata.RefusedReferences == o.Resource.Generation:
		return "spec.target.deletionPolicy has no effect, because the API server refuses to change the owner reference: this cluster lets " +
			"only accounts that may delete Secrets do it, or the Secret has another controller. Edit its metadata.ownerReferences by hand"
	case longRequest(o.Resource):
		return "a request was ignored, because its value is longer than 64 characters: use a timestamp"
	}
	return ""
}

// conditions returns those of the status, with the transition times kept where nothing changed.
func conditions(o Observation, d refresh.Decision, told *v1alpha1.RefreshError) []metav1.Condition {
	s := summarize(o, d.Verdict, told)
	c := conditionSet{list: slices.Clone(o.Resource.Status.Conditions), generation: o.Resource.Generation, now: o.Now}
	c.set(v1alpha1.ConditionReady, s.ready, s.reason, s.message)
	for _, kind := range [...]string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		c.setIf(s.progress == kind, kind, s.reason, s.message)
	}
	c.setIf(s.failing != "", v1alpha1.ConditionRefreshFailing, s.failing, s.failingMessage)
	reason, message := deliveryProblem(o)
	c.setIf(reason != "", v1alpha1.ConditionDeliveryDegraded, reason, message)
	return c.sorted()
}

// deliveryProblem returns why pods are not told of a token; "" when they are, or when nobody asked for it.
func deliveryProblem(o Observation) (reason, message string) {
	const until = "; until then pods get a new token the usual way, within about 90 s"
	switch d := o.Delivery; {
	case !d.Wanted:
		return "", ""
	case d.Disabled:
		return v1alpha1.ReasonPromptDeliveryDisabled, "the operator runs without prompt delivery: set promptDelivery.enabled of the chart, " +
			"or add the component config/prompt-delivery, or set spec.target.delivery to Kubelet" + until
	case d.Known && d.Reason != "":
		return d.Reason, d.Message + until
	case d.Known:
		return "", ""
	}
	// A fresh process, or a fresh token, has not found out yet.
	c := apimeta.FindStatusCondition(o.Resource.Status.Conditions, v1alpha1.ConditionDeliveryDegraded)
	if c == nil || c.Reason == v1alpha1.ReasonPromptDeliveryDisabled || Delivered(o.Resource.Status.Delivery, o.DeliveredFingerprint()) {
		return "", ""
	}
	return c.Reason, c.Message
}

// Delivered reports whether a status says that all pods were told of what has this DeliveredFingerprint.
func Delivered(s *v1alpha1.DeliveryStatus, fingerprint string) bool {
	return s != nil && s.Fingerprint == fingerprint && s.Reached >= s.Pods
}

// conditionSet changes conditions and keeps the transition times of those that stay.
type conditionSet struct {
	list       []metav1.Condition
	generation int64
	now        time.Time
}

func (c *conditionSet) set(kind string, holds bool, reason, message string) {
	status := metav1.ConditionFalse
	if holds {
		status = metav1.ConditionTrue
	}
	apimeta.SetStatusCondition(&c.list, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: truncate(message, maxMessage),
		ObservedGeneration: c.generation, LastTransitionTime: wholeSeconds(c.now),
	})
}

// setIf sets a condition that is present only while it holds.
func (c *conditionSet) setIf(holds bool, kind, reason, message string) {
	if holds {
		c.set(kind, true, reason, message)
	} else {
		apimeta.RemoveStatusCondition(&c.list, kind)
	}
}

func (c *conditionSet) isTrue(kind string) bool { return apimeta.IsStatusConditionTrue(c.list, kind) }

func (c *conditionSet) sorted() []metav1.Condition {
	slices.SortFunc(c.list, func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
	return c.list
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n-3] + "..."
}
