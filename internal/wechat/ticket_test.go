// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

func ticketOf(t *testing.T, c *Client) (token.Ticket, error) {
	t.Helper()
	return c.Ticket(t.Context(), token.NewValue(storedToken), v1alpha1.TicketJSAPI)
}

func TestTicket(t *testing.T) {
	for _, kind := range v1alpha1.TicketTypes() {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.Query().Get("type"); got != string(kind) {
				t.Errorf("type is %q, want %q", got, kind)
			}
			answering(w, r)
		})
		before := time.Now()
		got, err := clientOf(t, s).Ticket(t.Context(), token.NewValue(storedToken), kind)
		if err != nil || got.Value.Reveal() != freshTicket || got.ExpiresIn != token.TicketLife {
			t.Errorf("%s: ticket %q for %v, error %v", kind, got.Value.Reveal(), got.ExpiresIn, err)
		}
		if since := got.ReturnedAt.Sub(before); since < -time.Second || since > 10*time.Second || got.ReturnedAt.Location() != time.UTC {
			t.Errorf("%s: returned at %v, called at %v", kind, got.ReturnedAt, before)
		}
	}
}

// TestTicketFromStandIn checks that the client and the stand-in for WeChat agree.
func TestTicketFromStandIn(t *testing.T) {
	server, err := wechattest.NewServer(wechattest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	app := wechattest.App{ID: testAppID, Secret: appSecret}
	server.SetApp(app)
	c := newClient(t, Options{Endpoints: []string{server.URL()}})
	tok, err := c.StableToken(t.Context(), testAccount, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range v1alpha1.TicketTypes() {
		got, err := c.Ticket(t.Context(), tok.Value, kind)
		if issued := server.Tickets(testAppID, kind); err != nil || len(issued) != 1 || issued[0].Ticket != got.Value.Reveal() || got.ExpiresIn != token.TicketLife {
			t.Errorf("%s: %d tickets, one for %v, error %v", kind, len(issued), got.ExpiresIn, err)
		}
	}
	_, err = c.Ticket(t.Context(), tok.Value, "agent_config")
	_ = wantError(t, err, token.Transient, v1alpha1.ReasonRequestRejected, 40097)
	_, err = ticketOf(t, c)
	_ = wantError(t, err, token.Transient, token.ReasonTokenRejected, 40014)
	app.Tickets.DailyQuota = 3
	server.SetApp(app)
	_, err = c.Ticket(t.Context(), tok.Value, v1alpha1.TicketSDK)
	_ = wantError(t, err, token.Limited, v1alpha1.ReasonDailyQuotaExhausted, 45009)
	app.Tickets.Without = v1alpha1.TicketTypes()
	server.SetApp(app)
	_, err = c.Ticket(t.Context(), tok.Value, v1alpha1.TicketSDK)
	_ = wantError(t, err, token.Action, v1alpha1.ReasonUnsupportedAccount, 48001)
}

// TestTicketErrors has the codes that mean something else, or have other advice, than when a token is fetched. See TestErrorTable for the
// others.
func TestTicketErrors(t *testing.T) {
	for _, want := range []struct {
		code   int
		class  token.Class
		reason token.Reason
		says   []string
	}{
		{40001, "Transient", "TokenRejected", []string{"no longer accepts the access token", "operator replaces it"}},
		{40014, "Transient", "TokenRejected", []string{"no longer accepts the access token", "operator replaces it"}},
		{42001, "Transient", "TokenRejected", []string{"no longer accepts the access token", "operator replaces it"}},
		{45009, "Limited", "DailyQuotaExhausted", []string{"calls for tickets", "what else fetches tickets"}},
		{48001, "Action", "UnsupportedAccount", []string{"no ticket of this type", "公众号, 服务号", "Mini Programs have none", "spec.tickets", "permission"}},
		{61007, "Action", "UnsupportedAccount", []string{"no ticket of this type", "公众号, 服务号", "Mini Programs have none", "spec.tickets", "permission"}},
		{40097, "Transient", "RequestRejected", []string{"without a type", "on the way to WeChat"}},
	} {
		// A ticket beside an errcode is none, and is not shown.
		for _, beside := range []string{"", `,"ticket":"` + freshTicket + `","expires_in":7200`} {
			body := fmt.Sprintf(`{"errcode":%d,"errmsg":"of %s rid: 1-2-3"%s}`, want.code, freshTicket, beside)
			got, err := ticketOf(t, offline(t, body))
			e := wantError(t, err, want.class, want.reason, want.code)
			wantText(t, e, want.says...)
			if got != (token.Ticket{}) || e.RequestID != "1-2-3" || e.RetryAfter != 0 || e.MaybeSent {
				t.Errorf("%s: ticket %q, rid %q, RetryAfter %v, MaybeSent %v", body, got.Value.Reveal(), e.RequestID, e.RetryAfter, e.MaybeSent)
			}
		}
	}
	// A ticket that looks like a word is hidden because it stands beside the errcode, also in an answer that is broken.
	for body, says := range map[string]string{
		`{"errcode":7,"errmsg":"see short-ticket","ticket":"short-ticket"}`:                           "see [redacted]",
		`{"errcode":7,"errmsg":"see short-ticket","Ticket":"short-ticket"}`:                           "see [redacted]",
		`{"ticket":"short-ticket","errcode":7,"errmsg":"see short-ticket`:                             "see [redacted]",
		`<html>ticket=short-ticket&errcode=7&errmsg=see short-ticket`:                                 "see [redacted]",
		`<html>ticket=short-ticket&access_token=other-one&errcode=7&errmsg=other-one or short-ticket`: "[redacted] or [redacted]",
	} {
		_, err := ticketOf(t, offline(t, body))
		wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonRequestRejected, 7), fmt.Sprintf("it said %q", says))
	}
}

func TestDecodeTicket(t *testing.T) {
	long := strings.Repeat("0123456789abcdefghij", 100)
	life := func(expiresIn string) string {
		return `{"errcode":0,"errmsg":"ok","ticket":"t","expires_in":` + expiresIn + `}`
	}
	for _, tt := range []struct {
		name, body string
		ticket     string
		life       time.Duration
		code       int
		err        error
	}{
		{name: "documented", body: ticketBody, ticket: freshTicket, life: 2 * time.Hour},
		{name: "no errcode", body: `{"ticket":"t","expires_in":345}`, ticket: "t", life: 345 * time.Second},
		{name: "2,000 characters", body: `{"ticket":"` + long + `","expires_in":7200}`, ticket: long, life: 2 * time.Hour},
		{name: "other fields", body: `{"a":[{"ticket":1,"ticket":2}],"ticket":"t","expires_in":300,"b":null}`, ticket: "t", life: 5 * time.Minute},

		{name: "errcode", body: `{"errcode":48001,"errmsg":"api unauthorized"}`, code: 48001},
		{name: "errcode beside a ticket", body: `{"errcode":-1,"ticket":"t","expires_in":7200}`, ticket: "t", code: -1},
		{name: "errcode text", body: `{"errcode":"40001","ticket":"t","expires_in":7200}`, ticket: "t", code: 40001},
		{name: "errcode null", body: `{"errcode":null,"ticket":"t","expires_in":7200}`, err: errErrcode},
		{name: "errcode 0 as text", body: `{"errcode":"0","ticket":"t","expires_in":7200}`, err: errErrcode},

		{name: "life of 1", body: life("1"), ticket: "t", life: time.Second},
		{name: "life of a year", body: life("31536000"), ticket: "t", life: 4 * time.Hour},
		{name: "life 0", body: life("0"), err: errExpiresIn},
		{name: "life -1", body: life("-1"), err: errExpiresIn},
		{name: "life text", body: life(`"7200"`), err: errExpiresIn},
		{name: "life fraction", body: life("7200.5"), err: errExpiresIn},
		{name: "life missing", body: `{"errcode":0,"ticket":"t"}`, err: errExpiresIn},

		{name: "ticket missing", body: `{"errcode":0,"errmsg":"ok","expires_in":7200}`, err: errNoTicket},
		{name: "ticket empty", body: `{"ticket":"","expires_in":7200}`, err: errNoTicket},
		{name: "ticket null", body: `{"ticket":null,"expires_in":7200}`, err: errNoTicket},
		{name: "ticket number", body: `{"ticket":7,"expires_in":7200}`, err: errNoTicket},
		{name: "ticket with a space", body: `{"ticket":"a b","expires_in":7200}`, err: errTicketChars},
		{name: "ticket with a line", body: `{"ticket":"a\nb","expires_in":7200}`, err: errTicketChars},
		{name: "ticket not ASCII", body: `{"ticket":"票","expires_in":7200}`, err: errTicketChars},

		{name: "a token", body: goodBody, err: errNoTicket},
		{name: "other case", body: `{"Ticket":"t","expires_in":7200}`, err: errNoTicket},
		{name: "two tickets", body: `{"ticket":"t","expires_in":7200,"ticket":"u"}`, err: errDuplicate},
		{name: "two tickets, other case", body: `{"ticket":"t","expires_in":7200,"TICKET":"u"}`, err: errDuplicate},
		{name: "two lives", body: `{"ticket":"t","expires_in":7200,"Expires_in":1}`, err: errDuplicate},
		{name: "empty", body: "", err: errEmpty},
		{name: "web page", body: "<html>" + ticketBody, err: errHTML},
		{name: "list", body: "[" + ticketBody + "]", err: errNotJSON},
		{name: "text behind", body: ticketBody + "x", err: errNotJSON},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodeTicket([]byte(tt.body))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got.ticket.Reveal() != tt.ticket || got.life != tt.life || got.code != tt.code || !got.token.IsZero() {
				t.Errorf("ticket %q, life %v, code %d, want %q, %v, %d", got.ticket.Reveal(), got.life, got.code, tt.ticket, tt.life, tt.code)
			}
			c := offline(t, tt.body)
			if ticket, err := ticketOf(t, c); (err == nil) != (tt.err == nil && tt.code == 0) || ticket.ExpiresIn > token.TicketLife {
				t.Errorf("ticket for %v, error %v", ticket.ExpiresIn, err)
			}
		})
	}
}

func FuzzDecodeTicket(f *testing.F) {
	for _, seed := range []string{
		ticketBody, goodBody, "", "<html>", brokenRefusal, `{"errcode":48001,"errmsg":"api unauthorized rid: 1-2-3"}`,
		`{"errcode":1,"errmsg":"bad kgt8ON7yVITDhtd","ticket":"kgt8ON7yVITDhtd"}`, `{"ticket":"t","expires_in":1e3}`,
		`{"ticket":"t","Ticket":"u","expires_in":7200}`, `{"errcode":0,"ticket":"\u0074\ud800","expires_in":99999999999999999999}`,
		`{"ticket":"t","expires_in":7200,"data":"{\"errcode\":40001}"}`, `{"errcode":null,"ticket":"t","expires_in":7200}`,
		`{"ticket":"kgt8ON7yVITDhtd","errcode":7,"errmsg":"see kgt8-ON7y-VITD-htd`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := decodeTicket(body)
		if isGood(t, a, err) {
			ticket := a.ticket.Reveal()
			if ticket == "" || !printable(ticket) || a.life <= 0 || a.life > 4*time.Hour || a.errmsg != "" {
				t.Errorf("ticket %q, life %v, errmsg %q", ticket, a.life, a.errmsg)
			}
			var loose struct {
				Ticket string `json:"ticket"`
			}
			var exact map[string]any
			if json.Unmarshal(body, &loose) != nil || json.Unmarshal(body, &exact) != nil || loose.Ticket != ticket || exact["ticket"] != ticket {
				t.Errorf("ticket %q, other readers find %q and %v", ticket, loose.Ticket, exact["ticket"])
			}
		}
		if code := statedErrcode(body); code != 0 && (err != nil || a.code == 0) {
			t.Errorf("errcode %d is not read", code)
		}
	})
}
