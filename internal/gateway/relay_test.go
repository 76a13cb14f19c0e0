// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestRelayRequest asserts the bytes of a request at WeChat.
func TestRelayRequest(t *testing.T) {
	const head = "GET /cgi-bin/user/info?access_token=" + staleToken + "&openid=o%20x&lang=zh_CN HTTP/1.1\r\nHost: HOST\r\n"
	for name, tt := range map[string]struct{ request, want string }{
		"the token, byte for byte the rest": {
			"GET /cgi-bin/user/info?access_token=" + gatewayText + "&openid=o%20x&lang=zh_CN HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
			head + "\r\n",
		},
		"only the allowlist": {
			"GET /cgi-bin//user/info/?access_token=" + gatewayText + "&openid=o%20x&lang=zh_CN HTTP/1.1\r\nHost: gateway\r\n" +
				"Connection: close, user-agent, Wechatmp-Appid\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n" +
				"X-Idempotency-Key: 1\r\nIdempotency-Key: 1\r\nX-HTTP-Method-Override: DELETE\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n" +
				"Cookie: a=b\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nTE: trailers\r\nRange: bytes=0-1\r\nIf-None-Match: x\r\nAccept-Encoding: gzip\r\n" +
				"Referer: http://x\r\nX-WeChat-App-Client: shop/shop-api\r\nAccept: */*\r\nUser-Agent: sdk/1\r\nWechatmp-Appid: wx1\r\n\r\n",
			head + "User-Agent: sdk/1\r\nAccept: */*\r\nWechatmp-Appid: wx1\r\n\r\n",
		},
		"a body of a known length": {
			"POST /cgi-bin/message/custom/send?access_token=" + gatewayText + " HTTP/1.1\r\nHost: gateway\r\nConnection: close, content-length, content-type\r\n" +
				"Content-Type: text/plain\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
			"POST /cgi-bin/message/custom/send?access_token=" + staleToken + " HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
		},
		"no body": {
			"POST /cgi-bin/clear?access_token=" + gatewayText + " HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
			"POST /cgi-bin/clear?access_token=" + staleToken + " HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
		},
		"chunked, with a length too": {
			"POST /cgi-bin/x?access_token=" + gatewayText + " HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: 3\r\n" +
				"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n",
			"POST /cgi-bin/x?access_token=" + staleToken + " HTTP/1.1\r\nHost: HOST\r\nContent-Length: 7\r\n\r\nabcdefg",
		},
		"an empty chunked body": {
			"POST /cgi-bin/x?access_token=" + gatewayText + " HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"POST /cgi-bin/x?access_token=" + staleToken + " HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			upstream := stub(t, says(ok("application/json", okJSON)))
			g := relayTo(t, nil, upstream.URL)
			answer := g.raw(t, tt.request)
			got := upstream.got()
			if len(got) != 1 {
				t.Fatalf("WeChat got %d requests: %q, answer %q", len(got), got, answer)
			}
			want := strings.Replace(tt.want, "HOST", strings.TrimPrefix(upstream.URL, "http://"), 1)
			if sortedHead(got[0]) != sortedHead(want) {
				t.Errorf("WeChat got\n%q, want\n%q", got[0], want)
			}
			if body := bodyOf(t, strings.TrimPrefix(answer, "HTTP/1.1 100 Continue\r\n\r\n")); body != okJSON {
				t.Errorf("the caller got %q", body)
			}
			silent(t, "the answer", answer)
			c := g.call(t)
			if c.Outcome != OutcomeRelayed || c.Status != 200 || c.Attempts != 1 || c.Received != int64(len(okJSON)) || c.Reason != "" || c.Errcode != 0 {
				t.Errorf("call %+v", c)
			}
		})
	}
}

// sortedHead orders the header lines of a request, whose order says nothing.
func sortedHead(request string) string {
	head, body, _ := strings.Cut(request, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	for i := 1; i < len(lines); i++ {
		for j := i; j > 1 && lines[j] < lines[j-1]; j-- {
			lines[j], lines[j-1] = lines[j-1], lines[j]
		}
	}
	return strings.Join(lines, "\n") + "\n\n" + body
}

// TestRelayAnswer has answers of WeChat's, or of what answers in its place, and what a caller gets. A want that begins with -1 is the reason
// of an answer of the gateway's own.
func TestRelayAnswer(t *testing.T) {
	long := strings.Repeat("x", 600)
	for name, tt := range map[string]struct {
		say    func(conn net.Conn, n int, request string)
		want   string // of the body; "" for the reason
		reason string
		absent string // of the whole answer
		code   int
	}{
		"a redirect that carries the token": {
			say:    says("HTTP/1.1 302 Found\r\nLocation: https://evil/?access_token=" + staleToken + "\r\nContent-Length: 0\r\n\r\n"),
			reason: "redirect", absent: "evil", code: -1,
		},
		"not modified":  {say: says("HTTP/1.1 304 Not Modified\r\n\r\n"), reason: "redirect", code: -1},
		"an echo":       {say: says(ok("text/plain", "your token is "+staleToken)), reason: "echo", code: -1},
		"a late echo":   {say: says(ok("text/plain", strings.Repeat("y", 40000)+staleToken+"more")), reason: "echo", code: -1, want: "*"},
		"a header echo": {say: says("HTTP/1.1 200 OK\r\nX-Debug: t=" + staleToken + "\r\nContent-Length: 2\r\n\r\nok"), want: "ok", absent: "X-Debug"},
		"a loop":        {say: says("HTTP/1.1 200 OK\r\nX-WeChat-Gateway: 1\r\nContent-Length: 2\r\n\r\nok"), reason: "loop", code: -1},
		"early hints": {
			say:  says("HTTP/1.1 103 Early Hints\r\nLink: </evil>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + ok("text/plain", "ok")),
			want: "ok", absent: "103",
		},
		"switching protocols": {
			say:    says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nevil"),
			reason: "protocol", absent: "evil", code: -1,
		},
		"stripped headers": {
			say: says("HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nAlt-Svc: h3=\":443\"\r\nLocation: https://evil\r\nRefresh: 0; url=https://evil\r\n" +
				"Connection: X-Named\r\nX-Named: evil\r\nProxy-Authenticate: evil\r\nContent-Length: 2\r\n\r\nok"),
			want: "ok", absent: "evil|Set-Cookie|Alt-Svc|X-Named",
		},
		"a status of its own": {say: says("HTTP/1.1 412 Precondition Failed\r\nContent-Length: 2\r\n\r\nno"), want: "no"},
		"a gzip bomb":         {say: says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"), want: "\x1f\x8b\x08\x00"},
		"an errcode in a text": {
			say:  says(ok("application/json", `{"content":"{\"errcode\":40001}","list":[{"errcode":40001}],"x":{"errcode":40001}}`)),
			want: `{"content":"{\"errcode\":40001}","list":[{"errcode":40001}],"x":{"errcode":40001}}`,
		},
		"an errcode behind the first 512 bytes": {
			say: says(ok("application/json", `{"a":"`+long+`","errcode":40001}`)), want: `{"a":"` + long + `","errcode":40001}`,
		},
		"an errcode of another kind": {say: says(ok("text/plain", `{"errcode":48001,"errmsg":"api unauthorized"}`)), want: `{"errcode":48001,"errmsg":"api unauthorized"}`, code: 48001},
		"too many headers": {
			say:    says("HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 70<<10) + "\r\nContent-Length: 2\r\n\r\nok"),
			reason: "unanswered", code: -1,
		},
		"no HTTP": {say: says("SSH-2.0-evil\r\n\r\n"), reason: "unanswered", absent: "SSH", code: -1},
		"a trailer that is none": {
			say:    says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET /x?access_token=" + staleToken + " HTTP/1.1\r\n\r\n"),
			reason: "unanswered", code: -1,
		},
		"a stall after the headers": {
			say: says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), reason: "unanswered", code: -1,
		},
		"a stall in the beginning": {
			say: says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"err"), reason: "unanswered", code: -1,
		},
		"a reset in the body": {
			say: func(conn net.Conn, _ int, _ string) {
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot JSON")
				time.Sleep(100 * time.Millisecond)
				_ = conn.(*net.TCPConn).SetLinger(0)
				_ = conn.Close()
			},
			want: "not JSON [unexpected EOF]", reason: "broken", code: -1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream := stub(t, tt.say)
			g := relayTo(t, func(o *RelayOptions) {
				if strings.HasPrefix(name, "a stall") {
					o.Timeout = time.Second
				}
			}, upstream.URL)
			answer := g.post(t, "/cgi-bin/x", "{}")
			c := g.call(t)
			if c.Reason != tt.reason || c.Errcode != tt.code {
				t.Errorf("reason %q, errcode %d, want %q, %d", c.Reason, c.Errcode, tt.reason, tt.code)
			}
			if unanswered := strings.HasPrefix(answer, "HTTP/1.1 504 "); unanswered != (tt.reason == "unanswered") || unanswered != (c.Status == 504) {
				t.Errorf("status %d, answer %q", c.Status, answer)
			}
			body := bodyOf(t, answer)
			switch {
			case tt.want == "" && !strings.HasPrefix(body, `{"errcode":-1,"errmsg":"wechat gateway: `):
				t.Errorf("body %q, want an answer of the gateway's own", body)
			case tt.want == "" && !strings.Contains(answer, "X-Wechat-Gateway: test-1\r\n"):
				t.Errorf("no request ID in %q", answer)
			case tt.want == "*":
			case tt.want != "" && (body != tt.want || strings.Contains(answer, "X-Wechat-Gateway")):
				t.Errorf("body %q, want %q", body, tt.want)
			}
			for word := range strings.SplitSeq(tt.absent, "|") {
				if word != "" && strings.Contains(answer, word) {
					t.Errorf("%q is in %q", word, answer)
				}
			}
			if len(upstream.got()) != 1 {
				t.Errorf("WeChat got %d requests", len(upstream.got()))
			}
			silent(t, "the answer", answer)
			silent(t, "the log", g.log.String())
			silent(t, "the call", fmt.Sprintf("%+v", *c))
		})
	}
}

// TestRelayRepeats: a call whose token WeChat refuses is sent once more with the next token of the store.
func TestRelayRepeats(t *testing.T) {
	const refused = `{"errcode":40001,"errmsg":"invalid credential rid: 1-2-3"}`
	inTwo := func(conn net.Conn) {
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(refused), refused[:13])
		time.Sleep(50 * time.Millisecond)
		_, _ = io.WriteString(conn, refused[13:])
	}
	for name, tt := range map[string]struct {
		first   func(conn net.Conn)
		request func(g *gatewayUnderTest) string
		before  func(g *gatewayUnderTest)
		want    string
		sends   int
		hint    bool
	}{
		"a GET":     {request: func(g *gatewayUnderTest) string { return g.get(t, "/cgi-bin/x") }, want: okJSON, sends: 2, hint: true},
		"a POST":    {request: func(g *gatewayUnderTest) string { return g.post(t, "/cgi-bin/x", `{"a":1}`) }, want: okJSON, sends: 2, hint: true},
		"two parts": {first: inTwo, request: func(g *gatewayUnderTest) string { return g.post(t, "/cgi-bin/x", `{"a":1}`) }, want: okJSON, sends: 2, hint: true},
		"the store is ahead": {
			before:  func(g *gatewayUnderTest) { g.store.replace(holding(newToken)) },
			request: func(g *gatewayUnderTest) string { return g.get(t, "/cgi-bin/x") }, want: okJSON, sends: 2,
		},
		"a large upload": {
			request: func(g *gatewayUnderTest) string { return g.post(t, "/cgi-bin/x", strings.Repeat("x", maxRepeated+1)) },
			want:    refused, sends: 1, hint: true,
		},
		"a call that works once": {
			before:  func(g *gatewayUnderTest) { g.once = true },
			request: func(g *gatewayUnderTest) string { return g.get(t, "/cgi-bin/x") }, want: refused, sends: 1, hint: true,
		},
		"a call without the token": {
			before:  func(g *gatewayUnderTest) { g.noAuth = true },
			request: func(g *gatewayUnderTest) string { return g.get(t, "/sns/userinfo") }, want: refused, sends: 1,
		},
		"a client that is gone": {
			before:  func(g *gatewayUnderTest) { g.store.replace() },
			request: func(g *gatewayUnderTest) string { return g.get(t, "/cgi-bin/x") }, want: refused, sends: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			upstream := stub(t, func(conn net.Conn, n int, _ string) {
				switch {
				case n > 1:
					_, _ = io.WriteString(conn, ok("application/json", okJSON))
				case tt.first != nil:
					tt.first(conn)
				default:
					_, _ = io.WriteString(conn, ok("image/jpeg", refused))
				}
			})
			g := relayTo(t, nil, upstream.URL)
			if tt.before != nil {
				tt.before(g)
			}
			if tt.hint {
				go func() {
					if got, want := <-g.hints, holding(staleToken).Account.Token.Fingerprint(); got != want {
						t.Errorf("hint %q, want %q", got, want)
					}
					g.store.replace(holding(newToken))
				}()
			}
			answer := tt.request(g)
			if body := bodyOf(t, answer); body != tt.want {
				t.Errorf("body %q, want %q", body, tt.want)
			}
			got := upstream.got()
			if c := g.call(t); len(got) != tt.sends || c.Attempts != tt.sends || c.Outcome != OutcomeRelayed {
				t.Fatalf("WeChat got %d requests, want %d; call %+v", len(got), tt.sends, c)
			}
			if tt.sends == 2 && got[1] != strings.Replace(got[0], staleToken, newToken, 1) {
				t.Errorf("the second request is %q, the first %q", got[1], got[0])
			}
			if !tt.hint && len(g.hints) > 0 {
				t.Errorf("there is a hint")
			}
			silent(t, "the answer", answer)
		})
	}
}
