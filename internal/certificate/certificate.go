// SPDX-License-Identifier: Apache-2.0

// Package certificate reads a server's certificate from files, and again when they are replaced.
package certificate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/wechat-token-operator/wechat-token-operator/internal/file"
)

// age is how long a certificate that was read is served before its files are read again.
const age = 10 * time.Second

// Certificate is the certificate and the private key of a server. A pair that cannot be used is told in the log and leaves the last good
// one in place. Without a good one no connection is made, but the program runs.
type Certificate struct {
	Options

	mu      sync.Mutex
	readAt  time.Time
	failure string
	current *tls.Certificate
}

// Options names a certificate.
type Options struct {
	CertFile, KeyFile string
	// Purpose says what is served with it, such as "the metrics", for the error of a handshake, and Flag names the flag that the files
	// come from, for the log.
	Purpose, Flag string
	Log           logr.Logger
	// Now tells the time. The default is time.Now.
	Now func() time.Time
}

// New returns a certificate, whose files it reads for the first time.
func New(o Options) *Certificate {
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Certificate{Options: o}
	// A wrong path is told at once, and not when somebody calls. The server reports the error to whoever connects.
	_, _ = c.get(nil)
	return c
}

// Configure makes a TLS server use the certificate.
func (c *Certificate) Configure(config *tls.Config) {
	config.GetCertificate = c.get
}

// Check returns an error while there is no good pair. It reads the files again if it is time.
func (c *Certificate) Check() error {
	_, err := c.get(nil)
	return err
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.Now(); c.readAt.IsZero() || now.Sub(c.readAt) >= age {
		c.readAt = now
		c.read()
	}
	if c.current == nil {
		return nil, errors.New("there is no certificate for " + c.Purpose)
	}
	return c.current, nil
}

// read reads the files. A failure is logged when it begins or changes.
func (c *Certificate) read() {
	pair, err := loadPair(c.CertFile, c.KeyFile)
	if err == nil {
		c.current, c.failure = &pair, ""
		return
	}
	if c.failure != err.Error() {
		c.failure = err.Error()
		c.Log.Error(err, "could not read the certificate", "flag", c.Flag, "cert", c.CertFile, "key", c.KeyFile,
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
