// SPDX-License-Identifier: Apache-2.0

// Package gateway_test runs unmodified SDKs for WeChat that know nothing but the gateway's address, an appid and a key. Each runs in a
// network namespace that reaches nothing but the gateway.
package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/test/sdk/programs"
)

// sdk is a program that calls WeChat through the gateway.
type sdk struct {
	programs.Program

	// setting is what moves the SDK's calls to the gateway.
	setting string
	// image and login report whether the SDK has such calls.
	image, login bool
}

func sdks() []sdk {
	example := func(name string) string { return filepath.Join("..", "..", "..", "examples", "gateway", name) }
	npm := func(name, folder string) programs.Program {
		return programs.Program{
			Name: name, Folder: folder, Manifest: "package.json", Pinned: regexp.MustCompile(`"(` + name + `)": "([0-9.]+)"`), Install: programs.NPM,
		}
	}
	silenceper := programs.Program{
		Name: "silenceper", Folder: example("silenceper"), Manifest: "go.mod",
		Pinned: regexp.MustCompile(`require github\.com/(silenceper/wechat)/v2 (v\S+)`), Install: programs.GoBuild,
	}
	return []sdk{
		{Program: silenceper, setting: "SetHTTPClient", image: true, login: true},
		{Program: npm("co-wechat-api", example("co-wechat-api")), setting: "prefix, snsPrefix, wxaPrefix", image: true, login: true},
		{Program: npm("node-easywechat", example("node-easywechat")), setting: "http.baseURL", image: true, login: true},
		{Program: npm("wechat-api", filepath.Join("testdata", "wechat-api")), setting: "endpoint", image: true},
		{
			Program: npm("wechat-jssdk", filepath.Join("testdata", "wechat-jssdk")),
			setting: "accessTokenUrl, ticketUrl, GET_SESSION_KEY_URL", login: true,
		},
	}
}

// round has a program make each kind of call that its SDK has.
func (w *world) round(s sdk, p *program) (calls int) {
	p.try("/call")
	calls++
	if s.image {
		p.try("/image")
		calls++
	}
	if s.login {
		w.login(p)
		calls++
	}
	return calls
}

// TestSDKs checks that no call of an unmodified SDK fails while the token is replaced in time, while a rival kills it, and while the key
// is rotated, and that no byte that the SDK receives or sends has a secret of WeChat's.
func TestSDKs(t *testing.T) {
	for _, s := range sdks() {
		t.Run(s.Name, func(t *testing.T) {
			dir, command := s.Prepare(t)
			w := newWorld(t, "http://"+plainPort, nil)
			p := w.start(dir, command)
			calls := w.round(s, p)

			w.wechat.Advance(110 * time.Minute)
			w.rotateToken()
			calls += w.round(s, p)

			// The store has a token that WeChat refuses. Calls wait for the next one.
			followed := w.loseToken()
			calls += w.round(s, p)
			<-followed

			w.wechat.Advance(time.Minute)
			w.rotateToken()
			w.rotateKey()
			calls += w.round(s, p) // with the token that was bought with the key before
			w.restart(&p, dir, command)
			calls += w.round(s, p)

			w.judge(p)
			t.Logf("%s, by %s: %d calls, %d failed", s.Version(t), s.setting, calls, p.failed)
		})
	}
}

// restart ends a program and starts it again, as a Deployment does when its Secret has changed. What failed before is kept.
func (w *world) restart(p **program, dir string, command []string, env ...string) {
	w.Helper()
	old := *p
	old.end()
	*p = w.start(dir, command, env...)
	(*p).failed, (*p).errors = old.failed, old.errors
}

// judge ends a program and checks that no call failed and that nothing leaked.
func (w *world) judge(p *program) {
	w.Helper()
	p.end()
	if p.failed > 0 {
		w.Errorf("%d calls failed, such as %q; the gateway denied %v\n%s", p.failed, p.errors, w.denials, &p.out)
	}
	w.leaks.mu.Lock()
	defer w.leaks.mu.Unlock()
	if w.leaks.found > 0 {
		w.Errorf("%d times a secret of WeChat's was seen by the caller", w.leaks.found)
	}
	if w.leaks.bytes == 0 {
		w.Error("nothing was looked at")
	}
}

// TestLongRun makes 10,000 calls through 20 rotations of the token and two of the key.
//
// Expected of the program that restarts within the overlap after each rotation of the key: no failure. Expected of the one that never
// restarts: no failure until the first key's overlap and the four hours of the last token that it bought are over, and from then on a
// failure of every call, because its key is dead.
func TestLongRun(t *testing.T) {
	const (
		total, callers = 10_000, 8
		rotations      = 20
	)
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	s := sdks()[1] // it fetches a token when WeChat refuses one
	dir, command := s.Prepare(t)
	w := newWorld(t, "http://"+plainPort, nil)
	p := w.start(dir, command)
	burst := func(n int) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range callers {
			wg.Go(func() {
				for range n / callers {
					_, err := p.get("/call")
					mu.Lock()
					if err != nil {
						p.failed++
						p.errors = append(p.errors[:min(len(p.errors), 4)], err.Error())
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	}
	made := 0
	for i := range rotations {
		// Calls are under way while the token is replaced.
		rotated := make(chan struct{})
		go func() {
			defer close(rotated)
			time.Sleep(20 * time.Millisecond)
			w.rotateToken()
		}()
		burst(total / rotations)
		<-rotated
		made += total / rotations
		w.wechat.Advance(2*time.Hour - 5*time.Minute)
		w.rotateToken()
		if i == 3 {
			w.rotateKey()
		}
		if i == 6 { // within the overlap
			w.restart(&p, dir, command)
		}
		if i == 18 { // more than 24 hours and 4 hours after the first rotation
			w.endOfKey()
			w.rotateKey()
		}
	}
	w.restart(&p, dir, command)
	burst(total / rotations)
	w.judge(p)
	t.Logf("%d calls, %d rotations, 2 of the key, with restarts: %d failed", made, rotations, p.failed)
}

// TestProgramThatNeverRestarts checks what the documents say of a program that keeps its key beyond the overlap.
func TestProgramThatNeverRestarts(t *testing.T) {
	s := sdks()[1]
	dir, command := s.Prepare(t)
	w := newWorld(t, "http://"+plainPort, nil)
	p := w.start(dir, command)
	p.try("/call")
	w.rotateKey()
	step := func(d time.Duration) {
		w.wechat.Advance(d)
		w.rotateToken()
	}
	step(3 * time.Hour)
	for range 9 { // the SDK fetches when its token is refused, after 5, 9, 13, 17 and 21 hours
		p.try("/call")
		step(2 * time.Hour)
	}
	p.try("/call")
	step(3*time.Hour - time.Minute) // a minute before the end of the overlap
	p.try("/call")
	step(2 * time.Minute) // the key buys no more, but the token that it bought is accepted
	p.try("/call")
	if p.failed > 0 {
		t.Fatalf("%d calls failed, such as %q", p.failed, p.errors)
	}
	step(4 * time.Hour)
	w.endOfKey()
	if _, err := p.get("/call"); err == nil {
		t.Error("a call with a dead key succeeded")
	}
	w.restart(&p, dir, command)
	p.try("/call")
	w.judge(p)
}

// TestByName points the name of WeChat's API at the gateway, for programs whose SDK has no setting. The gateway's certificate is of a
// private CA.
func TestByName(t *testing.T) {
	for _, s := range sdks() {
		if s.Name != "silenceper" && s.Name != "node-easywechat" {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			const name = "api.weixin.qq.com"
			dir, command := s.Prepare(t)
			ca, certificate := privateCA(t, name)
			w := newWorld(t, "https://"+name, &certificate) // what the SDK has without a setting
			w.write("ca.crt", string(ca))
			trust := filepath.Join(w.volume, "ca.crt")
			if err := os.WriteFile(filepath.Join(w.dir, hostsFile), []byte("127.0.0.1 localhost "+name+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			p := w.start(dir, command, "SSL_CERT_FILE="+trust, "NODE_EXTRA_CA_CERTS="+trust)
			calls := w.round(s, p)
			w.rotateToken()
			calls += w.round(s, p)
			w.judge(p)
			t.Logf("%s, by name: %d calls, %d failed", s.Version(t), calls, p.failed)
		})
	}
}

// TestSandbox checks that a program in the sandbox reaches the gateway and nothing else.
func TestSandbox(t *testing.T) {
	dir, command := sdks()[0].Prepare(t)
	w := newWorld(t, reachable(t), nil)
	p := w.start(dir, command)
	if _, err := p.get("/call"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the program reached a server outside its network namespace: %v", err)
	}
}

// reachable returns the address of a server that anybody on this machine reaches.
func reachable(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return s.URL
}
