// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/pprof"
	"path/filepath"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	certutil "k8s.io/client-go/util/cert"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/wechat-token-operator/wechat-token-operator/internal/access"
	"github.com/wechat-token-operator/wechat-token-operator/internal/certificate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/httpserver"
)

// disabled is the address of a server that is not wanted; so is "".
const disabled = "0"

func isDisabled(address string) bool { return address == disabled || address == "" }

// scrapesAtOnce is the number of scrapes that are answered at the same time; each goes through all resources.
const scrapesAtOnce = 4

// addServers adds the servers of probes, metrics and profiles. Those of controller-runtime bound neither headers nor connections.
func addServers(ctx context.Context, mgr ctrl.Manager, opts *options, metrics prometheus.Gatherer, ready healthz.Checker) error {
	if err := addServer(ctx, mgr, "probes", opts.healthProbeBindAddress, nil, probes(ready)); err != nil {
		return err
	}
	if err := addServer(ctx, mgr, "profiles", opts.pprofBindAddress, nil, profiles()); err != nil {
		return err
	}
	if isDisabled(opts.metricsBindAddress) {
		return nil
	}
	handler := promhttp.HandlerFor(metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: scrapesAtOnce})
	var config *tls.Config
	if opts.metricsSecure {
		filter, err := access.FilterProvider(mgr.GetConfig(), mgr.GetHTTPClient())
		if err != nil {
			return fmt.Errorf("setting up the authorization of metrics: %w", err)
		}
		if handler, err = filter(mgr.GetLogger().WithName("metrics"), handler); err != nil {
			return fmt.Errorf("setting up the authorization of metrics: %w", err)
		}
		config = &tls.Config{MinVersion: tls.VersionTLS12}
		if c := newCertificate(opts, mgr.GetLogger()); c != nil {
			c.Configure(config)
		} else if config.Certificates, err = selfSigned(); err != nil {
			return err
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", handler)
	return addServer(ctx, mgr, "metrics", opts.metricsBindAddress, config, mux)
}

// addServer listens on an address and adds a server to the manager, which starts it before anything else.
func addServer(ctx context.Context, mgr ctrl.Manager, name, address string, config *tls.Config, handler http.Handler) error {
	if isDisabled(address) {
		return nil
	}
	listener, err := httpserver.Listen(ctx, address, config)
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

// probes serves /healthz and /readyz. A standby is ready as well once its caches are filled.
func probes(ready healthz.Checker) http.Handler {
	mux := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{
		"/healthz": {"ping": healthz.Ping},
		"/readyz":  {"caches": ready},
	} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler)
	}
	return mux
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

// newCertificate returns the certificate that --metrics-cert-path names, or nil if the flag is not set. The operator runs without a good
// one, because tokens are worth more than metrics.
func newCertificate(opts *options, log logr.Logger) *certificate.Certificate {
	if opts.metricsCertPath == "" {
		return nil
	}
	return certificate.New(certificate.Options{
		CertFile: filepath.Join(opts.metricsCertPath, opts.metricsCertName),
		KeyFile:  filepath.Join(opts.metricsCertPath, opts.metricsCertKey),
		Purpose:  "the metrics",
		Flag:     "--metrics-cert-path",
		Log:      log,
	})
}

// selfSigned returns a certificate that nobody trusts: it keeps metrics from being read on the way, and no more.
func selfSigned() ([]tls.Certificate, error) {
	cert, key, err := certutil.GenerateSelfSignedCertKeyWithFixtures("localhost", nil, nil, "")
	if err != nil {
		return nil, fmt.Errorf("making a certificate for metrics: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for metrics: %w", err)
	}
	return []tls.Certificate{pair}, nil
}
