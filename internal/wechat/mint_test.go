// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// writing answers with raw bytes and closes.
func writing(raw string) func(net.Conn, *http.Request) bool {
	return func(conn net.Conn, _ *http.Request) bool {
		_, _ = io.WriteString(conn, raw)
		return false
	}
}

func resetting(conn net.Conn, _ *http.Request) bool {
	_ = conn.(*net.TCPConn).SetLinger(0)
	return false
}

// TestMintIsNeverSentTwice: bytes went out, so there is no second try of any kind.
func TestMintIsNeverSentTwice(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server func(t *testing.T) *server

		class     token.Class
		reason    token.Reason
		code      int
		answered  bool
		cutReason bool
	}{
		{name: "closed", server: func(t *testing.T) *server { return serveRaw(t, writing("")) },
			class: token.Transient, reason: v1alpha1.ReasonUnreachable, cutReason: true},
		{name: "reset", server: func(t *testing.T) *server { return serveRaw(t, resetting) },
			class: token.Transient, reason: v1alpha1.ReasonUnreachable, cutReason: true},
		{name: "header cut", server: func(t *testing.T) *server { return serveRaw(t, writing("HTTP/1.1 200 OK\r\nDate: x\r\n")) },
			class: token.Transient, reason: v1alpha1.ReasonUnreachable, cutReason: true},
		{name: "body cut", server: func(t *testing.T) *server {
			return serveRaw(t, writing("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"+goodBody))
		}, class: token.Transient, reason: v1alpha1.ReasonUnreachable, cutReason: true},
		{name: "idle timeout of a proxy", server: func(t *testing.T) *server {
			return serveRaw(t, writing("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"))
		}, class: token.Transient, reason: v1alpha1.ReasonBadResponse},
		{name: "not HTTP", server: func(t *testing.T) *server { return serveRaw(t, writing("SSH-2.0-x\r\n")) },
			class: token.Transient, reason: v1alpha1.ReasonUnreachable},
		{name: "500", server: func(t *testing.T) *server { return serve(t, saying(500, goodBody)) },
			class: token.Transient, reason: v1alpha1.ReasonUnreachable},
		{name: "421", server: func(t *testing.T) *server { return serve(t, saying(421, goodBody)) },
			class: token.Transient, reason: v1alpha1.ReasonBadResponse},
		{name: "web page", server: func(t *testing.T) *server { return serve(t, saying(200, "<html>")) },
			class: token.Transient, reason: v1alpha1.ReasonBadResponse},
		{name: "no token", server: func(t *testing.T) *server { return serve(t, saying(200, `{}`)) },
			class: token.Transient, reason: v1alpha1.ReasonBadResponse},
		{name: "errcode", server: func(t *testing.T) *server { return serve(t, saying(200, `{"errcode":-1,"errmsg":"busy"}`)) },
			class: token.Transient, reason: v1alpha1.ReasonSystemBusy, code: -1, answered: true},
		{name: "unknown errcode", server: func(t *testing.T) *server { return serve(t, saying(200, `{"errcode":7}`)) },
			class: token.Transient, reason: v1alpha1.ReasonRequestRejected, code: 7, answered: true},
		{name: "429", server: func(t *testing.T) *server { return serve(t, saying(429, "")) },
			class: token.Limited, reason: v1alpha1.ReasonRateLimited, answered: true},
	} {
		for _, mint := range mints() {
			t.Run(tt.name+"/"+mint.name, func(t *testing.T) {
				bad, other := tt.server(t), serve(t, answering)
				_, err := mint.do(t.Context(), clientOf(t, bad, other))
				e := wantError(t, err, tt.class, tt.reason, tt.code)
				if e.MaybeSent == tt.answered {
					t.Errorf("MaybeSent is %v", e.MaybeSent)
				}
				if errors.Is(err, io.ErrUnexpectedEOF) != tt.cutReason {
					t.Errorf("cause %v", e.Unwrap())
				}
				bad.wantHits(t, 1)
				other.wantHits(t, 0)
			})
		}
	}
}

// TestMintOnAKeptConnection: a server that closes kept connections makes net/http repeat a call, which
// only one that is no mint may be.
func TestMintOnAKeptConnection(t *testing.T) {
	for _, call := range allCalls {
		t.Run(call.name, func(t *testing.T) {
			var mu sync.Mutex
			var warmed, lost bool
			s := serveRaw(t, func(conn net.Conn, r *http.Request) bool {
				if len(r.Header.Values("Idempotency-Key")) > 0 {
					t.Error("the Idempotency-Key is sent")
				}
				mu.Lock()
				defer mu.Unlock()
				if warmed && !lost { // the call under test, for the first time
					lost = true
					return false
				}
				warmed = true
				rec := httptest.NewRecorder()
				answering(rec, r)
				_, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", rec.Body.Len(), rec.Body)
				return err == nil
			})
			c := clientOf(t, s)
			if err := c.ProbeToken(t.Context(), token.NewValue(storedToken)); err != nil {
				t.Fatal(err)
			}
			_, err := call.do(t.Context(), c)
			if call.mint {
				if e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0); !e.MaybeSent {
					t.Error("MaybeSent is false")
				}
				s.wantHits(t, 2)
				return
			}
			if err != nil {
				t.Error(err)
			}
			s.wantHits(t, 3)
		})
	}
}

// TestMintFailsOverBeforeItIsSent: until the connection is ready, nothing can have been sent.
func TestMintFailsOverBeforeItIsSent(t *testing.T) {
	good := func(t *testing.T) *server { return serve(t, answering) }
	for name, first := range map[string]func(t *testing.T) string{
		"refused":   refusing,
		"untrusted": func(t *testing.T) string { return serveTLS(t, nil, answering).URL },
		"no TLS":    func(t *testing.T) string { return strings.Replace(good(t).URL, "http:", "https:", 1) },
		"closed in the handshake": func(t *testing.T) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = bufio.NewReader(conn).ReadByte()
					_ = conn.Close()
				}
			}()
			return "https://" + l.Addr().String()
		},
	} {
		for _, mint := range mints() {
			t.Run(name+"/"+mint.name, func(t *testing.T) {
				bad, other := first(t), good(t)
				tok, err := mint.do(t.Context(), newClient(t, Options{Endpoints: []string{bad, other.URL}}))
				if err != nil || tok.Value.Reveal() != freshToken {
					t.Errorf("error %v", err)
				}
				other.wantHits(t, 1)

				_, err = mint.do(t.Context(), newClient(t, Options{Endpoints: []string{bad, bad}}))
				if e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0); e.MaybeSent || errors.Is(err, ErrStartedTooLate) {
					t.Errorf("MaybeSent %v, cause %v", e.MaybeSent, e.Unwrap())
				}
			})
		}
	}
}

// TestConnections: mints have one each; the others use a kept one again.
func TestConnections(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	s := serveTLS(t, nil, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.RemoteAddr]++
		if r.ProtoMajor != 1 {
			t.Errorf("%s %s by %s", r.Method, r.URL.Path, r.Proto)
		}
		answering(w, r)
	})
	c := newClient(t, Options{Endpoints: []string{s.URL}, CAFile: s.caFile(t)})
	for range 3 {
		for _, call := range allCalls {
			if _, err := call.do(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.hits.Load() != 15 || len(seen) != 3*2+1 {
		t.Errorf("%d requests on %d connections, want 15 on 7", s.hits.Load(), len(seen))
	}
}
