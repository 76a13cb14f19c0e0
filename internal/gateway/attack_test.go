// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/httpserver"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// hasty answers as soon as it has the headers of a request, and reads no body.
func hasty(t *testing.T, answer string) string {
	t.Helper()
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
			t.Cleanup(func() { _ = conn.Close() })
			go func() {
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, answer)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// streamingFront serves a gateway as the program does, and returns the address.
func streamingFront(t *testing.T, handler http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.Config = httpserver.NewStreaming(handler, Stall)
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.Listener.Addr().String()
}

// TestRestOfABodyIsNoRequest: if WeChat answers before it has the whole body, the rest of it is not taken for the next request on the
// caller's connection, whose answers would all belong to other requests from then on.
func TestRestOfABodyIsNoRequest(t *testing.T) {
	const smuggled = "GET " + ownPath + " HTTP/1.1\r\nHost: gateway\r\n\r\n"
	for name, size := range map[string]int{"a little is left": maxRepeated + 1<<10, "much is left": 4 * maxRepeated} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", streamingFront(t, relayTo(t, nil, hasty(t, ok("application/json", okJSON)))))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			rest := strings.Repeat(smuggled, 100)
			first := size - len(rest)
			_, _ = fmt.Fprintf(conn, "POST /cgi-bin/media/upload?access_token=%s HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n%s",
				gatewayText, size, strings.Repeat("x", first))
			r := bufio.NewReader(conn)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			if body, _ := io.ReadAll(res.Body); string(body) != okJSON {
				t.Errorf("the answer is %q", body)
			}
			_, _ = io.WriteString(conn, rest)
			if more, _ := io.ReadAll(r); len(more) > 0 {
				t.Errorf("the body was answered as a request: %.200q", more)
			}
		})
	}
}

// ratedClients are the clients of the front's tests, as clients of a relay.
func ratedClients() map[string]*Client {
	clients := frontClients()
	for _, c := range clients {
		c.Rate = v1alpha1.RateLimit{RequestsPerSecond: 1000, Burst: 1000}
	}
	return clients
}

// wholeGateway serves the decisions and the relay of a gateway as the program does, with the clients of the front's tests.
func wholeGateway(t *testing.T, upstream string, change func(*RelayOptions)) (address string, s *store) {
	t.Helper()
	clock := func() time.Time { return now }
	s = newStore(slices.Collect(maps.Values(ratedClients()))...)
	o := RelayOptions{Endpoints: []string{upstream}, Source: s, Timeout: 20 * time.Second, Now: clock}
	if change != nil {
		change(&o)
	}
	relay, err := NewRelay(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.forwarder.CloseIdle)
	return streamingFront(t, New(Options{Source: s, Relay: relay, Now: clock})), s
}

// dialed returns a connection to an address.
func dialed(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// TestEchoOfAppSecret: an error page of a proxy that quotes the URL does not bring the AppSecret to the caller.
func TestEchoOfAppSecret(t *testing.T) {
	for name, tt := range map[string]struct{ answer, outcome string }{
		"body": {ok("text/html", "<p>cannot reach https://api.weixin.qq.com/sns/jscode2session?secret="+appSecret+"</p>"), "AppSecret"},
		"two parts": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n", peekSize+10, strings.Repeat("x", peekSize)+
			appSecret[:10]) + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 22, appSecret[10:]), "HTTP/1.1 200"},
		"header": {"HTTP/1.1 502 Bad Gateway\r\nX-Url: /?secret=" + appSecret + "\r\nContent-Length: 0\r\n\r\n", "502"},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := wholeGateway(t, stub(t, says(tt.answer)).URL, nil)
			conn := dialed(t, address)
			_, _ = fmt.Fprintf(conn, "GET /sns/jscode2session?appid=%s&secret=%s&js_code=c HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
				appID, theKey)
			got, _ := io.ReadAll(conn)
			if !strings.Contains(string(got), tt.outcome) || strings.Contains(string(got), appSecret[:20]) {
				t.Errorf("the caller gets %q", got)
			}
		})
	}
}

// TestBodyAfterTheEnd: a call whose body ends after its client was suspended, or its key revoked, is not sent.
func TestBodyAfterTheEnd(t *testing.T) {
	replaced := func(change func(c *Client)) func(s *store) {
		return func(s *store) {
			clients := ratedClients()
			change(clients["shop-api"])
			s.replace(clients["shop-api"])
		}
	}
	for name, tt := range map[string]struct {
		ending func(s *store)
		says   string
		sent   bool
	}{
		"suspended":      {ending: func(s *store) { s.replace() }, says: `"errcode":40001`},
		"revoked":        {ending: replaced(func(c *Client) { c.Keys = []Key{NewKey(token.NewValue(plainKey), time.Time{})} }), says: `"errcode":40001`},
		"without a path": {ending: replaced(func(c *Client) { c.Paths = []string{"/wxa/*"} }), says: `"errcode":40001`},
		"expired":        {ending: replaced(func(c *Client) { c.Account.ExpiresAt = now }), says: `"errcode":-1`},
		"unchanged":      {ending: replaced(func(*Client) {}), says: okJSON, sent: true},
	} {
		for framing, body := range map[string][2]string{
			"length":  {"Content-Length: 2\r\n\r\n{", "}"},
			"chunked": {"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", "1\r\n}\r\n0\r\n\r\n"},
		} {
			t.Run(name+", "+framing, func(t *testing.T) {
				upstream := stub(t, says(ok("application/json", okJSON)))
				address, s := wholeGateway(t, upstream.URL, nil)
				conn := dialed(t, address)
				_, _ = fmt.Fprintf(conn, "POST /cgi-bin/user/info?access_token=%s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n%s",
					bought("shop-api", theKey, now), body[0])
				time.Sleep(100 * time.Millisecond)
				tt.ending(s)
				_, _ = io.WriteString(conn, body[1])
				got, _ := io.ReadAll(conn)
				if n := len(upstream.got()); n != map[bool]int{true: 1}[tt.sent] || !strings.Contains(string(got), tt.says) {
					t.Errorf("%d calls were sent; the caller gets %q", n, got)
				}
			})
		}
	}
}

// TestStrangersHoldLittle: callers who prove nothing cannot hold the calls of clients up, neither by many calls nor by slow bodies.
func TestStrangersHoldLittle(t *testing.T) {
	l := newLimits(16, 8, &store{policy: frontPolicy()}, func() time.Time { return now })
	for i := range 16 {
		if _, refused := l.admit(nil); (refused == nil) != (i < 2) {
			t.Errorf("stranger %d: %v", i, refused)
		}
	}
	for range 8 {
		if _, refused := l.admit(ratedClients()["plain"]); refused != nil {
			t.Errorf("a client is kept out: %v", refused)
		}
	}
	l.leave(nil)
	if _, refused := l.admit(nil); refused != nil {
		t.Errorf("a stranger after another: %v", refused)
	}
	upstream := stub(t, says(ok("application/json", okJSON)))
	address, _ := wholeGateway(t, upstream.URL, nil)
	for _, target := range []string{
		"/sns/userinfo?access_token=user", "/sns/oauth2/refresh_token?appid=" + appID, "/sns/jscode2session?js_code=c&appid=" + appID + "&secret=" + theKey,
	} {
		conn := dialed(t, address)
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: gateway\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n", target)
		if got, _ := bufio.NewReader(conn).ReadString('}'); !strings.Contains(got, "43001") || len(upstream.got()) > 0 {
			t.Errorf("%s: %q", target, got)
		}
	}
}

// TestRefusedCallsKeepTheConnection: a call whose body was not asked for, or that has none, closes no connection.
func TestRefusedCallsKeepTheConnection(t *testing.T) {
	g := relayTo(t, nil, stub(t, says(ok("application/json", okJSON))).URL)
	if _, refused := g.limits.admit(nil); refused != nil {
		t.Fatal(refused)
	}
	g.limits.total = g.limits.most
	conn := dialed(t, streamingFront(t, g))
	r := bufio.NewReader(conn)
	for range 2 {
		_, _ = fmt.Fprintf(conn, "GET /wxa/x?access_token=%s HTTP/1.1\r\nHost: gateway\r\n\r\n", gatewayText)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.Close || !strings.Contains(string(body), "45011") {
			t.Errorf("%q, closes: %v", body, res.Close)
		}
	}
}

// TestHintsOfOneNamespace: a namespace with many refused tokens leaves room for the hints of others, and a hint that was dropped is told
// again before ten seconds are over.
func TestHintsOfOneNamespace(t *testing.T) {
	h := NewHints(nil, func() time.Time { return now })
	note := func(namespace string, n int) {
		h.Note(&Client{Name: account(namespace, "c"), Account: &Account{Name: account(namespace, fmt.Sprint(n))}}, "f")
	}
	for i := range 1000 {
		note("evil", i)
	}
	note("shop", 0)
	if len(h.queue) != hintsPerNamespace+1 || h.dropped.Load() != 1000-hintsPerNamespace {
		t.Fatalf("%d wait, %d were dropped", len(h.queue), h.dropped.Load())
	}
	h.taken((<-h.queue).client.Namespace)
	note("evil", 999)
	if len(h.queue) != hintsPerNamespace+1 {
		t.Error("the hint was not told again")
	}
}

// TestAuditOfStrangers: a caller who is not known has few lines, also while nobody can tell who he is.
func TestAuditOfStrangers(t *testing.T) {
	var sink lockedBuffer
	a := NewAudit(&sink, func() time.Time { return now })
	for range 1000 {
		a.Record(&Call{ID: "x", Outcome: OutcomeUnavailable, Reason: "no_review"})
		a.Record(&Call{ID: "x", Outcome: OutcomeGone, Reason: reasonGone})
		// Nothing limits how often a client may ask for a token, nor for what the gateway does not pass on.
		a.Record(&Call{ID: "x", Outcome: OutcomeAnswered, Client: &Client{}})
		a.Record(&Call{ID: "x", Outcome: OutcomeUnavailable, Reason: "no_token", Client: &Client{}})
	}
	a.Close()
	if lines := strings.Count(sink.String(), "\n"); lines != denialBurst {
		t.Errorf("%d lines, want %d", lines, denialBurst)
	}
}

// TestLargeSecretsTakeLittle: a Secret that somebody labelled and filled takes little memory, and keeps the operator's own values.
func TestLargeSecretsTakeLittle(t *testing.T) {
	s := &corev1.Secret{Type: corev1.SecretTypeOpaque, Data: map[string][]byte{
		v1alpha1.AppIDKey: []byte(appID), v1alpha1.DefaultAccessTokenKey: []byte(realToken), "token": []byte(realToken),
	}}
	for i := range 100 {
		s.Data[fmt.Sprint("a", i)] = []byte(strings.Repeat("x", maxValue))
	}
	out, err := stripManaged(s)
	if err != nil {
		t.Fatal(err)
	}
	kept, _ := out.(*corev1.Secret)
	size := 0
	for key, value := range kept.Data {
		size += len(key) + len(value)
	}
	if size > maxKept || string(kept.Data[v1alpha1.DefaultAccessTokenKey]) != realToken || string(kept.Data["token"]) != realToken {
		t.Errorf("%d bytes are kept, of the keys %v", size, slices.Sorted(maps.Keys(kept.Data)))
	}
}
