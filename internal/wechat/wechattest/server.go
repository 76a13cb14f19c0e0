// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	defaultAddr = "127.0.0.1:0"
	// defaultLife is what WeChat documents for both kinds of token.
	defaultLife = 2 * time.Hour
)

// Options configure a Server. The zero value is a server on a free port of 127.0.0.1 that knows no app.
type Options struct {
	// TLS serves HTTPS, with a certificate for 127.0.0.1, ::1 and localhost from a CA of the server's own.
	TLS bool
	// TLSNames are more names for the certificate, such as that of a Service.
	TLSNames []string
	// Addr is the address to listen on; default 127.0.0.1:0.
	Addr string
	// Life is how long a token lives, rounded up to whole seconds; default 7200 s.
	Life time.Duration
	// AutoApps accepts any appid of the right form (^wx[0-9a-z]{16}$). The first AppSecret that is seen
	// with it becomes its AppSecret.
	AutoApps bool
	// LegacyGrandparentLives decides what WeChat does not document: what a Legacy mint does to the token
	// before the one that it replaces. By default that one dies at once; true lets it live out its five
	// minutes.
	LegacyGrandparentLives bool
	// Now is the clock to which Advance adds; default time.Now. It must not call the Server.
	Now func() time.Time
	// OnCall, if set, is called after each call is over, from several goroutines and in any order; the client
	// may have its answer before. It must not call Close.
	OnCall func(Call)
}

// Server is a stand-in for WeChat. It is safe for concurrent use.
type Server struct {
	options Options
	url     string
	caPEM   []byte
	http    *http.Server

	// done is closed by Close, for requests that wait.
	done     chan struct{}
	served   chan struct{}
	inFlight sync.WaitGroup

	mu       sync.Mutex // guards what follows
	closed   bool
	platform platform
	calls    callLog
	faults   faultList
}

// NewServer starts a server; Close ends it.
func NewServer(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = defaultAddr
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		options:  o,
		done:     make(chan struct{}),
		served:   make(chan struct{}),
		platform: newPlatform(o),
		calls:    newCallLog(),
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // it would print every cut handshake
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	return s, nil
}

// listen starts to serve.
func (s *Server) listen() error {
	scheme := "http"
	serve := s.http.Serve
	if s.options.TLS {
		ca, certificate, err := newCertificate(s.options.TLSNames)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		scheme, s.caPEM = "https", ca
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	listener, err := net.Listen("tcp", s.options.Addr) //nolint:noctx // an address of this machine: nothing to wait for
	if err != nil {
		return err
	}
	s.url = scheme + "://" + reachable(listener.Addr())
	go func() {
		defer close(s.served)
		_ = serve(listener) // it always ends with an error, after Close
	}()
	return nil
}

// reachable is an address under which a listener on all addresses can be called from this machine.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// URL is scheme and host, without a slash at the end.
func (s *Server) URL() string { return s.url }

// CACertPEM is the certificate of the CA to trust, nil without TLS.
func (s *Server) CACertPEM() []byte { return s.caPEM }

// Close ends the server and cuts what is under way, hung requests too. It may be called again.
func (s *Server) Close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if first {
		close(s.done)
	}
	_ = s.http.Close()
	<-s.served
	s.inFlight.Wait()
}

// enter counts a request that Close waits for; false after Close.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.inFlight.Add(1)
	}
	return !s.closed
}

// Now is the server's clock, UTC. All decisions and the Date header are made with it.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.platform.now()
}

// Advance moves the server's clock by d, back when d is negative. Delays of faults run in real time.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform.offset += d
}
