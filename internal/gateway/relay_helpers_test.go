// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// The needles: nothing that a caller, a log or a metric sees may hold one.
const (
	staleToken  = "81_STALEtoken-that_WeChat-refuses0aB1cD2eF3gH4iJ5kL6mN7oP8q"
	newToken    = "82_FRESHtoken-from_the-store9Tz8Yx7Wv6Ut5Sr4Qp3On2Ml1Kj0Ih"
	gatewayText = "GATEWAYS-own_token-of_the-caller-0123456789abcdefghij"
	testApp     = "wx0123456789abcdef"
)

// store is a Source whose policy tests replace.
type store struct {
	mu       sync.Mutex
	policy   *Policy
	replaced chan struct{}
}

func newStore(clients ...*Client) *store {
	return &store{policy: NewPolicy(clients), replaced: make(chan struct{})}
}

func (s *store) Policy() (*Policy, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.policy, s.replaced
}

func (s *store) replace(clients ...*Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policy = NewPolicy(clients)
	close(s.replaced)
	s.replaced = make(chan struct{})
}

// holding returns the test's client as it is when the store holds a token.
func holding(tok string) *Client {
	return &Client{
		UID: "11111111-2222-3333-4444-555555555555", Name: types.NamespacedName{Namespace: "shop", Name: "shop-api"},
		Rate: v1alpha1.RateLimit{RequestsPerSecond: 10000, Burst: 10000},
		Account: &Account{
			Name: types.NamespacedName{Namespace: "shop", Name: "shop"}, AppID: testApp,
			Token: token.NewValue(tok), ExpiresAt: time.Now().Add(2 * time.Hour),
		},
	}
}

// wechatStub is WeChat on a network of raw bytes. It records what it gets, and leaves the answer to a script.
type wechatStub struct {
	URL    string
	answer func(conn net.Conn, n int, request string)

	mu       sync.Mutex
	requests []string
	conns    int
}

// stub starts a stub. answer is called with the number of the request, from 1 on, and writes to the connection; if it closes it, that is
// the end of the connection.
func stub(t testing.TB, answer func(conn net.Conn, n int, request string)) *wechatStub {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &wechatStub{URL: "http://" + l.Addr().String(), answer: answer}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			s.mu.Lock()
			s.conns++
			s.mu.Unlock()
			go s.serve(conn)
		}
	}()
	return s
}

func (s *wechatStub) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		var raw bytes.Buffer
		for !strings.HasSuffix(raw.String(), "\r\n\r\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			raw.WriteString(line)
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw.Bytes())))
		if err != nil || req.ContentLength < 0 { // WeChat refuses chunked bodies
			return
		}
		if _, err := io.CopyN(&raw, r, req.ContentLength); err != nil {
			return
		}
		s.mu.Lock()
		s.requests = append(s.requests, raw.String())
		n := len(s.requests)
		s.mu.Unlock()
		s.answer(conn, n, raw.String())
	}
}

// got returns the requests so far.
func (s *wechatStub) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// says answers each request with the same bytes.
func says(raw string) func(net.Conn, int, string) {
	return func(conn net.Conn, _ int, _ string) { _, _ = io.WriteString(conn, raw) }
}

// ok is an answer of WeChat's with a body.
func ok(contentType, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", contentType, len(body), body)
}

const okJSON = `{"errcode":0,"errmsg":"ok"}`

// gatewayUnderTest is a Relay behind a server, without the front.
type gatewayUnderTest struct {
	*Relay
	server *httptest.Server
	store  *store
	calls  chan *Call
	hints  chan string
	once   bool
	noAuth bool
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// relayTo starts a gateway in front of these endpoints, whose store holds staleToken.
func relayTo(t testing.TB, change func(*RelayOptions), endpoints ...string) *gatewayUnderTest {
	t.Helper()
	g := &gatewayUnderTest{
		store: newStore(holding(staleToken)), calls: make(chan *Call, 1000), hints: make(chan string, 100), log: &lockedBuffer{},
	}
	o := RelayOptions{
		Endpoints: endpoints, Source: g.store, Timeout: 20 * time.Second,
		Hint:    func(_ *Client, refused string) { g.hints <- refused },
		Problem: func(err error) { fmt.Fprintln(g.log, err) },
	}
	if change != nil {
		change(&o)
	}
	var err error
	if g.Relay, err = NewRelay(o); err != nil {
		t.Fatal(err)
	}
	g.server = httptest.NewUnstartedServer(g)
	g.server.Config.ErrorLog = log.New(g.log, "", 0)
	g.server.Start()
	t.Cleanup(func() {
		g.server.CloseClientConnections()
		g.server.Close()
		g.forwarder.CloseIdle()
	})
	return g
}

// ownPath is answered without the relay.
const ownPath = "/own"

// ServeHTTP does what the front does with a call that it allows.
func (g *gatewayUnderTest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, err := ParseTarget(r.RequestURI)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if target.Path == ownPath {
		_, _ = io.WriteString(w, ownPath)
		return
	}
	call := &Call{ID: "test-1", Started: time.Now(), Method: r.Method, Target: target, Client: holding(staleToken)}
	defer func() {
		call.Duration = g.now().Sub(call.Started)
		g.calls <- call
	}()
	f := forward{call: call, path: target.Path, once: g.once, token: token.NewValue(staleToken)}
	if g.noAuth {
		f.token = token.Value{}
	}
	f.query = func(tok token.Value) string { return target.Query(tok) }
	g.relay(w, r, f)
}

// raw sends bytes to the gateway and returns all that comes back until the connection ends or is silent.
func (g *gatewayUnderTest) raw(t testing.TB, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// get sends a GET for a path, whose connection ends with the answer.
func (g *gatewayUnderTest) get(t testing.TB, path string) string {
	return g.raw(t, "GET "+path+"?access_token="+gatewayText+" HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
}

func (g *gatewayUnderTest) post(t testing.TB, path, body string) string {
	return g.raw(t, fmt.Sprintf("POST %s?access_token=%s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
		path, gatewayText, len(body), body))
}

// call returns the next call that ended.
func (g *gatewayUnderTest) call(t testing.TB) *Call {
	t.Helper()
	select {
	case c := <-g.calls:
		return c
	case <-time.After(20 * time.Second):
		t.Fatal("no call ended")
		return nil
	}
}

// bodyOf returns the body of an answer.
func bodyOf(t testing.TB, answer string) string {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
	if err != nil {
		t.Fatalf("%v: %q", err, answer)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return string(body) + " [" + err.Error() + "]"
	}
	return string(body)
}

// silent fails if a text holds one of the needles.
func silent(t testing.TB, what, text string) {
	t.Helper()
	for _, needle := range []string{staleToken, newToken, gatewayText} {
		for i := range len(needle) - 12 {
			if strings.Contains(text, needle[i:i+12]) {
				t.Fatalf("%s holds a part of %s: %.2000q", what, needle, text)
			}
		}
	}
}
