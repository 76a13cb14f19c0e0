// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// leastTicketLife is the least expires_in of a ticket in seconds. SDKs subtract up to 1500 s from it, and fail if nothing is left.
const leastTicketLife = 1501

// ticket answers the path of tickets from the store.
func (d decision) ticket() {
	client, f, ok := d.identify()
	if !ok {
		d.refuse(f)
		return
	}
	if !client.allows(pathTicket) {
		d.deny(pathRefusal())
		return
	}
	account, now := client.Account, d.call.Started
	name, ok := d.call.Target.only("type")
	kind := v1alpha1.TicketType(name)
	if !ok || !slices.Contains(account.TicketTypes, kind) {
		d.deny(refusal{codeNotAllowed, "ticket_type", "spec.tickets of the WeChatAppToken " + account.Name.String() +
			" does not list a ticket of this type: add it there."})
		return
	}
	ticket := account.Tickets[kind]
	if !ticket.valid(now) {
		d.refuse(refusal{codeBusy, "no_ticket", account.lacks(string(kind)+" ticket", ticket.Value, ticket.ExpiresAt)})
		return
	}
	d.answer(struct {
		Code      int    `json:"errcode"`
		Text      string `json:"errmsg"`
		Ticket    string `json:"ticket"`
		ExpiresIn int    `json:"expires_in"`
	}{0, "ok", ticket.Value.Reveal(), max(int(ticket.ExpiresAt.Sub(now)/time.Second), leastTicketLife)})
}

// valid reports whether the ticket is taken to be valid.
func (t Ticket) valid(now time.Time) bool { return !t.Value.IsZero() && isAlive(t.ExpiresAt, now) }
