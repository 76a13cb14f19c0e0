// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

func newRemote(t *testing.T) (*fixture, *Remote, string) {
	t.Helper()
	f := newFixture(t, Options{})
	admin := httptest.NewServer(f.AdminHandler())
	t.Cleanup(admin.Close)
	r := NewRemote(admin.URL + "/")
	t.Cleanup(r.client.CloseIdleConnections)
	return f, r, admin.URL
}

// want returns a function that checks what a method of Remote gave.
func want[V any](t *testing.T, what string, wanted V) func(V, error) {
	return func(got V, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		} else if !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s is\n%+v, want\n%+v", what, got, wanted)
		}
	}
}

func TestRemoteReads(t *testing.T) {
	f, r, _ := newRemote(t)
	ctx := t.Context()
	want(t, "Tokens of none", []IssuedToken(nil))(r.Tokens(ctx, "unknown"))
	a := f.stable(appID)
	f.force(appID)
	f.legacy(other)
	want(t, "Tokens", f.Tokens(appID))(r.Tokens(ctx, appID))
	want(t, "all Tokens", f.Tokens(""))(r.Tokens(ctx, ""))
	want(t, "Valid", true)(r.Valid(ctx, a.Token))
	want(t, "Valid of none", false)(r.Valid(ctx, "x"))
	want(t, "ValidAt, in the overlap", true)(r.ValidAt(ctx, a.Token, epoch.Add(4*time.Minute)))
	want(t, "ValidAt, later", false)(r.ValidAt(ctx, a.Token, epoch.Add(5*time.Minute)))
	want(t, "ValidAt the zero time", false)(r.ValidAt(ctx, a.Token, time.Time{}))
	want(t, "Now", f.Now())(r.Now(ctx))
	want(t, "Count", 2)(r.Count(ctx, Filter{AppID: appID}))

	local := f.Calls(Filter{Endpoint: EndpointLegacy})
	for i := range local {
		local[i].At = local[i].At.Round(0).UTC() // JSON has no monotonic reading
	}
	calls, err := r.Calls(ctx, Filter{Endpoint: EndpointLegacy, Since: local[0].At})
	for i := range calls {
		calls[i].At = calls[i].At.UTC()
	}
	want(t, "Calls", local)(calls, err)
	want(t, "Count later", 0)(r.Count(ctx, Filter{Since: time.Now().Add(time.Hour)}))
}

func TestRemoteWrites(t *testing.T) {
	f, r, _ := newRemote(t)
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	must("SetApp", r.SetApp(ctx, App{ID: "wxcccccccccccccccc", Secret: secret, Life: time.Hour, AllowedIPs: []string{"127.0.0.1"}}))
	if a := f.stable("wxcccccccccccccccc"); a.ExpiresIn != 3600 {
		t.Errorf("the new app got %s", a.body)
	}
	must("SetSecret", r.SetSecret(ctx, "wxcccccccccccccccc", "x"))
	f.wantCode("after SetSecret", f.stable("wxcccccccccccccccc"), codeInvalidAppSecret)

	must("Inject", r.Inject(ctx, Fault{AppID: appID, Errcode: -1, Delay: time.Millisecond}))
	f.wantCode("after Inject", f.stable(appID), -1)
	must("ClearFaults", r.ClearFaults(ctx))
	f.wantCode("after ClearFaults", f.stable(appID), 0)

	must("Advance", r.Advance(ctx, -time.Hour))
	if got := f.Now(); !got.Equal(epoch.Add(-time.Hour)) {
		t.Errorf("after Advance it is %v", got)
	}
	forced, err := r.RivalForceRefresh(ctx, appID)
	current, _ := f.Current(appID, Stable)
	want(t, "RivalForceRefresh", current)(forced, err)
	minted, err := r.RivalMint(ctx, appID)
	current, _ = f.Current(appID, Legacy)
	want(t, "RivalMint", current)(minted, err)
	if forced.By != byRival || minted.By != byRival {
		t.Errorf("By is %q and %q", forced.By, minted.By)
	}
}

func TestAdminRefuses(t *testing.T) {
	_, r, url := newRemote(t)
	for _, tc := range []struct {
		name, method, path, kind, body string
		want                           int
	}{
		{"GET", http.MethodGet, "/_standin/clear", "", "", http.StatusMethodNotAllowed},
		{"form", http.MethodPost, "/_standin/clear", "application/x-www-form-urlencoded", "", http.StatusUnsupportedMediaType},
		{"unknown", http.MethodPost, "/_standin/x", "application/json", "", http.StatusNotFound},
		{"unknown field", http.MethodPost, "/_standin/inject", "application/json", `{"errorcode":1}`, http.StatusBadRequest},
		{"cut JSON", http.MethodPost, "/_standin/inject", "application/json", `{`, http.StatusBadRequest},
		{"no body", http.MethodPost, "/_standin/calls", "application/json", "", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, url+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", tc.kind)
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != tc.want {
			t.Errorf("%s: HTTP %d (%s), want %d", tc.name, res.StatusCode, body, tc.want)
		}
	}
	if _, err := call[nothing](t.Context(), r, "inject", map[string]int{"errorcode": 1}); err == nil || !strings.Contains(err.Error(), "errorcode") {
		t.Errorf("Remote says %v", err)
	}
}

func TestAdminIsNotOnTheWeChatPort(t *testing.T) {
	f := newFixture(t, Options{})
	if a := f.must(http.MethodPost, "/_standin/tokens", "{}"); a.status != http.StatusNotFound {
		t.Errorf("HTTP %d: %s", a.status, a.body)
	}
}

func TestRemoteWithoutServer(t *testing.T) {
	gone := NewRemote("http://127.0.0.1:1")
	if _, err := gone.Now(t.Context()); err == nil {
		t.Error("Now without a server gave no error")
	}
	if err := gone.ClearFaults(t.Context()); err == nil {
		t.Error("ClearFaults without a server gave no error")
	}
}
