// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/wechat-token-operator/wechat-token-operator/internal/gateway"
	"github.com/wechat-token-operator/wechat-token-operator/internal/httpserver"
	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
)

const (
	// drainTime is how long a gateway that has been told to stop goes on to serve new connections: so long may it take until no node sends
	// any more to it.
	drainTime = 10 * time.Second
	// shutdownTimeout is how long it waits after that for the calls under way.
	shutdownTimeout = 40 * time.Second
	// brokenWithin is how long calls that are broken off have to get their line in the audit log.
	brokenWithin = time.Second
)

var errDraining = errors.New("the gateway is stopping")

// service is the server that programs call, and the ones of metrics and probes beside it.
type service struct {
	log logr.Logger
	// ready is the readiness of what the service needs.
	ready healthz.Checker
	// drainTime and shutdownTimeout are the constants, but for tests.
	drainTime, shutdownTimeout time.Duration

	draining atomic.Bool
	// underWay is the number of calls, and breakOff ends their contexts.
	underWay atomic.Int64
	breakOff context.CancelFunc
	main     *http.Server
	servers  []*http.Server
	// abort has a function for each server that closes its connections at once.
	abort  []func()
	failed chan error
}

func newService(log logr.Logger, ready healthz.Checker) *service {
	return &service{
		log: log, ready: ready, drainTime: drainTime, shutdownTimeout: shutdownTimeout, breakOff: func() {}, failed: make(chan error, 1),
	}
}

// listenAll starts all servers.
func (s *service) listenAll(ctx context.Context, opts *options, a *api, c *calls, metrics prometheus.Gatherer) error {
	if err := s.listenBeside(ctx, "probes", opts.servers.HealthProbeBindAddress, nil, program.Probes(s.readiness)); err != nil {
		return err
	}
	if address := opts.servers.MetricsBindAddress; !program.IsDisabled(address) {
		handler, config, err := opts.servers.Metrics(metrics, a.config, a.http, s.log)
		if err != nil {
			return err
		}
		if err := s.listenBeside(ctx, "metrics", address, config, handler); err != nil {
			return err
		}
	}
	var config *tls.Config
	if c.certificate != nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
		c.certificate.Configure(config)
	}
	return s.listen(ctx, opts.bindAddress, config, c)
}

// listen serves what programs call.
func (s *service) listen(ctx context.Context, address string, config *tls.Config, handler http.Handler) error {
	listener, err := httpserver.Listen(ctx, address, config, httpserver.StreamingConnections)
	if err != nil {
		return fmt.Errorf("serving calls: %w", err)
	}
	s.main = httpserver.NewStreaming(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.draining.Load() {
			// The caller opens its next connection to another gateway. A connection that is closed while a request is on its way loses it.
			w.Header().Set("Connection", "close")
		}
		s.underWay.Add(1)
		defer s.underWay.Add(-1)
		handler.ServeHTTP(w, r)
	}), gateway.Stall)
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.breakOff = cancel
	s.main.BaseContext = func(net.Listener) context.Context { return base }
	s.start(s.main, listener, listener.Abort)
	return nil
}

// listenBeside serves metrics or probes.
func (s *service) listenBeside(ctx context.Context, name, address string, config *tls.Config, handler http.Handler) error {
	if program.IsDisabled(address) {
		return nil
	}
	listener, err := httpserver.Listen(ctx, address, config, httpserver.Connections)
	if err != nil {
		return fmt.Errorf("serving %s: %w", name, err)
	}
	s.start(httpserver.New(handler), listener, listener.Abort)
	return nil
}

func (s *service) start(server *http.Server, listener net.Listener, abort func()) {
	s.servers = append(s.servers, server)
	s.abort = append(s.abort, abort)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			select {
			case s.failed <- err:
			default: // another one has failed
			}
		}
	}()
}

// readiness is the readiness check. A gateway that drains is not ready, and says so.
func (s *service) readiness(req *http.Request) error {
	if s.draining.Load() {
		return errDraining
	}
	return s.ready(req)
}

// run serves until ctx ends and then until the calls under way have ended. It returns an error if a server fails, or if calls had to be
// broken off.
func (s *service) run(ctx context.Context) (err error) {
	defer s.close()
	select {
	case err := <-s.failed:
		return fmt.Errorf("a server has failed: %w", err)
	case <-ctx.Done():
	}
	if s.isReady(context.WithoutCancel(ctx)) {
		s.log.Info("stopping: new calls are served for a while, until none come any more", "time", s.drainTime.String())
		s.draining.Store(true)
		time.Sleep(s.drainTime)
	}
	s.draining.Store(true)
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.shutdownTimeout)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.main.Shutdown(shutdown) }()
	select {
	case err = <-ended:
	case <-shutdown.Done(): // a client that does not read may hold Shutdown up for longer
		err = shutdown.Err()
	}
	if err != nil {
		return fmt.Errorf("calls did not end within %s and are broken off: %w", s.shutdownTimeout, err)
	}
	return nil
}

// close breaks off what is left.
func (s *service) close() {
	s.breakOff() // a call whose caller is not read from does not notice that its connection is closed
	for _, abort := range s.abort {
		abort()
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, server := range s.servers {
			_ = server.Close()
		}
	}()
	end := time.Now().Add(brokenWithin)
	select {
	case <-closed:
	case <-time.After(brokenWithin):
	}
	for s.underWay.Load() > 0 && time.Now().Before(end) {
		time.Sleep(10 * time.Millisecond)
	}
}

// isReady reports whether anybody may be calling.
func (s *service) isReady(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil)
	return err == nil && s.readiness(req) == nil
}
