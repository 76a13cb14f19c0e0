// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// ticketStatuses describes the tickets that the target holds.
func ticketStatuses(o Observation) []v1alpha1.TicketStatus {
	var out []v1alpha1.TicketStatus
	for _, t := range o.Tickets {
		if t.Fingerprint != "" {
			out = append(out, v1alpha1.TicketStatus{
				Type: t.Type, IssueTime: wholeSeconds(t.FirstAt), ExpirationTime: wholeSeconds(t.ExpiresAt), Fingerprint: t.Fingerprint,
			})
		}
	}
	return out
}

// HeldTickets returns the tickets of the spec that the target holds by what is known of it. Those of another appid are of no use.
func (o Observation) HeldTickets(k target.Knowledge) []target.Ticket {
	if o.Stored.Fingerprint == "" || o.Stored.AppID != o.Resource.Spec.AppID {
		return nil
	}
	return k.HeldTickets(o.Resource.Spec.Tickets, o.Resource.Status.Tickets, o.Record)
}

// TicketsAfterWrite returns the tickets that the target holds once the pending ones are written.
func (o Observation) TicketsAfterWrite(pending []PendingTicket) []target.Ticket {
	held := []target.Ticket{}
	for _, spec := range o.Resource.Spec.Tickets {
		t := target.Ticket{Type: spec.Type}
		if have := o.Ticket(spec.Type); have.Fingerprint != "" {
			t.Fingerprint, t.FirstAt, t.ExpiresAt = have.Fingerprint, have.FirstAt, have.ExpiresAt
		}
		if i := slices.IndexFunc(pending, func(p PendingTicket) bool { return p.Type == spec.Type }); i >= 0 {
			t = pending[i].Ticket
		}
		if t.Key = spec.KeyName(); t.Fingerprint != "" {
			held = append(held, t)
		}
	}
	return held
}

// TicketRefused returns the failure of a resource's tickets that the API server refuses to write.
func TicketRefused(resource *v1alpha1.WeChatAppToken, refusal string) account.TicketFailure {
	return account.TicketFailure{
		Failure: refresh.Failure{Class: token.Action, Reason: v1alpha1.ReasonTargetWriteFailed, OfWrite: true},
		Message: fmt.Sprintf("the API server refuses to write it into Secret %q: %s", resource.TargetName(), refusal),
		UID:     resource.UID, Generation: resource.Generation,
	}
}

// DeliveredFingerprint identifies what the target holds for the pods that are told of it: the token and the tickets.
func (o Observation) DeliveredFingerprint() string {
	tickets := make([]string, 0, len(o.Tickets))
	for _, t := range o.Tickets {
		tickets = append(tickets, t.Fingerprint)
	}
	return token.CombinedFingerprint(o.Stored.Fingerprint, tickets)
}

// validTickets says until when the tickets are valid; "" without any.
func validTickets(o Observation) string {
	var b strings.Builder
	for _, t := range o.Tickets {
		fmt.Fprintf(&b, ", and a %s ticket that is valid until %s", t.Type, target.FormatTime(t.ExpiresAt))
		if t.ExpiresAt.After(t.FirstAt.Add(token.TicketLife + time.Second)) {
			fmt.Fprintf(&b, " (WeChat has returned the same one since %s)", target.FormatTime(t.FirstAt))
		}
	}
	return b.String()
}

// withTicket finds the words for a resource whose token is valid while a ticket is not.
func (s summary) withTicket(o Observation, v refresh.Verdict) summary {
	p := v.Ticket
	t := o.Ticket(p.Type)
	s.ready, s.progress = false, v1alpha1.ConditionReconciling
	last := apimeta.FindStatusCondition(o.Resource.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case p.Told && !p.Failed && last != nil && last.Status == metav1.ConditionFalse && v1alpha1.TicketOf(last.Message) == p.Type:
		s.reason, s.message = last.Reason, last.Message
		if apimeta.IsStatusConditionTrue(o.Resource.Status.Conditions, v1alpha1.ConditionStalled) {
			s.progress = v1alpha1.ConditionStalled
		}
		return s
	case p.Failed:
		s.reason, s.message = ticketReason(t), v1alpha1.TicketPrefix(p.Type)+t.Message
		if p.Class == token.Action {
			s.progress = v1alpha1.ConditionStalled
		}
	case v.Failing == refresh.FailingCredentials, v.Failing == refresh.FailingAttempt && o.Failed != nil && !o.Traits.EndsOlder:
		// Each call for a ticket comes after one for the token. Metadata that is refused holds up neither.
		s.reason, s.message = s.failing, v1alpha1.TicketPrefix(p.Type)+"it is asked for after the token: "+s.failingMessage
		if needsSomebody(o, v) {
			s.progress = v1alpha1.ConditionStalled
		}
	case o.Target.Contested:
		s.reason, s.message = v1alpha1.ReasonTargetContested, v1alpha1.TicketPrefix(p.Type)+contested(o.Resource.TargetName())
	case p.Expired:
		s.reason = v1alpha1.ReasonTicketExpired
		s.message = v1alpha1.TicketPrefix(p.Type) + "WeChat has not been seen to return it for too long; the operator asks again by itself"
	default:
		s.reason = v1alpha1.ReasonTicketNotIssued
		s.message = fmt.Sprintf("%sSecret %q does not hold it yet", v1alpha1.TicketPrefix(p.Type), o.Resource.TargetName())
	}
	s.message += "; the token is valid until " + target.FormatTime(o.Stored.ExpiresAt)
	return s
}

// needsSomebody reports whether what keeps the token from being fetched does not pass by itself.
func needsSomebody(o Observation, v refresh.Verdict) bool {
	if v.Failing == refresh.FailingCredentials {
		return o.Credentials.Malformed
	}
	return v.Class == token.Action
}

// ticketFailing returns reason and message of the condition RefreshFailing for a ticket; "" for none.
func ticketFailing(o Observation, v refresh.Verdict) (reason, message string) {
	if p := v.TicketFailing; p.Type != "" {
		t := o.Ticket(p.Type)
		return ticketReason(t), v1alpha1.TicketPrefix(p.Type) + t.Message
	}
	last := apimeta.FindStatusCondition(o.Resource.Status.Conditions, v1alpha1.ConditionRefreshFailing)
	told := func(t refresh.Ticket) bool { return t.Told && v1alpha1.TicketOf(last.Message) == t.Type }
	if last != nil && slices.ContainsFunc(o.Tickets, told) {
		return last.Reason, last.Message
	}
	return "", ""
}

// ticketReason returns the reason of a condition for a failed call. That WeChat refused the token is the operator's business.
func ticketReason(t refresh.Ticket) string {
	if t.Failure.Reason == token.ReasonTokenRejected {
		return v1alpha1.ReasonTicketNotIssued
	}
	return string(t.Failure.Reason)
}

// TellsTicket reports whether a status tells of a problem of a ticket.
func TellsTicket(status v1alpha1.WeChatAppTokenStatus, kind v1alpha1.TicketType) bool {
	return slices.ContainsFunc(status.Conditions, func(c metav1.Condition) bool { return v1alpha1.TicketOf(c.Message) == kind })
}
