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

// request is one of the three calls.
type request struct {
	method, path string
	query        url.Values
	body         []byte // JSON; nil for none

	decode  func(body []byte) (answer, error)
	codes   []outcome
	secrets []token.Value

	transport http.RoundTripper
	// repeatable lets net/http send again when a kept connection turns out to be closed.
	repeatable bool
	// onConn is called when the connection is ready, before anything is sent; may be nil.
	onConn func()
}

// reply is an answer that brought what was asked for.
type reply struct {
	answer
	// startedAt is WeChat's time at which the request was started.
	startedAt time.Time
}

// exchange is an HTTP answer, read.
type exchange struct {
	status            int
	date              string
	body              []byte // of status 200 alone
	started, received instant
}

// try makes one request to one endpoint and takes from the answer all there is: the outcome, the
// clock and that the endpoint works.
func (c *Client) try(ctx context.Context, endpoint int, r request) (reply, *token.Error) {
	host := c.endpoints[endpoint].Host
	ex, err := c.roundTrip(ctx, c.endpoints[endpoint], r)
	switch {
	case errors.As(err, new(malformed)):
		return reply{}, badResponse(host, err.Error())
	case err != nil:
		return reply{}, unreachable(host, err)
	}
	if e := statusError(host, ex.status); e != nil {
		return reply{}, e
	}
	a, err := r.decode(ex.body)
	if err != nil {
		return reply{}, badResponse(host, err.Error())
	}
	c.preferred.Store(int64(endpoint))
	startedAt := c.tellTime(ex)
	if a.code != 0 {
		e := classify(a, r.codes, append([]token.Value{a.token}, r.secrets...))
		e.Answered = true
		return reply{}, e
	}
	return reply{answer: a, startedAt: startedAt}, nil
}

// tellTime sets the clock by an answer, and gives WeChat's time at which it was asked for. A gateway may have taken the Date away.
func (c *Client) tellTime(ex exchange) (startedAt time.Time) {
	date, err := http.ParseTime(ex.date)
	if err != nil {
		return c.clock.settle(ex.started, ex.received)
	}
	return c.clock.learn(date, ex.started, ex.received)
}

// roundTrip sends the request and reads the answer. It uses the transport without an http.Client, which
// would follow redirects and put the URL into its errors.
func (c *Client) roundTrip(ctx context.Context, endpoint *url.URL, r request) (ex exchange, err error) {
	// A panic of net/http would end in a log, and may hold the request.
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
	start() // for a transport that does not trace
	req, err := c.newRequest(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			start()
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
	if ex.status != http.StatusOK {
		// Its body tells nothing, and reading it could fail. A connection with an unread rest cannot be used again, though.
		_, _ = io.CopyN(io.Discard, res.Body, maxBody)
		return ex, nil
	}
	ex.body, err = io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	switch {
	case err != nil:
		return exchange{}, errors.Join(err, context.Cause(ctx))
	case len(ex.body) > maxBody:
		return exchange{}, errTooLarge
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
	req.Header.Set("User-Agent", c.userAgent)
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
		if r.repeatable {
			// Never sent: it tells net/http that this POST may be repeated like a GET.
			req.Header["Idempotency-Key"] = nil
		}
	}
	return req, nil
}

// statusError is the error of an HTTP status that is not 200, which WeChat itself always answers.
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

// badResponse says why an answer is not WeChat's; why quotes nothing of it.
func badResponse(host, why string) *token.Error {
	return &token.Error{Class: token.Transient, Reason: v1alpha1.ReasonBadResponse,
		Message: fmt.Sprintf("The answer of %s is not one of WeChat's: %s. If this lasts, look for a proxy or gateway that answers in its place.",
			host, why)}
}
