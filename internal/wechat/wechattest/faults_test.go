// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestFaultAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fault  Fault
		status int
		code   int
		kind   string
		body   string // part of it
	}{
		{"errcode", Fault{Errcode: -1}, 200, -1, jsonType, `"errmsg":"system error rid: `},
		{"errcode with address", Fault{Errcode: 40164}, 200, 40164, jsonType, "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist rid: "},
		{"unknown errcode", Fault{Errcode: 99999}, 200, 99999, jsonType, "error 99999 rid: "},
		{"errmsg", Fault{Errcode: 45009, Errmsg: "a \"quoted\"\ntext"}, 200, 45009, jsonType, `a \"quoted\"\ntext"`},
		{"errcode and status", Fault{Errcode: 45011, Status: 429}, 429, 45011, jsonType, "minute-quota"},
		{"status", Fault{Status: 502}, 502, 0, "text/html", "<html>"},
		{"status without body", Fault{Status: 204}, 204, 0, "text/html", ""},
		{"status that is none", Fault{Status: 42}, 500, 0, "text/html", "<html>"},
		{"body", Fault{Body: `{"access_token":""}`}, 200, 0, jsonType, `{"access_token":""}`},
		{"page", Fault{Body: "<p>login</p>", ContentType: "text/html", Status: 200}, 200, 0, "text/html", "<p>login</p>"},
		{"empty body", Fault{ContentType: "text/plain"}, 200, 0, "text/plain", ""},
		{"errcode with delays", Fault{Errcode: -1, Delay: time.Millisecond, DelayAnswer: time.Millisecond}, 200, -1, jsonType, "system error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, Options{})
			tc.fault.Times = 1
			f.Inject(tc.fault)
			a := f.legacy(appID)
			if a.status != tc.status || a.code() != tc.code || !strings.Contains(string(a.body), tc.body) {
				t.Errorf("HTTP %d, errcode %d, %q", a.status, a.code(), a.body)
			}
			if tc.body == "" && len(a.body) > 0 {
				t.Errorf("body is %q", a.body)
			}
			if got := a.header.Get("Content-Type"); got != tc.kind {
				t.Errorf("Content-Type is %q, want %q", got, tc.kind)
			}
			want := Call{Endpoint: EndpointLegacy, AppID: appID, Errcode: tc.code, HTTPStatus: tc.status, Fault: true, Finished: true}
			f.wantCall(want)
			if len(f.Tokens("")) != 0 {
				t.Error("a token was made")
			}
			f.wantCode("the next call", f.legacy(appID), 0)
		})
	}
}

// wantCall compares the newest call, but for its times and address.
func (f *fixture) wantCall(want Call) {
	f.t.Helper()
	got := f.lastCall()
	if got.At.IsZero() || !got.Clock.Equal(f.Now()) || !strings.HasPrefix(got.RemoteAddr, "127.0.0.1:") {
		f.t.Errorf("At %v, Clock %v, RemoteAddr %q", got.At, got.Clock, got.RemoteAddr)
	}
	got.At, got.Clock, got.RemoteAddr = want.At, want.Clock, want.RemoteAddr
	if got != want {
		f.t.Errorf("the call is written down as\n%+v, want\n%+v", got, want)
	}
}

func TestFaultGarbage(t *testing.T) {
	f := newFixture(t, Options{})
	f.Inject(Fault{Garbage: true})
	first, second := f.stable(appID).body, f.stable(appID).body
	if len(first) < 16 || bytes.Equal(first, second) || first[0] != 0xff {
		t.Errorf("garbage is %d and %d bytes, equal %t", len(first), len(second), bytes.Equal(first, second))
	}
	f.ClearFaults()
	f.wantCode("after ClearFaults", f.stable(appID), 0)
}

func TestFaultCuts(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, tc := range []struct {
			cut    Cut
			minted bool
			status int
		}{{CutBefore, false, 0}, {CutAfter, true, 0}, {CutBody, true, http.StatusOK}} {
			t.Run(map[bool]string{false: "http ", true: "https "}[secure]+string(tc.cut), func(t *testing.T) {
				f := newFixture(t, Options{TLS: secure})
				if secure {
					f.trust(false)
				}
				f.Inject(Fault{Cut: tc.cut, Times: 1})
				a, err := f.do(http.MethodGet, legacyPath(appID, secret), "")
				if err == nil {
					t.Fatalf("there is an answer: %s", a.body)
				}
				if reset := errors.Is(err, syscall.ECONNRESET); tc.cut != CutBody && !reset && !errors.Is(err, io.EOF) {
					t.Errorf("the error is %v", err)
				}
				if tc.cut == CutBody {
					if !errors.Is(err, io.ErrUnexpectedEOF) || a.status != http.StatusOK {
						t.Errorf("HTTP %d, the error is %v", a.status, err)
					}
					if whole := a.header.Get("Content-Length"); whole == "" || len(a.body) == 0 || !bytes.HasPrefix(a.body, []byte(`{"access_token":"92_`)) {
						t.Errorf("%d of %s bytes came: %s", len(a.body), whole, a.body)
					}
				}
				f.wantCall(Call{Endpoint: EndpointLegacy, AppID: appID, HTTPStatus: tc.status, Fault: true, Minted: tc.minted})
				if minted := len(f.Tokens(appID)) == 1; minted != tc.minted {
					t.Errorf("a token was made: %t, want %t", minted, tc.minted)
				}
				f.wantCode("the next call", f.legacy(appID), 0)
			})
		}
	}
}

// With HTTP/2 a fault must not hit other calls on the same connection.
func TestFaultCutsHTTP2(t *testing.T) {
	for _, cut := range []Cut{CutBefore, CutAfter, CutBody} {
		t.Run(string(cut), func(t *testing.T) {
			f := newFixture(t, Options{TLS: true})
			f.trust(true)
			f.wantCode("first call", f.stable(other), 0) // opens the connection
			f.Inject(Fault{AppID: other, Times: 1, Delay: 300 * time.Millisecond})
			f.Inject(Fault{AppID: appID, Times: 1, Cut: cut})
			slow := make(chan error, 1)
			go func() {
				_, err := f.do(http.MethodPost, "/cgi-bin/stable_token", stableBody(other, false))
				slow <- err
			}()
			f.eventually("the slow call", func() bool { return f.Count(Filter{AppID: other}) == 2 })
			if _, err := f.do(http.MethodGet, legacyPath(appID, secret), ""); err == nil {
				t.Error("the call was not cut")
			}
			if minted := len(f.Tokens(appID)) == 1; minted != (cut != CutBefore) {
				t.Errorf("a token was made: %t", minted)
			}
			if err := <-slow; err != nil {
				t.Errorf("another call on the connection: %v", err)
			}
		})
	}
}

func TestFaultHang(t *testing.T) {
	f := newFixture(t, Options{})
	f.Inject(Fault{Hang: true, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL()+legacyPath(appID, secret), nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		res, err := f.http.Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
		ended <- err
	}()
	f.eventually("the hung call", func() bool { return f.Count(Filter{}) == 1 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the hung call ended with %v", err)
	}
	f.wantCall(Call{Endpoint: EndpointLegacy, AppID: appID, Fault: true})
	f.wantCode("the next call", f.legacy(appID), 0)
}

func TestFaultDelays(t *testing.T) {
	f := newFixture(t, Options{})
	const long = 50 * time.Millisecond
	start := time.Now()
	f.Inject(Fault{Delay: long, Times: 1})
	f.wantCode("with Delay", f.legacy(appID), 0)
	f.Inject(Fault{DelayAnswer: long, Times: 1})
	f.wantCode("with DelayAnswer", f.legacy(appID), 0)
	if took := time.Since(start); took < 2*long {
		t.Errorf("both took %v", took)
	}

	// Who gives up waits for nothing: in Delay nothing happens, in DelayAnswer the token is lost.
	for _, tc := range []struct {
		fault  Fault
		minted bool
	}{{Fault{Delay: time.Hour, Times: 1}, false}, {Fault{DelayAnswer: time.Hour, Times: 1}, true}} {
		before := len(f.Tokens(appID))
		f.Inject(tc.fault)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL()+legacyPath(appID, secret), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := f.http.Do(req); err == nil {
			_ = res.Body.Close()
			t.Error("an answer came through")
		}
		cancel()
		f.wantCall(Call{Endpoint: EndpointLegacy, AppID: appID, Fault: true, Minted: tc.minted})
		if minted := len(f.Tokens(appID)) > before; minted != tc.minted {
			t.Errorf("%+v: a token was made: %t, want %t", tc.fault, minted, tc.minted)
		}
	}
}

func TestFaultChoice(t *testing.T) {
	f := newFixture(t, Options{})
	token := f.stable(appID).Token
	f.Inject(Fault{AppID: appID, Endpoint: EndpointLegacy, Errcode: 1, Times: 2})
	f.Inject(Fault{Endpoint: EndpointLegacy, Errcode: 2, Times: 1})
	f.Inject(Fault{AppID: appID, Endpoint: EndpointProbe, Errcode: 3})
	for i, want := range []int{1, 1, 2, 0} {
		if got := f.legacy(appID).code(); got != want {
			t.Errorf("Legacy call %d got %d, want %d", i, got, want)
		}
	}
	f.wantCode("Stable call", f.stable(appID), 0)
	for range 5 {
		if got := f.probe(token); got != 3 {
			t.Errorf("probe got %d, want 3", got)
		}
	}
	if got := f.probe(f.legacy(other).Token); got != 0 {
		t.Errorf("another account's probe got %d", got)
	}
	f.ClearFaults()
	f.wantProbe("after ClearFaults", token, 0)
}
