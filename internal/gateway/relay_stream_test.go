// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// TestRelayLargeFiles: files of 64 MiB pass in both directions, and take little memory.
func TestRelayLargeFiles(t *testing.T) {
	const size = 64 << 20
	block := bytes.Repeat([]byte{0xff, 0xd8, 0, 1}, 8<<10)
	upstream := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || r.Method == http.MethodPost && (n != size || r.ContentLength != size) {
			t.Errorf("WeChat got %d bytes of %d, %v", n, r.ContentLength, err)
		}
		w.Header().Set("Content-Type", "image/jpeg")
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for range size / len(block) {
			_, _ = w.Write(block)
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = upstream.Serve(l) }()
	t.Cleanup(func() { _ = upstream.Close() })
	g := relayTo(t, nil, "http://"+l.Addr().String())
	client := &http.Client{}
	t.Cleanup(client.CloseIdleConnections)
	target := g.server.URL + "/cgi-bin/media/upload?access_token=" + gatewayText
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, io.LimitReader(repeating{block}, size))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	runtime.ReadMemStats(&after)
	if err != nil || n != size || res.Header.Get("Content-Type") != "image/jpeg" {
		t.Errorf("%d bytes, %v, %v", n, err, res.Header)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes were allocated for a file of %d", used, size)
	}
	if c := g.call(t); c.Sent != size || c.Received != size || c.Outcome != OutcomeRelayed {
		t.Errorf("call %+v", c)
	}
}

// repeating is a block of bytes again and again.
type repeating struct{ block []byte }

func (r repeating) Read(p []byte) (int, error) { return copy(p, r.block), nil }

// TestRelayStreams: what WeChat sends reaches the caller before the rest comes, apart from the beginning of a JSON object.
func TestRelayStreams(t *testing.T) {
	for name, tt := range map[string]struct {
		parts []string
		// first is what the caller has before the second part is sent.
		first string
	}{
		"a picture":                {parts: []string{"\xff\xd8\xff", "rest"}, first: "\xff\xd8\xff"},
		"an object without a code": {parts: []string{`{"a":1}`, "\n"}, first: `{"a":1}`},
		"a long object":            {parts: []string{`{"a":"` + strings.Repeat("x", peekSize), `"}`}, first: `{"a":"` + strings.Repeat("x", peekSize)},
		"the half of an object":    {parts: []string{`{"errcod`, `e":0}`}, first: ""},
		"a code":                   {parts: []string{`{"errcode":0,`, `"a":1}`}, first: `{"errcode":0,`},
		"the beginning of a token": {parts: []string{"x" + staleToken[:20], "y"}, first: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, front, _ := bubbleOf(t, nil, func(w http.ResponseWriter, _ *http.Request) {
					for _, part := range tt.parts {
						_, _ = io.WriteString(w, part)
						_ = http.NewResponseController(w).Flush()
						time.Sleep(time.Second)
					}
				})
				conn, err := front.dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				go func() { _, _ = io.WriteString(conn, getHead) }()
				var mu sync.Mutex
				var got bytes.Buffer
				go func() {
					res, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						return
					}
					defer func() { _ = res.Body.Close() }()
					b := make([]byte, 1024)
					for err == nil {
						var n int
						n, err = res.Body.Read(b)
						mu.Lock()
						got.Write(b[:n])
						mu.Unlock()
					}
				}()
				text := func() string {
					mu.Lock()
					defer mu.Unlock()
					return got.String()
				}
				time.Sleep(500 * time.Millisecond)
				if text() != tt.first {
					t.Errorf("the caller has %q, want %q", text(), tt.first)
				}
				time.Sleep(5 * time.Second)
				if want := strings.Join(tt.parts, ""); text() != want {
					t.Errorf("the caller has %q in the end, want %q", text(), want)
				}
			})
		})
	}
}

// TestRelayStopsReading: a caller who takes none of his answer for half a minute is gone.
func TestRelayStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, front, _ := bubbleOf(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(repeating{make([]byte, 1024)}, 10<<20))
		})
		conn, err := front.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, getHead)
		time.Sleep(time.Minute)
		if c := g.call(t); c.Outcome != OutcomeGone || c.Duration < Stall || c.Duration > Stall+5*time.Second {
			t.Errorf("call %+v", c)
		}
	})
}

// TestRelayStopsReadingAtTheEnd: a caller who takes all of an answer but the mark of its end is given up.
func TestRelayStopsReadingAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, front, _ := bubbleOf(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
		})
		conn, err := front.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, getHead)
		in := bufio.NewReader(conn)
		for line := ""; line != "x\r\n"; {
			if line, err = in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * Stall)
		if rest, err := io.ReadAll(in); len(rest) != 0 {
			t.Errorf("%q comes later, %v", rest, err)
		}
	})
}

// TestRelayEarlyAnswer: WeChat answers before it has the body, and the caller gets that answer.
func TestRelayEarlyAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, front, _ := bubbleOf(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			_, _ = io.WriteString(w, `{"errcode":45001,"errmsg":"media size out of limit"}`)
		})
		answer, took := ask(t, front, postHead("Content-Length: 10000000"), func(w io.Writer) {
			for range 10 {
				_, _ = io.WriteString(w, strings.Repeat("x", 1000))
				time.Sleep(time.Second)
			}
		})
		c := g.call(t)
		if !strings.Contains(answer, "45001") || c.Outcome != OutcomeRelayed || c.Errcode != 45001 || took > 15*time.Second {
			t.Errorf("%q after %v, call %+v", answer, took, c)
		}
	})
}

// TestRelayInFlight: what is beyond the limits is answered at once.
func TestRelayInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, front, hosts := bubbleOf(t, func(o *RelayOptions) { o.MaxInFlight, o.MaxInFlightPerClient = 4, 2 }, hanging)
		for range 2 {
			conn, err := front.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = io.WriteString(conn, getHead)
		}
		synctest.Wait()
		answer, took := ask(t, front, postHead("Content-Length: 2")+"{}", nil)
		if c := g.call(t); c.Reason != "client_in_flight" || c.Outcome != OutcomeLimited || !strings.Contains(answer, `"errcode":45011`) || took != 0 {
			t.Errorf("%q after %v, call %+v", answer, took, c)
		}
		if hosts[0].hits.Load() != 2 {
			t.Errorf("WeChat got %d calls", hosts[0].hits.Load())
		}
	})
}

// TestRelayTLS: WeChat's certificate is checked, and the file of --wechat-ca-file is read again.
func TestRelayTLS(t *testing.T) {
	fake := func() *wechattest.Server {
		s, err := wechattest.NewServer(wechattest.Options{TLS: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	trusted, other := fake(), fake()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	write := func(pem []byte) {
		if err := os.WriteFile(ca, pem, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(other.CACertPEM())
	g := relayTo(t, func(o *RelayOptions) { o.CAFile = ca }, trusted.URL())
	want := func(reason string) {
		t.Helper()
		answer := g.get(t, "/cgi-bin/get_api_domain_ip")
		if c := g.call(t); c.Reason != reason {
			t.Errorf("reason %q, want %q: %q", c.Reason, reason, answer)
		}
		silent(t, "the answer", answer)
		if strings.Contains(answer, "x509") || strings.Contains(answer, "certificate") || strings.Contains(answer, "127.0.0.1") {
			t.Errorf("the text of an error: %q", answer)
		}
	}
	want("unreachable")
	if !strings.Contains(g.log.String(), "its certificate is not trusted") {
		t.Errorf("the log says %q", g.log.String())
	}
	write(trusted.CACertPEM())
	if changed, err := g.ReloadCA(); !changed || err != nil {
		t.Errorf("changed: %v, %v", changed, err)
	}
	g.store.replace() // so that the fake's 40001 is not waited for
	want("")
	write([]byte("no certificate"))
	if changed, err := g.ReloadCA(); changed || err == nil {
		t.Errorf("changed: %v, %v", changed, err)
	}
	want("")
	g.once = true
	want("")
}

// TestNewRelay: wrong options name their flag.
func TestNewRelay(t *testing.T) {
	for flag, o := range map[string]RelayOptions{
		"--wechat-endpoints":     {Endpoints: []string{"http://api.weixin.qq.com"}},
		"--wechat-timeout":       {Timeout: -1},
		"--wechat-max-in-flight": {MaxInFlight: -1},
		"--wechat-ca-file":       {CAFile: "/none"},
	} {
		o.Source = newStore()
		_, err := NewRelay(o)
		if wrong, ok := errors.AsType[*wechat.OptionError](err); !ok || wrong.Flag != flag {
			t.Errorf("error %v, want one of %s", err, flag)
		}
	}
}

// TestRelayCutConnection: the second request on a connection is cut when WeChat has it. Only a GET that may be sent twice is.
func TestRelayCutConnection(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		once   bool
		sends  int
		reason string
	}{
		"a GET":               {method: "GET", sends: 3},
		"a POST":              {method: "POST", sends: 2, reason: "unanswered"},
		"a GET to send once":  {method: "GET", once: true, sends: 2, reason: "unanswered"},
		"a POST to send once": {method: "POST", once: true, sends: 2, reason: "unanswered"},
	} {
		t.Run(name, func(t *testing.T) {
			upstream := stub(t, func(conn net.Conn, n int, _ string) {
				if n == 2 {
					_ = conn.Close()
					return
				}
				_, _ = io.WriteString(conn, ok("application/json", okJSON))
			})
			g := relayTo(t, nil, upstream.URL)
			g.once = tt.once
			request := tt.method + " /cgi-bin/x?access_token=" + gatewayText + " HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
			g.raw(t, request)
			if c := g.call(t); c.Reason != "" {
				t.Fatalf("call %+v", c)
			}
			g.raw(t, request)
			if c := g.call(t); c.Reason != tt.reason || len(upstream.got()) != tt.sends {
				t.Errorf("reason %q, want %q; WeChat got %d requests, want %d", c.Reason, tt.reason, len(upstream.got()), tt.sends)
			}
			if tt.once && (upstream.conns != 2 || !strings.Contains(upstream.got()[0], "Connection: close\r\n")) {
				t.Errorf("%d connections, first request %q", upstream.conns, upstream.got()[0])
			}
		})
	}
}

// TestRelayAnswerDuringUpload: WeChat begins its answer during an upload, and still gets every byte of it.
func TestRelayAnswerDuringUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const block = 300000
		got := make(chan string, 1)
		g, front, _ := bubbleOf(t, nil, func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			_ = control.EnableFullDuplex()
			_, _ = io.WriteString(w, "begun ")
			_ = control.Flush()
			body, err := io.ReadAll(r.Body)
			got <- fmt.Sprint(string(body) == strings.Repeat("a", block)+strings.Repeat("b", block), err)
			_, _ = io.WriteString(w, "and ended")
		})
		answer, _ := ask(t, front, postHead(fmt.Sprint("Content-Length: ", 2*block)), func(w io.Writer) {
			_, _ = io.WriteString(w, strings.Repeat("a", block))
			time.Sleep(time.Second)
			_, _ = io.WriteString(w, strings.Repeat("b", block))
		})
		if answer != "begun and ended" {
			t.Errorf("answer %q, call %+v", answer, g.call(t))
		}
		if whole := <-got; whole != "true <nil>" {
			t.Errorf("WeChat got the whole body: %s", whole)
		}
	})
}

// TestCallerBodyBehindEnd: net/http closes a body that was read, and the transport reads once more.
func TestCallerBodyBehindEnd(t *testing.T) {
	c := &callerBody{from: io.MultiReader(strings.NewReader("x"), failing{}), control: http.NewResponseController(httptest.NewRecorder())}
	if _, err := io.ReadAll(io.LimitReader(c, 1)); err != nil {
		t.Fatal(err)
	}
	c.whole()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v, want EOF", n, err)
	}
	if c.err.Load() != nil {
		t.Errorf("there is an error: %v", *c.err.Load())
	}
}

// failing is a body that was closed.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, http.ErrBodyReadAfterClose }
