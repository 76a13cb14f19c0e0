// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// hello is a kind of ClientHello, with which a TLS handshake begins.
type hello int32

const (
	// unknownHello stands for a host with which no handshake has worked yet, or with which the last one did not.
	unknownHello hello = iota
	// largeHello is what crypto/tls sends by itself. It has hybrid key shares, which take it to about 1,500 bytes. Some networks lose
	// every packet of a ClientHello that does not fit into one, so that the handshake is never answered.
	largeHello
	// smallHello has classical key shares alone and always fits into one packet.
	smallHello
)

// classicalCurves are the key exchanges that a smallHello offers.
var classicalCurves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// transports are two transports that differ in their ClientHello.
type transports struct{ large, small http.RoundTripper }

func (t transports) of(h hello) http.RoundTripper {
	if h == smallHello {
		return t.small
	}
	return t.large
}

// hello returns the kind of ClientHello that worked last with an endpoint.
func (c *Client) hello(endpoint int) hello { return hello(c.hellos[endpoint].Load()) }

// reachable reports whether the last handshake with an endpoint worked. An endpoint without TLS has none that could fail.
func (c *Client) reachable(endpoint int) bool {
	return c.endpoints[endpoint].Scheme != "https" || c.hello(endpoint) != unknownHello
}

// send sends the request. If its TLS handshake is not answered, and the request may still be sent, it tries once more with a ClientHello
// that fits into one packet. It remembers what worked.
func (c *Client) send(ctx context.Context, endpoint int, r request) (exchange, error) {
	known := c.hello(endpoint)
	first, share := max(known, largeHello), 1
	if !c.reachable(endpoint) {
		share = 2 // a second connection may need the other half of the time
	}
	ex, err := c.sendWith(ctx, endpoint, r, first, share)
	unanswered, ok := err.(unansweredHandshake) //nolint:errorlint // sendWith returns it as it is
	if !ok {
		return ex, err
	}
	c.hellos[endpoint].CompareAndSwap(int32(first), int32(unknownHello))
	if first == smallHello || ctx.Err() != nil || !r.once.mayConnect() {
		return exchange{}, unanswered
	}
	return c.sendWith(ctx, endpoint, r, smallHello, 1)
}

// sendWith sends the request on a connection that begins with the given ClientHello. A request that must be sent at most once gets the
// given share of the time in which its connection has to be ready. The error is an unansweredHandshake if another ClientHello may help.
func (c *Client) sendWith(ctx context.Context, endpoint int, r request, h hello, share int) (exchange, error) {
	r.handshake = &handshake{done: func() { c.hellos[endpoint].Store(int32(h)) }}
	r.transport = r.transports.of(h)
	var ex exchange
	var err error
	if r.once == nil {
		ex, err = c.roundTrip(ctx, c.endpoints[endpoint], r)
	} else {
		ex, err = c.sendOnce(ctx, endpoint, r, share)
	}
	if err != nil && r.handshake.unfinished.Load() && (isTimeout(err) || isCut(err)) {
		return exchange{}, unansweredHandshake{err}
	}
	return ex, err
}

// unansweredHandshake is the error of a request whose TLS handshake was not answered in time, or was cut.
type unansweredHandshake struct{ error }

func (e unansweredHandshake) Unwrap() error { return e.error }

// handshake observes the TLS handshakes of a request. There are two with a proxy that is reached by TLS, and none on a connection that is
// reused, unless net/http finds it closed and opens another one.
type handshake struct {
	// unfinished reports that the last handshake has begun and the connection is not ready.
	unfinished atomic.Bool
	// done is called when a new connection is ready.
	done func()
}

func (s *handshake) started() { s.unfinished.Store(true) }

func (s *handshake) ended(_ tls.ConnectionState, err error) {
	if err == nil {
		s.unfinished.Store(false)
	}
}

func (s *handshake) gotConn(info httptrace.GotConnInfo) {
	s.unfinished.Store(false)
	if !info.Reused {
		s.done()
	}
}

// TryHosts makes sure that a mint finds a host that it can reach. If the handshake with the preferred host has worked before, it does
// nothing. Otherwise it opens connections to one host after the other, on which it sends nothing, until one is ready, and makes that host
// the preferred one. Each may take Options.Timeout. A mint that starts soon after has no time to find out that a handshake is not answered.
func (c *Client) TryHosts(ctx context.Context) error {
	order := c.order()
	if c.reachable(order[0]) {
		return nil
	}
	if err := c.slots.acquire(ctx); err != nil {
		return notStarted(err)
	}
	defer c.slots.release()
	var last *token.Error
	for _, i := range order {
		if c.reachable(i) {
			last = nil
		} else {
			last = c.connect(ctx, i)
		}
		if last == nil {
			c.preferred.CompareAndSwap(int64(order[0]), int64(i))
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return last
}

// connect opens a connection to an endpoint in the way of a mint, and closes it without sending anything.
func (c *Client) connect(ctx context.Context, endpoint int) *token.Error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	begin := c.clock.mark()
	var ready atomic.Bool
	_, err := c.send(ctx, endpoint, request{
		method:     http.MethodGet,
		path:       "/",
		transports: c.network.Load().fresh,
		once: &once{by: time.Now().Add(c.timeout), allowed: func() bool {
			ready.Store(true)
			return false
		}},
	})
	if ready.Load() {
		return nil
	}
	e := c.unreachable(endpoint, err, nil)
	c.report(ctx, pathLegacy, endpoint, begin, e)
	return e
}
