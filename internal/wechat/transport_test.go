// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

type tlsServer struct {
	server
	cert *x509.Certificate
}

// serveTLS starts an HTTPS server whose certificate no system trusts; adjust may be nil.
func serveTLS(t *testing.T, adjust func(*tls.Config), handler http.HandlerFunc) *tlsServer {
	t.Helper()
	s := &tlsServer{}
	ts := httptest.NewUnstartedServer(s.counted(handler))
	ts.EnableHTTP2 = true // so that a client that offers it would use it
	ts.TLS = &tls.Config{}
	if adjust != nil {
		adjust(ts.TLS)
	}
	ts.Config.ErrorLog = log.New(io.Discard, "", 0)
	ts.StartTLS()
	t.Cleanup(ts.Close)
	s.URL, s.cert = ts.URL, ts.Certificate()
	return s
}

// caFile writes the server's certificate into a file.
func (s *tlsServer) caFile(t *testing.T) string {
	t.Helper()
	return writeFile(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw}))
}

func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCAFile(t *testing.T) {
	s := serveTLS(t, nil, answering)
	good := s.caFile(t)
	for _, call := range allCalls {
		if _, err := call.do(t.Context(), newClient(t, Options{Endpoints: []string{s.URL}, CAFile: good})); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
		_, err := call.do(t.Context(), newClient(t, Options{Endpoints: []string{s.URL}}))
		wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0), "certificate is not trusted", "--wechat-ca-file")
	}

	for name, file := range map[string]string{
		"missing": filepath.Join(t.TempDir(), "none.crt"),
		"empty":   writeFile(t, nil),
		"no PEM":  writeFile(t, s.cert.Raw),
		"a key":   writeFile(t, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
	} {
		_, err := New(Options{CAFile: file})
		if e, ok := errors.AsType[*OptionError](err); !ok || e.Flag != "--wechat-ca-file" || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v, want an *OptionError that names flag and file", name, err)
		}
		if errors.Is(err, fs.ErrNotExist) != (name == "missing") {
			t.Errorf("%s: cause of %v", name, err)
		}
	}
}

func TestTLS(t *testing.T) {
	for _, tt := range []struct {
		name   string
		adjust func(*tls.Config)
		says   string // "" for no error
	}{
		{"1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, ""},
		{"1.3", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, ""},
		{"1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, "TLS 1.2 or later"},
		{"client certificate wanted", func(c *tls.Config) { c.MaxVersion, c.ClientAuth = tls.VersionTLS12, tls.RequireAnyClientCert },
			"no client certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveTLS(t, tt.adjust, answering)
			c := newClient(t, Options{Endpoints: []string{s.URL}, CAFile: s.caFile(t)})
			for _, call := range allCalls {
				_, err := call.do(t.Context(), c)
				if tt.says == "" {
					if err != nil {
						t.Errorf("%s: %v", call.name, err)
					}
					continue
				}
				e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
				wantText(t, e, tt.says)
				if e.MaybeSent {
					t.Errorf("%s: MaybeSent is true", call.name)
				}
				s.wantHits(t, 0)
			}
		})
	}
}

// TestDescribe has the failures of the transport that a test cannot cause without a network.
func TestDescribe(t *testing.T) {
	dns := &net.DNSError{Err: "no such host", Name: "api.example.com", IsNotFound: true}
	slowDNS := &net.DNSError{Err: "i/o timeout", Name: "api.example.com", IsTimeout: true}
	for _, tt := range []struct {
		err   error
		what  string
		cause error
	}{
		{&net.OpError{Op: "dial", Err: dns}, "its name was not resolved", nil},
		{&net.OpError{Op: "dial", Err: slowDNS}, "its name was not resolved", context.DeadlineExceeded},
		{&net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Err: dns}}, "the proxy was not reached", nil},
		{&net.OpError{Op: "proxyconnect", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "the proxy was not reached", syscall.ECONNREFUSED},
		{&net.OpError{Op: "proxyconnect", Err: os.ErrDeadlineExceeded}, "the proxy was not reached", context.DeadlineExceeded},
		{&net.OpError{Op: "proxyconnect", Err: &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}}, "the proxy was not reached", nil},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, "the connection failed", syscall.ENETUNREACH},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)}, "the time for an answer is over", context.DeadlineExceeded},
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, "the connection was cut", io.ErrUnexpectedEOF},
		{os.ErrDeadlineExceeded, "the time for an answer is over", context.DeadlineExceeded},
		{errors.Join(dns, context.Canceled), "the call was cancelled", context.Canceled},
		{errors.New("else"), "the connection failed", nil},
	} {
		if what, cause := describe(tt.err); what != tt.what || !errors.Is(cause, tt.cause) {
			t.Errorf("%v: %q with cause %v, want %q with %v", tt.err, what, cause, tt.what, tt.cause)
		}
	}
}

// An answer that is not WeChat's does not cost a connection: a gateway that is in trouble must not get a handshake for each call.
func TestRefusalsKeepTheConnection(t *testing.T) {
	seen := sync.Map{}
	s := serveTLS(t, nil, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.RemoteAddr, true)
		http.Error(w, strings.Repeat("busy ", 1000), http.StatusServiceUnavailable)
	})
	c := newClient(t, Options{Endpoints: []string{s.URL}, CAFile: s.caFile(t)})
	for range 12 {
		_, err := c.StableToken(t.Context(), testAccount, false)
		_ = wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
	}
	connections := 0
	seen.Range(func(any, any) bool { connections++; return true })
	if connections != 1 {
		t.Errorf("12 refusals on %d connections", connections)
	}
}

// When a network drops everything without a word, one call finds out, and not one for each connection that is kept.
func TestSilentConnectionsCostOneCall(t *testing.T) {
	const kept = 4
	var mu sync.Mutex
	silent, warm := map[string]bool{}, make(chan struct{})
	s := serveTLS(t, nil, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if len(silent) < kept {
			if silent[r.RemoteAddr] = true; len(silent) == kept {
				close(warm)
			}
			mu.Unlock()
			<-warm // until all have a connection
			answering(w, r)
			return
		}
		dead := silent[r.RemoteAddr]
		mu.Unlock()
		if dead {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client went
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // an answer could overtake the end of the connection
		}
		answering(w, r)
	})
	c := newClient(t, Options{Endpoints: []string{s.URL}, CAFile: s.caFile(t), Timeout: time.Second})
	var calls sync.WaitGroup
	for range kept {
		calls.Go(func() {
			if _, err := c.StableToken(t.Context(), testAccount, false); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	_, err := c.StableToken(t.Context(), testAccount, false)
	_ = wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
	for range kept {
		if _, err := c.StableToken(t.Context(), testAccount, false); err != nil {
			t.Errorf("a later call: %v", err)
		}
	}
}
