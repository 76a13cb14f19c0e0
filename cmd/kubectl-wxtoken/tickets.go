// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// ticketOf returns the type of the ticket that a condition is about. It returns an empty type if there is no condition, or if it is about
// the token.
func ticketOf(c *metav1.Condition) v1alpha1.TicketType {
	if c == nil {
		return ""
	}
	return v1alpha1.TicketOf(c.Message)
}

// lacking returns the type of the ticket for want of which the resource is not ready, although its token is valid. It returns an empty type
// if that is not so.
func (l look) lacking() v1alpha1.TicketType {
	if l.isReady() {
		return ""
	}
	return ticketOf(l.ready)
}

// tokenValid reports whether the status says that the token is valid, with or without all tickets.
func (l look) tokenValid() bool { return l.isReady() || l.lacking() != "" }

// tokenFailing returns the condition RefreshFailing if it is about the token, and nil if it is about a ticket.
func (l look) tokenFailing() *metav1.Condition {
	if ticketOf(l.failing) != "" {
		return nil
	}
	return l.failing
}

// ticket is a ticket that the spec asks for. status is nil if it was not issued.
type ticket struct {
	v1alpha1.TicketSpec

	status *v1alpha1.TicketStatus
}

// tickets returns the tickets that the spec asks for, in its order.
func (l look) tickets() []ticket {
	out := make([]ticket, 0, len(l.Spec.Tickets))
	for _, spec := range l.Spec.Tickets {
		t := ticket{TicketSpec: spec}
		i := slices.IndexFunc(l.Status.Tickets, func(s v1alpha1.TicketStatus) bool { return s.Type == spec.Type })
		if i >= 0 {
			t.status = &l.Status.Tickets[i]
		}
		out = append(out, t)
	}
	return out
}

// ticketNames returns the types of the tickets that the spec asks for, separated by commas.
func (l look) ticketNames() string {
	names := make([]string, 0, len(l.Spec.Tickets))
	for _, t := range l.Spec.Tickets {
		names = append(names, string(t.Type))
	}
	return strings.Join(names, ", ")
}

// left returns the time until a ticket expires. It returns false if it was not issued.
func (t ticket) left(now time.Time) (time.Duration, bool) {
	if t.status == nil {
		return 0, false
	}
	return t.status.ExpirationTime.Sub(now), true
}

// short returns what the column TICKETS shows, such as "jsapi 1h47m30s".
func (t ticket) short(now time.Time) string {
	text := "-"
	switch left, has := t.left(now); {
	case has && left <= 0:
		text = "expired"
	case has:
		text = countdown(left)
	}
	return string(t.Type) + " " + text
}

// ticketsCell returns the cell of the column TICKETS.
func (l look) ticketsCell() cell {
	tickets := l.tickets()
	if len(tickets) == 0 {
		return cell{text: "-"}
	}
	texts := make([]string, 0, len(tickets))
	for _, t := range tickets {
		texts = append(texts, t.short(l.now))
	}
	return cell{text: strings.Join(texts, ", ")}
}

// ticketTable returns a table with a row for each ticket: type, key, until when it is valid and since when it is known, or why it is not
// there.
func (s *story) ticketTable() *table {
	t := &table{}
	for _, k := range s.tickets() {
		c := cell{}
		switch left, has := k.left(s.now); {
		case !has:
			c = cell{"not issued", red}
		case left <= 0:
			c = cell{fmt.Sprintf("expired %s, at %s", ago(k.status.ExpirationTime.Time, s.now), stamp(k.status.ExpirationTime.Time)), red}
		default:
			c.text = fmt.Sprintf("valid for %s, until %s; first seen %s", countdown(left), stamp(k.status.ExpirationTime.Time),
				ago(k.status.IssueTime.Time, s.now))
		}
		if reason := s.trouble(k.Type); reason != "" {
			c.text += "; cannot be fetched: " + reason
			if c.color == plain {
				c.color = yellow
			}
		}
		t.add(cell{string(k.Type), dim}, cell{text: "key " + k.KeyName()}, c)
	}
	return t
}

// trouble returns the reason for which a ticket cannot be fetched, or an empty string if the status names none.
func (l look) trouble(kind v1alpha1.TicketType) string {
	if ticketOf(l.failing) == kind {
		return l.failing.Reason
	}
	if l.lacking() == kind && l.ready.Reason != v1alpha1.ReasonTicketNotIssued && l.ready.Reason != v1alpha1.ReasonTicketExpired {
		return l.ready.Reason
	}
	return ""
}

// ticketMoments returns the lines of the timeline about tickets: what happened if past is true, and else what is expected.
func (s *story) ticketMoments(past bool) []moment {
	var out []moment
	for _, t := range s.tickets() {
		left, has := t.left(s.now)
		switch {
		case !has:
		case past:
			out = append(out, moment{at: t.status.IssueTime.Time, text: fmt.Sprintf("WeChat returned this %s ticket for the first time", t.Type),
				color: green, rank: -1})
			if left <= 0 {
				out = append(out, moment{at: t.status.ExpirationTime.Time, text: fmt.Sprintf("the %s ticket expired", t.Type), color: red, rank: -1})
			}
		case left > 0:
			out = append(out, moment{at: t.status.ExpirationTime.Time, rank: 2,
				text: fmt.Sprintf("the %s ticket expires, unless WeChat returns it again before", t.Type)})
		}
	}
	return out
}

// ticketAdvice returns what to do about the ticket that the status complains of, and about the token if that cannot be refreshed either.
func (s *story) ticketAdvice() []string {
	about := s.failing
	if ticketOf(about) == "" {
		about = s.ready
	}
	kind := ticketOf(about)
	message := clean(sentence(about.Message))
	text := "The token works, and what needs only the token works on. " + message
	for _, t := range s.tickets() {
		if left, has := t.left(s.now); t.Type == kind && has && left > 0 {
			text = fmt.Sprintf("The token works, and the %s ticket for another %s, but cannot be replaced: %s", kind, countdown(left), message)
		}
	}
	next := s.afterRepair(about.Reason)
	if about.Reason == v1alpha1.ReasonUnsupportedAccount {
		next = fmt.Sprintf("Take %s out of spec.tickets if this account has no such ticket; Mini Programs have none. "+
			"The operator acts on a change of the spec at once.", kind)
	}
	out := []string{text, next}
	if s.tokenFailing() != nil {
		out = append(out, s.failureAdvice()...)
	}
	return out
}

// ticketChanges returns the changes of tickets between two states of a resource that are worth a line.
func ticketChanges(before, after look) []happening {
	known := map[v1alpha1.TicketType]string{}
	for _, t := range before.Status.Tickets {
		known[t.Type] = t.Fingerprint
	}
	var out []happening
	for _, t := range after.Status.Tickets {
		switch was, has := known[t.Type]; {
		case !has:
			out = append(out, happening{text: fmt.Sprintf("%s ticket issued", t.Type), color: green})
		case was != t.Fingerprint:
			out = append(out, happening{text: fmt.Sprintf("%s ticket replaced", t.Type), color: green})
		}
	}
	return out
}
