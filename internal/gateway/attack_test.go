// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/httpserver"
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
	server.Config = httpserver.NewStreaming(handler, time.Minute)
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
