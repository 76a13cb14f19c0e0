// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"fmt"
	"net/http"
	"slices"
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

func TestTicketRefusals(t *testing.T) {
	f := newFixture(t, Options{})
	path := func(token, kind string) string {
		return "/cgi-bin/ticket/getticket?access_token=" + token + "&type=" + kind
	}
	get := func(token, kind string) answer { return f.must(http.MethodGet, path(token, kind), "") }
	token := f.stable(appID).Token
	for _, kind := range []string{"", "JSAPI", "agent_config"} {
		f.wantCode("type "+kind, get(token, kind), codeInvalidArgs)
	}
	f.wantCode("no token", get("", "jsapi"), codeTokenMissing)
	f.wantCode("bad token", get("x", "jsapi"), codeInvalidToken)
	f.wantCode("POST", f.must(http.MethodPost, path(token, "jsapi"), ""), codeWantGET)
	f.force(appID)
	f.Advance(5 * time.Minute)
	f.wantCode("replaced token", get(token, "jsapi"), codeInvalidCredential)
	token = f.stable(appID).Token
	f.Advance(3 * time.Hour)
	f.wantCode("expired token", get(token, "jsapi"), codeTokenExpired)

	f.SetApp(App{ID: appID, Secret: secret, Tickets: TicketRules{Without: []v1alpha1.TicketType{wxCard}}})
	f.wantCode("a type that the account lacks", f.ticket(appID, wxCard), codeUnauthorized)
	f.wantCode("a type that it has", f.ticket(appID, jsapi), 0)
	f.SetApp(App{ID: appID, Secret: secret, Tickets: TicketRules{Without: v1alpha1.TicketTypes()}})
	for _, kind := range v1alpha1.TicketTypes() {
		f.wantCode("an account without tickets", f.ticket(appID, kind), codeUnauthorized)
	}
	if c := f.lastCall(); c.Endpoint != EndpointTicket || c.AppID != appID || c.Errcode != codeUnauthorized {
		t.Errorf("the last call is recorded as %+v", c)
	}
	if n := len(f.Tickets(appID, jsapi)) + len(f.Tickets(appID, wxCard)) + len(f.Tickets(appID, sdk)); n != 1 {
		t.Errorf("%d tickets were issued, want 1", n)
	}
}

func TestTicketQuota(t *testing.T) {
	f := newFixture(t, Options{})
	f.SetApp(App{ID: appID, Secret: secret, Tickets: TicketRules{DailyQuota: 2, Without: []v1alpha1.TicketType{sdk}}})
	f.wantCode("a type without tickets", f.ticket(appID, sdk), codeUnauthorized) // not counted
	f.wantCode("first call", f.ticket(appID, jsapi), 0)
	f.wantCode("second call", f.ticket(appID, wxCard), 0)
	f.wantCode("third call", f.ticket(appID, jsapi), codeDailyQuota)
	f.wantCode("another account", f.ticket(other, jsapi), 0)
	midnight := time.Date(2026, 3, 4, 16, 0, 0, 0, time.UTC) // in Beijing
	f.Advance(midnight.Sub(f.Now()) - time.Nanosecond)
	f.wantCode("before midnight", f.ticket(appID, jsapi), codeDailyQuota)
	f.Advance(time.Nanosecond)
	f.wantCode("after midnight", f.ticket(appID, jsapi), 0)

	p := newPlatform(Options{})
	a := p.account(appID)
	for range defaultDailyTicket {
		a.ticketUse.count(epoch)
	}
	q := request{endpoint: EndpointTicket, query: map[string][]string{"type": {"jsapi"}}}
	if got := p.answerTicket(q, a, epoch).errcode; got != codeDailyQuota {
		t.Errorf("call 10001: errcode %d", got)
	}
}

func TestTicketRemainingLife(t *testing.T) {
	f := newFixture(t, Options{})
	f.SetApp(App{ID: appID, Secret: secret, Tickets: TicketRules{RemainingLife: true, Age: time.Hour}})
	for _, want := range []int{3600, 2100, 600} {
		if got := f.ticket(appID, jsapi).ExpiresIn; got != want {
			t.Errorf("expires_in is %d, want %d", got, want)
		}
		f.Advance(25 * time.Minute)
	}
	f.Advance(-15*time.Minute - time.Nanosecond)
	if got := f.ticket(appID, jsapi).ExpiresIn; got != 1 {
		t.Errorf("expires_in is %d at the end, want 1", got)
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

func TestTicketFaults(t *testing.T) {
	f := newFixture(t, Options{})
	token := f.stable(appID).Token
	get := func() (answer, error) {
		return f.do(http.MethodGet, "/cgi-bin/ticket/getticket?type=jsapi&access_token="+token, "")
	}
	f.Inject(Fault{AppID: appID, Endpoint: EndpointTicket, Times: 1, Errcode: -1})
	f.Inject(Fault{AppID: appID, Endpoint: EndpointTicket, Times: 1, Body: "x"})
	f.Inject(Fault{AppID: appID, Endpoint: EndpointTicket, Times: 1, Cut: CutBody})
	f.wantProbe("a call of another kind", token, 0)
	if a, err := get(); err != nil || a.code() != -1 || len(f.Tickets(appID, jsapi)) != 0 {
		t.Errorf("errcode %d, error %v", a.code(), err)
	}
	if a, err := get(); err != nil || string(a.body) != "x" {
		t.Errorf("body %q, error %v", a.body, err)
	}
	if a, err := get(); err == nil || len(f.Tickets(appID, jsapi)) != 1 {
		t.Errorf("body %q, error %v, want a cut answer with a ticket", a.body, err)
	}
	if a, err := get(); err != nil || a.Ticket != f.Tickets(appID, jsapi)[0].Ticket {
		t.Errorf("body %q, error %v", a.body, err)
	}
	if got := f.Count(Filter{AppID: appID, Endpoint: EndpointTicket}); got != 4 {
		t.Errorf("%d calls were counted, want 4", got)
	}
}

// The example is that of WeChat's page about the JS-SDK.
func TestSign(t *testing.T) {
	const ticket = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
	if got := sign(ticket, "Wm3WZYTPz0wzccnW", "1414587457", "http://mp.weixin.qq.com?params=value"); got != "0f9de62fce790f9a083d5c99e95740ceb90c27ed" {
		t.Errorf("the signature is %s", got)
	}
}

func TestSignatureValid(t *testing.T) {
	const page = "https://h5.example.com/pay?id=1"
	f := newFixture(t, Options{})
	first := f.wantTicket("first call", f.ticket(appID, jsapi))
	card := f.wantTicket("a card", f.ticket(appID, wxCard))
	good := sign(first, "nonce", "1700000000", page)
	for _, tt := range []struct {
		name                                 string
		id, nonce, timestamp, url, signature string
		want                                 bool
	}{
		{"as signed", appID, "nonce", "1700000000", page, good, true},
		{"a page with a fragment", appID, "nonce", "1700000000", page + "#top", good, true},
		{"signed with the fragment", appID, "nonce", "1700000000", page + "#top", sign(first, "nonce", "1700000000", page+"#top"), false},
		{"another account", other, "nonce", "1700000000", page, good, false},
		{"an unknown account", "unknown", "nonce", "1700000000", page, good, false},
		{"another nonce", appID, "other", "1700000000", page, good, false},
		{"another time", appID, "nonce", "1700000001", page, good, false},
		{"another page", appID, "nonce", "1700000000", page + "2", good, false},
		{"the ticket of another type", appID, "nonce", "1700000000", page, sign(card, "nonce", "1700000000", page), false},
		{"none", appID, "nonce", "1700000000", page, "", false},
	} {
		if got := f.SignatureValid(tt.id, tt.nonce, tt.timestamp, tt.url, tt.signature); got != tt.want {
			t.Errorf("%s: valid is %t, want %t", tt.name, got, tt.want)
		}
	}
	// In the overlap both tickets sign, and after it the new one alone.
	f.Advance(2 * time.Hour)
	second := f.wantTicket("second call", f.ticket(appID, jsapi))
	for _, want := range []bool{true, false} {
		got := f.SignatureValid(appID, "nonce", "1700000000", page, good)
		if got != want || !f.SignatureValid(appID, "nonce", "1700000000", page, sign(second, "nonce", "1700000000", page)) {
			t.Errorf("a signature with the old ticket is valid: %t, want %t", got, want)
		}
		f.Advance(5 * time.Minute)
	}
}

func TestRemoteTickets(t *testing.T) {
	f, r, _ := newRemote(t)
	ctx := t.Context()
	rules := TicketRules{Change: ChangeByTime, Age: time.Hour, Overlap: NoOverlap, DailyQuota: 3, Without: []v1alpha1.TicketType{sdk}, RemainingLife: true}
	if err := r.SetApp(ctx, App{ID: appID, Secret: secret, Tickets: rules}); err != nil {
		t.Fatal(err)
	}
	if got := f.platform.apps[appID].Tickets; !slices.Equal(got.Without, rules.Without) || got.Age != rules.Age || got.Overlap != rules.Overlap ||
		got.Change != rules.Change || got.DailyQuota != rules.DailyQuota || !got.RemainingLife {
		t.Errorf("the rules are %+v, want %+v", got, rules)
	}
	want(t, "Tickets of none", []IssuedTicket(nil))(r.Tickets(ctx, appID, jsapi))
	rival, err := r.RivalTicket(ctx, appID, jsapi, 50*time.Minute)
	want(t, "RivalTicket", f.Tickets(appID, jsapi)[0])(rival, err)
	want(t, "Tickets", f.Tickets(appID, jsapi))(r.Tickets(ctx, appID, jsapi))
	want(t, "TicketValid", true)(r.TicketValid(ctx, rival.Ticket))
	want(t, "TicketValid of none", false)(r.TicketValid(ctx, "x"))
	want(t, "TicketValidAt", true)(r.TicketValidAt(ctx, rival.Ticket, epoch.Add(10*time.Minute-1)))
	want(t, "TicketValidAt, later", false)(r.TicketValidAt(ctx, rival.Ticket, epoch.Add(10*time.Minute)))
	want(t, "TicketValidAt the zero time", false)(r.TicketValidAt(ctx, rival.Ticket, time.Time{}))
	want(t, "SignatureValid", true)(r.SignatureValid(ctx, appID, "n", "1", "https://a.example/", sign(rival.Ticket, "n", "1", "https://a.example/")))
	want(t, "SignatureValid of another", false)(r.SignatureValid(ctx, appID, "n", "2", "https://a.example/", sign(rival.Ticket, "n", "1", "https://a.example/")))
}
