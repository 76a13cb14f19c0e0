// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// echoOf is all that a server can repeat of a request: as it was sent, and the values alone, whole, cut
// and in other clothes.
func echoOf(r *http.Request) string {
	var b strings.Builder
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(&b, "%s %s %s", r.Method, r.URL.RequestURI(), body)
	values := r.URL.Query()
	var fields map[string]any
	if json.Unmarshal(body, &fields) == nil {
		values.Set("secret", fmt.Sprint(fields["secret"]))
	}
	for _, v := range []string{values.Get("secret"), values.Get("access_token")} {
		if v != "" {
			fmt.Fprintf(&b, " %s [%s] %s... rid: %s-%s %s %s %s", v, v, v[:20], v[:16], v[16:], url.PathEscape(v), strings.Join(strings.Split(v, ""), "\x00"), v)
		}
	}
	return b.String()
}

// echoing puts the echo into an answer's format, in which %s takes it as it is and %q as a JSON string.
func echoing(status int, format string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		echo := echoOf(r)
		quoted, _ := json.Marshal(echo)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.NewReplacer("%s", echo, "%q", string(quoted)).Replace(format))
	}
}

func echoingRaw(format string) func(net.Conn, *http.Request) bool {
	return func(conn net.Conn, r *http.Request) bool {
		_, _ = io.WriteString(conn, strings.ReplaceAll(format, "%s", strings.ReplaceAll(echoOf(r), "\x00", "")))
		return false
	}
}

// failing is an error of a transport that quotes the request in every way.
type failing struct{ text string }

func (f failing) Error() string { return f.text }

func tripError(r *http.Request) error {
	return &url.Error{Op: r.Method, URL: r.URL.String(), Err: &net.OpError{Op: "dial", Net: "tcp",
		Err: fmt.Errorf("to %s: %w", r.URL, failing{text: r.URL.String()})}}
}

// badBody fails while it is read.
type badBody struct{ fail func() error }

func (b badBody) Read([]byte) (int, error) { return 0, b.fail() }
func (badBody) Close() error               { return nil }

func bodyFailing(fail func(r *http.Request) error) tripper {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: badBody{func() error { return fail(r) }}}, nil
	}
}

// leaks are the ways to fail. Each makes a client.
var leaks = map[string]func(t *testing.T) *Client{
	"refused":      func(t *testing.T) *Client { return newClient(t, Options{Endpoints: []string{refusing(t)}}) },
	"reset":        func(t *testing.T) *Client { return clientOf(t, serveRaw(t, resetting)) },
	"closed":       func(t *testing.T) *Client { return clientOf(t, serveRaw(t, writing(""))) },
	"header cut":   rawEcho("HTTP/1.1 200 OK\r\nX-Echo: %s"),
	"body cut":     rawEcho("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n%s"),
	"status line":  rawEcho("HTTP/1.1 %s\r\n\r\n"),
	"no HTTP":      rawEcho("%s\r\n\r\n"),
	"bad header":   rawEcho("HTTP/1.1 200 OK\r\n%s\r\n\r\n"),
	"bad length":   rawEcho("HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n"),
	"bad encoding": rawEcho("HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n"),
	"bad chunk":    rawEcho("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s"),
	"bad date":     rawEcho("HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Length: 2\r\n\r\n{}"),
	"large header": func(t *testing.T) *Client {
		return clientOf(t, serveRaw(t, echoingRaw("HTTP/1.1 200 OK\r\nX: %s"+strings.Repeat("x", 70<<10)+"\r\n\r\n")))
	},
	"untrusted": func(t *testing.T) *Client {
		return newClient(t, Options{Endpoints: []string{serveTLS(t, nil, answering).URL}})
	},
	"no TLS": func(t *testing.T) *Client {
		return newClient(t, Options{Endpoints: []string{strings.Replace(refusing(t), "http:", "https:", 1)}})
	},
	"known code":      httpEcho(200, `{"errcode":40164,"errmsg":%q}`),
	"unknown code":    httpEcho(200, `{"errcode":41002,"errmsg":%q,"access_token":"`+freshToken+`"}`),
	"ticket repeated": httpEcho(200, `{"errcode":41002,"errmsg":"x `+freshTicket+`","ticket":"`+freshTicket+`"}`),
	"token repeated":  httpEcho(200, `{"errcode":41002,"errmsg":"x `+freshToken+`","access_token":"`+freshToken+`"}`),
	"other status":    httpEcho(403, `{"errcode":40164,"errmsg":%q}`),
	"broken":          httpEcho(200, "\ufeff{\"errcode\":7,\"errmsg\":\"\x1b%s"),
	"in a field":      httpEcho(200, `{"data":{"errcode":7,"errmsg":%q}}`),
	"page with code":  httpEcho(200, `<html>errcode: 7, errmsg: %s</html>`),
	"in Chinese":      httpEcho(200, `{"errcode":7,"errmsg":"密钥`+appSecret+`无效","a":%q}`),
	"web page":        httpEcho(200, `<html>%s</html>`),
	"text":            httpEcho(200, `%s`),
	"JSON string":     httpEcho(200, `%q`),
	"as errcode":      httpEcho(200, `{"errcode":%q}`),
	"as errcode raw":  httpEcho(200, `{"errcode":%s}`),
	"as field":        httpEcho(200, `{%q:1,%q:2}`),
	"as life":         httpEcho(200, `{"access_token":"`+freshToken+`","ticket":"`+freshTicket+`","expires_in":%q,"ip_list":7}`),
	"as token":        httpEcho(200, `{"access_token":%q,"ticket":%q,"expires_in":7200}`),
	"429":             httpEcho(429, `%s`),
	"404":             httpEcho(404, `%s`),
	"500":             httpEcho(500, `%s`),
	"error": func(t *testing.T) *Client {
		return without(t, func(r *http.Request) (*http.Response, error) { return nil, tripError(r) })
	},
	"deadline, in their words": func(t *testing.T) *Client {
		return without(t, func(r *http.Request) (*http.Response, error) {
			return nil, fmt.Errorf("%w: %w", tripError(r), context.DeadlineExceeded)
		})
	},
	"body error": func(t *testing.T) *Client { return without(t, bodyFailing(tripError)) },
	"panic": func(t *testing.T) *Client {
		return without(t, func(r *http.Request) (*http.Response, error) { panic(r.URL.String()) })
	},
	"panic of an error": func(t *testing.T) *Client {
		return without(t, func(r *http.Request) (*http.Response, error) { panic(tripError(r)) })
	},
	"panic in the body": func(t *testing.T) *Client {
		return without(t, bodyFailing(func(r *http.Request) error { panic(r.URL.String()) }))
	},
}

func rawEcho(format string) func(*testing.T) *Client {
	return func(t *testing.T) *Client { return clientOf(t, serveRaw(t, echoingRaw(format))) }
}

func httpEcho(status int, format string) func(*testing.T) *Client {
	return func(t *testing.T) *Client { return clientOf(t, serve(t, echoing(status, format))) }
}

// TestNothingLeaks lets every call fail in every way and looks for the AppSecret, the token and the ticket.
func TestNothingLeaks(t *testing.T) {
	logged, before := &lockedBuffer{}, log.Writer()
	log.SetOutput(logged) // net/http's own
	t.Cleanup(func() { log.SetOutput(before) })
	for name, client := range leaks {
		for _, account := range []token.Credentials{testAccount, {AppID: testAppID, AppSecret: token.NewValue(awkwardSecret)}} {
			for _, call := range callsOf(account, storedToken) {
				t.Run(name+"/"+call.name, func(t *testing.T) {
					tok, err := call.do(t.Context(), client(t))
					if e, ok := errors.AsType[*token.Error](err); !ok || e.Message == "" || !tok.Value.IsZero() {
						t.Fatalf("error %v, want a *token.Error and no token", err)
					}
					cleanError(t, err)
					cleanError(t, fmt.Errorf("wrapped: %w", err))
					cleanError(t, errors.Join(err, err))
				})
			}
		}
	}
	clean(t, "the standard logger", logged.String())
}

// TestRedirect: none is followed, wherever it leads.
func TestRedirect(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308, 300, 304} {
		for _, call := range allCalls {
			next := serve(t, answering)
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", next.URL+"/?"+url.QueryEscape(echoOf(r)))
				w.WriteHeader(status)
			})
			_, err := call.do(t.Context(), clientOf(t, s))
			e := wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0)
			wantText(t, e, fmt.Sprintf("redirect (HTTP %d), which is not followed", status))
			if e.MaybeSent != call.mint {
				t.Errorf("%s: MaybeSent is %v", call.name, e.MaybeSent)
			}
			s.wantHits(t, 1)
			next.wantHits(t, 0)
		}
	}
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
