// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"image/jpeg"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const appID = "wx0123456789abcdef"

// fixture is the service before a stand-in for WeChat and a volume as the kubelet keeps it.
type fixture struct {
	*testing.T
	wechat *wechattest.Server
	dir    string
	url    string
	log    *logs
}

// logs is a buffer for several goroutines.
type logs struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.String()
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, dir: t.TempDir(), log: &logs{}}
	var err error
	if f.wechat, err = wechattest.NewServer(wechattest.Options{TLS: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.wechat.Close)
	f.wechat.SetApp(wechattest.App{ID: appID, Secret: "0123456789abcdef"})
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, f.wechat.CACertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"--token-dir", f.dir, "--wechat-url", f.wechat.URL(), "--wechat-ca-file", ca}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	client, err := newClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	log := slog.New(slog.NewTextHandler(f.log, nil))
	c := &codes{options: o, volume: newVolume(f.dir), client: client}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.volume.follow(ctx, log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewUnstartedServer(nil)
	server.Config = newServer(newHandler(c, log))
	server.Start()
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// mount turns the volume to another token, as the kubelet does.
func (f *fixture) mount(value string, expiresAt time.Time) {
	f.Helper()
	folder, err := os.MkdirTemp(f.dir, "..2026_")
	if err != nil {
		f.Fatal(err)
	}
	for name, content := range map[string]string{"access_token": value, "expires_at": expiresAt.UTC().Format(time.RFC3339)} {
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

// mintAndMount puts a token that WeChat accepts into the volume. The one before ends at once.
func (f *fixture) mintAndMount() string {
	f.Helper()
	f.wechat.RivalForceRefresh(appID)
	f.wechat.Advance(6 * time.Minute)
	issued := f.wechat.RivalForceRefresh(appID)
	f.mount(issued.Token, time.Now().Add(time.Hour))
	return issued.Token
}

func (f *fixture) get(path string) (status int, kind, body string) {
	f.Helper()
	res, err := (&http.Client{Timeout: 30 * time.Second}).Get(f.url + path)
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	content, err := io.ReadAll(res.Body)
	if err != nil {
		f.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Content-Type"), string(content)
}

func (f *fixture) wantStatus(path string, want int) {
	f.Helper()
	if status, _, body := f.get(path); status != want {
		f.Errorf("%s: HTTP %d, want %d: %s\n%s", path, status, want, body, f.log)
	}
}

func TestCode(t *testing.T) {
	f := newFixture(t)
	f.mintAndMount()
	status, kind, body := f.get("/code?scene=table%3D7")
	if status != http.StatusOK || kind != "image/jpeg" {
		t.Fatalf("HTTP %d, %s: %s\n%s", status, kind, body, f.log)
	}
	if _, err := jpeg.Decode(strings.NewReader(body)); err != nil {
		t.Error(err)
	}
	call := f.wechat.Calls(wechattest.Filter{Endpoint: wechattest.EndpointCode})
	if len(call) != 1 || call[0].AppID != appID || call[0].Errcode != 0 {
		t.Errorf("WeChat saw %+v", call)
	}
}

func TestBadScenes(t *testing.T) {
	f := newFixture(t)
	f.mintAndMount()
	for _, scene := range []string{"", strings.Repeat("a", 33), "a%20b", "%3Cscript%3E", "%E6%A1%8C"} {
		f.wantStatus("/code?scene="+scene, http.StatusBadRequest)
	}
	if n := f.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointCode}); n != 0 {
		t.Errorf("WeChat was called %d times", n)
	}
}

func TestPage(t *testing.T) {
	f := newFixture(t)
	for path, want := range map[string]string{
		"/":                          `<img src="/code?scene=table%3d7"`,
		"/?scene=a%26b":              `<img src="/code?scene=a%26b"`,
		"/?scene=%22%3E%3Cscript%3E": "<p>A scene has",
	} {
		status, kind, body := f.get(path)
		if status != http.StatusOK || !strings.HasPrefix(kind, "text/html") || !strings.Contains(body, want) {
			t.Errorf("%s: HTTP %d, %s, lacks %s:\n%s", path, status, kind, want, body)
		}
		if strings.Contains(body, "<script") {
			t.Errorf("%s runs a script", path)
		}
	}
	f.wantStatus("/other", http.StatusNotFound)
}

// A service that cached the first token would answer with it for ever.
func TestFollowsTheVolume(t *testing.T) {
	g := gomega.NewWithT(t)
	f := newFixture(t)
	f.wantStatus("/readyz", http.StatusServiceUnavailable)
	f.wantStatus("/healthz", http.StatusOK)
	f.wantStatus("/code?scene=a", http.StatusServiceUnavailable)
	for n := range 5 {
		f.mintAndMount()
		// No call is made that could find out by a refusal.
		g.Eventually(func() int { return strings.Count(f.log.String(), "token read") }, 5*time.Second).Should(gomega.BeNumerically(">", n))
	}
	f.wantStatus("/readyz", http.StatusOK)
	f.wantStatus("/code?scene=a", http.StatusOK)
	if calls := f.wechat.Calls(wechattest.Filter{Endpoint: wechattest.EndpointCode}); len(calls) != 1 {
		t.Errorf("it took %d calls: the first was made with an old token", len(calls))
	}
	f.mount("x", time.Now().Add(-time.Second))
	g.Eventually(func() int { status, _, _ := f.get("/readyz"); return status }, 5*time.Second).Should(gomega.Equal(http.StatusServiceUnavailable))
}

// A volume lags: the link turns when a call is already under way with the old token.
func TestReadsAgainWhenRefused(t *testing.T) {
	for _, code := range []int{40001, 40014, 42001} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			f := newFixture(t)
			f.mintAndMount()
			f.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointCode, Errcode: code, Times: 1})
			f.wantStatus("/code?scene=a", http.StatusOK)
			if n := f.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointCode}); n != 2 {
				t.Errorf("it took %d calls, want 2", n)
			}
		})
	}
}

func TestGivesUp(t *testing.T) {
	for _, tc := range []struct {
		code, calls int
	}{
		{40001, 2}, // once is enough: it is no new token that is missing
		{45009, 1}, // no token would help
		{48001, 1},
		{-1, 1},
	} {
		t.Run(fmt.Sprint(tc.code), func(t *testing.T) {
			f := newFixture(t)
			f.mintAndMount()
			f.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointCode, Errcode: tc.code})
			f.wantStatus("/code?scene=a", http.StatusBadGateway)
			if n := f.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointCode}); n != tc.calls {
				t.Errorf("it took %d calls, want %d", n, tc.calls)
			}
		})
	}
}

func TestNothingLeaks(t *testing.T) {
	f := newFixture(t)
	value := f.mintAndMount()
	f.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointCode, Errcode: 40001, Times: 2})
	_, _, refused := f.get("/code?scene=a")
	f.wechat.Close()
	_, _, unreachable := f.get("/code?scene=a")
	all := refused + unreachable + f.log.String() + fmt.Sprintf("%v %+v %#v", token{value: value}, token{value: value}, token{value: value})
	for _, form := range []string{value, base64.StdEncoding.EncodeToString([]byte(value))} {
		if strings.Contains(all, form) {
			t.Errorf("the token is shown:\n%s", all)
		}
	}
	if !strings.Contains(all, "errcode 40001") || !strings.Contains(all, "calling WeChat") {
		t.Errorf("the log does not say what failed:\n%s", all)
	}
}

// While the volume turns as fast as it can, each reading is of one folder.
func TestReadsOneSnapshot(t *testing.T) {
	f := newFixture(t)
	v := newVolume(f.dir)
	start := time.Now().Truncate(time.Second)
	turn := func(n int) { f.mount(fmt.Sprintf("%d_%s", n, rand.Text()), start.Add(time.Duration(n)*time.Second)) }
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
		got, err := v.read()
		if err != nil {
			t.Fatal(err)
		}
		number, _, _ := strings.Cut(got.value, "_")
		if want := fmt.Sprintf("%.0f", got.expiresAt.Sub(start).Seconds()); number != want {
			t.Fatalf("the token of version %s has the expiry of version %s", number, want)
		}
	}
}

func TestRefusesPlainHTTP(t *testing.T) {
	if _, err := parse([]string{"--wechat-url", "http://api.weixin.qq.com"}, io.Discard); err == nil {
		t.Error("the token would travel in the clear")
	}
}
