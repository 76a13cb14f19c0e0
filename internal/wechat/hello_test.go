// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// carried starts a network that loses large ClientHellos, and returns the URL of the server behind it.
func carried(t *testing.T, s *tlsServer) (*wechattest.Carrier, string) {
	t.Helper()
	carrier, err := wechattest.NewCarrier(strings.TrimPrefix(s.URL, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(carrier.Close)
	return carrier, "https://" + carrier.Addr()
}

// wantHellos checks how many large ClientHellos were lost, and how many others were not.
func wantHellos(t *testing.T, c *wechattest.Carrier, dropped, passed int32) {
	t.Helper()
	if d, p := c.Dropped.Load(), c.Passed.Load(); d != dropped || p != passed {
		t.Errorf("%d large ClientHellos and %d small ones, want %d and %d", d, p, dropped, passed)
	}
}

// Each call works through a network that loses large ClientHellos, within the time of its attempt, and reaches WeChat once.
func TestLargeClientHelloIsLost(t *testing.T) {
	for _, call := range allCalls {
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
			s := serveTLS(t, nil, answering)
			carrier, at := carried(t, s)
			seen := &observed{}
			c := newClient(t, Options{Endpoints: []string{at}, CAFile: s.caFile(t), Timeout: 2 * time.Second, Observe: seen.add})
			for range 3 {
				if _, err := call.do(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			s.wantHits(t, 3)
			connections := int32(1)
			if call.mint {
				connections = 3
			}
			wantHellos(t, carrier, 1, connections) // what worked is remembered
			if got := seen.take(t, hostsOf(c)); len(got) != 3 || slices.ContainsFunc(got, func(c Call) bool { return c.Outcome != OutcomeSuccess }) {
				t.Errorf("told of %+v, want three successes", got)
			}
		})
	}
}

// What worked is remembered for each host by itself, and forgotten when it does not work any more.
func TestHelloIsRememberedPerHost(t *testing.T) {
	t.Parallel()
	lossy, plain := serveTLS(t, nil, answering), serveTLS(t, nil, answering)
	carrier, at := carried(t, lossy)
	c := newClient(t, Options{Endpoints: []string{at, plain.URL}, CAFile: lossy.caFile(t), Timeout: 2 * time.Second})
	stable := allCalls[0]
	do := func() {
		t.Helper()
		if _, err := stable.do(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	do()
	if c.hello(0) != smallHello || c.hello(1) != unknownHello {
		t.Errorf("known are %d and %d", c.hello(0), c.hello(1))
	}
	carrier.Close()
	do()
	if c.hello(0) != smallHello || c.hello(1) != largeHello {
		t.Errorf("known are %d and %d", c.hello(0), c.hello(1))
	}
	lossy.wantHits(t, 1)
	plain.wantHits(t, 1)
}

// A network that begins to lose large ClientHellos costs no call, and one that stops needs nothing.
func TestNetworkChanges(t *testing.T) {
	for _, call := range fetches() {
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
			s := serveTLS(t, nil, answering)
			carrier, at := carried(t, s)
			carrier.Fixed.Store(true)
			c := newClient(t, Options{Endpoints: []string{at}, CAFile: s.caFile(t), Timeout: 2 * time.Second})
			for i, fixed := range []bool{true, false, false, true} {
				carrier.Fixed.Store(fixed)
				carrier.CutConnections()
				if _, err := call.do(t.Context(), c); err != nil {
					t.Fatalf("call %d: %v", i+1, err)
				}
			}
			s.wantHits(t, 4)
			wantHellos(t, carrier, 1, 4)
		})
	}
}

// Some networks do not lose a large ClientHello but end its connection.
func TestLargeClientHelloIsCut(t *testing.T) {
	for _, call := range allCalls {
		t.Run(call.name, func(t *testing.T) {
			s := serveTLS(t, nil, answering)
			carrier, at := carried(t, s)
			carrier.Cut.Store(true)
			c := newClient(t, Options{Endpoints: []string{at}, CAFile: s.caFile(t)})
			start := time.Now()
			if _, err := call.do(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took > DefaultTimeout/2 {
				t.Errorf("it took %s", took)
			}
			s.wantHits(t, 1)
			wantHellos(t, carrier, 1, 1)
		})
	}
}

// Another ClientHello does not help against a certificate that is not trusted or a server that refuses, so no other connection is made.
func TestNoSecondHello(t *testing.T) {
	for name, adjust := range map[string]func(*tls.Config){
		"untrusted": nil,
		"alert":     func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
	} {
		for _, call := range allCalls {
			t.Run(name+"/"+call.name, func(t *testing.T) {
				carrier, at := carried(t, serveTLS(t, adjust, answering))
				carrier.Fixed.Store(true)
				_, err := call.do(t.Context(), newClient(t, Options{Endpoints: []string{at}}))
				_ = wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
				wantHellos(t, carrier, 0, 1)
			})
		}
	}
}

// A mint whose bytes went out is not sent again, whatever becomes of its connection: not even where the client cannot know yet that the
// server refuses the handshake.
func TestMintIsNotRepeatedAfterTheHandshake(t *testing.T) {
	for _, mint := range mints() {
		t.Run(mint.name+"/cut", func(t *testing.T) {
			s := serveTLS(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.(*tls.Conn).NetConn().Close()
			})
			carrier, at := carried(t, s)
			carrier.Fixed.Store(true)
			_, err := mint.do(t.Context(), newClient(t, Options{Endpoints: []string{at, at}, CAFile: s.caFile(t)}))
			if e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0); !e.MaybeSent {
				t.Error("MaybeSent is false")
			}
			s.wantHits(t, 1)
			wantHellos(t, carrier, 0, 1)
		})
		t.Run(mint.name+"/refused late", func(t *testing.T) {
			s := serveTLS(t, func(c *tls.Config) { c.MinVersion, c.ClientAuth = tls.VersionTLS13, tls.RequireAnyClientCert }, answering)
			carrier, at := carried(t, s)
			carrier.Fixed.Store(true)
			_, err := mint.do(t.Context(), newClient(t, Options{Endpoints: []string{at, at}, CAFile: s.caFile(t)}))
			if e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0); !e.MaybeSent {
				t.Error("MaybeSent is false")
			}
			s.wantHits(t, 0)
			wantHellos(t, carrier, 0, 1)
		})
	}
}

// slowHost is a host by TLS, whose answer to a large ClientHello may come late. Use it inside a bubble.
type slowHost struct {
	*host

	late  time.Duration // how late it reads a large ClientHello
	large atomic.Int32
}

// lateConn holds back a large ClientHello.
type lateConn struct {
	net.Conn

	host *slowHost
	read bool
}

func (c *lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.read && n >= 5 && int(b[3])<<8|int(b[4]) > 1300 {
		c.host.large.Add(1)
		time.Sleep(c.host.late)
	}
	c.read = true
	return n, err
}

func (h *slowHost) Accept() (net.Conn, error) {
	conn, err := h.host.Accept()
	if err != nil {
		return nil, err
	}
	return &lateConn{Conn: conn, host: h}, nil
}

// tlsBubble makes a client of a host that reads large ClientHellos late. Call it inside a bubble.
func tlsBubble(t *testing.T, o Options, late time.Duration) (*Client, *slowHost) {
	t.Helper()
	// The certificate is made by net/http/httptest, whose server is never started.
	fixed := httptest.NewUnstartedServer(nil)
	fixed.StartTLS()
	certificate, ca := fixed.TLS.Certificates[0], (&tlsServer{cert: fixed.Certificate()}).caFile(t)
	fixed.Close()
	h := &slowHost{host: &host{handler: answering}, late: late}
	o.CAFile, o.Endpoints = ca, []string{"https://127.0.0.1:1"}
	c := newClient(t, o)
	h.conns, h.closed = make(chan net.Conn), make(chan struct{})
	s := &http.Server{Handler: h.counted(h.handler), ReadHeaderTimeout: time.Hour, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		_ = s.Serve(tls.NewListener(h, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	}()
	t.Cleanup(func() { _ = s.Close() })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return h.dial(ctx) }
	n := c.network.Load()
	for _, kind := range []hello{largeHello, smallHello} {
		n.shared.of(kind).(*http.Transport).DialContext = dial
		n.fresh.of(kind).(*http.Transport).DialContext = gatedDial(dial)
	}
	t.Cleanup(func() { time.Sleep(time.Minute) })
	return c, h
}

// A handshake that is answered late, before or after the second one has carried the mint, never makes it be sent twice.
func TestLateHandshakeSendsNoMint(t *testing.T) {
	for _, mint := range mints() {
		for _, late := range []time.Duration{
			0, time.Second, 2499 * time.Millisecond, 2500*time.Millisecond - 1, 2500 * time.Millisecond, 2500*time.Millisecond + 1,
			2501 * time.Millisecond, 3 * time.Second, 4999 * time.Millisecond, 5 * time.Second, 30 * time.Second,
		} {
			t.Run(fmt.Sprint(mint.name, "/", late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, h := tlsBubble(t, Options{}, late)
					start := time.Now()
					if _, err := mint.do(t.Context(), c); err != nil {
						t.Error(err)
					}
					took(t, start, min(late, 2500*time.Millisecond))
					time.Sleep(10 * time.Second) // the first handshake may be answered by now
					h.wantHits(t, 1)
				})
			})
		}
	}
}

// A host that answers neither ClientHello takes the time of one attempt, and no byte of a mint is sent.
func TestNoHandshakeIsAnswered(t *testing.T) {
	for _, call := range allCalls {
		t.Run(call.name, func(t *testing.T) {
			t.Parallel()
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
					go func() { _, _ = io.Copy(io.Discard, conn) }()
				}
			}()
			seen := &observed{}
			c := newClient(t, Options{Endpoints: []string{"https://" + l.Addr().String()}, Timeout: time.Second, Observe: seen.add})
			start := time.Now()
			_, err = call.do(t.Context(), c)
			if d := time.Since(start); d < time.Second || d > 4*time.Second {
				t.Errorf("it took %s, want the time of one attempt", d)
			}
			e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0)
			wantText(t, e, "its TLS handshake was not answered in time")
			if e.MaybeSent || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("MaybeSent %v, cause %v", e.MaybeSent, e.Unwrap())
			}
			if got := seen.take(t, hostsOf(c)); len(got) != 1 || got[0].Outcome != string(v1alpha1.ReasonUnreachable) {
				t.Errorf("told of %+v", got)
			}
		})
	}
}

// TryHosts finds out how a host can be reached and sends nothing; then a mint needs no second connection.
func TestTryHosts(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, nil, answering)
	carrier, at := carried(t, s)
	c := newClient(t, Options{Endpoints: []string{at}, CAFile: s.caFile(t), Timeout: 2 * time.Second})
	for range 3 {
		if err := c.TryHosts(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.wantHits(t, 0)
	wantHellos(t, carrier, 1, 1)
	if _, err := c.LegacyToken(t.Context(), testAccount, c.Now().Add(time.Second)); err != nil {
		t.Error(err)
	}
	s.wantHits(t, 1)
	wantHellos(t, carrier, 1, 2)
}

// A proxy is asked for a tunnel, and nothing is sent through it but the handshake.
func TestTryHostsByProxy(t *testing.T) {
	t.Parallel()
	s := serveTLS(t, nil, answering)
	carrier, at := carried(t, s)
	c := newClient(t, Options{Endpoints: []string{"https://" + proxiedHost}, CAFile: s.caFile(t), Timeout: 2 * time.Second})
	proxy := proxyTo(t, strings.TrimPrefix(at, "https://"), http.StatusOK)
	u, err := url.Parse(strings.Replace(proxy.URL, "://", "://me:"+proxyPassword+"@", 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []hello{largeHello, smallHello} {
		c.network.Load().fresh.of(h).(*http.Transport).Proxy = http.ProxyURL(u)
	}
	if err := c.TryHosts(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.wantHits(t, 0)
	wantHellos(t, carrier, 1, 1)
	if _, err := c.LegacyToken(t.Context(), testAccount, c.Now().Add(time.Second)); err != nil {
		t.Error(err)
	}
	s.wantHits(t, 1)
}

// The host that can be reached becomes the one that a mint tries first, and one that was reached before is not tried again.
func TestTryHostsFindsOne(t *testing.T) {
	good := serveTLS(t, nil, answering)
	dead := strings.Replace(refusing(t), "http:", "https:", 1)
	seen := &observed{}
	c := newClient(t, Options{Endpoints: []string{dead, good.URL}, CAFile: good.caFile(t), Observe: seen.add})
	if err := c.TryHosts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.order()[0] != 1 {
		t.Error("a mint begins with the dead host")
	}
	if got := seen.take(t, hostsOf(c)); len(got) != 1 || got[0].Outcome != string(v1alpha1.ReasonUnreachable) {
		t.Errorf("told of %+v", got)
	}
	c.preferred.Store(0)
	if err := c.TryHosts(t.Context()); err != nil || c.order()[0] != 1 {
		t.Errorf("the host that was reached before is not preferred: %v", err)
	}
	good.wantHits(t, 0)

	err := newClient(t, Options{Endpoints: []string{dead, dead}}).TryHosts(t.Context())
	if e := wantError(t, err, token.Transient, v1alpha1.ReasonUnreachable, 0); e.MaybeSent {
		t.Error("MaybeSent is true")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newClient(t, Options{Endpoints: []string{dead}}).TryHosts(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if err := newClient(t, Options{Endpoints: []string{refusing(t)}}).TryHosts(t.Context()); err != nil {
		t.Errorf("a host without TLS is tried: %v", err)
	}
}
