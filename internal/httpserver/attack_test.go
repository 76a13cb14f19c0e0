// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
)

func refuses(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no") }

// A caller who waits for leave to send his body is refused at once.
func TestRefusalBeforeTheBody(t *testing.T) {
	c := streaming(t, refuses)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
}

// A body that the handler does not read must move, too.
func TestUnreadBodyThatStalls(t *testing.T) {
	c := streaming(t, refuses)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nx")
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection is held: %v", err)
	}
}

// The deadline that a handler sets for a body holds, however well the body moves.
func TestDeadlineOfTheHandler(t *testing.T) {
	got := make(chan error, 1)
	c := streaming(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(stall))
		_, err := io.ReadAll(r.Body)
		got <- err
	})
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
	for range 40 {
		time.Sleep(stall / 6)
		_, _ = io.WriteString(c, "x")
		select {
		case err := <-got:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the body ended with %v", err)
			}
			return
		default:
		}
	}
	t.Error("the body outlives the deadline")
}

// The headers of all connections are limited, and whoever sends the most keeps nobody else out.
func TestHeadersOfManyConnections(t *testing.T) {
	const connections, limit = 64, 64 * mostHeaders
	l, err := Listen(t.Context(), "127.0.0.1:0", nil, connections)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := l.(*bounded)
	server := NewStreaming(http.HandlerFunc(refuses), time.Minute)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	header := "POST / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 16<<10)
	send := func(from string) net.Conn {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = io.WriteString(c, header)
		return c
	}
	other := send("127.0.0.3")
	for range connections / 2 {
		send("127.0.0.2")
	}
	_ = other.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(other, "\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(other), nil); err != nil {
		t.Errorf("another caller gets %v", err)
	} else {
		_ = res.Body.Close()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.headers > limit {
		t.Errorf("%d bytes are held, more than %d", b.headers, limit)
	}
}

// Headers that came together with the request before count, too: TLS and net/http have them in their buffers already. Half a header is
// held until it is complete, and a whole one while the handler works.
func TestHeadersThatCameEarly(t *testing.T) {
	const connections, limit = 64, 64 * mostHeaders
	certificates := httptest.NewTLSServer(nil)
	t.Cleanup(certificates.Close)
	secure := &tls.Config{Certificates: certificates.TLS.Certificates, MinVersion: tls.VersionTLS12}
	client := &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true} //nolint:gosec // a test
	const first = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	half := "GET /held HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 12<<10)
	for name, sent := range map[string][]string{
		"half a header":                       {first + half},
		"a header":                            {first + half + "\r\n\r\n"},
		"half a header, after some":           {strings.Repeat(first, 20) + half},
		"half a header, and later a byte":     {first + half, "x"},
		"half a header after a request alone": {first, half},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := Listen(t.Context(), "127.0.0.1:0", nil, connections)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := l.(*bounded)
			done := make(chan struct{})
			server := NewStreaming(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/held" {
					<-done
				}
			}), time.Minute)
			go func() { _ = server.Serve(tls.NewListener(l, secure)) }()
			t.Cleanup(func() { close(done); _ = server.Close() })
			for range connections / 2 {
				c, err := tls.Dial("tcp", l.Addr().String(), client)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = c.Close() })
				for _, part := range sent {
					_, _ = io.WriteString(c, part)
				}
			}
			held := func() int {
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.headers > limit {
					t.Errorf("%d bytes are held, more than %d", b.headers, limit)
				}
				return b.total
			}
			gomega.NewWithT(t).Eventually(held).WithTimeout(readTimeout / 2).Should(gomega.BeNumerically("<=", limit/len(half)))
		})
	}
}

// A body that a handler refused is no header, although net/http reads it after the handler.
func TestRefusedBodiesAreNoHeaders(t *testing.T) {
	const connections, length = 64, 200 << 10 // net/http reads up to 256 KiB, and the headers of all may have 128
	l, err := Listen(t.Context(), "127.0.0.1:0", nil, connections)
	if err != nil {
		t.Fatal(err)
	}
	server := NewStreaming(http.HandlerFunc(refuses), time.Minute)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(c)
	for range 3 {
		_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", length, strings.Repeat("x", length))
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("the connection was closed: %v", err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}

// A connection that was used and is idle holds no header, and neither does one that is closed.
func TestHeadersAreForgotten(t *testing.T) {
	certificates := httptest.NewTLSServer(nil)
	t.Cleanup(certificates.Close)
	secure := &tls.Config{Certificates: certificates.TLS.Certificates, MinVersion: tls.VersionTLS12}
	for name, config := range map[string]*tls.Config{"HTTP": nil, "HTTPS": secure} {
		t.Run(name, func(t *testing.T) {
			l, err := Listen(t.Context(), "127.0.0.1:0", config, Connections)
			if err != nil {
				t.Fatal(err)
			}
			watched := &bounded{}
			server := New(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				c, _ := r.Context().Value(connectionKey{}).(*connection)
				c.listener.mu.Lock()
				defer c.listener.mu.Unlock()
				if watched = c.listener; watched.headers == 0 || watched.headers > mostHeaders {
					t.Errorf("%d bytes are counted for the header", watched.headers)
				}
			}))
			go func() { _ = server.Serve(l) }()
			t.Cleanup(func() { _ = server.Close() })
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // a test
			for range 3 {
				res, err := client.Get(map[bool]string{true: "https://", false: "http://"}[config != nil] + l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
			}
			gomega.NewWithT(t).Eventually(func() int {
				watched.mu.Lock()
				defer watched.mu.Unlock()
				return watched.headers
			}).Should(gomega.BeZero())
			client.CloseIdleConnections()
		})
	}
}
