// SPDX-License-Identifier: Apache-2.0

package program

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"
	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/wechat-token-operator/wechat-token-operator/internal/access"
	"github.com/wechat-token-operator/wechat-token-operator/internal/certificate"
)

// Disabled is the address of a server that is not wanted; so is "".
const Disabled = "0"

// IsDisabled reports whether no server listens on the address.
func IsDisabled(address string) bool { return address == Disabled || address == "" }

// scrapesAtOnce is the number of scrapes that are answered at the same time; each goes through all metrics.
const scrapesAtOnce = 4

// Servers are the flags of the servers of metrics and probes.
type Servers struct {
	MetricsBindAddress     string
	MetricsSecure          bool
	MetricsCertPath        string
	MetricsCertName        string
	MetricsCertKey         string
	HealthProbeBindAddress string
}

// Bind registers the flags.
func (s *Servers) Bind(fs *flag.FlagSet) {
	fs.StringVar(&s.MetricsBindAddress, "metrics-bind-address", Disabled, `Address of the metrics endpoint, such as :8443. "0": none.`)
	fs.BoolVar(&s.MetricsSecure, "metrics-secure", true, "Serve metrics over HTTPS, to callers that the API server authorizes.")
	fs.StringVar(&s.MetricsCertPath, "metrics-cert-path", "",
		"Folder with the certificate that the metrics are served with. It is read again when it changes. "+
			"Empty: a certificate that is made at each start, which nobody can verify.")
	fs.StringVar(&s.MetricsCertName, "metrics-cert-name", "tls.crt", "Name of the certificate's file in --metrics-cert-path.")
	fs.StringVar(&s.MetricsCertKey, "metrics-cert-key", "tls.key", "Name of the private key's file in --metrics-cert-path.")
	fs.StringVar(&s.HealthProbeBindAddress, "health-probe-bind-address", ":8081", `Address of /healthz and /readyz. "0": none.`)
}

// Check validates the flags.
func (s *Servers) Check() error {
	if s.MetricsCertPath != "" && !s.MetricsSecure {
		return errors.New("--metrics-cert-path: --metrics-secure=false serves no certificate")
	}
	return nil
}

// Metrics returns the handler of the metrics, and how TLS is served; nil for no TLS. With --metrics-secure the API server is asked by the
// client who the callers are and whether they may read metrics.
func (s *Servers) Metrics(
	metrics prometheus.Gatherer, config *rest.Config, client *http.Client, log logr.Logger,
) (http.Handler, *tls.Config, error) {
	handler := promhttp.HandlerFor(metrics, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError, MaxRequestsInFlight: scrapesAtOnce})
	var tlsConfig *tls.Config
	if s.MetricsSecure {
		filter, err := access.FilterProvider(config, client)
		if err != nil {
			return nil, nil, fmt.Errorf("setting up the authorization of metrics: %w", err)
		}
		if handler, err = filter(log.WithName("metrics"), handler); err != nil {
			return nil, nil, fmt.Errorf("setting up the authorization of metrics: %w", err)
		}
		tlsConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		if c := s.Certificate(log); c != nil {
			c.Configure(tlsConfig)
		} else if tlsConfig.Certificates, err = selfSigned(); err != nil {
			return nil, nil, err
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", handler)
	return mux, tlsConfig, nil
}

// Certificate returns the certificate that --metrics-cert-path names, or nil if the flag is not set. A program runs without a good one,
// because tokens are worth more than metrics.
func (s *Servers) Certificate(log logr.Logger) *certificate.Certificate {
	if s.MetricsCertPath == "" {
		return nil
	}
	return certificate.New(certificate.Options{
		CertFile: filepath.Join(s.MetricsCertPath, s.MetricsCertName),
		KeyFile:  filepath.Join(s.MetricsCertPath, s.MetricsCertKey),
		Purpose:  "the metrics",
		Flag:     "--metrics-cert-path",
		Log:      log,
	})
}

// Probes serves /healthz and /readyz.
func Probes(ready healthz.Checker) http.Handler {
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
