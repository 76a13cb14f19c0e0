// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
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

// The memory that headers take is limited, and whoever sends the most keeps nobody else out.
func TestHeadersOfManyConnections(t *testing.T) {
	l := attacked(t, nil, refuses)
	header := "POST / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 16<<10)
	other := l.send("127.0.0.3", header)
	for i := range connections / 2 {
		begun := header
		if i < connections/4 {
			begun = "P" // a connection that takes next to nothing, and is the older one
		}
		l.send("127.0.0.2", begun)
	}
	_ = other.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(other, "\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(other), nil); err != nil {
		t.Errorf("another caller gets %v", err)
	} else {
		_ = res.Body.Close()
	}
	l.keepsTo(connections/4 + limit/(len(header)*parsed) + 1) // the other one is idle
}

// Headers that came together with the request before count, too: TLS and net/http have them in their buffers already. Half a header is
// held until it is complete, and a whole one while the handler works.
func TestHeadersThatCameEarly(t *testing.T) {
	const first = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	half := "GET /held HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("ab:\r\n", 2400)
	for name, sent := range map[string][]string{
		"half a header":                       {first + half},
		"a header":                            {first + half + "\r\n"},
		"half a header, after some":           {strings.Repeat(first, 20) + half},
		"half a header, and later a byte":     {first + half, "a"},
		"half a header after a request alone": {first, half},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			l := attacked(t, certificate(t), func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/held" {
					<-done
				}
			})
			t.Cleanup(func() { close(done) })
			for range connections / 2 {
				l.send("127.0.0.2", sent...)
			}
			l.keepsTo(limit / (len(half) * parsed / 2))
		})
	}
}

// As many clients as the listener takes may shake hands at the same time, from one address.
func TestHandshakesAreNoHeaders(t *testing.T) {
	l := attacked(t, certificate(t), refuses)
	var open []*tls.Conn
	for range connections {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		open = append(open, tls.Client(hello{c, t.Context()}, &tls.Config{InsecureSkipVerify: true})) //nolint:gosec // a test
	}
	for _, c := range open {
		go func() { _ = c.Handshake() }() // they say hello, and wait
	}
	gomega.NewWithT(t).Eventually(func() (said int) {
		l.bounded.mu.Lock()
		defer l.bounded.mu.Unlock()
		for _, of := range l.bounded.open {
			for _, c := range of {
				said += min(c.header, 1)
			}
		}
		return said
	}).WithTimeout(readTimeout / 2).Should(gomega.Equal(connections))
}

// hello is a connection whose reader waits for the end of the test.
type hello struct {
	net.Conn
	test context.Context //nolint:containedctx // a test's
}

func (h hello) Read([]byte) (int, error) {
	<-h.test.Done()
	return 0, io.EOF
}

// The names of a Trailer header take memory, although net/http takes them out of the header.
func TestTrailersCount(t *testing.T) {
	done := make(chan struct{})
	l := attacked(t, nil, func(http.ResponseWriter, *http.Request) { <-done })
	t.Cleanup(func() { close(done) })
	var names strings.Builder
	for i := range 4000 {
		_, _ = fmt.Fprintf(&names, "%x,", i+256)
	}
	for range connections / 2 {
		l.send("127.0.0.2", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: "+names.String()+"\r\n\r\n")
	}
	l.keepsTo(limit / (4000 * perValue))
}

// What is counted is what is held, nearly.
func TestMemoryOfHeaders(t *testing.T) {
	const begun = "GET / HTTP/1.1\nHost: x\n"
	connection, _ := held(t, "G")
	for name, header := range map[string]string{
		"short lines":         begun + strings.Repeat("a:\n", 900),
		"many names":          begun + distinct(3000),
		"a handler at work":   begun + strings.Repeat("a:\n", 900) + "\n",
		"... with many names": begun + distinct(3000) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			if held, counted := held(t, header); held-connection > counted*5/4 {
				t.Errorf("%d bytes are held for a header, and %d are counted", held-connection, counted)
			}
		})
	}
}

// held returns how much memory a connection over TLS takes with a header, both its ends together, and how much is counted for the header.
func held(t *testing.T, header string) (memory, counted int) {
	t.Helper()
	const senders = 100
	listener, err := Listen(t.Context(), "127.0.0.1:0", certificate(t), 100*senders)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	server := NewStreaming(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }), time.Minute)
	go func() { _ = server.Serve(listener) }()
	l := &target{TB: t, Listener: listener, secure: true}
	t.Cleanup(func() { close(done); _ = server.Close() })
	before := heap()
	for range senders {
		l.send("127.0.0.2", header)
	}
	time.Sleep(300 * time.Millisecond) // until the last one is parsed
	return (heap() - before) / senders, l.headers() / senders
}

// distinct returns the lines of a header with so many names.
func distinct(n int) string {
	var lines strings.Builder
	for i := range n {
		_, _ = fmt.Fprintf(&lines, "x%x:\n", i)
	}
	return lines.String()
}

// heap returns how many bytes are live on the heap, once it has settled: pools keep what earlier tests left for two collections, and the
// connections of these tests end a while after they were closed.
func heap() int {
	for last := math.MaxInt; ; {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		now := int(stats.HeapAlloc + stats.StackInuse) //nolint:gosec // it fits
		if now > last-last/100 {
			return now
		}
		last = now
		time.Sleep(50 * time.Millisecond)
	}
}

// A header counts until its answer was sent.
func TestHeaderOfAnAnswerThatIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, served := net.Pipe()
		b := newBounded(&once{c: served}, connections, reading)
		server := NewStreaming(http.HandlerFunc(refuses), time.Hour)
		go func() { _ = server.Serve(b) }()
		_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 8<<10)+"\r\n\r\n")
		synctest.Wait()
		b.mu.Lock()
		headers := b.headers
		b.mu.Unlock()
		if headers < 8<<10 {
			t.Errorf("%d bytes are counted while the answer is not read", headers)
		}
		_ = client.Close()
		_ = server.Close()
	})
}

// once is a listener with one connection.
type once struct{ c net.Conn }

func (o *once) Accept() (net.Conn, error) {
	if o.c == nil {
		return nil, net.ErrClosed
	}
	c := o.c
	o.c = nil
	return c, nil
}
func (*once) Addr() net.Addr { return &net.TCPAddr{} }
func (*once) Close() error   { return nil }

// A connection with a long first line, which net/http keeps, is not used again.
func TestLongFirstLine(t *testing.T) {
	for length, closes := range map[int]bool{maxKept / 2: false, 2 * maxKept: true} {
		c := streaming(t, refuses)
		_, _ = io.WriteString(c, "GET /"+strings.Repeat("x", length)+" HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _ = res.Body.Close(); res.Close != closes {
			t.Errorf("%d bytes: the connection is closed: %t", length, res.Close)
		}
	}
}

// A write for which net/http sets no deadline, such as the answer to a client that wants new keys again and again, ends all the same.
func TestWriteWithoutDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, served := net.Pipe()
		defer client.Close() //nolint:errcheck // nothing follows
		c, _ := newBounded(nil, connections, reading).add(served)
		for name, set := range map[string]func(){
			"none was set":          func() {},
			"it was taken away":     func() { _ = c.SetWriteDeadline(time.Now().Add(time.Hour)); _ = c.SetWriteDeadline(time.Time{}) },
			"... some time ago":     func() { time.Sleep(time.Hour) },
			"... and taken in vain": func() { _ = c.SetWriteDeadline(time.Time{}) },
		} {
			set()
			begun := time.Now()
			if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != quickWrite {
				t.Errorf("%s: %v after %v", name, err, time.Since(begun))
			}
		}
		go func() { time.Sleep(time.Second); _ = c.SetWriteDeadline(time.Time{}) }()
		_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
		begun := time.Now()
		if _, err := c.Write([]byte("x")); err == nil || time.Since(begun) != time.Second+quickWrite {
			t.Errorf("a write whose deadline is taken away: %v after %v", err, time.Since(begun))
		}
	})
}

// Abort ends a connection over TLS whose client reads no alert.
func TestAbort(t *testing.T) {
	config := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		client, served := net.Pipe()
		b := newBounded(nil, connections, reading)
		c, _ := b.add(served)
		l := &Listener{Listener: b, bounded: b}
		secure := tls.Server(c, config)
		go func() { _ = tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake() }() //nolint:gosec // a test
		if err := secure.Handshake(); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		go func() { time.Sleep(time.Second); l.Abort() }()
		_ = secure.Close()
		if took := time.Since(begun); took != time.Second {
			t.Errorf("it took %v", took)
		}
		_ = client.Close()
	})
}

// connections and limit bound a target.
const connections, limit = 64, 64 * headersPerConnection

// target is a listener that is attacked.
type target struct {
	testing.TB
	*Listener
	secure bool
}

// attacked serves a handler, over TLS unless config is nil.
func attacked(t *testing.T, config *tls.Config, handler http.HandlerFunc) *target {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", config, connections)
	if err != nil {
		t.Fatal(err)
	}
	server := NewStreaming(handler, time.Minute)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return &target{TB: t, Listener: l, secure: config != nil}
}

// send opens a connection from an address, and sends each part by itself.
func (l *target) send(from string, parts ...string) net.Conn {
	l.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(l.Context(), "tcp", l.Addr().String())
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = c.Close() })
	if l.secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true}) //nolint:gosec // a test
	}
	for _, part := range parts {
		_, _ = io.WriteString(c, part)
	}
	return c
}

// headers returns how many bytes are counted.
func (l *target) headers() int {
	l.bounded.mu.Lock()
	defer l.bounded.mu.Unlock()
	return l.bounded.headers
}

// keepsTo waits until at most so many connections are open. The limit of headers holds all the time.
func (l *target) keepsTo(open int) {
	l.Helper()
	gomega.NewWithT(l).Eventually(func() int {
		l.bounded.mu.Lock()
		defer l.bounded.mu.Unlock()
		if l.bounded.headers > limit {
			l.Errorf("%d bytes are held, more than %d", l.bounded.headers, limit)
		}
		return l.bounded.total
	}).WithTimeout(readTimeout / 2).Should(gomega.BeNumerically("<=", open))
}

// certificate returns the configuration of a server.
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	t.Cleanup(server.Close)
	return &tls.Config{Certificates: server.TLS.Certificates, MinVersion: tls.VersionTLS12}
}

// A body that a handler refused is no header, although net/http reads it after the handler.
func TestRefusedBodiesAreNoHeaders(t *testing.T) {
	const length = 200 << 10 // net/http reads up to 256 KiB, and so much of headers would be more than all may have
	c := attacked(t, nil, refuses).send("127.0.0.2")
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
	for name, config := range map[string]*tls.Config{"HTTP": nil, "HTTPS": certificate(t)} {
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
				if watched = c.listener; watched.headers == 0 || watched.headers > headersPerConnection {
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
