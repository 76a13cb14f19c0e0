// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"slices"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// WeChat does not say how old a ticket is, nor when the next one takes its place. So a ticket is polled, and a changed value is a new one.
const (
	// ticketPoll is the time between two polls of a ticket whose age is not known, or that has lived for half of its life.
	ticketPoll = token.TicketLife / 8
	// ticketGrace is how long a ticket counts as valid after WeChat returned it, when its life ought to be over.
	ticketGrace = token.TicketLife / 4
	// ticketAhead is how long before its time a ticket is fetched together with a new token, so that one update writes both.
	ticketAhead = 2 * time.Minute
	// ticketRest is how long a member of an account keeps a new ticket although WeChat has returned another one to another member. If WeChat
	// returned another one at each call, the members would else call in turn without an end. A ticket works for five minutes after the next
	// one, and a volume takes 90 s to follow, so a member that rests must be done within 210 s.
	ticketRest = 3 * time.Minute
	// ticketLeast is the least time between two polls, if WeChat says that a ticket lives for a moment only, and ticketSlack how long after
	// the end that WeChat named the next ticket is asked for: WeChat counts whole seconds.
	ticketLeast = time.Minute
	ticketSlack = 2 * time.Second
)

// Ticket describes a ticket that the spec asks for, without its value.
type Ticket struct {
	Type v1alpha1.TicketType
	// Fingerprint of the ticket in the Secret; empty for none.
	Fingerprint string
	// FirstAt is when WeChat was first seen to return it, and ExpiresAt until when it is taken to be valid.
	FirstAt, ExpiresAt time.Time
	// Sight is what WeChat told this process about the account's ticket.
	Sight TicketSight
	// Failure is what the last call for the account's ticket ended with; nil when it worked. Message says so in words.
	Failure *Failure
	Message string
	// Told reports that the status tells of a problem of the ticket, and that WeChat has not returned it to this process yet.
	Told bool
}

// TicketSight is what is known of the ticket that WeChat returned last.
type TicketSight struct {
	// Fingerprint of the ticket; empty if none was seen.
	Fingerprint string
	// FirstAt and LastAt are when it was first and last returned. LastAt is zero if that was before this process started.
	FirstAt, LastAt time.Time
	// ExpiresAt is until when it is taken to be valid, in whole seconds; zero if LastAt is.
	ExpiresAt time.Time
	// ChangeSeen reports that it took the place of another one between two polls, so that its life began before FirstAt
	// by at most the time of a poll.
	ChangeSeen bool
	// Doubted reports that the token it was derived from was replaced on request, which may have ended the ticket as well.
	Doubted bool
}

// Next returns what is known after WeChat returned a ticket. It is taken to be valid for its life since it was first seen, and longer
// while WeChat goes on returning it, but not for longer than expiresIn, which is what the answer says.
func (s TicketSight) Next(fingerprint string, at time.Time, expiresIn time.Duration) TicketSight {
	next := TicketSight{Fingerprint: fingerprint, FirstAt: at, LastAt: at}
	if fingerprint == s.Fingerprint {
		next.FirstAt, next.ChangeSeen = s.FirstAt, s.ChangeSeen
	} else {
		next.ChangeSeen = s.Fingerprint != "" && !s.LastAt.IsZero() && at.Sub(s.LastAt) <= ticketPoll+ticketAhead
	}
	expiresAt := Later(next.FirstAt.Add(token.TicketLife), at.Add(ticketGrace))
	next.ExpiresAt = Earlier(expiresAt, at.Add(expiresIn)).Truncate(time.Second)
	return next
}

// Outdates reports whether the expiry of a ticket in a Secret is worth a write. Readers have no use for more precision.
func (s TicketSight) Outdates(t Ticket) bool {
	return s.Fingerprint == t.Fingerprint && !s.LastAt.IsZero() && s.ExpiresAt.Sub(t.ExpiresAt).Abs() > ExpirySlack
}

// validAt reports whether the Secret holds the ticket, and it is taken to be valid.
func (t Ticket) validAt(now time.Time) bool { return t.Fingerprint != "" && now.Before(t.ExpiresAt) }

// ticketDueAt returns when WeChat is to be asked for a ticket; zero for at once.
func ticketDueAt(t Ticket, in Inputs, now time.Time) time.Time {
	s := t.Sight
	switch {
	case t.bound(now):
		return t.Failure.RetryAt
	case t.Told, t.Fingerprint != "" && s.LastAt.IsZero() && !s.Doubted:
		first := in
		first.Token.CheckedAt = time.Time{} // another member's check of the token says nothing about the ticket
		return CheckAt(first)
	case t.Fingerprint == "", s.Doubted, s.Outdates(t):
		return in.Target.RepairNotBefore // somebody may have removed it, again and again
	case t.Fingerprint != s.Fingerprint:
		return EarliestNext(t.FirstAt, ticketRest, now)
	case IsInFuture(s.LastAt, now):
		return time.Time{}
	}
	next := s.LastAt.Add(ticketPoll)
	if s.ChangeSeen {
		next = Later(next, s.FirstAt.Add(token.TicketLife/2))
	}
	return Earlier(next, Later(s.ExpiresAt.Add(ticketSlack), s.LastAt.Add(ticketLeast)))
}

// bound reports whether the last call for the ticket failed, and its back-off holds.
func (t Ticket) bound(now time.Time) bool {
	return t.Failure.binds(now)
}

// ticketsFor returns the tickets that a step fetches.
func (p *plan) ticketsFor(d Decision) []v1alpha1.TicketType {
	by := p.now
	switch d.Action {
	case Wait, Write, Decline, Revoke, Force:
		return nil
	case Issue:
		if p.in.Traits.EndsOlder {
			return nil // a mint must not wait for anything before it is written
		}
		by = by.Add(ticketAhead)
	case Check, FetchTickets:
	}
	var due []v1alpha1.TicketType
	for _, t := range p.in.Tickets {
		asked := d.Request == RequestCheck && (!t.bound(p.now) || t.Failure.Named == 0)
		if asked || !ticketDueAt(t, p.in, p.now).After(by) {
			due = append(due, t.Type)
		}
	}
	return due
}

// ticketsAt returns when the first ticket is due; zero without one. Without a valid token none can be fetched.
func (p *plan) ticketsAt() (at time.Time, wanted bool) {
	if !p.stored() || p.expired() || p.in.Target.Tampered || p.in.Target.AppIDChanged {
		return time.Time{}, false
	}
	for i, t := range p.in.Tickets {
		if due := ticketDueAt(t, p.in, p.now); i == 0 || due.Before(at) {
			at = due
		}
	}
	return at, len(p.in.Tickets) > 0
}

// ticketDue reports whether a ticket is to be fetched. Where the token comes with a call, that call's back-off holds for the ticket too.
func (p *plan) ticketDue() bool {
	at, wanted := p.ticketsAt()
	return wanted && !p.in.TicketUnwritten && !p.now.Before(at) && (p.in.Traits.EndsOlder || !p.backingOff())
}

// TicketProblem is what keeps a ticket from being valid or from being renewed.
type TicketProblem struct {
	// Type of the ticket; empty for no problem.
	Type v1alpha1.TicketType
	// Failed reports that the reason is the failure of the last call. Otherwise the ticket was never written, or it has expired.
	Failed, Expired bool
	// Told reports that the status says it already, and that this process has not found out yet.
	Told bool
	// Class of the failure; empty without one.
	Class token.Class
}

// ticketVerdict returns the first problem of a ticket that is not valid, and the first failure that is to be told.
func (p *plan) ticketVerdict() (invalid, failing TicketProblem) {
	for _, t := range p.in.Tickets {
		problem := TicketProblem{Type: t.Type, Expired: t.Fingerprint != "", Told: t.Told}
		if f := t.Failure; f != nil && ticketReportable(f, p.now) {
			problem.Failed, problem.Class = true, f.Class
			if failing.Type == "" {
				failing = problem
			}
		}
		if invalid.Type == "" && !t.validAt(p.now) {
			invalid = problem
		}
	}
	return invalid, failing
}

// TicketFailedBefore reports whether a ticket that a check asks for was last asked for in vain, before a time.
func (in Inputs) TicketFailedBefore(at time.Time) bool {
	return slices.ContainsFunc(in.Tickets, func(t Ticket) bool {
		return t.Failure != nil && t.Failure.Named == 0 && t.Failure.Time.Before(at)
	})
}

// ticketReportable reports whether a status may tell the failure of a ticket.
func ticketReportable(f *Failure, now time.Time) bool {
	return f.Class != token.Transient || now.Sub(f.First) >= ReportAfter
}

// ticketsExpireAt returns when the next ticket that is valid now is taken to expire; zero for none.
func (p *plan) ticketsExpireAt() time.Time {
	var at time.Time
	for _, t := range p.in.Tickets {
		if t.validAt(p.now) {
			at = earliest(at, t.ExpiresAt)
		}
	}
	return at
}

// Ticket returns what is known of a ticket of the spec; the zero value if the spec does not ask for it.
func (in Inputs) Ticket(kind v1alpha1.TicketType) Ticket {
	i := slices.IndexFunc(in.Tickets, func(t Ticket) bool { return t.Type == kind })
	if i < 0 {
		return Ticket{}
	}
	return in.Tickets[i]
}
