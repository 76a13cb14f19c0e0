// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/wechat-token-operator/wechat-token-operator/internal/httpserver"
)

const metricsHost = "operator.example.com"

// certificatePair returns a self-signed certificate for metricsHost and its key, both as PEM.
func certificatePair(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: metricsHost}, DNSNames: []string{metricsHost},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

func writePair(t *testing.T, dir string, cert, key []byte) {
	t.Helper()
	for name, text := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMetricsCertificate reads the metrics of a server with a certificate as a caller who verifies it, before and after the certificate
// is replaced, and while its files cannot be used.
func TestMetricsCertificate(t *testing.T) {
	dir := t.TempDir()
	var logged []string
	log := funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{})
	now := time.Now()
	c := newCertificate(parse(t, "--metrics-cert-path="+dir), log)
	c.now = func() time.Time { return now }
	if len(logged) != 1 || !strings.Contains(logged[0], "--metrics-cert-path") {
		t.Fatalf("a folder without files is logged as %q", logged)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	c.configure(config)
	listener, err := httpserver.Listen(t.Context(), "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	server := httpserver.New(http.NotFoundHandler())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	get := func(ca []byte) error {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: metricsHost}, DisableKeepAlives: true}
		res, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("https://" + listener.Addr().String() + "/metrics")
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	first, firstKey := certificatePair(t)
	if err := get(first); err == nil {
		t.Fatal("the server has a certificate of its own making")
	}
	step := func(what string, cert, key []byte, good ...[]byte) {
		t.Helper()
		writePair(t, dir, cert, key)
		c.mu.Lock() // a handshake reads it under the lock
		now = now.Add(certificateAge + time.Second)
		c.mu.Unlock()
		for i, ca := range [][]byte{first, cert} {
			err := get(ca)
			if want := len(good) > i && good[i] != nil; (err == nil) != want {
				t.Errorf("%s: caller %d got %v", what, i, err)
			}
		}
	}
	second, secondKey := certificatePair(t)
	step("the first", first, firstKey, first, first)
	step("half written", second, firstKey, first, nil)
	step("no certificate", []byte("nonsense"), firstKey, first, nil)
	step("the second", second, secondKey, nil, second)
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := fmt.Sprint(logged); len(logged) != 3 || strings.Contains(text, "PRIVATE") {
		t.Errorf("logged %d lines: %s", len(logged), text)
	}
}

func TestNoMetricsCertificate(t *testing.T) {
	if c := newCertificate(parse(t), logr.Discard()); c != nil {
		t.Error("there is a certificate without a flag")
	}
}

// A file that became a pipe or a directory must not hold the handshakes of those who ask for the metrics: each would keep its memory
// after its connection is closed.
func TestMetricsCertificateThatIsNoFile(t *testing.T) {
	for name, replace := range map[string]func(file string) error{
		"pipe":       func(file string) error { return syscall.Mkfifo(file, 0o600) },
		"directory":  func(file string) error { return os.Mkdir(file, 0o700) },
		"large file": func(file string) error { return os.WriteFile(file, make([]byte, 5<<20), 0o600) },
	} {
		for _, file := range []string{"tls.crt", "tls.key"} {
			t.Run(name+" "+file, func(t *testing.T) {
				dir := t.TempDir()
				cert, key := certificatePair(t)
				writePair(t, dir, cert, key)
				now := time.Now()
				c := newCertificate(parse(t, "--metrics-cert-path="+dir), logr.Discard())
				c.now = func() time.Time { return now }
				path := filepath.Join(dir, file)
				if err := errors.Join(os.Remove(path), replace(path)); err != nil {
					t.Fatal(err)
				}
				now = now.Add(certificateAge + time.Second)
				got := make(chan error, 1)
				go func() {
					_, err := c.get(nil)
					got <- err
				}()
				select {
				case err := <-got:
					if err != nil || c.failure == "" {
						t.Errorf("the last good certificate is not served: %v, %q", err, c.failure)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("the file is still being read")
				}
			})
		}
	}
}
