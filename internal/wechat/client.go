// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	grantType = "client_credential"

	pathStable = "/cgi-bin/stable_token"
	pathLegacy = "/cgi-bin/token"
	pathProbe  = "/cgi-bin/get_api_domain_ip"
	pathTicket = "/cgi-bin/ticket/getticket"
)

// Client calls WeChat. It is safe for concurrent use. A process should have only one, because each Client has its own limit of
// requests in flight, its own preferred endpoint and its own reading of WeChat's clock.
type Client struct {
	clock     *clock
	endpoints []*url.URL
	timeout   time.Duration
	userAgent string
	slots     slots
	// preferred is the index of the endpoint to try first.
	preferred atomic.Int64

	// ticketSilence is the error of the last call for a ticket if nobody answered it in time; else nil. ticketTrial is true while one call
	// finds out whether WeChat answers again.
	ticketSilence atomic.Pointer[token.Error]
	ticketTrial   atomic.Bool

	// observe is called after each request, unless it is nil.
	observe func(Call)

	// hellos holds, for each endpoint, the kind of ClientHello that worked last.
	hellos []atomic.Int32
	// network is replaced when the certificate authorities change.
	network atomic.Pointer[network]
	trust   *trust
}

// New returns a Client with the given options. It does not call WeChat. The error is an *OptionError.
func New(o Options) (*Client, error) {
	o, endpoints, err := o.complete()
	if err != nil {
		return nil, err
	}
	c := &Client{
		clock:     newClock(o.Wall, o.Monotonic),
		endpoints: endpoints,
		timeout:   o.Timeout,
		userAgent: o.UserAgent,
		slots:     make(slots, o.MaxInFlight),
		observe:   o.Observe,
		hellos:    make([]atomic.Int32, len(endpoints)),
		trust:     &trust{options: o},
	}
	if _, err := c.ReloadCA(); err != nil {
		return nil, &OptionError{Flag: "--wechat-ca-file", err: err}
	}
	return c, nil
}

// StableToken returns the Stable token of an account (POST /cgi-bin/stable_token).
//
// Without force the call is harmless at any time. Until 300 s before a token expires, WeChat returns the same token with its remaining
// life, and after that a new one. If an endpoint does not answer, or the answer is not one of WeChat's, StableToken tries the
// next one. Each attempt may take Options.Timeout.
//
// With force the call is a mint. WeChat issues a new token, up to 20 times a day and at least 30 s apart. Once started, a mint ends by
// its own deadline of 10 s and ignores ctx. StableToken tries another endpoint only if nothing can have been sent to the first.
//
// The error is a *token.Error. If ctx ended the call, errors.Is reports context.Canceled or context.DeadlineExceeded for it.
func (c *Client) StableToken(ctx context.Context, account token.Credentials, force bool) (token.Token, error) {
	// Marshal cannot fail for values of these types.
	body, _ := json.Marshal(map[string]any{
		"grant_type":    grantType,
		"appid":         account.AppID,
		"secret":        account.AppSecret.Reveal(),
		"force_refresh": force,
	})
	r := request{
		method:  http.MethodPost,
		path:    pathStable,
		body:    body,
		decode:  decodeToken,
		codes:   tokenCodes,
		secrets: []token.Value{account.AppSecret},
	}
	if force {
		return tokenOf(c.mint(ctx, r, time.Time{}))
	}
	return tokenOf(c.fetch(ctx, r))
}

// LegacyToken mints a Legacy token (GET /cgi-bin/token). WeChat invalidates the previous token about five minutes later. It
// allows 2,000 calls a day.
//
// startBy is the time by WeChat's clock (see Now) by which the request must be sent. A zero startBy sets no limit. If the request
// cannot be sent in time it is not sent at all, and errors.Is reports ErrStartedTooLate for the error. The error is ErrStartedTooLate
// itself if startBy has passed or if too many other requests were in flight until then. It is a *token.Error with
// v1alpha1.ReasonUnreachable if no connection was ready in time. In all other respects LegacyToken behaves like a StableToken with force.
func (c *Client) LegacyToken(ctx context.Context, account token.Credentials, startBy time.Time) (token.Token, error) {
	return tokenOf(c.mint(ctx, request{
		method: http.MethodGet,
		path:   pathLegacy,
		query: url.Values{
			"grant_type": {grantType},
			"appid":      {account.AppID},
			"secret":     {account.AppSecret.Reveal()},
		},
		decode:  decodeToken,
		codes:   tokenCodes,
		secrets: []token.Value{account.AppSecret},
	}, startBy))
}

// ProbeToken checks whether WeChat accepts a token (GET /cgi-bin/get_api_domain_ip). It returns nil if WeChat does. It returns a
// *token.Error with token.ReasonTokenRejected if WeChat does not (40001, 40014, 42001). Any other error says nothing about
// the token. Endpoints and deadlines are handled as in StableToken without force.
func (c *Client) ProbeToken(ctx context.Context, tok token.Value) error {
	_, err := c.fetch(ctx, request{
		method:  http.MethodGet,
		path:    pathProbe,
		query:   url.Values{"access_token": {tok.Reveal()}},
		decode:  decodeProbe,
		codes:   probeCodes,
		secrets: []token.Value{tok},
	})
	return err
}

// Ticket returns the ticket of a type that belongs to the account of a token (GET /cgi-bin/ticket/getticket). The call is harmless at any
// time, apart from the quota: WeChat returns the same ticket until it changes it. ExpiresIn of the result is at most token.TicketLife.
//
// The error is a *token.Error with token.ReasonTokenRejected if WeChat does not accept the token (40001, 40014, 42001), and with
// v1alpha1.ReasonUnsupportedAccount if the account has no such ticket (48001, 61007). Its message does not name the type. Endpoints and
// deadlines are handled as in StableToken without force.
//
// After a call that nobody answered in time, only one caller at a time calls, until WeChat answers. The others get the error of that call
// at once: callers that wait for tickets could otherwise keep those waiting who fetch tokens.
func (c *Client) Ticket(ctx context.Context, tok token.Value, kind v1alpha1.TicketType) (token.Ticket, error) {
	if silence := c.ticketSilence.Load(); silence != nil {
		if !c.ticketTrial.CompareAndSwap(false, true) {
			return token.Ticket{}, silence
		}
		defer c.ticketTrial.Store(false)
	}
	r, err := c.fetch(ctx, request{
		method:  http.MethodGet,
		path:    pathTicket,
		query:   url.Values{"access_token": {tok.Reveal()}, "type": {string(kind)}},
		decode:  decodeTicket,
		codes:   ticketCodes,
		secrets: []token.Value{tok},
	})
	refused, _ := errors.AsType[*token.Error](err)
	if !errors.Is(err, context.DeadlineExceeded) {
		refused = nil
	}
	c.ticketSilence.Store(refused)
	if err != nil {
		return token.Ticket{}, err
	}
	return token.Ticket{Value: r.ticket, ReturnedAt: r.startedAt, ExpiresIn: min(r.life, token.TicketLife)}, nil
}

// Now returns the time by WeChat's clock, in UTC and without a monotonic reading. WeChat's clock is derived from the Date headers of
// its answers. Before the first answer, and while it differs from the local wall clock by less than 5 s, Now returns the local
// time. If the local clock jumps ahead, Now may be ahead until the next answer. If the local clock is set back or
// stops, Now is not set back.
func (c *Client) Now() time.Time {
	now, _ := c.Clock()
	return now
}

// Clock returns the result of Now, and whether it is reliable. It is reliable if WeChat has answered and the local wall clock has not
// jumped ahead by 5 s or more since. The next answer to any call makes it reliable again. An answer without a
// Date header confirms the current reading.
func (c *Client) Clock() (now time.Time, synced bool) { return c.clock.now() }

// tokenOf returns the token of a reply. The times are those of WeChat's clock after it was adjusted by the reply itself.
func tokenOf(r reply, err error) (token.Token, error) {
	if err != nil {
		return token.Token{}, err
	}
	return token.Token{Value: r.token, IssuedAt: r.startedAt, ExpiresAt: r.startedAt.Add(r.life)}, nil
}
