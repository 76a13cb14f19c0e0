// SPDX-License-Identifier: Apache-2.0

package target

import (
	"slices"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Ticket describes a ticket that a target Secret holds, without its value. Its times have whole seconds.
type Ticket struct {
	Type v1alpha1.TicketType
	// Key of the data; empty if only a status speaks of the ticket.
	Key         string
	Fingerprint string
	// FirstAt is when WeChat was first seen to return it, and ExpiresAt until when it is taken to be valid.
	FirstAt, ExpiresAt time.Time
}

// TicketContent is the data of a target Secret for a ticket.
type TicketContent struct {
	Key, ExpiresAtKey string
	// Value is zero if the Secret keeps the ticket that it has.
	Value     token.Value
	ExpiresAt time.Time
}

// holdsTicket reports whether the data under the keys of a ticket is what the operator writes for it.
func (s Snapshot) holdsTicket(spec v1alpha1.TicketSpec, t Ticket) bool {
	return s.Token(spec.KeyName()).Fingerprint() == t.Fingerprint && string(s.data[spec.ExpiresAtKeyName()]) == FormatTime(t.ExpiresAt)
}

// Types returns the types of tickets.
func Types(tickets []Ticket) []v1alpha1.TicketType {
	types := make([]v1alpha1.TicketType, 0, len(tickets))
	for _, t := range tickets {
		types = append(types, t.Type)
	}
	return types
}

// HeldTickets returns the tickets of the spec that the Secret holds, in the order of the spec. The status is proof where this process has
// not looked at the data itself; the record tells under which keys they are.
func (k Knowledge) HeldTickets(specs []v1alpha1.TicketSpec, status []v1alpha1.TicketStatus, r Record) []Ticket {
	if len(specs) == 0 {
		return nil
	}
	known := k.Tickets
	if known == nil {
		known = AttestedTickets(status)
	}
	var held []Ticket
	for _, spec := range specs {
		i := slices.IndexFunc(known, func(t Ticket) bool { return t.Type == spec.Type })
		if i < 0 {
			continue
		}
		t := known[i]
		if t.Key == "" {
			t.Key = r.Applied.Tickets[spec.Type]
		}
		if t.Key == spec.KeyName() {
			held = append(held, t)
		}
	}
	return held
}

// JudgedTickets returns the state after the Secret was read: of the tickets that are known, those remain that the data holds.
func (k Knowledge) JudgedTickets(s Snapshot, specs []v1alpha1.TicketSpec, status []v1alpha1.TicketStatus) Knowledge {
	known := slices.Concat(k.Tickets, AttestedTickets(status)) // another process of this operator may have written it
	held := []Ticket{}
	for _, spec := range specs {
		i := slices.IndexFunc(known, func(t Ticket) bool { return t.Type == spec.Type && s.holdsTicket(spec, t) })
		if i >= 0 {
			t := known[i]
			t.Key = spec.KeyName()
			held = append(held, t)
		}
	}
	k.Tickets = held
	return k
}

// HoldsTickets returns the state after this process wrote the Secret with these tickets in it.
func (k Knowledge) HoldsTickets(held []Ticket) Knowledge {
	k.Tickets = held
	return k
}

// AttestedTickets returns the tickets that a status speaks of.
func AttestedTickets(status []v1alpha1.TicketStatus) []Ticket {
	out := make([]Ticket, 0, len(status))
	for _, t := range status {
		out = append(out, Ticket{Type: t.Type, Fingerprint: t.Fingerprint, FirstAt: t.IssueTime.UTC(), ExpiresAt: t.ExpirationTime.UTC()})
	}
	return out
}

// appliedTickets returns the keys of the tickets that the spec asks for, as far as the Secret has them or is about to get them.
func appliedTickets(
	specs []v1alpha1.TicketSpec, previous map[v1alpha1.TicketType]string, held []v1alpha1.TicketType,
) map[v1alpha1.TicketType]string {
	var out map[v1alpha1.TicketType]string
	for _, spec := range specs {
		if key := spec.KeyName(); previous[spec.Type] == key || slices.Contains(held, spec.Type) {
			if out == nil {
				out = map[v1alpha1.TicketType]string{}
			}
			out[spec.Type] = key
		}
	}
	return out
}

// droppedKeys returns the keys of the data that held tickets before and are not used any more. The list of what was applied before is read
// from an annotation that others may edit: it must not remove what is in use.
func droppedKeys(accessTokenKey string, before, applied map[v1alpha1.TicketType]string) []string {
	inUse := map[string]bool{accessTokenKey: true, v1alpha1.ExpiresAtKey: true, v1alpha1.AppIDKey: true}
	for kind, key := range applied {
		for _, k := range keysOf(kind, key) {
			inUse[k] = true
		}
	}
	var dropped []string
	for _, kind := range v1alpha1.TicketTypes() {
		if before[kind] == "" {
			continue
		}
		for _, key := range keysOf(kind, before[kind]) {
			if !inUse[key] {
				dropped = append(dropped, key)
			}
		}
	}
	return dropped
}

// keysOf returns the keys of the data for a ticket.
func keysOf(kind v1alpha1.TicketType, key string) []string {
	spec := v1alpha1.TicketSpec{Type: kind, Key: key}
	return []string{spec.KeyName(), spec.ExpiresAtKeyName()}
}
