// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// TestNothingIsSniffed checks that no browser takes an answer for something else than it is.
func TestNothingIsSniffed(t *testing.T) {
	f := newFixture(t)
	f.mintAndMount()
	for _, path := range []string{"/", "/?scene=%22", "/code?scene=a", "/code?scene=", "/healthz", "/readyz", "/other"} {
		res, err := (&http.Client{Timeout: 30 * time.Second}).Get(f.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := res.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: X-Content-Type-Options %q", path, got)
		}
	}
}

// TestPictures checks that only a picture that cannot run a script is passed on, and only as a whole.
func TestPictures(t *testing.T) {
	f := newFixture(t)
	f.mintAndMount()
	for name, fault := range map[string]wechattest.Fault{
		"SVG":       {Body: `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`, ContentType: "image/svg+xml"},
		"page":      {Body: "<html>", ContentType: "text/html"},
		"too large": {Body: strings.Repeat("x", maxPicture+1), ContentType: "image/png"},
	} {
		fault.Endpoint, fault.Times = wechattest.EndpointCode, 1
		f.wechat.Inject(fault)
		if status, kind, body := f.get("/code?scene=a"); status != http.StatusServiceUnavailable || len(body) > 100 {
			t.Errorf("%s: HTTP %d, %s, %d bytes", name, status, kind, len(body))
		}
	}
	f.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointCode, Times: 1, Body: strings.Repeat("x", maxPicture), ContentType: "image/jpeg"})
	if status, kind, body := f.get("/code?scene=a"); status != http.StatusOK || kind != "image/jpeg" || len(body) != maxPicture {
		t.Errorf("HTTP %d, %s, %d bytes", status, kind, len(body))
	}
}

// TestRequestLimits checks that the body of a request is not read, large headers are refused, and every time is limited.
func TestRequestLimits(t *testing.T) {
	f := newFixture(t)
	f.mintAndMount()
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	_ = m.WriteField("scene", "a")
	_ = m.Close()
	ask := func(change func(*http.Request)) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/code", bytes.NewReader(form.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		change(req)
		res, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	if got := ask(func(r *http.Request) { r.Header.Set("Content-Type", m.FormDataContentType()) }); got != http.StatusBadRequest {
		t.Errorf("a form in the body: HTTP %d", got)
	}
	if got := ask(func(r *http.Request) { r.Header.Set("X-Large", strings.Repeat("x", 64<<10)) }); got != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a large header: HTTP %d", got)
	}
	for what, limit := range map[string]time.Duration{
		"header": server(t).ReadHeaderTimeout, "request": server(t).ReadTimeout, "answer": server(t).WriteTimeout, "idle": server(t).IdleTimeout,
	} {
		if limit <= 0 || limit > time.Minute {
			t.Errorf("%s: %s", what, limit)
		}
	}
}

func server(t *testing.T) *http.Server {
	t.Helper()
	return newServer(http.NotFoundHandler())
}

// TestPicturesInMemory checks that only so many pictures are in memory at a time, and that others are turned away after a while.
func TestPicturesInMemory(t *testing.T) {
	g := gomega.NewWithT(t)
	f := newFixture(t)
	f.mintAndMount()
	f.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointCode, Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	t.Cleanup(callers.Wait)
	t.Cleanup(cancel)
	for range 4 * maxPictures {
		callers.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/code?scene=a", nil)
			if err != nil {
				t.Error(err)
				return
			}
			if res, err := (&http.Client{}).Do(req); err == nil {
				_ = res.Body.Close()
			}
		})
	}
	count := func() int { return f.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointCode}) }
	g.Eventually(count, 5*time.Second).Should(gomega.Equal(maxPictures))
	g.Eventually(func() int { status, _, _ := f.get("/code?scene=b"); return status }, 10*time.Second).Should(gomega.Equal(http.StatusServiceUnavailable))
	g.Expect(count()).To(gomega.Equal(maxPictures))
	f.wantStatus("/healthz", http.StatusOK)
}

// TestConnections checks that no more than the allowed number of connections are accepted, and that one that ends makes room.
func TestConnections(t *testing.T) {
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 2)
	t.Cleanup(func() { _ = l.Close() })
	accepted := make(chan net.Conn, 3)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	for range 3 {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	first, second := <-accepted, <-accepted
	select {
	case <-accepted:
		t.Fatal("a third connection is accepted")
	case <-time.After(100 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close() // makes room once
	third := <-accepted
	_, _ = second.Close(), third.Close()
	if n, err := io.Copy(io.Discard, third); n != 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
}
