// SPDX-License-Identifier: Apache-2.0

package account

import (
	"cmp"
	"maps"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Ticket is what this process knows of one of the account's tickets. It has no value of a ticket.
type Ticket struct {
	Sight refresh.TicketSight
	// failures has what the last call ended with under the empty UID, and under that of a member what the last write of its Secret ended
	// with. Those that worked are not in it. The map is not changed any more.
	failures map[types.UID]*TicketFailure
}

// FailureFor returns what keeps the ticket from a member with a spec of this generation, nil for nothing: the failure of the account's last
// call, or the refusal of the member's own Secret. Of two it is the one whose back-off holds, or holds for longer.
func (t Ticket) FailureFor(member types.UID, generation int64, now time.Time) *TicketFailure {
	call, write := t.failures[""], t.failures[member]
	if call == nil || write == nil {
		return cmp.Or(call, write)
	}
	holds := func(f *TicketFailure) bool { return f.BindsFor(member, generation) && !refresh.IsInFuture(f.Time, now) }
	callHolds, writeHolds := holds(call), holds(write)
	if callHolds && !writeHolds || callHolds == writeHolds && call.RetryAt.After(write.RetryAt) {
		return call
	}
	return write
}

// BindsFor reports whether the back-off is one for a member with a spec of this generation: a change of the spec ends those that the
// member itself began.
func (f TicketFailure) BindsFor(member types.UID, generation int64) bool {
	return f.UID != member || f.Generation == generation
}

// with returns the ticket with another failure of a call, which has the empty UID, or of a member's write; nil for none.
func (t Ticket) with(of types.UID, f *TicketFailure) Ticket {
	if f == nil && t.failures[of] == nil {
		return t
	}
	t.failures = maps.Clone(t.failures)
	if f == nil {
		delete(t.failures, of)
		return t
	}
	if t.failures == nil {
		t.failures = map[types.UID]*TicketFailure{}
	}
	t.failures[of] = f
	return t
}

// TicketFailure is a call for a ticket that failed, with what a status says about it.
type TicketFailure struct {
	refresh.Failure

	Message, RequestID string
	// UID and Generation are those of the resource that asked. A change of its spec ends the back-off.
	UID        types.UID
	Generation int64
}

// after returns the failure in its place in a row of failures; previous is nil for the first one. While failures pass by themselves, the
// first reason and its words stand, because an outage shows itself in several ways. An unknown errcode is told apart, because from the
// third time in a row it does not pass by itself.
func (f TicketFailure) after(previous *TicketFailure, now time.Time) *TicketFailure {
	var last *refresh.Failure
	if previous != nil {
		last = &previous.Failure
		unknown := f.Reason == v1alpha1.ReasonRequestRejected || previous.Reason == v1alpha1.ReasonRequestRejected
		if f.Class == token.Transient && previous.Class == token.Transient && !unknown {
			f.Reason, f.Code, f.Message, f.RequestID = previous.Reason, previous.Code, previous.Message, previous.RequestID
		}
	}
	f.Failure = refresh.Next(last, f.Failure, now, string(f.UID))
	return &f
}

// Tickets is what this process knows of the tickets of an account. The zero value knows none.
type Tickets struct {
	mu     sync.Mutex
	byType map[v1alpha1.TicketType]Ticket
}

// Get returns what is known of a ticket.
func (t *Tickets) Get(kind v1alpha1.TicketType) Ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byType[kind]
}

// Recall returns what is known of a ticket. If that is nothing, it first records what the status of a member says: the fingerprint, empty
// for none, and when the ticket was first seen.
func (t *Tickets) Recall(kind v1alpha1.TicketType, fingerprint string, firstAt time.Time) Ticket {
	return t.change(kind, func(now Ticket) Ticket {
		if now.Sight.Fingerprint == "" && fingerprint != "" {
			now.Sight = refresh.TicketSight{Fingerprint: fingerprint, FirstAt: firstAt}
		}
		return now
	})
}

// Saw records a ticket that WeChat returned. It returns what is known of it now, and whether it
// is another one than before. An answer to an older call than the last one changes nothing.
func (t *Tickets) Saw(kind v1alpha1.TicketType, returned token.Ticket, now time.Time) (sight refresh.TicketSight, changed bool) {
	fingerprint, at := returned.Value.Fingerprint(), returned.ReturnedAt
	next := t.change(kind, func(known Ticket) Ticket {
		last := known.Sight
		if at.Before(last.LastAt) && !refresh.IsInFuture(last.LastAt, now) {
			return known
		}
		changed = last.Fingerprint != fingerprint
		known.Sight = last.Next(fingerprint, at, returned.ExpiresIn)
		return known.with("", nil)
	})
	return next.Sight, changed
}

// Written records that a resource wrote its tickets of these types.
func (t *Tickets) Written(kinds []v1alpha1.TicketType, by types.UID) {
	for _, kind := range kinds {
		t.change(kind, func(known Ticket) Ticket { return known.with(by, nil) })
	}
}

// Failed records a call or a member's write that failed, and returns it with its place in a row of failures.
func (t *Tickets) Failed(kind v1alpha1.TicketType, f TicketFailure, now time.Time) TicketFailure {
	of := types.UID("")
	if f.OfWrite {
		of = f.UID
	}
	next := t.change(kind, func(known Ticket) Ticket { return known.with(of, f.after(known.failures[of], now)) })
	return *next.failures[of]
}

// Doubt records that the account's token was replaced on request. WeChat does not say whether that ends the tickets too.
func (t *Tickets) Doubt() {
	for _, kind := range v1alpha1.TicketTypes() {
		t.change(kind, func(now Ticket) Ticket {
			now.Sight.Doubted = now.Sight.Fingerprint != ""
			return now
		})
	}
}

func (t *Tickets) change(kind v1alpha1.TicketType, to func(now Ticket) Ticket) Ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byType == nil {
		t.byType = map[v1alpha1.TicketType]Ticket{}
	}
	next := to(t.byType[kind])
	t.byType[kind] = next
	return next
}

// MergedTicket makes a call for a ticket, or waits for the one that another member makes.
func (a *Account) MergedTicket(kind v1alpha1.TicketType, call func() (token.Ticket, error)) (token.Ticket, error) {
	answer, err, _ := a.flights.Do(string(kind), func() (any, error) { return call() })
	ticket, _ := answer.(token.Ticket)
	return ticket, err
}
