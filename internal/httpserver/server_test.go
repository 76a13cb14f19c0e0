// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// start serves a page that says which protocol it was asked by, and returns its address.
func start(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", config, Connections)
	if err != nil {
		t.Fatal(err)
	}
	server := New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		_, _ = io.WriteString(w, r.Proto)
	}))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// get asks for the page on a connection of its own, from an address of this machine. It returns the status.
func get(ctx context.Context, from, address string, edit func(*http.Request)) (int, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return 0, err
	}
	if edit != nil {
		edit(req)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// A client that holds as many connections open as it can keeps nobody out but itself.
func TestHeldConnections(t *testing.T) {
	address := start(t, nil)
	var held []net.Conn
	for i := range 1000 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // most are closed already
		if i%2 == 0 {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n") // the rest never comes
		}
		held = append(held, c)
	}
	for range 20 {
		status, err := get(t.Context(), "127.0.0.2", address, nil)
		if err != nil || status != http.StatusOK {
			t.Fatalf("another client is kept out: %d %v", status, err)
		}
	}
	// The latest are open still, and the oldest are not.
	if _, err := io.WriteString(held[len(held)-1], "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if line, err := bufio.NewReader(held[len(held)-1]).ReadString('\n'); err != nil || !strings.Contains(line, "200 OK") {
		t.Errorf("the last connection was closed: %q %v", line, err)
	}
	_ = held[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(held[0]); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the oldest of 1,000 connections is still open")
	}
}

func TestHeaders(t *testing.T) {
	address := start(t, nil)
	for size, want := range map[int]int{16 << 10: http.StatusOK, 40 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		status, err := get(t.Context(), "127.0.0.1", address, func(r *http.Request) { r.Header.Set("X-Long", strings.Repeat("x", size)) })
		if err != nil || status != want {
			t.Errorf("%d bytes of headers: %d %v, want %d", size, status, err, want)
		}
	}
	status, err := get(t.Context(), "127.0.0.1", address, func(r *http.Request) {
		r.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", 1<<20)))
	})
	if err == nil && status != http.StatusRequestEntityTooLarge { // or the connection is cut before the answer is read
		t.Errorf("a body of 1 MiB: %d", status)
	}
}

// HTTP/2 would let one connection carry many requests. It is neither offered nor accepted.
func TestHTTP1Alone(t *testing.T) {
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	defer certificates.Close()
	address := start(t, &tls.Config{Certificates: certificates.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	client := certificates.Client()
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("the client has a %T", client.Transport)
	}
	transport.ForceAttemptHTTP2 = true
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // nothing is written
	if res.ProtoMajor != 1 {
		t.Errorf("answered by %s", res.Proto)
	}
	plain := start(t, nil)
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing follows
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if line, _ := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 ") {
		t.Errorf("HTTP/2 without TLS is answered by %q", line)
	}
}

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	from   string
	closed *[]string
}

func (c fakeConn) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.from))
}
func (c fakeConn) Close() error {
	*c.closed = append(*c.closed, c.from)
	return nil
}

// With too many connections the oldest one of the address with the most gives way. Each IPv6 address counts by itself.
func TestBounded(t *testing.T) {
	var closed []string
	b := newBounded(nil, 4, reading)
	for _, step := range []struct{ from, closes string }{
		{"10.0.0.1:1", ""},
		{"10.0.0.1:2", ""},
		{"10.0.0.2:1", ""},
		{"[fd00::1]:1", ""},
		{"10.0.0.3:1", "10.0.0.1:1"},
		{"10.0.0.4:1", "10.0.0.1:2"},  // all have one
		{"[fd00::2]:1", "10.0.0.2:1"}, // another pod of the node
		{"[fd00::1%eth0]:2", "[fd00::1]:1"},
		{"[::ffff:10.0.0.4]:3", "10.0.0.3:1"},
		{"10.0.0.4:2", "10.0.0.4:1"},
	} {
		closed = nil
		if _, evicted := b.add(fakeConn{from: step.from, closed: &closed}); evicted != nil {
			_ = evicted.Close()
		}
		if got := strings.Join(closed, " "); got != step.closes || b.total > 4 {
			t.Errorf("%s closes %q, want %q; %d are open", step.from, got, step.closes, b.total)
		}
	}
	for _, open := range b.open {
		for _, c := range slices.Clone(open) {
			_ = c.Close()
			_ = c.Close() // net/http may close twice
		}
	}
	if b.total != 0 || len(b.open) != 0 {
		t.Errorf("%d are open, of %d addresses", b.total, len(b.open))
	}
}

// Connections are closed until the headers of the others fit, however little each of them takes.
func TestHeadersFit(t *testing.T) {
	var closed []string
	b := newBounded(nil, 40, reading)
	for i := range 40 {
		from, header := fmt.Sprintf("10.0.0.1:%d", i+1), headersPerConnection
		if i == 39 {
			from, header = "10.0.0.2:1", 10*headersPerConnection
		}
		c, _ := b.add(fakeConn{from: from, closed: &closed})
		b.update(c, func(c *connection) { c.header = header })
	}
	if b.headers > 40*headersPerConnection || len(closed) != 9 {
		t.Errorf("%d bytes are held, and closed were %v", b.headers, closed)
	}
}
