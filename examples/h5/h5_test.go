// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	appID = "wx0123456789abcdef"
	host  = "shop.example.com"
	page  = "https://" + host + "/?table=7"
	// published is the ticket of the example in WeChat's documents.
	published = "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg"
)

// fixture is the service before a volume as the kubelet keeps it.
type fixture struct {
	*testing.T
	dir     string
	handler http.Handler
	log     bytes.Buffer
	now     time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, dir: t.TempDir(), now: time.Unix(1414587457, 0)}
	o, err := parse([]string{"--ticket-dir", f.dir, "--hosts", host}, os.Getenv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	f.handler = newHandler(o, func() time.Time { return f.now }, slog.New(slog.NewTextHandler(&f.log, nil)))
	return f
}

// mount turns the volume to other files, as the kubelet does.
func (f *fixture) mount(files map[string]string) {
	f.Helper()
	folder, err := os.MkdirTemp(f.dir, "..2026_")
	if err != nil {
		f.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	old, _ := os.Readlink(filepath.Join(f.dir, dataLink))
	next := filepath.Join(f.dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(folder), next); err != nil {
		f.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(f.dir, dataLink)); err != nil {
		f.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(f.dir, old)); err != nil {
			f.Fatal(err)
		}
	}
}

func secret(ticket string) map[string]string {
	return map[string]string{"app_id": appID, "jsapi_ticket": ticket}
}

func (f *fixture) get(target string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	f.handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, target, nil))
	return answer
}

// askFor asks for the signature of an address.
func (f *fixture) askFor(address string) *httptest.ResponseRecorder {
	return f.get("/signature?url=" + url.QueryEscape(address))
}

// wantSigned checks that an address gets a signature for another one, which is usually the same, by a ticket.
func (f *fixture) wantSigned(address, signed, by string) configuration {
	f.Helper()
	answer := f.askFor(address)
	var c configuration
	if err := json.Unmarshal(answer.Body.Bytes(), &c); err != nil {
		f.Fatalf("%s: HTTP %d: %s", address, answer.Code, answer.Body)
	}
	want := configuration{AppID: appID, Timestamp: f.now.Unix(), NonceStr: c.NonceStr,
		Signature: ticket{by}.sign(c.NonceStr, f.now.Unix(), signed)}
	if c != want || len(c.NonceStr) < 16 || answer.Header().Get("Content-Type") != "application/json" {
		f.Errorf("%s: got %+v, want %+v", address, c, want)
	}
	return c
}

// The example of WeChat's documents.
func TestPublishedSignature(t *testing.T) {
	got := ticket{published}.sign("Wm3WZYTPz0wzccnW", 1414587457, "http://mp.weixin.qq.com?params=value")
	if want := "0f9de62fce790f9a083d5c99e95740ceb90c27ed"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSignature(t *testing.T) {
	f := newFixture(t)
	f.mount(secret(published))
	for address, signed := range map[string]string{
		page:                   page,
		page + "#top":          page,
		page + "#a#b":          page,
		"http://" + host + "/": "http://" + host + "/",
		"https://" + host:      "https://" + host,
		// As it came: neither decoded nor put in order.
		"https://" + host + "/%7Ea?b=%e6%a1%8c&a=1;2+3&b=": "https://" + host + "/%7Ea?b=%e6%a1%8c&a=1;2+3&b=",
	} {
		f.wantSigned(address, signed, published)
	}
	nonces := map[string]bool{}
	for range 10 {
		nonces[f.wantSigned(page, page, published).NonceStr] = true
	}
	if len(nonces) != 10 {
		t.Errorf("10 signatures have %d nonces", len(nonces))
	}
}

// A service that cached the first ticket would sign with it for ever.
func TestFollowsTheVolume(t *testing.T) {
	f := newFixture(t)
	for range 5 {
		value := rand.Text()
		f.mount(secret(value))
		f.wantSigned(page, page, value)
	}
}

// While the volume turns as fast as it can, each reading is of one folder, and none fails.
func TestReadsOneSnapshot(t *testing.T) {
	f := newFixture(t)
	turn := func(n int) {
		f.mount(map[string]string{"app_id": fmt.Sprintf("wx%016d", n), "jsapi_ticket": fmt.Sprintf("%016d", n)})
	}
	turn(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 300 {
			turn(n + 1)
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		id, value, err := readTicket(f.dir)
		if err != nil {
			t.Fatal(err)
		}
		if id != "wx"+value.value {
			t.Fatalf("the appid %s came with the ticket %s", id, value.value)
		}
	}
}

func TestRefusedAddresses(t *testing.T) {
	f := newFixture(t)
	f.mount(secret(published))
	for address, want := range map[string]int{
		"":                                         http.StatusBadRequest,
		"/":                                        http.StatusBadRequest,
		host:                                       http.StatusBadRequest,
		"//" + host + "/":                          http.StatusBadRequest,
		"file://" + host + "/":                     http.StatusBadRequest,
		"javascript:alert(1)":                      http.StatusBadRequest,
		"https:///":                                http.StatusBadRequest,
		"https://" + host + "@evil.example/":       http.StatusBadRequest,
		"https://me@" + host + "/":                 http.StatusBadRequest,
		"https://evil.example\\@" + host + "/":     http.StatusBadRequest,
		"https://" + host + "/\n":                  http.StatusBadRequest,
		"#https://" + host + "/":                   http.StatusBadRequest,
		"https://evil.example/":                    http.StatusForbidden,
		"https://" + host + ".evil.example/":       http.StatusForbidden,
		"https://evil" + host + "/":                http.StatusForbidden,
		"https://" + host + ":8443/":               http.StatusForbidden,
		"https://" + host + "./":                   http.StatusForbidden,
		"https://evil.example/?https://" + host:    http.StatusForbidden,
		"https://evil.example#@" + host + "/":      http.StatusForbidden,
		"https://evil.example/https://" + host:     http.StatusForbidden,
		"https://[::1]/":                           http.StatusForbidden,
		"https://SHOP.example.com/":                http.StatusForbidden, // no browser writes it so
		"https://shop.example.com%00.evil.example": http.StatusBadRequest,
	} {
		answer := f.askFor(address)
		if answer.Code != want || strings.Contains(answer.Body.String(), "signature\"") {
			t.Errorf("%q: HTTP %d, want %d: %s", address, answer.Code, want, answer.Body)
		}
	}
	if !strings.Contains(f.log.String(), "host=evil.example") {
		t.Errorf("the log does not say which host was refused:\n%s", &f.log)
	}
}

func TestNoTicket(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		says  string
	}{
		"no volume":         {nil, "without subPath"},
		"no file":           {map[string]string{"app_id": appID}, "jsapi_ticket: no such file"},
		"no appid":          {map[string]string{"jsapi_ticket": published}, "app_id: no such file"},
		"empty":             {secret(""), "holds no ticket"},
		"newline":           {secret(published + "\n"), "holds no ticket"},
		"an answer as JSON": {secret(`{"ticket":"` + published + `"}`), "holds no ticket"},
		"too long":          {secret(strings.Repeat("a", 513)), "holds no ticket"},
		"wrong appid":       {map[string]string{"app_id": "gh_0123456789ab", "jsapi_ticket": published}, "holds no appid"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			if tc.files != nil {
				f.mount(tc.files)
			}
			answer := f.askFor(page)
			if answer.Code != http.StatusServiceUnavailable || answer.Header().Get("Retry-After") == "" {
				t.Errorf("HTTP %d, %v", answer.Code, answer.Header())
			}
			if !strings.Contains(answer.Body.String(), "spec.tickets") || !strings.Contains(f.log.String(), tc.says) {
				t.Errorf("it does not say what to do:\n%s\n%s", answer.Body, &f.log)
			}
			if strings.Contains(answer.Body.String()+f.log.String(), published) {
				t.Errorf("the ticket is shown:\n%s\n%s", answer.Body, &f.log)
			}
			// It is there again as soon as the file is.
			f.mount(secret(published))
			f.wantSigned(page, page, published)
		})
	}
}

func TestTicketPrintsAsNothing(t *testing.T) {
	secret := ticket{published}
	shown := fmt.Sprintf("%v %+v %#v %s %q %x", secret, secret, secret, secret, secret, secret)
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "ticket", secret)
	if hexed := fmt.Sprintf("%x", published); strings.Contains(shown+out.String(), published) || strings.Contains(shown, hexed) {
		t.Errorf("the ticket is shown: %s %s", shown, &out)
	}
}

func TestHeaders(t *testing.T) {
	f := newFixture(t)
	f.mount(secret(published))
	for target, want := range map[string]struct {
		status int
		kind   string
	}{
		"/":               {http.StatusOK, "text/html"},
		"/?from=timeline": {http.StatusOK, "text/html"},
		"/page.js":        {http.StatusOK, "text/javascript"},
		"/healthz":        {http.StatusOK, ""},
		"/signature":      {http.StatusBadRequest, "text/plain"},
		"/signature?url=https%3A%2F%2Fevil.example%2F": {http.StatusForbidden, "text/plain"},
		"/signature?url=" + url.QueryEscape(page):      {http.StatusOK, "application/json"},
		"/jsapi_ticket": {http.StatusNotFound, "text/plain"},
		"/page.html":    {http.StatusNotFound, "text/plain"},
	} {
		answer := f.get(target)
		h := answer.Header()
		if answer.Code != want.status || !strings.HasPrefix(h.Get("Content-Type"), want.kind) ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" ||
			h.Get("Content-Security-Policy") == "" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: HTTP %d, %v", target, answer.Code, h)
		}
		if strings.Contains(answer.Body.String(), published) {
			t.Errorf("%s: the ticket is in the answer", target)
		}
	}
	if script := `data-script="https://res.wx.qq.com/open/js/jweixin-1.6.0.js"`; !strings.Contains(f.get("/").Body.String(), script) {
		t.Errorf("the page lacks %s", script)
	}
}

// Nobody holds a connection for long or fills the memory with headers.
func TestLimits(t *testing.T) {
	s := newServer(nil)
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("a limit is missing: %+v", s)
	}
	f := newFixture(t)
	server := httptest.NewUnstartedServer(nil)
	server.Config = newServer(f.handler)
	server.Start()
	defer server.Close()
	res, err := (&http.Client{Timeout: 30 * time.Second}).Get(server.URL + "/?" + strings.Repeat("a", 20<<10))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 20 KiB: HTTP %d", res.StatusCode)
	}
}

func TestFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args  []string
		hosts string // the variable
		want  []string
		says  string
	}{
		"flag":              {args: []string{"--hosts", "a.example"}, want: []string{"a.example"}},
		"variable":          {hosts: "a.example, B.example:8080,", want: []string{"a.example", "b.example:8080"}},
		"both":              {args: []string{"--hosts", "a.example"}, hosts: "b.example", want: []string{"a.example"}},
		"neither":           {says: "H5_HOSTS must name"},
		"empty":             {args: []string{"--hosts", " , "}, says: "H5_HOSTS must name"},
		"address":           {args: []string{"--hosts", "https://a.example"}, says: "without https://"},
		"path":              {args: []string{"--hosts", "a.example/shop"}, says: "without https://"},
		"all":               {args: []string{"--hosts", "*"}, want: []string{"*"}}, // a host of that name: matches no page
		"user":              {args: []string{"--hosts", "me@a.example"}, says: "without https://"},
		"argument":          {args: []string{"--hosts", "a.example", "b.example"}, says: "not a flag"},
		"script by http":    {args: []string{"--hosts", "a.example", "--script-url", "http://res.wx.qq.com/x.js"}, says: "https URL"},
		"script elsewhere":  {args: []string{"--hosts", "a.example", "--script-url", "http://192.0.2.1/x.js"}, says: "https URL"},
		"script by path":    {args: []string{"--hosts", "a.example", "--script-url", "/x.js"}, says: "https URL"},
		"script from here":  {args: []string{"--hosts", "a.example", "--script-url", "http://127.0.0.1:1/x.js"}, want: []string{"a.example"}},
		"script as a data:": {args: []string{"--hosts", "a.example", "--script-url", "data:text/javascript,1"}, says: "https URL"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(tc.args, func(name string) string { return map[string]string{"H5_HOSTS": tc.hosts}[name] }, io.Discard)
			if tc.says == "" && (err != nil || !slices.Equal(o.hosts, tc.want)) {
				t.Errorf("got %q, %v", o.hosts, err)
			}
			if tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}
