// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/wechat-token-operator/wechat-token-operator/internal/file"
)

// certificateAge is how long a certificate that was read is served before its files are read again.
const certificateAge = 10 * time.Second

// certificate is the one that the metrics are served with. It is read from files, and again when they are replaced. A pair that cannot be
// used is told in the log and leaves the last good one in place. Without a good one no connection is made, but the operator runs: tokens
// are worth more than metrics.
type certificate struct {
	certFile, keyFile string
	log               logr.Logger
	now               func() time.Time

	mu      sync.Mutex
	readAt  time.Time
	failure string
	current *tls.Certificate
}

// newCertificate returns the certificate that --metrics-cert-path names, or nil if the flag is not set.
func newCertificate(opts *options, log logr.Logger) *certificate {
	if opts.metricsCertPath == "" {
		return nil
	}
	c := &certificate{
		certFile: filepath.Join(opts.metricsCertPath, opts.metricsCertName),
		keyFile:  filepath.Join(opts.metricsCertPath, opts.metricsCertKey),
		log:      log,
		now:      time.Now,
	}
	// A wrong path is told at once, and not when somebody calls. The server reports the error to whoever connects.
	_, _ = c.get(nil)
	return c
}

// configure makes a TLS server use the certificate.
func (c *certificate) configure(config *tls.Config) {
	config.GetCertificate = c.get
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); c.readAt.IsZero() || now.Sub(c.readAt) >= certificateAge {
		c.readAt = now
		c.read()
	}
	if c.current == nil {
		return nil, errors.New("there is no certificate for the metrics")
	}
	return c.current, nil
}

// read reads the files. A failure is logged when it begins or changes.
func (c *certificate) read() {
	pair, err := loadPair(c.certFile, c.keyFile)
	if err == nil {
		c.current, c.failure = &pair, ""
		return
	}
	if c.failure != err.Error() {
		c.failure = err.Error()
		c.log.Error(err, "could not read the certificate for the metrics", "flag", "--metrics-cert-path", "cert", c.certFile, "key", c.keyFile,
			"servesLast", c.current != nil)
	}
}

// loadPair does what tls.LoadX509KeyPair does, but does not wait for a pipe, and reads no file that is too large for a certificate.
func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := file.Read(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading the certificate: %w", err)
	}
	key, err := file.Read(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("reading the private key: %w", err)
	}
	return tls.X509KeyPair(cert, key) //nolint:wrapcheck // it is logged with the names of both files
}
