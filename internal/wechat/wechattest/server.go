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
	// defaultLife is the life that WeChat documents for both kinds of token.
	defaultLife = 2 * time.Hour
)

// Options configures a Server. The zero value is for a server on a free port of 127.0.0.1 that knows no app.
type Options struct {
	// TLS makes the server use HTTPS. Its certificate is valid for 127.0.0.1, ::1 and localhost and is signed by a CA of its own.
	TLS bool
	// TLSNames lists more names for the certificate, such as that of a Service.
	TLSNames []string
	// Addr is the address to listen on. The default is 127.0.0.1:0.
	Addr string
	// Life is the life of a token, rounded up to whole seconds. The default is 7200 s.
	Life time.Duration
	// AutoApps makes the server accept every well-formed appid (^wx[0-9a-z]{16}$). The AppSecret of its first call becomes its
	// AppSecret.
	AutoApps bool
	// LegacyGrandparentLives decides what a Legacy mint does to the token before the one that it replaces, which WeChat does not
	// document. By default that token is invalidated at once. If true, it stays valid for the rest of its five minutes.
	LegacyGrandparentLives bool
	// Now returns the time to which Advance adds. The default is time.Now. It must not call the Server.
	Now func() time.Time
	// OnCall, if not nil, is called after each call, possibly after the client has received the answer. Several goroutines may call
	// it concurrently and in any order. It must not call Close.
	OnCall func(Call)
}

// Server is a fake of WeChat's API. It is safe for concurrent use.
type Server struct {
	options Options
	url     string
	caPEM   []byte
	http    *http.Server

	lifetime *lifetime
	served   chan struct{} // closed when the listener is

	mu       sync.Mutex // guards the fields below
	platform platform
	calls    callLog
	faults   faultList
}

// NewServer starts a server. The caller must call Close.
func NewServer(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = defaultAddr
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		options:  o,
		lifetime: newLifetime(),
		served:   make(chan struct{}),
		platform: newPlatform(o),
		calls:    newCallLog(),
	}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // would otherwise print every aborted handshake
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	return s, nil
}

// listen opens the listener and starts to serve.
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
	listener, err := net.Listen("tcp", s.options.Addr) //nolint:noctx // listening on a local address does not block
	if err != nil {
		return err
	}
	s.url = scheme + "://" + reachable(listener.Addr())
	go func() {
		defer close(s.served)
		_ = serve(listener) // always returns an error after Close
	}()
	return nil
}

// reachable returns an address at which this machine can reach a listener. It differs from addr if that is unspecified.
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

// URL returns the server's scheme and host, without a trailing slash.
func (s *Server) URL() string { return s.url }

// CACertPEM returns the certificate of the server's CA, or nil without TLS.
func (s *Server) CACertPEM() []byte { return s.caPEM }

// Close stops the server and aborts the requests in flight, including those that hang. It may be called more than once.
func (s *Server) Close() {
	s.lifetime.end()
	_ = s.http.Close()
	<-s.served
	s.lifetime.inFlight.Wait()
}

// Now returns the time of the server's clock in UTC. All decisions and the Date header use this clock.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.platform.now()
}

// Advance moves the server's clock forward by d, or back if d is negative. It does not affect the delays of faults.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform.offset += d
}
