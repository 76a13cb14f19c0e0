// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// TestRequests checks what is sent, as WeChat documents it.
func TestRequests(t *testing.T) {
	type sent struct{ method, path, query, body, kind string }
	awkward := token.Credentials{AppID: testAppID, AppSecret: token.NewValue(awkwardSecret)}
	const escaped = "p%2Bq%2Fr%3Ds%26t%22u%3Cv%3Ew%25x+y%5Cz%231234567890"
	for i, want := range []sent{
		{method: "POST", path: "/cgi-bin/stable_token", body: `"force_refresh":false`, kind: "application/json"},
		{method: "GET", path: "/cgi-bin/get_api_domain_ip", query: "access_token=" + escaped},
		{method: "GET", path: "/cgi-bin/ticket/getticket", query: "access_token=" + escaped + "&type=jsapi"},
		{method: "POST", path: "/cgi-bin/stable_token", body: `"force_refresh":true`, kind: "application/json"},
		{method: "GET", path: "/cgi-bin/token", query: "appid=" + testAppID + "&grant_type=client_credential&secret=" + escaped},
	} {
		call := callsOf(awkward, awkwardSecret)[i]
		t.Run(call.name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got := sent{r.Method, r.URL.Path, r.URL.RawQuery, want.body, r.Header.Get("Content-Type")}
				if got != want || !strings.Contains(string(body), want.body) {
					t.Errorf("%+v with body %s, want %+v", got, body, want)
				}
				if want.body != "" {
					var fields map[string]any
					if err := json.Unmarshal(body, &fields); err != nil || len(fields) != 4 || fields["grant_type"] != "client_credential" ||
						fields["appid"] != testAppID || fields["secret"] != awkwardSecret {
						t.Errorf("body %s, error %v", body, err)
					}
				} else if len(body) != 0 {
					t.Errorf("body %s, want none", body)
				}
				if r.UserAgent() != "agent/1" || r.Header.Get("Accept") != "application/json" ||
					r.Header.Get("Accept-Encoding") != "identity" {
					t.Errorf("header %v", r.Header)
				}
				for _, name := range slices.Collect(maps.Keys(r.Header)) {
					if !slices.Contains([]string{"Accept", "Accept-Encoding", "User-Agent", "Content-Type", "Content-Length", "Connection"}, name) {
						t.Errorf("header %s is sent", name)
					}
				}
				answering(w, r)
			})
			c := newClient(t, Options{Endpoints: []string{s.URL + "/"}, UserAgent: "agent/1"})
			tok, err := call.do(t.Context(), c)
			if err != nil || tok.Value.Reveal() != call.want {
				t.Errorf("token %q, error %v", tok.Value.Reveal(), err)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	for status, want := range map[int]struct {
		class  token.Class
		reason token.Reason
		text   string
	}{
		201: {token.Transient, v1alpha1.ReasonBadResponse, "HTTP status is 201"},
		204: {token.Transient, v1alpha1.ReasonBadResponse, "HTTP status is 204"},
		206: {token.Transient, v1alpha1.ReasonBadResponse, "HTTP status is 206"},
		400: {token.Transient, v1alpha1.ReasonBadResponse, "HTTP status is 400"},
		401: {token.Transient, v1alpha1.ReasonBadResponse, "HTTP status is 401"},
		404: {token.Transient, v1alpha1.ReasonBadResponse, "HTTP status is 404"},
		407: {token.Transient, v1alpha1.ReasonBadResponse, "HTTP status is 407"},
		429: {token.Limited, v1alpha1.ReasonRateLimited, "HTTP 429: too many calls"},
		500: {token.Transient, v1alpha1.ReasonUnreachable, "answered HTTP 500"},
		502: {token.Transient, v1alpha1.ReasonUnreachable, "answered HTTP 502"},
		503: {token.Transient, v1alpha1.ReasonUnreachable, "answered HTTP 503"},
		599: {token.Transient, v1alpha1.ReasonUnreachable, "answered HTTP 599"},
	} {
		// The status says it all: the body may be too large, cut or late.
		for name, body := range map[string]string{"body": goodBody, "large": strings.Repeat("x", maxBody+1), "cut": "cut"} {
			if status == 204 && name != "body" {
				continue
			}
			for _, call := range allCalls {
				s := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if name == "cut" {
						w.Header().Set("Content-Length", "99")
					}
					saying(status, body)(w, r)
				})
				_, err := call.do(t.Context(), clientOf(t, s))
				e := wantError(t, err, want.class, want.reason, 0)
				wantText(t, e, want.text, s.URL[len("http://"):])
				if wantSent := call.mint && status != 429; e.MaybeSent != wantSent {
					t.Errorf("%d, %s, %s: MaybeSent is %v", status, name, call.name, e.MaybeSent)
				}
			}
		}
	}
}

func TestBodyLimit(t *testing.T) {
	pad := func(body string, size int) string { return body + strings.Repeat(" ", size-len(body)) }
	for _, tt := range []struct {
		name string
		body func(r *http.Request) string
		fits bool
	}{
		{"64 KiB", func(r *http.Request) string { return pad(bodyFor(r), maxBody) }, true},
		{"a byte more", func(r *http.Request) string { return pad(bodyFor(r), maxBody+1) }, false},
		{"1 MiB", func(r *http.Request) string { return pad(bodyFor(r), 1<<20) }, false},
		{"token of 60 KiB", func(*http.Request) string {
			return fmt.Sprintf(`{"access_token":%q,"expires_in":7200,"ip_list":[],"ticket":"t"}`, strings.Repeat("t", 60<<10))
		}, true},
	} {
		for _, call := range allCalls {
			t.Run(tt.name+"/"+call.name, func(t *testing.T) {
				s := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, tt.body(r)) })
				_, err := call.do(t.Context(), clientOf(t, s))
				if tt.fits {
					if err != nil {
						t.Error(err)
					}
					return
				}
				e := wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0)
				wantText(t, e, "larger than 64 KiB")
				if e.MaybeSent != call.mint {
					t.Errorf("MaybeSent is %v", e.MaybeSent)
				}
			})
		}
	}
}

// TestEndlessBody: the limit holds for what is read too, not only for what is kept.
func TestEndlessBody(t *testing.T) {
	for _, call := range allCalls {
		read := 0
		_, err := call.do(t.Context(), without(t, func(*http.Request) (*http.Response, error) {
			endless := readerFunc(func(p []byte) (int, error) {
				read += len(p)
				return len(p), nil
			})
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(endless)}, nil
		}))
		wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0), "larger than 64 KiB")
		if read != maxBody+1 {
			t.Errorf("%d bytes were read", read)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestGzip: compression is not asked for, and an answer that decompresses to more than the limit is refused.
func TestGzip(t *testing.T) {
	rest := gzipped(strings.Repeat(" ", 16<<20)) // once, because it takes longer than an answer may
	for _, call := range allCalls {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("Accept-Encoding: %s", got)
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, gzipped(bodyFor(r))+rest)
		})
		_, err := call.do(t.Context(), clientOf(t, s))
		wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0), "larger than 64 KiB")
	}
}
