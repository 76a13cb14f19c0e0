// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

// proxyRefusal is the HTTP status of a proxy that refused to open a tunnel.
type proxyRefusal int

func (p proxyRefusal) Error() string { return fmt.Sprintf("the proxy answered HTTP %d", int(p)) }

// network is how WeChat is reached. It is replaced when the certificate authorities change.
type network struct {
	// shared reuses connections, fresh opens a new one for each request.
	shared, fresh transports
}

func newNetwork(o Options, roots *x509.CertPool) *network {
	large, small := newTransport(o, roots), newTransport(o, roots)
	large.TLSHandshakeTimeout = o.Timeout / 2 // the rest is for a second handshake
	mintLarge, mintSmall := newMintTransport(o, roots), newMintTransport(o, roots)
	for _, t := range []*http.Transport{small, mintSmall} {
		t.TLSClientConfig.CurvePreferences = classicalCurves
	}
	return &network{shared: transports{large: large, small: small}, fresh: transports{large: mintLarge, small: mintSmall}}
}

// closeIdle closes the idle connections.
func (n *network) closeIdle() {
	for _, t := range []http.RoundTripper{n.shared.large, n.shared.small} {
		if t, ok := t.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
}

// newTransport returns a transport for requests that may be repeated. It reuses connections. It uses HTTP/1.1, as WeChat does. In a
// burst this takes less CPU and time than many requests on one connection of HTTP/2 (docs/performance.md).
func newTransport(o Options, roots *x509.CertPool) *http.Transport {
	t := baseTransport(o, roots)
	t.DialContext = dial(o)
	t.MaxIdleConnsPerHost = o.MaxInFlight
	t.MaxConnsPerHost = o.ConnsPerHost
	t.IdleConnTimeout = 90 * time.Second
	return t
}

// newMintTransport returns a transport for mints. It opens a connection for each request, because net/http sends a request again if a
// reused connection turns out to be closed, but never does so on a new connection.
func newMintTransport(o Options, roots *x509.CertPool) *http.Transport {
	t := baseTransport(o, roots)
	t.DialContext = gatedDial(dial(o))
	t.DisableKeepAlives = true
	return t
}

func baseTransport(o Options, roots *x509.CertPool) *http.Transport {
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: onProxyConnectResponse,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    o.Timeout,
		MaxResponseHeaderBytes: maxBody,
		// Answers are small, and a small compressed answer could expand to a large one.
		DisableCompression: true,
		Protocols:          new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

func dial(o Options) dialFunc {
	if o.Dial != nil {
		return o.Dial
	}
	// With these probes a dead idle connection is usually detected within half a minute, before a call fails on it.
	return (&net.Dialer{Timeout: o.Timeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}).DialContext
}

func onProxyConnectResponse(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		return proxyRefusal(res.StatusCode)
	}
	return nil
}

// gate decides whether a mint may be sent on a connection that is ready. Before the gate is passed no byte of the request has been
// sent, and after it is shut none can be.
type gate struct {
	// allowed reports whether the mint may still be sent. It is called when the connection is ready.
	allowed func() bool
	state   atomic.Int32
}

const (
	gateWaiting int32 = iota
	gatePassed
	gateShut
)

// pass passes or shuts the gate. It is called when the connection is ready. A gate that was passed cannot be shut, because the request
// may have been sent.
func (g *gate) pass() {
	next := gateShut
	if g.allowed() {
		next = gatePassed
	}
	g.state.CompareAndSwap(gateWaiting, next)
}

// shut shuts the gate and reports whether it was still waiting.
func (g *gate) shut() bool { return g.state.CompareAndSwap(gateWaiting, gateShut) }

// passed reports whether the request may have been sent.
func (g *gate) passed() bool { return g.state.Load() == gatePassed }

// gateKey is the key of the gate in the context of a request.
type gateKey struct{}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// gatedDial returns a dial function whose connections obey the gate of the request for which they are opened. The transport does not
// reuse connections, so no other request ever uses them.
func gatedDial(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if g, ok := ctx.Value(gateKey{}).(*gate); ok {
			conn = &gatedConn{Conn: conn, gate: g}
		}
		return conn, nil
	}
}

// gatedConn rejects writes once its gate is shut. While the gate waits it allows the handshakes of TLS and of a proxy. net/http does not
// check the context between a ready connection and the first byte of the request, so the write has to be stopped here.
type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if c.gate.state.Load() == gateShut {
		return 0, ErrStartedTooLate
	}
	return c.Conn.Write(b)
}
