// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const (
	jsapi  = v1alpha1.TicketJSAPI
	wxCard = v1alpha1.TicketWXCard
	sdk    = v1alpha1.TicketSDK
)

// ticket calls with a new token, so that the moved clock does not matter for the token.
func (f *fixture) ticket(id string, kind v1alpha1.TicketType) answer {
	f.t.Helper()
	return f.must(http.MethodGet, "/cgi-bin/ticket/getticket?type="+string(kind)+"&access_token="+f.stable(id).Token, "")
}

// wantTicket checks what a call returns, by the expires_in that WeChat always gives.
func (f *fixture) wantTicket(what string, a answer) string {
	f.t.Helper()
	f.wantCode(what, a, 0)
	if a.ExpiresIn != 7200 || a.Errmsg != "ok" {
		f.t.Errorf("%s: %s, want an expires_in of 7200", what, a.body)
	}
	return a.Ticket
}

// wantValid checks whether a ticket is valid, by the ledger and by a signature.
func (f *fixture) wantValid(what, ticket string, want bool) {
	f.t.Helper()
	if got := f.TicketValid(ticket); got != want {
		f.t.Errorf("%s: TicketValid is %t, want %t", what, got, want)
	}
	if got := f.TicketValidAt(ticket, f.Now()); got != want {
		f.t.Errorf("%s: TicketValidAt is %t, want %t", what, got, want)
	}
	if got := f.SignatureValid(appID, "n", "1", "https://a.example/", sign(ticket, "n", "1", "https://a.example/")); got != want {
		f.t.Errorf("%s: a signature is valid: %t, want %t", what, got, want)
	}
}

// TestTicketModels has what becomes of a ticket for each way of changing it and each life of an old one. All tickets are called for when
// they are an hour old, just before they change, and after that.
func TestTicketModels(t *testing.T) {
	for change, late := range map[TicketChange]time.Duration{
		"":           time.Hour, // with a call the old ticket counts as replaced from the call on
		ChangeByCall: time.Hour,
		ChangeByTime: 0, // with time it was replaced an hour before
	} {
		for overlap, lives := range map[time.Duration]time.Duration{0: 5 * time.Minute, NoOverlap: 0, 3 * time.Hour: 3 * time.Hour} {
			t.Run(fmt.Sprintf("by %s, %v", change, lives), func(t *testing.T) {
				f := newFixture(t, Options{})
				f.SetApp(App{ID: appID, Secret: secret, Tickets: TicketRules{Change: change, Overlap: overlap}})
				first := f.wantTicket("first call", f.ticket(appID, jsapi))
				f.Advance(time.Hour)
				if f.wantTicket("an hour later", f.ticket(appID, jsapi)) != first {
					t.Error("the ticket changed after an hour")
				}
				f.Advance(time.Hour - time.Nanosecond)
				if f.wantTicket("just before its age", f.ticket(appID, jsapi)) != first {
					t.Error("the ticket changed before its age")
				}
				f.wantValid("the ticket before its age", first, true)

				// Nobody calls for an hour after the age is reached.
				f.Advance(time.Nanosecond)
				f.wantValid("the ticket at its age", first, late > 0 || lives > 0)
				f.Advance(time.Hour)
				f.wantValid("the ticket an hour later, without a call", first, late > 0 || lives > time.Hour)
				second := f.wantTicket("the next call", f.ticket(appID, jsapi))
				if second == first {
					t.Fatal("the ticket did not change")
				}
				f.wantValid("the new ticket", second, true)
				issued := f.Tickets(appID, jsapi)
				replaced := epoch.Add(2*time.Hour + late)
				if len(issued) != 2 || issued[0].Ticket != first || issued[1].Ticket != second {
					t.Fatalf("the ledger is %+v", issued)
				}
				if i := issued[0]; i.AppID != appID || i.Type != jsapi || !i.IssuedAt.Equal(epoch) || !i.ReplacedAt.Equal(replaced) || !i.DeadAt.Equal(replaced.Add(lives)) {
					t.Errorf("the first ticket is %+v, want it replaced at %v and dead %v later", i, replaced, lives)
				}
				if i := issued[1]; !i.IssuedAt.Equal(replaced) || i.ReplacedAt.IsZero() != (late > 0) {
					t.Errorf("the second ticket is %+v, want it issued at %v", i, replaced)
				}
				for at, want := range map[time.Time]bool{
					epoch.Add(-1): false, epoch: true, replaced.Add(-1): true, replaced.Add(lives - 1): true, replaced.Add(lives): false,
				} {
					if got := f.TicketValidAt(first, at); got != want {
						t.Errorf("at %v the first ticket is valid: %t, want %t", at, got, want)
					}
				}
				f.Advance(replaced.Add(lives).Sub(f.Now()))
				f.wantValid("the old ticket after its overlap", first, false)
			})
		}
	}
}

// With ChangeByTime the times of change do not depend on calls, however long nobody calls.
func TestTicketByTimeAfterAPause(t *testing.T) {
	f := newFixture(t, Options{})
	f.SetApp(App{ID: appID, Secret: secret, Tickets: TicketRules{Change: ChangeByTime, Age: time.Hour, Overlap: NoOverlap}})
	first := f.wantTicket("first call", f.ticket(appID, jsapi))
	f.Advance(5*time.Hour + 59*time.Minute)
	second := f.wantTicket("after a pause", f.ticket(appID, jsapi))
	f.Advance(time.Minute)
	third := f.wantTicket("a minute later", f.ticket(appID, jsapi))
	if first == second || second == third {
		t.Error("the ticket did not change")
	}
	issued := f.Tickets(appID, jsapi)
	if len(issued) != 3 || !issued[1].IssuedAt.Equal(epoch.Add(5*time.Hour)) || !issued[2].IssuedAt.Equal(epoch.Add(6*time.Hour)) {
		t.Errorf("the ledger is %+v", issued)
	}
	f.wantValid("the first ticket", first, false)
	f.wantValid("the second ticket", second, false)
	f.wantValid("the third ticket", third, true)
}

// A ticket that a rival's call made WeChat issue is old when it is first seen, and its answer does not say so.
func TestRivalTicket(t *testing.T) {
	for _, change := range []TicketChange{ChangeByCall, ChangeByTime} {
		t.Run(string(change), func(t *testing.T) {
			f := newFixture(t, Options{})
			f.SetApp(App{ID: appID, Secret: secret, Tickets: TicketRules{Change: change, DailyQuota: 6}})
			rival := f.RivalTicket(appID, jsapi, 7100*time.Second)
			if !rival.IssuedAt.Equal(epoch.Add(-7100*time.Second)) || rival.ReplacedAt.IsZero() != (change == ChangeByCall) {
				t.Errorf("the rival's ticket is %+v", rival)
			}
			if got := f.wantTicket("our first call", f.ticket(appID, jsapi)); got != rival.Ticket {
				t.Errorf("our first call got %q, want the rival's %q", got, rival.Ticket)
			}
			f.Advance(99 * time.Second)
			if f.wantTicket("99 s later", f.ticket(appID, jsapi)) != rival.Ticket {
				t.Error("the ticket changed too early")
			}
			f.Advance(time.Second)
			ours := f.wantTicket("100 s later", f.ticket(appID, jsapi))
			if ours == rival.Ticket {
				t.Error("the ticket did not change at its age")
			}
			// The present ticket is the one whose age is set.
			if again := f.RivalTicket(appID, jsapi, 2*time.Hour); again.Ticket != ours {
				t.Errorf("the rival has %q, want %q", again.Ticket, ours)
			}
			if f.wantTicket("after that", f.ticket(appID, jsapi)) == ours {
				t.Error("a ticket of 7,200 s did not change")
			}
			f.wantCode("the rival's calls count", f.ticket(appID, jsapi), codeDailyQuota)
			_ = f.RivalTicket(appID, sdk, 0) // never refused
			if got := len(f.Tickets(appID, sdk)); got != 1 {
				t.Errorf("%d tickets for OpenSDK, want 1", got)
			}
		})
	}
}

// The tickets of each type and account change independently of each other.
func TestTicketTypes(t *testing.T) {
	f := newFixture(t, Options{})
	seen := map[string]bool{}
	for _, id := range []string{appID, other} {
		for _, kind := range v1alpha1.TicketTypes() {
			seen[f.wantTicket(string(kind), f.ticket(id, kind))] = true
			f.Advance(time.Minute)
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d different tickets, want 6", len(seen))
	}
	f.Advance(epoch.Add(2*time.Hour + 30*time.Second).Sub(f.Now())) // the first is due, the second has half a minute
	for kind, want := range map[v1alpha1.TicketType]int{jsapi: 2, wxCard: 1, sdk: 1} {
		f.wantTicket(string(kind), f.ticket(appID, kind))
		if got := len(f.Tickets(appID, kind)); got != want {
			t.Errorf("%d tickets of type %s, want %d", got, kind, want)
		}
	}
	if f.Tickets("unknown", jsapi) != nil || f.TicketValid("") || f.TicketValid("x") {
		t.Error("there are tickets that were never issued")
	}
}

// A clock that is set back to before the issue makes the next call issue another ticket, as it does for a token.
func TestTicketBeforeItsIssue(t *testing.T) {
	for _, change := range []TicketChange{ChangeByCall, ChangeByTime} {
		f := newFixture(t, Options{})
		f.SetApp(App{ID: appID, Secret: secret, Tickets: TicketRules{Change: change}})
		first := f.wantTicket("first call", f.ticket(appID, jsapi))
		f.Advance(-time.Second)
		f.wantValid("the ticket before its issue", first, false)
		second := f.wantTicket("a call before that", f.ticket(appID, jsapi))
		if second == first {
			t.Errorf("%s: the ticket is the same", change)
		}
		f.wantValid("the new ticket", second, true)
	}
}
