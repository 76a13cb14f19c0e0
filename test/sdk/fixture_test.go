// SPDX-License-Identifier: Apache-2.0

package sdk_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	appID     = "wx0123456789abcdef"
	appSecret = "0123456789abcdef0123456789abcdef" //nolint:gosec // of the stand-in
	jsapi     = v1alpha1.TicketType("jsapi")
)

// fixture is a program of examples/sdk that serves, the stand-in for WeChat that it calls, and the volume that it reads.
type fixture struct {
	*testing.T

	wechat *wechattest.Server
	// hook, if not nil, is called once, before WeChat's answer reaches the program. abort cuts all connections instead of answering.
	hook  atomic.Pointer[func()]
	abort atomic.Bool

	// volume is where the Secret is mounted, and folder is what its link ..data names.
	volume, folder string
	// token and ticket are the newest ones. The volume has them after mount. secrets lists all that there ever were.
	token, ticket string
	secrets       []string

	// dir is where the program is, and installed holds the files there when it was started.
	dir       string
	installed map[string]bool
	url       string
	cmd       *exec.Cmd
	stdout    *bufio.Reader
	// answers is what the program answered, and out is what it wrote. out is complete after end.
	answers, out bytes.Buffer
}

func newFixture(t *testing.T, dir string, command []string) *fixture {
	t.Helper()
	wechat, err := wechattest.NewServer(wechattest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(wechat.Close)
	wechat.SetApp(wechattest.App{ID: appID, Secret: appSecret})
	f := &fixture{T: t, wechat: wechat, dir: dir, volume: t.TempDir(), installed: map[string]bool{}}
	for _, name := range []string{"access_token", "app_id", "jsapi_ticket"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(f.volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	f.mint()
	f.ticket = wechat.RivalTicket(appID, jsapi, 0).Ticket
	f.mount()
	for _, name := range f.files() {
		f.installed[name] = true
	}
	f.start(command, f.serveWeChat())
	return f
}

// in returns the fixture for a subtest.
func (f *fixture) in(t *testing.T) *fixture {
	t.Helper()
	parent := f.T
	f.T = t
	t.Cleanup(func() { f.T = parent })
	return f
}

// serveWeChat puts a proxy before the stand-in, which can hold up an answer. It returns its URL.
func (f *fixture) serveWeChat() string {
	f.Helper()
	target, err := url.Parse(f.wechat.URL())
	if err != nil {
		f.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(*http.Response) error {
			if hook := f.hook.Swap(nil); hook != nil {
				(*hook)()
			}
			return nil
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.abort.Load() {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	f.Cleanup(front.Close)
	return front.URL
}

// beforeAnswer calls what once, when WeChat has answered the next call and the program has not received the answer yet.
func (f *fixture) beforeAnswer(what func()) { f.hook.Store(&what) }

// mint replaces WeChat's token without a call. The token before it dies five minutes later.
func (f *fixture) mint() { f.token = f.wechat.RivalForceRefresh(appID).Token }

// mount does what the kubelet's AtomicWriter does when the Secret has changed: a new folder, a new link renamed over the old one, and
// the old folder is removed.
func (f *fixture) mount() {
	f.Helper()
	f.secrets = append(f.secrets, f.token, f.ticket)
	if err := f.swap(); err != nil {
		f.Error(err) // it may run in the proxy's goroutine, where the test cannot be ended
	}
}

func (f *fixture) swap() error {
	folder, err := os.MkdirTemp(f.volume, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"access_token": f.token, "app_id": appID, "jsapi_ticket": f.ticket} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(value), 0o600); err != nil {
			return err
		}
	}
	link := filepath.Join(f.volume, "..data_tmp")
	if err := os.Symlink(filepath.Base(folder), link); err != nil {
		return err
	}
	if err := os.Rename(link, filepath.Join(f.volume, "..data")); err != nil {
		return err
	}
	old := f.folder
	f.folder = folder
	if old == "" {
		return nil
	}
	return os.RemoveAll(old)
}

// start starts the program and waits until it says where it serves.
func (f *fixture) start(command []string, endpoint string) {
	f.Helper()
	f.cmd = exec.CommandContext(f.Context(), command[0], command[1:]...)
	f.cmd.Dir = f.dir
	f.cmd.Env = append(os.Environ(), "WECHAT_DIR="+f.volume, "WECHAT_APP_SECRET="+appSecret, "WECHAT_ENDPOINT="+endpoint,
		"LISTEN=127.0.0.1:0", "HOST=127.0.0.1", "PORT=0")
	f.cmd.Stderr = &f.out
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		f.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(f.end)
	f.stdout = bufio.NewReader(stdout)
	line, err := f.stdout.ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		f.end()
		f.Fatalf("the program says %q: %v\n%s", line, err, &f.out)
	}
	f.url = address
}

// end ends the program. What it wrote is in out afterwards.
func (f *fixture) end() {
	if f.cmd.ProcessState != nil {
		return
	}
	_ = f.cmd.Process.Kill()
	rest, _ := io.ReadAll(f.stdout)
	_ = f.cmd.Wait()
	f.out.Write(rest)
}

// answer is what the program answered.
type answer struct {
	header http.Header
	body   []byte
}

// signature is what WeChat's JS-SDK wants to know.
type signature struct {
	AppID     string      `json:"appId"`
	Timestamp json.Number `json:"timestamp"`
	NonceStr  string      `json:"nonceStr"`
	Signature string      `json:"signature"`
}

func (a answer) signed(f *fixture) signature {
	f.Helper()
	var s signature
	if err := json.Unmarshal(a.body, &s); err != nil {
		f.Fatalf("%v: %s", err, a.body)
	}
	return s
}

// wantCalls asks the program for a path. It checks the status of its answer, and how many calls of WeChat it made for that.
func (f *fixture) wantCalls(path string, status, calls int) answer {
	f.Helper()
	before := f.wechat.Count(wechattest.Filter{})
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Get(f.url + path)
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.Fatal(err)
	}
	f.answers.Write(body)
	if response.StatusCode != status {
		f.Errorf("GET %s: %s, want %d: %s", path, response.Status, status, body)
	}
	if made := f.wechat.Count(wechattest.Filter{}) - before; made != calls {
		f.Errorf("GET %s: %d calls of WeChat, want %d", path, made, calls)
	}
	return answer{header: response.Header, body: body}
}
