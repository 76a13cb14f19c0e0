// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// request describes one of the four calls.
type request struct {
	method, path string
	query        url.Values
	body         []byte // JSON, or nil

	decode  func(body []byte) (answer, error)
	codes   []outcome
	secrets []token.Value

	transports transports
	// transport is the one of the transports that is used.
	transport http.RoundTripper
	// repeatable allows net/http to send the request again if a reused connection turns out to be closed.
	repeatable bool
	// once is not nil for a request that must be sent at most once.
	once *once
	// handshake observes the connection.
	handshake *handshake
	// onConn, if not nil, is called when the connection is ready and before anything is sent.
	onConn func()
}

// reply is a successful answer.
type reply struct {
	answer
	// startedAt is when the request was sent, by WeChat's clock.
	startedAt time.Time
}

// exchange is an HTTP answer that has been read completely.
type exchange struct {
	status            int
	date              string
	body              []byte
	flaw              error // why the body may not be the whole one
	started, received instant
}

// try sends one request to one endpoint. If WeChat answers, it also adjusts the clock and makes the endpoint the preferred one.
func (c *Client) try(ctx context.Context, endpoint int, r request) (reply, *token.Error) {
	host := c.endpoints[endpoint].Host
	ex, err := c.send(ctx, endpoint, r)
	if err != nil {
		return reply{}, c.unreachable(endpoint, err, r.secrets)
	}
	a, err := r.decode(ex.body)
	if err == nil && a.code != 0 && (ex.status == http.StatusOK || lasting(a.code, r.codes)) {
		return reply{}, c.refused(endpoint, ex, a, r)
	}
	if e := statusError(host, ex.status); e != nil {
		return reply{}, e
	}
	switch {
	case errors.As(ex.flaw, new(malformed)):
		return reply{}, badResponse(host, ex.flaw.Error())
	case ex.flaw != nil:
		return reply{}, c.unreachable(endpoint, ex.flaw, r.secrets)
	case err != nil:
		return reply{}, badResponse(host, err.Error())
	}
	c.preferred.Store(int64(endpoint))
	return reply{answer: a, startedAt: c.tellTime(ex)}, nil
}

// refused returns the error for an answer with an errcode. If the answer is whole, it also adjusts the clock and makes the endpoint the
// preferred one.
func (c *Client) refused(endpoint int, ex exchange, a answer, r request) *token.Error {
	e := classify(a, r.codes, append([]token.Value{a.token, a.ticket}, r.secrets...))
	// An answer that names a token too, or comes with the status of a gateway, does not prove that no token was issued.
	e.Answered = a.token.IsZero() && (ex.status == http.StatusOK || ex.status == http.StatusTooManyRequests)
	if ex.status == http.StatusOK && ex.flaw == nil && !a.salvaged {
		c.preferred.Store(int64(endpoint))
		c.tellTime(ex)
	}
	return e
}

// tellTime adjusts the clock by an answer and returns when the request was sent, by WeChat's clock.
func (c *Client) tellTime(ex exchange) (startedAt time.Time) {
	date, err := http.ParseTime(ex.date)
	if err != nil || date.Before(earliestDate) || !date.Before(latestDate) { // a gateway may have removed or replaced the header
		return c.clock.settle(ex.started, ex.received)
	}
	return c.clock.learn(date, ex.started, ex.received)
}

// roundTrip sends the request and reads the answer. It does not use an http.Client, which would follow redirects and quote the URL in
// its errors.
func (c *Client) roundTrip(ctx context.Context, endpoint *url.URL, r request) (ex exchange, err error) {
	// The value of a panic in net/http would be logged, and may contain the request.
	defer func() {
		if p := recover(); p != nil {
			err = errPanic
		}
	}()
	var started atomic.Pointer[instant]
	start := func() {
		now := c.clock.mark()
		started.Store(&now)
	}
	start() // in case the transport does not call GotConn
	req, err := c.newRequest(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeStart: r.handshake.started,
		TLSHandshakeDone:  r.handshake.ended,
		GotConn: func(info httptrace.GotConnInfo) {
			start()
			r.handshake.gotConn(info)
			if r.onConn != nil {
				r.onConn()
			}
		},
	}), endpoint, r)
	if err != nil {
		return exchange{}, err
	}
	res, err := r.transport.RoundTrip(req)
	if err != nil {
		return exchange{}, errors.Join(err, context.Cause(ctx))
	}
	defer func() { _ = res.Body.Close() }()
	ex = exchange{status: res.StatusCode, date: res.Header.Get("Date"), started: *started.Load(), received: c.clock.mark()}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return ex, nil // what follows is no body: it has no end, and a read from it would not end with ctx
	}
	// The body is read whatever the status is, because a connection can be reused only if nothing is left unread.
	if ex.body, ex.flaw = readBody(res.Body); ex.flaw != nil && !errors.As(ex.flaw, new(malformed)) {
		ex.flaw = errors.Join(ex.flaw, context.Cause(ctx))
	}
	return ex, nil
}

func (c *Client) newRequest(ctx context.Context, endpoint *url.URL, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, endpoint.String(), body)
	if err != nil {
		return nil, err
	}
	req.URL.Path = r.path
	req.URL.RawQuery = r.query.Encode()
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", c.userAgent)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
		if r.repeatable {
			// This header is never sent. It tells net/http that this POST may be repeated like a GET.
			req.Header["Idempotency-Key"] = nil
		}
	}
	return req, nil
}

// statusError returns the error for an HTTP status other than 200, or nil for 200. WeChat itself always answers with 200.
func statusError(host string, status int) *token.Error {
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusTooManyRequests:
		return &token.Error{Class: token.Limited, Reason: v1alpha1.ReasonRateLimited, Answered: true,
			Message: fmt.Sprintf("%s answered HTTP 429: too many calls. %s", host, nextWait)}
	case status >= 500:
		return &token.Error{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable,
			Message: fmt.Sprintf("%s answered HTTP %d. %s", host, status, nextWait)}
	case status >= 300 && status < 400:
		return badResponse(host, fmt.Sprintf("it is a redirect (HTTP %d), which is not followed", status))
	}
	return badResponse(host, fmt.Sprintf("its HTTP status is %d", status))
}

// badResponse returns the error for an answer that is not one of WeChat's. why must not quote the answer.
func badResponse(host, why string) *token.Error {
	return &token.Error{Class: token.Transient, Reason: v1alpha1.ReasonBadResponse,
		Message: fmt.Sprintf("The answer of %s is not one of WeChat's: %s. If this lasts, look for a proxy or gateway that answers in its place.",
			host, why)}
}
