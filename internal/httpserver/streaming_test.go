// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const stall = 300 * time.Millisecond

// streaming serves a handler and returns a connection to it.
func streaming(t *testing.T, handler http.HandlerFunc) net.Conn {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", nil, StreamingConnections)
	if err != nil {
		t.Fatal(err)
	}
	server := NewStreaming(handler, stall)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A body that moves may take several times as long as it may stand still.
func TestBodyThatMoves(t *testing.T) {
	got := make(chan string, 1)
	c := streaming(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			body = []byte(err.Error())
		}
		got <- string(body)
	})
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n")
	for range 8 {
		time.Sleep(stall / 3)
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if body := <-got; body != "xxxxxxxx" {
		t.Errorf("read %q", body)
	}
}

func TestBodyThatStalls(t *testing.T) {
	for name, own := range map[string]time.Duration{"moving": 0, "deadline of the handler": stall / 2} {
		t.Run(name, func(t *testing.T) {
			got := make(chan error, 1)
			c := streaming(t, func(w http.ResponseWriter, r *http.Request) {
				if own > 0 {
					_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(own))
				}
				_, err := io.ReadAll(r.Body)
				_, _ = io.WriteString(w, "no")
				got <- err
			})
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nx")
			select {
			case err := <-got:
				if err == nil {
					t.Error("half a body was taken for a whole one")
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the server waits for the body for ever")
			}
			// net/http wants to read the rest before it answers.
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if answer, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(answer), "no") {
				t.Errorf("the connection does not end: %q, %v", answer, err)
			}
		})
	}
}

// A handler may take longer than a body may stand still, and its caller has not gone meanwhile, with a body and without.
func TestHandlerThatTakesItsTime(t *testing.T) {
	for name, request := range map[string]string{
		"GET":                 "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST":                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxxx",
		"100-continue":        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nxxx",
		"chunked":             "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxxx\r\n0\r\n\r\n",
		"body that is unread": "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxxx",
	} {
		t.Run(name, func(t *testing.T) {
			c := streaming(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPut {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = r.Body.Read(make([]byte, 1)) // as a transport may do
				}
				select {
				case <-time.After(2 * stall):
				case <-r.Context().Done():
					t.Errorf("the request has ended: %v", context.Cause(r.Context()))
				}
				_, _ = io.WriteString(w, "done")
			})
			in := bufio.NewReader(c)
			for range 2 { // the second one must not suffer from the deadlines of the first
				if _, err := io.WriteString(c, request); err != nil {
					t.Fatal(err)
				}
				res, err := http.ReadResponse(in, nil)
				if err == nil && res.StatusCode == http.StatusContinue {
					res, err = http.ReadResponse(in, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if string(body) != "done" {
					t.Errorf("answered %q", body)
				}
			}
		})
	}
}

// A client that reads nothing ends its answer; one that reads slowly gets all of it.
func TestAnswerThatIsNotRead(t *testing.T) {
	got := make(chan error, 1)
	c := streaming(t, func(w http.ResponseWriter, _ *http.Request) {
		piece := []byte(strings.Repeat("x", 1<<20))
		var err error
		for i := 0; i < 64 && err == nil; i++ {
			_, err = w.Write(piece)
		}
		got <- err
	})
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case err := <-got:
		if err == nil {
			t.Error("64 MiB were sent to a client that reads nothing")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the server waits for the client for ever")
	}
}

func TestAnswerThatIsFlushed(t *testing.T) {
	c := streaming(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	})
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil) //nolint:bodyclose // closing it would wait for the rest, which never comes
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, first); err != nil || string(first) != "first" {
		t.Errorf("read %q, %v", first, err)
	}
}

// The headers of a request must come in time, and may not be large.
func TestStreamingHeaders(t *testing.T) {
	server := NewStreaming(nil, stall)
	if server.ReadHeaderTimeout != readTimeout || server.MaxHeaderBytes != maxHeader || server.Protocols.HTTP2() || server.Protocols.UnencryptedHTTP2() {
		t.Errorf("%+v", server)
	}
}
