// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// ticketModel is the rules of tickets once more, as a history of what calls returned.
type ticketModel struct {
	byTime       bool
	age, overlap time.Duration
	history      []heldTicket
}

// heldTicket is a ticket that a call returned.
type heldTicket struct {
	ticket string
	issued time.Time
	// replaced is when another one was issued by a call. It is zero until then.
	replaced time.Time
}

// end returns when the i-th ticket stops being valid, and false if that is not known yet.
func (m *ticketModel) end(i int) (time.Time, bool) {
	t := m.history[i]
	if m.byTime {
		return t.issued.Add(m.age + m.overlap), true
	}
	return t.replaced.Add(m.overlap), !t.replaced.IsZero()
}

func (m *ticketModel) validAt(i int, at time.Time) bool {
	end, known := m.end(i)
	return !at.Before(m.history[i].issued) && (!known || at.Before(end))
}

// call makes a call, or a rival's with a ticket of the given age, and compares what it returns.
func (m *ticketModel) call(f *fixture, rival bool, age time.Duration) error {
	now, n := f.Now(), len(m.history)
	var got string
	if rival {
		got = f.RivalTicket(appID, jsapi, age).Ticket
	} else {
		got = f.ticket(appID, jsapi).Ticket
	}
	switch {
	case n == 0:
		m.history = append(m.history, heldTicket{ticket: got, issued: now})
	case now.Sub(m.history[n-1].issued) < m.age:
		if got != m.history[n-1].ticket {
			return fmt.Errorf("a call did not return the present ticket, number %d", n-1)
		}
	default:
		last := &m.history[n-1]
		if got == last.ticket {
			return fmt.Errorf("ticket %d did not change at an age of %v", n-1, now.Sub(last.issued))
		}
		last.replaced = now
		issued := now
		if m.byTime { // the last of the times of change that is not after now
			for issued = last.issued; !issued.Add(m.age).After(now); {
				issued = issued.Add(m.age)
			}
		}
		m.history = append(m.history, heldTicket{ticket: got, issued: issued})
	}
	if rival {
		m.history[len(m.history)-1].issued = now.Add(-age)
	}
	return nil
}

// check compares what is valid, now and at other times.
func (m *ticketModel) check(f *fixture, random *rand.Rand) error {
	now := f.Now()
	if got := len(f.Tickets(appID, jsapi)); got != len(m.history) {
		return fmt.Errorf("%d tickets were issued, the model has %d", got, len(m.history))
	}
	for i, t := range m.history {
		times := []time.Time{now, t.issued.Add(-1), t.issued, now.Add(time.Duration(random.Int64N(int64(4*m.age))) - 2*m.age)}
		if end, known := m.end(i); known {
			times = append(times, end.Add(-1), end)
		}
		for _, at := range times {
			if want, got := m.validAt(i, at), f.TicketValidAt(t.ticket, at); got != want {
				return fmt.Errorf("ticket %d at %v: valid is %t, want %t", i, at, got, want)
			}
		}
		want := m.validAt(i, now)
		if f.TicketValid(t.ticket) != want || f.SignatureValid(appID, "n", "1", "u", sign(t.ticket, "n", "1", "u")) != want {
			return fmt.Errorf("ticket %d now: valid is %t, want %t", i, !want, want)
		}
	}
	return nil
}

func TestTicketsAgainstModel(t *testing.T) {
	for seed := range uint64(18) {
		m := &ticketModel{
			byTime:  seed%2 == 0,
			age:     []time.Duration{2 * time.Hour, 10 * time.Minute, 7 * time.Second}[seed%3],
			overlap: []time.Duration{0, 5 * time.Minute, 3 * time.Hour}[seed/6],
		}
		t.Run(fmt.Sprintf("%+v", *m), func(t *testing.T) {
			rules := TicketRules{Change: ChangeByCall, Age: m.age, Overlap: m.overlap}
			if m.byTime {
				rules.Change = ChangeByTime
			}
			if m.overlap == 0 {
				rules.Overlap = NoOverlap
			}
			f := newFixture(t, Options{})
			f.SetApp(App{ID: appID, Secret: secret, Tickets: rules})
			random := rand.New(rand.NewPCG(seed, 2))
			for n := range 60 {
				// Waits often within the age of a ticket, and sometimes for several.
				most := []time.Duration{m.age / 4, m.age, 4 * m.age}[random.IntN(3)]
				f.Advance(time.Duration(random.Int64N(int64(most))))
				// A rival's ticket is sometimes too old, and so changes with the next call.
				rival, age := random.IntN(8) == 0, time.Duration(random.Int64N(int64(m.age*5/4)))
				if err := m.call(f, rival, age); err != nil {
					t.Fatalf("step %d: %v", n, err)
				}
				if err := m.check(f, random); err != nil {
					t.Fatalf("after step %d: %v", n, err)
				}
			}
			if len(m.history) < 10 {
				t.Errorf("only %d tickets were issued", len(m.history))
			}
		})
	}
}
