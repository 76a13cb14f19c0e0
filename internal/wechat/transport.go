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
	"os"
	"sync/atomic"
	"time"
)

// proxyRefusal is the HTTP status with which a proxy refused a tunnel.
type proxyRefusal int

func (p proxyRefusal) Error() string { return fmt.Sprintf("the proxy answered HTTP %d", int(p)) }

// newTransport is for calls that may be repeated: connections are kept. They speak HTTP/1.1, which is what WeChat answers with, and
// which takes less CPU and, in a burst, less time than many calls on one connection of HTTP/2 (docs/performance.md).
func newTransport(o Options, roots *x509.CertPool) *http.Transport {
	t := baseTransport(o, roots)
	t.DialContext = dialer(o).DialContext
	t.MaxIdleConnsPerHost = o.MaxInFlight
	t.IdleConnTimeout = 90 * time.Second
	return t
}

// newMintTransport is for mints. net/http repeats a request by itself when a kept connection turns out to be closed; on a
// connection of its own it never does.
func newMintTransport(o Options, roots *x509.CertPool) *http.Transport {
	t := baseTransport(o, roots)
	t.DialContext = gatedDial(dialer(o).DialContext)
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
		// Answers are small, and a small one can unpack to a large one.
		DisableCompression: true,
		Protocols:          new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}

func dialer(o Options) *net.Dialer {
	// An idle connection that died without a word is mostly found out within half a minute, and not by a call that fails.
	return &net.Dialer{Timeout: o.Timeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3,
	}}
}

func onProxyConnectResponse(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode != http.StatusOK {
		return proxyRefusal(res.StatusCode)
	}
	return nil
}

// rootCAs are the system's and those of a PEM file.
func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // the system's
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's certificates cannot be read: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}

// gate stands between an open connection and a mint. Until it is passed nothing of the request has left,
// and once it is shut nothing can.
type gate struct {
	// allowed is asked at the last moment.
	allowed func() bool
	state   atomic.Int32
}

const (
	gateWaiting int32 = iota
	gatePassed
	gateShut
)

// pass is called when the connection is ready. A gate that was passed stays so, whatever comes later:
// the request may have left.
func (g *gate) pass() {
	next := gateShut
	if g.allowed() {
		next = gatePassed
	}
	g.state.CompareAndSwap(gateWaiting, next)
}

// shut reports whether it was in time.
func (g *gate) shut() bool { return g.state.CompareAndSwap(gateWaiting, gateShut) }

func (g *gate) passed() bool { return g.state.Load() == gatePassed }

type gateKey struct{}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// gatedDial ties a connection to the gate of the request that it is dialled for. It is never used by
// another one, because its transport keeps none.
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

// gatedConn lets TLS and a proxy talk while the gate waits. net/http does not look at the context
// between a ready connection and the first byte of the request, so a shut gate has to stop it here.
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
