// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// trust makes the client trust the server's CA.
func (f *fixture) trust(http2 bool) {
	f.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(f.CACertPEM()) {
		f.t.Fatal("CACertPEM has no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, ForceAttemptHTTP2: http2}
	f.t.Cleanup(transport.CloseIdleConnections)
	f.http.Transport = transport
}

func TestTLS(t *testing.T) {
	f := newFixture(t, Options{TLS: true})
	if !strings.HasPrefix(f.URL(), "https://127.0.0.1:") {
		t.Errorf("URL is %q", f.URL())
	}
	if _, err := f.do(http.MethodGet, "/", ""); err == nil {
		t.Error("a client that does not know the CA got an answer")
	}
	for _, http2 := range []bool{false, true} {
		f.trust(http2)
		f.wantCode("by address", f.stable(appID), 0)
	}
	port := f.URL()[strings.LastIndex(f.URL(), ":"):]
	res, err := f.http.Get("https://localhost" + port + "/")
	if err != nil {
		t.Fatalf("by name: %v", err)
	}
	_ = res.Body.Close()
	if plain := newFixture(t, Options{}); plain.CACertPEM() != nil {
		t.Error("there is a CA without TLS")
	}
}

func TestDateIsTheServersClock(t *testing.T) {
	f := newFixture(t, Options{})
	f.Inject(Fault{Endpoint: EndpointLegacy, Status: 502})
	for _, offset := range []time.Duration{0, 90 * time.Minute, -48 * time.Hour} {
		f.Advance(offset)
		want := f.Now().Format(http.TimeFormat)
		for what, a := range map[string]answer{"success": f.stable(appID), "errcode": f.stable("x"), "fault": f.legacy(appID)} {
			if got := a.header.Values("Date"); len(got) != 1 || got[0] != want {
				t.Errorf("%s after %v: Date is %q, want %q", what, offset, got, want)
			}
		}
	}
	if got := f.stable(appID).header.Get("Content-Type"); got != jsonType {
		t.Errorf("Content-Type is %q", got)
	}
}

func TestRealClock(t *testing.T) {
	s, err := NewServer(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Advance(time.Hour)
	if off := time.Until(s.Now()) - time.Hour; off.Abs() > time.Minute {
		t.Errorf("the clock is off by %v", off)
	}
}

func TestCloseWithHungRequest(t *testing.T) {
	f := newFixture(t, Options{})
	f.Inject(Fault{Hang: true, Times: 1})
	f.Inject(Fault{Delay: time.Hour, Times: 1})
	f.Inject(Fault{DelayAnswer: time.Hour, Times: 1})
	var calls sync.WaitGroup
	for range 3 {
		calls.Go(func() {
			if _, err := f.do(http.MethodGet, legacyPath(appID, secret), ""); err == nil {
				t.Error("a hung call got an answer")
			}
		})
	}
	f.eventually("three calls", func() bool { return f.Count(Filter{}) == 3 })
	start := time.Now()
	f.Close()
	f.Close()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("Close took %v", took)
	}
	calls.Wait()
	if _, err := f.do(http.MethodGet, "/", ""); err == nil {
		t.Error("the server answers after Close")
	}
	if !f.Valid(f.Tokens(appID)[0].Token) {
		t.Error("the ledger is gone after Close")
	}
}

// net/http does not notice that a client is gone which has already sent more.
func TestCloseWithPipelinedRequest(t *testing.T) {
	f := newFixture(t, Options{})
	f.Inject(Fault{Hang: true})
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const get = "GET /cgi-bin/token HTTP/1.1\r\nHost: x\r\n\r\n"
	for range 2 {
		if _, err := conn.Write([]byte(get)); err != nil {
			t.Fatal(err)
		}
		f.eventually("the hung call", func() bool { return f.Count(Filter{}) == 1 })
		time.Sleep(20 * time.Millisecond) // so that the second one is noticed; without it the test proves less
	}
	closed := make(chan struct{})
	go func() {
		f.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("Close hangs")
	}
}

func TestAddr(t *testing.T) {
	first := newFixture(t, Options{})
	if s, err := NewServer(Options{Addr: strings.TrimPrefix(first.URL(), "http://")}); err == nil {
		s.Close()
		t.Error("two servers listen on one address")
	}
	all := newFixture(t, Options{Addr: "0.0.0.0:0"})
	all.wantCode("a server on all addresses", all.stable(appID), 0)
}

func TestOnCall(t *testing.T) {
	var mu sync.Mutex
	var seen []Call
	f := newFixture(t, Options{OnCall: func(c Call) {
		time.Sleep(20 * time.Millisecond) // Close has to wait for it
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, c)
	}})
	f.stable(appID)
	f.http.CloseIdleConnections() // net/http repeats a GET that is cut on a kept connection
	f.Inject(Fault{Cut: CutAfter, Times: 1})
	if _, err := f.do(http.MethodGet, legacyPath(appID, secret), ""); err == nil {
		t.Error("the call was not cut")
	}
	f.Close() // waits for the calls
	slices.SortFunc(seen, func(a, b Call) int { return a.At.Compare(b.At) })
	if len(seen) != 2 || !seen[0].Finished || seen[1].Finished || !seen[1].Minted {
		t.Errorf("OnCall was called with %+v", seen)
	}
}

func TestManyAtOnce(t *testing.T) {
	f := newFixture(t, Options{})
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 25 {
				a, err := f.do(http.MethodPost, "/cgi-bin/stable_token", stableBody(appID, false))
				if err != nil || a.Token == "" {
					t.Errorf("%v: %s", err, a.body)
				}
				f.Valid(a.Token)
				f.Calls(Filter{AppID: appID})
				f.Advance(time.Millisecond)
			}
		})
	}
	calls.Wait()
	if got := len(f.Tokens(appID)); got != 1 {
		t.Errorf("%d tokens were made, want 1", got)
	}
	if got := f.Count(Filter{}); got != 200 {
		t.Errorf("%d calls were counted, want 200", got)
	}
}
