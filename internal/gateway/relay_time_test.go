// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/httpserver"
)

// pipes is a listener without a network, for a bubble of testing/synctest.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	dials  atomic.Int32
	// down makes every dial fail.
	down bool
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	p.dials.Add(1)
	if p.down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("refused")}
	}
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// host is a host of WeChat's in a bubble.
type host struct {
	*pipes
	hits atomic.Int32
}

// bubbleOf makes a gateway, and hosts of WeChat with these handlers, in the bubble around; a nil handler is a host that is down.
func bubbleOf(t *testing.T, change func(*RelayOptions), handlers ...http.HandlerFunc) (*gatewayUnderTest, *pipes, []*host) {
	t.Helper()
	hosts := make([]*host, len(handlers))
	o := RelayOptions{}
	for i, h := range handlers {
		hosts[i] = &host{pipes: newPipes()}
		hosts[i].down = h == nil
		o.Endpoints = append(o.Endpoints, fmt.Sprintf("http://127.0.0.1:%d", i+1))
		server(t, hosts[i].pipes, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			hosts[i].hits.Add(1)
			h(w, r)
		}))
	}
	g := &gatewayUnderTest{store: newStore(holding(staleToken)), calls: make(chan *Call, 100), hints: make(chan string, 100), log: &lockedBuffer{}}
	o.Source = g.store
	o.Hint = func(_ *Client, refused string) { g.hints <- refused }
	o.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(addr)
		return hosts[port[0]-'1'].dial(ctx)
	}
	if change != nil {
		change(&o)
	}
	var err error
	if g.Relay, err = NewRelay(o); err != nil {
		t.Fatal(err)
	}
	front := newPipes()
	serve(t, front, httpserver.NewStreaming(g, Stall)) // as the program does
	t.Cleanup(func() {
		g.forwarder.CloseIdle()
		time.Sleep(10 * time.Minute) // what the test left behind ends before
	})
	return g, front, hosts
}

func server(t *testing.T, l net.Listener, handler http.Handler) {
	serve(t, l, &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute})
}

func serve(t *testing.T, l net.Listener, s *http.Server) {
	s.ErrorLog = log.New(io.Discard, "", 0)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

// hanging reads the request and never answers.
func hanging(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

// answering reads the request and answers.
func answering(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, okJSON)
}

// ask sends a request over a new connection, in parts that may take their time, and returns the answer and how long it took.
func ask(t *testing.T, front *pipes, head string, body func(io.Writer)) (answer string, took time.Duration) {
	t.Helper()
	conn, err := front.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	begun := time.Now()
	go func() {
		_, _ = io.WriteString(conn, head)
		if body != nil {
			body(conn)
		}
	}()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err.Error(), time.Since(begun)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error(), time.Since(begun)
	}
	return string(text), time.Since(begun)
}

const getHead = "GET /cgi-bin/x?access_token=" + gatewayText + " HTTP/1.1\r\nHost: gateway\r\n\r\n"

func postHead(header string) string {
	return "POST /cgi-bin/x?access_token=" + gatewayText + " HTTP/1.1\r\nHost: gateway\r\n" + header + "\r\n\r\n"
}

// TestRelayHosts: which hosts a call is sent to, and how long that takes.
func TestRelayHosts(t *testing.T) {
	post := postHead("Content-Length: 2") + "{}"
	signed := strings.Replace(getHead, "Host:", "Wechatmp-Appid: x\r\nHost:", 1)
	for name, tt := range map[string]struct {
		hosts  []http.HandlerFunc
		head   string
		once   bool
		hits   []int32
		reason string
		took   time.Duration
	}{
		"the first":                         {hosts: []http.HandlerFunc{answering, answering}, head: post, hits: []int32{1, 0}},
		"a GET that is not answered":        {hosts: []http.HandlerFunc{hanging, answering}, head: getHead, hits: []int32{1, 1}, took: 10 * time.Second},
		"a GET that no host answers":        {hosts: []http.HandlerFunc{hanging, hanging}, head: getHead, hits: []int32{1, 1}, reason: "timeout", took: 20 * time.Second},
		"a POST that is not answered":       {hosts: []http.HandlerFunc{hanging, answering}, head: post, hits: []int32{1, 0}, reason: "unanswered", took: 10 * time.Second},
		"a login that is not answered":      {hosts: []http.HandlerFunc{hanging, answering}, head: getHead, once: true, hits: []int32{1, 0}, reason: "unanswered", took: 10 * time.Second},
		"a POST that nobody listens to":     {hosts: []http.HandlerFunc{nil, answering}, head: post, hits: []int32{0, 1}},
		"a login that nobody listens to":    {hosts: []http.HandlerFunc{nil, answering}, head: getHead, once: true, hits: []int32{0, 1}},
		"a signed call nobody listens to":   {hosts: []http.HandlerFunc{nil, answering}, head: signed, hits: []int32{0, 0}, reason: "unreachable"},
		"a signed call":                     {hosts: []http.HandlerFunc{answering, answering}, head: signed, hits: []int32{1, 0}},
		"a chunked POST":                    {hosts: []http.HandlerFunc{nil, answering}, head: postHead("Transfer-Encoding: chunked") + "2\r\n{}\r\n0\r\n\r\n", hits: []int32{0, 1}},
		"a large POST nobody listens to":    {hosts: []http.HandlerFunc{nil, answering}, head: postHead("Content-Length: 300000") + strings.Repeat("x", 300000), hits: []int32{0, 1}},
		"nobody at all":                     {hosts: []http.HandlerFunc{nil, nil}, head: getHead, hits: []int32{0, 0}, reason: "unreachable"},
		"a large POST that is not answered": {hosts: []http.HandlerFunc{hanging, answering}, head: postHead("Content-Length: 300000") + strings.Repeat("x", 300000), hits: []int32{1, 0}, reason: "unanswered", took: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, front, hosts := bubbleOf(t, nil, tt.hosts...)
				g.once = tt.once
				answer, took := ask(t, front, tt.head, nil)
				if tt.reason == "" != (answer == okJSON) || took != tt.took {
					t.Errorf("%q after %v, want one after %v", answer, took, tt.took)
				}
				c := g.call(t)
				if c.Reason != tt.reason {
					t.Errorf("reason %q, want %q", c.Reason, tt.reason)
				}
				for i, want := range tt.hits {
					if got := hosts[i].hits.Load(); got != want {
						t.Errorf("host %d got %d requests, want %d", i, got, want)
					}
				}
				silent(t, "the answer", answer)
				if tt.reason != "" || tt.once || strings.Contains(tt.head, "Wechatmp") {
					return
				}
				// The host that answered is asked first from then on.
				before := hosts[len(hosts)-1].hits.Load()
				if answer, _ := ask(t, front, getHead, nil); answer != okJSON {
					t.Errorf("the next call got %q", answer)
				}
				if tt.hits[0] == 0 && hosts[len(hosts)-1].hits.Load() != before+1 {
					t.Errorf("the next call was not sent to the host that answered")
				}
			})
		})
	}
}

// TestRelayWaitsForToken: a call waits three seconds for another token, and then WeChat's answer passes as it is.
func TestRelayWaitsForToken(t *testing.T) {
	const refused = `{"errcode":42001,"errmsg":"access_token expired rid: 1-2-3"}`
	synctest.Test(t, func(t *testing.T) {
		g, front, hosts := bubbleOf(t, nil, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, refused) })
		if answer, took := ask(t, front, getHead, nil); answer != refused || took != 3*time.Second {
			t.Errorf("%q after %v", answer, took)
		}
		if c := g.call(t); c.Outcome != OutcomeRelayed || c.Errcode != 42001 || c.Attempts != 1 || c.Store != 3*time.Second {
			t.Errorf("call %+v", c)
		}
		go func() {
			time.Sleep(time.Second)
			gone := holding(newToken)
			gone.Account.ExpiresAt = time.Now() // no token to repeat a call with
			g.store.replace(gone)
			time.Sleep(time.Second)
			g.store.replace(holding(newToken))
		}()
		if answer, took := ask(t, front, getHead, nil); answer != refused || took != 2*time.Second {
			t.Errorf("%q after %v", answer, took)
		}
		if got := hosts[0].hits.Load(); got != 3 {
			t.Errorf("WeChat got %d calls, want 3: the second call once more with the new token, and no more", got)
		}
		for range maxWaitersPerClient {
			g.waiters.enter(holding("").UID)
		}
		g.store.replace(holding(staleToken))
		if answer, took := ask(t, front, getHead, nil); answer != refused || took != 0 {
			t.Errorf("with too many waiters: %q after %v", answer, took)
		}
	})
}

// TestRelayBodies: bodies may take as long as they make progress.
func TestRelayBodies(t *testing.T) {
	every := func(interval time.Duration, n int, last string) func(io.Writer) {
		return func(w io.Writer) {
			for range n {
				time.Sleep(interval)
				if _, err := io.WriteString(w, strings.Repeat("x", 30000)); err != nil {
					return
				}
			}
			_, _ = io.WriteString(w, last)
		}
	}
	for name, tt := range map[string]struct {
		head   string
		body   func(io.Writer)
		full   bool
		reason string
		took   time.Duration
	}{
		"a slow upload":           {head: postHead("Content-Length: 300000"), body: every(20*time.Second, 10, ""), took: 200 * time.Second},
		"a slow message":          {head: postHead("Content-Length: 30000"), body: every(20*time.Second, 1, ""), took: 20 * time.Second},
		"an upload that stops":    {head: postHead("Content-Length: 300000"), body: every(20*time.Second, 3, ""), reason: "body_slow", took: 90 * time.Second},
		"a message that stops":    {head: postHead("Content-Length: 60000"), body: every(20*time.Second, 1, ""), reason: "body_slow", took: 50 * time.Second},
		"no room for chunks":      {head: postHead("Transfer-Encoding: chunked"), body: func(w io.Writer) { _, _ = io.WriteString(w, "2\r\n{}\r\n0\r\n\r\n") }, full: true, reason: "buffer", took: 5 * time.Second},
		"no room, a known length": {head: postHead("Content-Length: 2"), body: func(w io.Writer) { _, _ = io.WriteString(w, "{}") }, full: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, front, hosts := bubbleOf(t, nil, answering)
				if tt.full && !g.budget.try(g.budget.max) {
					t.Fatal("the budget is not free")
				}
				answer, took := ask(t, front, tt.head, tt.body)
				if c := g.call(t); c.Reason != tt.reason || tt.reason == "" != (answer == okJSON) || took != tt.took {
					t.Errorf("%q after %v, want one after %v; reason %q, want %q", answer, took, tt.took, c.Reason, tt.reason)
				}
				if tt.full {
					g.budget.give(g.budget.max)
				}
				if g.BufferedBytes() != 0 || g.InFlight() != 0 {
					t.Errorf("%d bytes and %d calls are left", g.BufferedBytes(), g.InFlight())
				}
				if tt.reason == "" && hosts[0].hits.Load() != 1 {
					t.Errorf("WeChat got %d requests", hosts[0].hits.Load())
				}
			})
		})
	}
}

// TestRelayKeepsConnection: a call may take longer than any of its deadlines, and leaves none to the next one on the connection.
func TestRelayKeepsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, front, _ := bubbleOf(t, nil, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			for range 10 {
				time.Sleep(9 * time.Second)
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
			}
		})
		conn, err := front.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		r := bufio.NewReader(conn)
		post := postHead("Content-Length: 2") + "{}"
		for i, call := range []struct{ request, want string }{
			{post, "xxxxxxxxxx"}, {strings.Replace(getHead, "/cgi-bin/x", ownPath, 1), ownPath}, {post, "xxxxxxxxxx"}, {getHead, "xxxxxxxxxx"},
		} {
			go func() { _, _ = io.WriteString(conn, call.request) }()
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
			if body, err := io.ReadAll(res.Body); string(body) != call.want || err != nil {
				t.Errorf("call %d: %q, %v", i, body, err)
			}
			_ = res.Body.Close()
			time.Sleep(50 * time.Second)
		}
	})
}

// TestRelayGone: a caller that goes away ends the call at WeChat, and is no fault of WeChat's.
func TestRelayGone(t *testing.T) {
	for name, head := range map[string]string{
		"waiting for the answer": postHead("Content-Length: 2") + "{}",
		"in the upload":          postHead("Content-Length: 300000") + strings.Repeat("x", 100000),
		"in a message":           postHead("Content-Length: 30000") + "x",
		"in chunks":              postHead("Transfer-Encoding: chunked") + "2\r\n{}\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan struct{}, 1)
				g, front, _ := bubbleOf(t, nil, func(w http.ResponseWriter, r *http.Request) {
					defer func() { ended <- struct{}{} }()
					hanging(w, r)
				})
				conn, err := front.dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(conn, head)
				time.Sleep(time.Second)
				_ = conn.Close()
				if c := g.call(t); c.Outcome != OutcomeGone || c.Status != 499 || c.Errcode != 0 || c.Duration != time.Second {
					t.Errorf("call %+v", c)
				}
				if !strings.Contains(name, "message") && !strings.Contains(name, "chunks") {
					<-ended
				}
				if g.log.String() != "" {
					t.Errorf("WeChat is blamed: %s", g.log.String())
				}
			})
		})
	}
}
