// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	grantType = "client_credential"

	pathStable = "/cgi-bin/stable_token"
	pathLegacy = "/cgi-bin/token"
	pathProbe  = "/cgi-bin/get_api_domain_ip"
)

// Client calls WeChat. It is safe for concurrent use, and one should serve a whole process: the limit
// of requests in flight, the endpoint that works and WeChat's clock are its own.
type Client struct {
	clock     *clock
	endpoints []*url.URL
	timeout   time.Duration
	userAgent string
	slots     chan struct{} // one element for each request in flight
	// preferred is the index of the endpoint that worked last.
	preferred atomic.Int64

	// observe is told of each request; may be nil.
	observe func(Call)

	// shared keeps connections, fresh makes one for each request.
	shared, fresh http.RoundTripper
	// closeIdle closes what shared keeps.
	closeIdle func()
}

// New makes a Client. It does not call WeChat. A wrong option gives an *OptionError that names the flag.
func New(o Options) (*Client, error) {
	o, endpoints, err := o.complete()
	if err != nil {
		return nil, err
	}
	roots, err := rootCAs(o.CAFile)
	if err != nil {
		return nil, &OptionError{Flag: "--wechat-ca-file", err: err}
	}
	shared := newTransport(o, roots)
	return &Client{
		clock:     newClock(o.Wall, o.Monotonic),
		endpoints: endpoints,
		timeout:   o.Timeout,
		userAgent: o.UserAgent,
		slots:     make(chan struct{}, o.MaxInFlight),
		observe:   o.Observe,
		shared:    shared,
		closeIdle: shared.CloseIdleConnections,
		fresh:     newMintTransport(o, roots),
	}, nil
}

// StableToken asks for the Stable token of an account (POST /cgi-bin/stable_token).
//
// Without force it is harmless at any time: until 300 s before expiry WeChat answers the same token
// with its remaining life, then a new one. When an endpoint gives no answer, or none of WeChat's, the
// next one is tried; each attempt has Options.Timeout.
//
// With force it is a mint, and WeChat makes a new token; it allows 20 a day, at least 30 s apart. Once a
// mint is started it ends by its own deadline of 10 s and not with ctx. Another endpoint is tried only
// when nothing can have been sent.
//
// The error is a *token.Error. When ctx ended the call, errors.Is finds context.Canceled or
// context.DeadlineExceeded in it.
func (c *Client) StableToken(ctx context.Context, account token.Credentials, force bool) (token.Token, error) {
	// These fields are strings, so Marshal cannot fail.
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

// LegacyToken mints a Legacy token (GET /cgi-bin/token). WeChat ends the life of the one before in about
// five minutes, and allows 2,000 a day.
//
// startBy is WeChat's time (see Now) by which the request must leave; zero sets no limit. A call that
// cannot keep it sends nothing, and errors.Is finds ErrStartedTooLate: the error itself when startBy was
// over, or too many other requests were in flight until then, and a *token.Error with v1alpha1.ReasonUnreachable when
// no endpoint could be connected in time. Everything else is as with a forced StableToken.
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

// ProbeToken asks whether WeChat accepts a token (GET /cgi-bin/get_api_domain_ip); nil means that it
// does. A *token.Error with token.ReasonTokenRejected means that it does not (40001, 40014, 42001), and any other
// one says nothing about the token. Endpoints and deadlines are as with StableToken without force.
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

// Now is WeChat's clock, in UTC and without a monotonic reading, learnt from the Date header of its
// answers. Before the first answer, and while the two differ by less than 5 s, it is the local wall
// clock. Later it may be ahead of the truth when the local clock jumps, until the next answer, but a
// local clock that is set back or stands still does not set it back.
func (c *Client) Now() time.Time {
	now, _ := c.Clock()
	return now
}

// Clock is Now, and whether it can be relied on: WeChat has answered, and the local wall clock has not jumped
// ahead by 5 s or more since. The next answer to any call makes it so; one without a Date is taken to
// confirm the time that there is.
func (c *Client) Clock() (now time.Time, synced bool) { return c.clock.now() }

// tokenOf makes the Token of an answer, its times re-read on a clock that the answer itself may have
// set right.
func tokenOf(r reply, err error) (token.Token, error) {
	if err != nil {
		return token.Token{}, err
	}
	return token.Token{Value: r.token, IssuedAt: r.startedAt, ExpiresAt: r.startedAt.Add(r.life)}, nil
}
