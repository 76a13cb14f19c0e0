// SPDX-License-Identifier: Apache-2.0

// Package h5 opens the page of examples/h5 in a browser, with the stand-in for WeChat and its JS-SDK.
package h5

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
	"github.com/wechat-token-operator/wechat-token-operator/test/browser"
)

const (
	appID = "wx0123456789abcdef"
	// host and stranger are names of the service, of which it signs for the first.
	host     = "shop.example.com"
	stranger = "other.example.com"
)

// fixture is WeChat, with its JS-SDK, and a volume as the kubelet keeps it.
type fixture struct {
	*testing.T
	wechat *wechattest.Server
	sdk    *httptest.Server
	// program is the example, and dir its volume.
	program, dir string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	browser.Need(t)
	wechat, err := wechattest.NewServer(wechattest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(wechat.Close)
	wechat.SetApp(wechattest.App{ID: appID, Secret: "0123456789abcdef0123456789abcdef"})
	f := &fixture{T: t, wechat: wechat, program: filepath.Join(t.TempDir(), "h5"), dir: t.TempDir()}
	f.sdk = httptest.NewServer(wechattest.JSSDK(func(p wechattest.PageConfig) bool {
		return wechat.SignatureValid(p.AppID, p.NonceStr, p.Timestamp.String(), p.URL, p.Signature)
	}))
	t.Cleanup(f.sdk.Close)
	f.build("../../examples/h5")
	return f
}

// build builds the example.
func (f *fixture) build(example string) {
	f.Helper()
	out, err := exec.CommandContext(f.Context(), "go", "build", "-buildvcs=false", "-o", f.program, example).CombinedOutput()
	if err != nil {
		f.Fatalf("%v\n%s", err, out)
	}
	// Read here too, so that Go's cache of test results knows that the test depends on them.
	sources, err := filepath.Glob(filepath.Join(example, "*.*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, source := range sources {
		if _, err := os.ReadFile(source); err != nil {
			f.Fatal(err)
		}
	}
}

// ticket returns the ticket that WeChat has now, as a call of the operator does.
func (f *fixture) ticket() string {
	return f.wechat.RivalTicket(appID, v1alpha1.TicketJSAPI, 0).Ticket
}

// mount turns the volume to another ticket, as the kubelet does; to none if it is empty.
func (f *fixture) mount(ticket string) {
	f.Helper()
	folder, err := os.MkdirTemp(f.dir, "..2026_")
	if err != nil {
		f.Fatal(err)
	}
	files := map[string]string{"app_id": appID}
	if ticket != "" {
		files["jsapi_ticket"] = ticket
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	next := filepath.Join(f.dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(folder), next); err != nil {
		f.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(f.dir, "..data")); err != nil {
		f.Fatal(err)
	}
}

// service is the example, as a process.
type service struct {
	address string

	mu  sync.Mutex
	log strings.Builder
}

func (s *service) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// start runs the example until the test ends.
func (f *fixture) start(scriptURL string) *service {
	f.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(f.Context()))
	cmd := exec.CommandContext(ctx, f.program, "--addr=127.0.0.1:0", "--ticket-dir="+f.dir, "--script-url="+scriptURL)
	cmd.Env = append(os.Environ(), "H5_HOSTS="+host)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.StderrPipe()
	if err != nil {
		f.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.Fatal(err)
	}
	s := &service{}
	lines := bufio.NewReader(out)
	first, _ := lines.ReadString('\n')
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for line, err := first, error(nil); ; line, err = lines.ReadString('\n') {
			s.mu.Lock()
			s.log.WriteString(line)
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	f.Cleanup(func() {
		cancel()
		<-drained
		_ = cmd.Wait() // it was ended
	})
	m := regexp.MustCompile(`msg=serving address=(127\.0\.0\.1:\d+)`).FindStringSubmatch(first)
	if m == nil {
		f.Fatalf("it does not serve: %s", first)
	}
	s.address = m[1]
	return s
}

// state is the line in which the page says how it went.
var state = regexp.MustCompile(`<p id="state" data-state="(\w+)">([^<]*)</p>`)

// open opens a page in the browser, and returns its state and the words for it.
func (f *fixture) open(s *service, address string) (got, says string) {
	f.Helper()
	dom := browser.DOM(f.T, address, "--host-resolver-rules=MAP "+host+" "+s.address+",MAP "+stranger+" "+s.address+
		",MAP * ~NOTFOUND,EXCLUDE 127.0.0.1")
	m := state.FindStringSubmatch(dom)
	if m == nil {
		f.Fatalf("%s shows no state:\n%s\n%s", address, dom, s.logged())
	}
	if enabled := strings.Contains(dom, `<button id="scan">`); enabled != (m[1] == ready) {
		f.Errorf("%s: the button can be pressed: %t, while the page shows %s", address, enabled, m[1])
	}
	if ticket := f.mounted(); ticket != "" && strings.Contains(dom+s.logged(), ticket) {
		f.Errorf("%s: the ticket is in the page or in the log", address)
	}
	return m[1], m[2]
}

// mounted returns the ticket in the volume, empty if there is none.
func (f *fixture) mounted() string {
	content, _ := os.ReadFile(filepath.Join(f.dir, "..data", "jsapi_ticket"))
	return string(content)
}

// want checks how a page went.
func (f *fixture) want(s *service, address, state, says string) {
	f.Helper()
	if got, words := f.open(s, address); got != state || !strings.Contains(words, says) {
		f.Errorf("%s: %s, %q; want %s, %q\n%s", address, got, words, state, says, s.logged())
	}
}

const (
	ready   = "ready"
	failed  = "error"
	refused = "WeChat refuses: config:invalid signature"
)

// TestPage opens the page with tickets that WeChat accepts, and with others.
func TestPage(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.start(f.sdk.URL + wechattest.JSSDKPath)
	page := "http://" + host + "/"

	f.mount("")
	f.want(s, page, failed, "There is no ticket to sign with.")

	first := f.ticket()
	f.mount(first)
	f.want(s, page, ready, "WeChat accepts the signature.")
	// As WeChat opens a page that was shared.
	f.want(s, page+"?q=%E6%A1%8C%20'7'&a=1;2&from=singlemessage&isappinstalled=0#top", ready, "")
	f.want(s, "http://"+stranger+"/", failed, "does not sign for the pages of this host")

	f.mount(strings.ToLower(first))
	f.want(s, page, failed, refused)

	// WeChat has another ticket, and a little later the volume has it too.
	f.mount(first)
	f.wechat.Advance(2 * time.Hour)
	second := f.ticket()
	if second == first {
		t.Fatal("WeChat did not change the ticket")
	}
	f.want(s, page, ready, "")
	f.wechat.Advance(5 * time.Minute)
	f.want(s, page, failed, refused)
	f.mount(second)
	f.want(s, page, ready, "")
}

// TestNoScript opens the page where WeChat's script cannot be reached, and where something else is in its place.
func TestNoScript(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.mount(f.ticket())
	const says = "WeChat's script cannot be reached: "
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "void 0") }))
	t.Cleanup(other.Close)
	f.want(f.start(other.URL+"/login.js"), "http://"+host+"/", failed, says+other.URL)
	f.sdk.Close()
	f.want(f.start(f.sdk.URL+wechattest.JSSDKPath), "http://"+host+"/", failed, says+f.sdk.URL)
}
