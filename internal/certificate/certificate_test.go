// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv/testcert"
)

const host = "operator.example.com"

// newCertificate returns the certificate in a folder.
func newCertificate(dir string, log logr.Logger, now func() time.Time) *Certificate {
	return New(Options{
		CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"),
		Purpose: "the metrics", Flag: "--metrics-cert-path", Log: log, Now: now,
	})
}

// TestCertificate reads the metrics of a server with a certificate as a caller who verifies it, before and after the certificate
// is replaced, and while its files cannot be used.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	var logged []string
	log := funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{})
	now := time.Now()
	c := newCertificate(dir, log, func() time.Time { return now })
	if len(logged) != 1 || !strings.Contains(logged[0], "--metrics-cert-path") {
		t.Fatalf("a folder without files is logged as %q", logged)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	c.Configure(config)
	listener, err := httpserver.Listen(t.Context(), "127.0.0.1:0", config, httpserver.Connections)
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
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: host}, DisableKeepAlives: true}
		res, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("https://" + listener.Addr().String() + "/metrics")
		if err != nil {
			return err
		}
		return res.Body.Close()
	}
	first, firstKey := testcert.Pair(t, host)
	if err := get(first); err == nil {
		t.Fatal("the server has a certificate of its own making")
	}
	step := func(what string, cert, key []byte, good ...[]byte) {
		t.Helper()
		testcert.Write(t, dir, cert, key)
		c.mu.Lock() // a handshake reads it under the lock
		now = now.Add(age + time.Second)
		c.mu.Unlock()
		for i, ca := range [][]byte{first, cert} {
			err := get(ca)
			if want := len(good) > i && good[i] != nil; (err == nil) != want {
				t.Errorf("%s: caller %d got %v", what, i, err)
			}
		}
	}
	second, secondKey := testcert.Pair(t, host)
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

// A file that became a pipe or a directory must not hold the handshakes of those who ask for the metrics: each would keep its memory
// after its connection is closed.
func TestCertificateThatIsNoFile(t *testing.T) {
	for name, replace := range map[string]func(file string) error{
		"pipe":       func(file string) error { return syscall.Mkfifo(file, 0o600) },
		"directory":  func(file string) error { return os.Mkdir(file, 0o700) },
		"large file": func(file string) error { return os.WriteFile(file, make([]byte, 5<<20), 0o600) },
	} {
		for _, file := range []string{"tls.crt", "tls.key"} {
			t.Run(name+" "+file, func(t *testing.T) {
				dir := t.TempDir()
				cert, key := testcert.Pair(t, host)
				testcert.Write(t, dir, cert, key)
				now := time.Now()
				c := newCertificate(dir, logr.Discard(), func() time.Time { return now })
				path := filepath.Join(dir, file)
				if err := errors.Join(os.Remove(path), replace(path)); err != nil {
					t.Fatal(err)
				}
				now = now.Add(age + time.Second)
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
