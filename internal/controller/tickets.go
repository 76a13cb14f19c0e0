// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// observeTickets describes the tickets that the spec asks for, and drops fetched ones that it does not ask for any more.
func (p *observer) observeTickets(o *report.Observation) {
	held, acct := o.HeldTickets(p.state.target), p.state.membership.account
	for _, spec := range p.resource.Spec.Tickets {
		t := refresh.Ticket{Type: spec.Type}
		if i := slices.IndexFunc(held, func(h target.Ticket) bool { return h.Type == spec.Type }); i >= 0 {
			t.Fingerprint, t.FirstAt, t.ExpiresAt = held[i].Fingerprint, held[i].FirstAt, held[i].ExpiresAt
		}
		if acct != nil {
			known := acct.Tickets.Recall(spec.Type, t.Fingerprint, t.FirstAt)
			t.Sight = known.Sight
			if f := known.FailureFor(p.resource.UID, p.resource.Generation, o.Now); f != nil {
				failure := f.Failure
				failure.Binds = f.BindsFor(p.resource.UID, p.resource.Generation)
				t.Failure, t.Message = &failure, f.Message
			}
		}
		t.Told = t.Sight.LastAt.IsZero() && report.TellsTicket(p.resource.Status, spec.Type)
		o.Tickets = append(o.Tickets, t)
	}
	p.state.tickets = slices.DeleteFunc(p.state.tickets, func(t report.PendingTicket) bool {
		wanted := o.Ticket(t.Type)
		lost := t.Value.IsZero() && wanted.Fingerprint != t.Fingerprint // only its expiry was to be written
		return lost || wanted.Type == "" || t.AppID != p.resource.Spec.AppID || !o.Now.Before(t.ExpiresAt)
	})
	o.TicketUnwritten = len(p.state.tickets) > 0
}

// applyTickets changes the state of the resource by what a step came to for tickets.
func (p *pass) applyTickets(e report.TicketsEffect) {
	if acct := p.state.membership.account; acct != nil {
		acct.Tickets.Written(e.Written(p.state.tickets), p.state.uid)
	}
	p.state.tickets = e.Pending(p.state.tickets)
	if e.Failed {
		p.Recorder.RefreshFailed(refresh.TicketDue)
	}
}

// refusedTickets records that the API server refuses to write the tickets. The token does not suffer from that.
func (p *pass) refusedTickets(err error) report.TicketsEffect {
	f := report.TicketRefused(p.resource, target.RefusalMessage(err, target.AtTarget))
	for _, t := range p.state.tickets {
		if acct := p.state.membership.account; acct != nil {
			acct.Tickets.Failed(t.Type, f, p.WeChat.Now())
		}
	}
	return report.TicketsEffect{Failed: true, Refused: true}
}
