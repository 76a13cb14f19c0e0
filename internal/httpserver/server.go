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

// counted tells the listener when a request's header has been read, and when it is needed no more. For a request with a body served does
// that, because net/http reads what the handler left of it, which is no header.
func counted(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, _ := r.Context().Value(connectionKey{}).(*connection); c != nil {
			c.listener.enter(c, serving, size(r))
			if r.Body == http.NoBody {
				defer c.listener.enter(c, reading, 0)
			}
		}
		handler.ServeHTTP(w, r)
	})
}

// size returns how many bytes the header of a request has, nearly.
func size(r *http.Request) int {
	n := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, value := range values {
			n += len(name) + len(": \r\n") + len(value)
		}
	}
	return n
}

// served tells the listener that a request is over, its body included.
func served(c net.Conn, state http.ConnState) {
	if own := connectionOf(c); own != nil && state == http.StateIdle {
		own.listener.enter(own, idle, 0)
	}
}

// Listen listens on a TCP address, over TLS unless config is nil. It holds at most so many connections open at the same time.
func Listen(ctx context.Context, address string, config *tls.Config, connections int) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %q: %w", address, err)
	}
	l = newBounded(l, connections)
	if config == nil {
		return l, nil
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	return tls.NewListener(l, config), nil
}
