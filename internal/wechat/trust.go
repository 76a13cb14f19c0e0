// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"

	"github.com/wechat-token-operator/wechat-token-operator/internal/file"
)

// trust is what a Client knows of Options.CAFile.
type trust struct {
	options Options

	mu sync.Mutex // guards the fields below
	// pem is the content of the file that is in use.
	pem []byte
	// problem is why the file could not be read again, or nil.
	problem error
}

// ReloadCA reads Options.CAFile, and reports whether it holds other certificates than before. Later requests use those, on new connections.
// If the file cannot be used, the certificates stay as they were, and the error says why. New has called it once.
func (c *Client) ReloadCA() (changed bool, err error) {
	t := c.trust
	t.mu.Lock()
	defer t.mu.Unlock()
	old := c.network.Load()
	if t.options.CAFile == "" {
		if old == nil {
			c.network.Store(newNetwork(t.options, nil)) // crypto/tls uses the system's certificates
		}
		return false, nil
	}
	var content []byte
	if content, t.problem = file.Read(t.options.CAFile); t.problem != nil {
		return false, t.problem
	}
	if old != nil && bytes.Equal(content, t.pem) {
		return false, nil
	}
	var roots *x509.CertPool
	if roots, t.problem = rootCAs(t.options.CAFile, content); t.problem != nil {
		return false, t.problem
	}
	t.pem = content
	c.network.Store(newNetwork(t.options, roots))
	if old != nil {
		old.closeIdle()
	}
	return true, nil
}

// caProblem returns why the file could not be read again, or nil.
func (c *Client) caProblem() error {
	c.trust.mu.Lock()
	defer c.trust.mu.Unlock()
	return c.trust.problem
}

// rootCAs returns the system's certificates together with those of a PEM file. It refuses a file with a certificate that cannot be read,
// because the file may have been read while it was written.
func rootCAs(name string, content []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's certificates cannot be read: %w", err)
	}
	found := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		found++
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in %s cannot be read: %w", found, name, err)
		}
		pool.AddCert(cert)
	}
	switch {
	case found < bytes.Count(content, []byte("-----BEGIN CERTIFICATE-----")):
		return nil, fmt.Errorf("%s was cut or damaged: not every PEM certificate in it can be read", name)
	case found == 0:
		return nil, fmt.Errorf("%s holds no PEM certificate", name)
	}
	return pool, nil
}
