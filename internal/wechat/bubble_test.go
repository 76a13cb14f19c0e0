// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// host is a server on a network of pipes, for a testing/synctest bubble: its time is not real.
type host struct {
	connect time.Duration // how long connecting takes
	handler http.HandlerFunc

	dials atomic.Int32
	server
	conns  chan net.Conn
	closed chan struct{}
}

// bubble makes a client whose endpoints are the hosts. Call it inside a bubble.
func bubble(t *testing.T, o Options, hosts ...*host) *Client {
	t.Helper()
	byAddr := map[string]*host{}
	for i, h := range hosts {
		addr := fmt.Sprintf("127.0.0.1:%d", i+1)
		byAddr[addr] = h
		h.URL = "http://" + addr
		o.Endpoints = append(o.Endpoints, h.URL)
		h.start(t)
	}
	c := newClient(t, o)
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return byAddr[addr].dial(ctx)
	}
	n := c.network.Load()
	for _, h := range []hello{largeHello, smallHello} {
		n.shared.of(h).(*http.Transport).DialContext = dial
		n.fresh.of(h).(*http.Transport).DialContext = gatedDial(dial)
	}
	// Time stands still when the test returns, so what it left behind ends before.
	t.Cleanup(func() { time.Sleep(time.Minute) })
	return c
}

func (h *host) start(t *testing.T) {
	if h.handler == nil {
		h.handler = answering
	}
	h.conns, h.closed = make(chan net.Conn), make(chan struct{})
	s := &http.Server{Handler: h.counted(h.handler), ReadHeaderTimeout: time.Hour}
	go func() { _ = s.Serve(h) }()
	t.Cleanup(func() { _ = s.Close() })
}

func (h *host) dial(ctx context.Context) (net.Conn, error) {
	h.dials.Add(1)
	select {
	case <-time.After(h.connect):
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	here, there := net.Pipe()
	h.conns <- there
	return here, nil
}

// Accept, Close and Addr make it a net.Listener.
func (h *host) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *host) Close() error {
	close(h.closed)
	return nil
}

func (h *host) Addr() net.Addr { return &net.TCPAddr{} }

// hanging never answers. A server sees that its client went only when it has read the body.
func hanging(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	panic(http.ErrAbortHandler) // an answer could overtake the end of the connection
}

// took checks how long something lasted since start, exactly.
func took(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}
