// SPDX-License-Identifier: Apache-2.0

// Package httpserver makes HTTP servers that a hostile client cannot exhaust: their connections, headers and times are bounded, and they
// speak HTTP/1.1 alone.
package httpserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

const (
	// maxHeader bounds the request line and the headers of a request, in bytes. net/http adds 4 KiB of its own.
	maxHeader = 28 << 10
	// maxBody bounds the body of a request. None of the pages that New serves reads one.
	maxBody = 64 << 10
	// maxKept bounds the first line of a request after which the connection may be used again, in bytes.
	maxKept = 2 << 10
	// Connections is the number of connections that the listener of a server of New should hold open.
	Connections = 128

	readTimeout  = 10 * time.Second
	writeTimeout = 60 * time.Second
	idleTimeout  = 30 * time.Second
)

// New returns a server for the handler.
func New(handler http.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: counted(http.MaxBytesHandler(handler, maxBody)),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, connectionOf(c))
		},
		ConnState:         served,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		Protocols:         &protocols,
		// It would log what clients send, one line for each broken connection.
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// connectionKey is the key of the connection in the context of a request.
type connectionKey struct{}

// counted tells the connection what the handler has. net/http keeps a request's first line for as long as the connection, so that a long
// one ends it.
func counted(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, _ := r.Context().Value(connectionKey{}).(*connection); c != nil {
			c.serve(r)
		}
		if len(r.RequestURI) > maxKept {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// served tells the connection that a request is over.
func served(c net.Conn, state http.ConnState) {
	if own := connectionOf(c); own != nil && state == http.StateIdle {
		own.rest()
	}
}

// Listener is a TCP listener that a hostile client cannot exhaust.
type Listener struct {
	net.Listener
	bounded *bounded
}

// Listen listens on a TCP address, over TLS unless config is nil. It holds at most so many connections open at the same time.
func Listen(ctx context.Context, address string, config *tls.Config, connections int) (*Listener, error) {
	var lc net.ListenConfig
	tcp, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", address, err)
	}
	first := reading
	if config != nil {
		first = shaking
	}
	b := newBounded(tcp, connections, first)
	l := &Listener{Listener: b, bounded: b}
	if config != nil {
		config = config.Clone()
		config.NextProtos = []string{"http/1.1"}
		l.Listener = tls.NewListener(b, config)
	}
	return l, nil
}

// Abort closes all connections at once. Close of a server sends an alert on each TLS connection, one after the other, and waits up to 5 s
// for a client that does not read.
func (l *Listener) Abort() { l.bounded.abort() }
