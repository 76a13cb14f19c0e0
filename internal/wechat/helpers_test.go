// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	testAppID = "wx0123456789abcdef"
	goodBody  = `{"access_token":"` + freshToken + `","expires_in":7200}`
	probeBody = `{"ip_list":["203.0.113.10","203.0.113.11"]}`
	// As WeChat answers, whatever the age of the ticket is.
	ticketBody = `{"errcode":0,"errmsg":"ok","ticket":"` + freshTicket + `","expires_in":7200}`
)

// The needles: no error of any test may hold a part of one, see cleanError.
const (
	appSecret     = "8f3c1e5a7b9d2f4061c8e0a2b4d6f809"
	awkwardSecret = `p+q/r=s&t"u<v>w%x y\z#1234567890`
	storedToken   = "78_STOREDtoken-kept_by-the_pods0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT"
	freshToken    = "79_FRESHtoken-from_WeChat-now_9Tz8Yx7Wv6Ut5Sr4Qp3On2Ml1Kj0Ih"
	freshTicket   = "kgt8ON7yVITDhtdwci0qeTICKET_now-0Zk1Yj2Xi3Wh4Vg5Uf6Te7Sd8Rc9Qb"
	proxyPassword = "correct-horse-battery-staple"
)

var (
	needles     = []string{appSecret, awkwardSecret, storedToken, freshToken, freshTicket, proxyPassword}
	testAccount = token.Credentials{AppID: testAppID, AppSecret: token.NewValue(appSecret)}
)

// call is one way to call WeChat.
type call struct {
	name string
	mint bool
	want string // the token or ticket of the answer that answering writes
	do   func(context.Context, *Client) (token.Token, error)
}

func callsOf(account token.Credentials, tok string) []call {
	return []call{
		{name: "stable", want: freshToken, do: func(ctx context.Context, c *Client) (token.Token, error) { return c.StableToken(ctx, account, false) }},
		{name: "probe", do: func(ctx context.Context, c *Client) (token.Token, error) {
			return token.Token{}, c.ProbeToken(ctx, token.NewValue(tok))
		}},
		{name: "ticket", want: freshTicket, do: func(ctx context.Context, c *Client) (token.Token, error) {
			ticket, err := c.Ticket(ctx, token.NewValue(tok), v1alpha1.TicketJSAPI)
			return token.Token{Value: ticket.Value, IssuedAt: ticket.ReturnedAt, ExpiresAt: ticket.ReturnedAt.Add(ticket.ExpiresIn)}, err
		}},
		{name: "force", mint: true, want: freshToken, do: func(ctx context.Context, c *Client) (token.Token, error) { return c.StableToken(ctx, account, true) }},
		{name: "legacy", mint: true, want: freshToken, do: func(ctx context.Context, c *Client) (token.Token, error) {
			return c.LegacyToken(ctx, account, time.Time{})
		}},
	}
}

var allCalls = callsOf(testAccount, storedToken)

func mints() []call   { return allCalls[3:] }
func fetches() []call { return allCalls[:3] }

// issuing are the calls whose answer has a token or ticket.
func issuing() []call { return append([]call{allCalls[0]}, allCalls[2:]...) }

// server counts the requests that reach it.
type server struct {
	URL  string
	hits atomic.Int32
}

func (s *server) wantHits(t *testing.T, want int32) {
	t.Helper()
	if got := s.hits.Load(); got != want {
		t.Errorf("%s got %d requests, want %d", s.URL, got, want)
	}
}

// serve starts an HTTP server.
func serve(t *testing.T, handler http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	ts := httptest.NewServer(s.counted(handler))
	t.Cleanup(ts.Close)
	s.URL = ts.URL
	return s
}

func (s *server) counted(handler http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		handler(w, r)
	}
}

// serveRaw starts a server that reads requests and leaves the answer to handle, which says whether to
// read another one from the same connection.
func serveRaw(t *testing.T, handle func(conn net.Conn, r *http.Request) bool) *server {
	t.Helper()
	s := &server{}
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.hits.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		for handle(conn, r) {
			if r, err = http.ReadRequest(rw.Reader); err != nil {
				return
			}
			s.hits.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}))
	ts.Start()
	t.Cleanup(ts.Close)
	s.URL = ts.URL
	return s
}

// answering writes what WeChat would to each of the calls.
func answering(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, bodyFor(r))
}

func bodyFor(r *http.Request) string {
	switch r.URL.Path {
	case pathProbe:
		return probeBody
	case pathTicket:
		return ticketBody
	}
	return goodBody
}

// saying always writes the same.
func saying(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// refusing is the URL of a port at which nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String()
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.network.Load().closeIdle() })
	return c
}

func clientOf(t *testing.T, servers ...*server) *Client {
	t.Helper()
	var o Options
	for _, s := range servers {
		o.Endpoints = append(o.Endpoints, s.URL)
	}
	return newClient(t, o)
}

// tripper is a transport without a network.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// without makes a client that uses f for everything.
func without(t *testing.T, f tripper) *Client {
	t.Helper()
	c := newClient(t, Options{Endpoints: []string{"https://api.example.com"}})
	c.network.Store(&network{shared: transports{f, f}, fresh: transports{f, f}})
	return c
}

// offline makes a client that always gets the same body.
func offline(t *testing.T, body string) *Client {
	t.Helper()
	return without(t, func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
	})
}

// wantError checks an error as a whole, a want of 0 meaning that there is no errcode.
func wantError(t *testing.T, err error, class token.Class, reason token.Reason, code int) *token.Error {
	t.Helper()
	e, ok := errors.AsType[*token.Error](err)
	if !ok {
		t.Fatalf("error %v, want a *token.Error with reason %s", err, reason)
	}
	if e.Class != class || e.Reason != reason || e.Code != code {
		t.Errorf("class %s, reason %s, code %d, want %s, %s, %d: %v", e.Class, e.Reason, e.Code, class, reason, code, err)
	}
	cleanError(t, err)
	return e
}

// wantText checks that an error's message has all parts.
func wantText(t *testing.T, e *token.Error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(e.Message, part) {
			t.Errorf("message %q does not hold %q", e.Message, part)
		}
	}
}

// cleanError looks for needles in everything that can be made of an error.
func cleanError(t *testing.T, err error) {
	t.Helper()
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%d"} {
		clean(t, verb, fmt.Sprintf(verb, err))
	}
	js, _ := json.Marshal(err)
	clean(t, "json", string(js))
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Error("failed", "err", err)
	slog.New(slog.NewJSONHandler(&logged, nil)).Error("failed", "err", err)
	clean(t, "slog", logged.String())
	switch u := err.(type) { //nolint:errorlint // it walks the tree itself
	case interface{ Unwrap() error }:
		if u.Unwrap() != nil {
			cleanError(t, u.Unwrap())
		}
	case interface{ Unwrap() []error }:
		for _, err := range u.Unwrap() {
			cleanError(t, err)
		}
	}
}

// clean fails when a text holds 12 characters of a needle in a row, written in any way.
func clean(t *testing.T, what, text string) {
	t.Helper()
	for _, needle := range needles {
		quoted, _ := json.Marshal(needle)
		for _, form := range []string{needle, url.QueryEscape(needle), url.PathEscape(needle), strings.Trim(string(quoted), `"`)} {
			for i := range len(form) - 12 {
				if strings.Contains(text, form[i:i+12]) {
					t.Fatalf("%s holds a part of %s: %s", what, needle, text)
				}
			}
		}
	}
}
