// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

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
