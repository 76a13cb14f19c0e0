// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/wechat-token-operator/wechat-token-operator/internal/httpserver"
	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
)

// addServers adds the servers of probes, metrics and profiles. Those of controller-runtime bound neither headers nor connections.
func addServers(ctx context.Context, mgr ctrl.Manager, opts *options, metrics prometheus.Gatherer, ready healthz.Checker) error {
	if err := addServer(ctx, mgr, "probes", opts.servers.HealthProbeBindAddress, nil, program.Probes(ready)); err != nil {
		return err
	}
	if err := addServer(ctx, mgr, "profiles", opts.pprofBindAddress, nil, profiles()); err != nil {
		return err
	}
	if program.IsDisabled(opts.servers.MetricsBindAddress) {
		return nil
	}
	handler, config, err := opts.servers.Metrics(metrics, mgr.GetConfig(), mgr.GetHTTPClient(), mgr.GetLogger())
	if err != nil {
		return err //nolint:wrapcheck // it says what was set up
	}
	return addServer(ctx, mgr, "metrics", opts.servers.MetricsBindAddress, config, handler)
}

// addServer listens on an address and adds a server to the manager, which starts it before anything else.
func addServer(ctx context.Context, mgr ctrl.Manager, name, address string, config *tls.Config, handler http.Handler) error {
	if program.IsDisabled(address) {
		return nil
	}
	listener, err := httpserver.Listen(ctx, address, config, httpserver.Connections)
	if err != nil {
		return fmt.Errorf("serving %s: %w", name, err)
	}
	timeout := time.Second
	server := &manager.Server{Name: name, Server: httpserver.New(handler), Listener: listener, ShutdownTimeout: &timeout}
	if err := mgr.Add(server); err != nil {
		return fmt.Errorf("serving %s: %w", name, err)
	}
	return nil
}

// profiles serves Go's profiles.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
