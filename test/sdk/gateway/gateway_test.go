// SPDX-License-Identifier: Apache-2.0

// Package gateway_test runs unmodified SDKs for WeChat that know nothing but the gateway's address, an appid and a key. Each runs in a
// network namespace that reaches nothing but the gateway.
package gateway_test

import (
	"errors"
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
)

// sdk is a program that uses an SDK.
type sdk struct {
	name string
	// folder is where the program is, seen from this folder.
	folder string
	// manifest names the version of the SDK, which pinned finds.
	manifest string
	pinned   *regexp.Regexp
	// setting is what moves the SDK's calls to the gateway.
	setting string
	install func(t *testing.T, dir string) []string
	// image and login report whether the SDK has such calls.
	image, login bool
	// fetchesAgain reports whether the SDK fetches a token when one is refused with 42001, as it is after four hours.
	fetchesAgain bool
}

func sdks() []sdk {
	example := func(name string) string { return filepath.Join("..", "..", "..", "examples", "gateway", name) }
	return []sdk{
		{
			name: "silenceper", folder: example("silenceper"), manifest: "go.mod",
			pinned: regexp.MustCompile(`require github\.com/(silenceper/wechat)/v2 (v\S+)`), setting: "SetHTTPClient",
			install: goBuild, image: true, login: true,
		},
		{
			name: "co-wechat-api", folder: example("co-wechat-api"), manifest: "package.json",
			pinned: regexp.MustCompile(`"(co-wechat-api)": "([0-9.]+)"`), setting: "prefix, snsPrefix, wxaPrefix",
			install: npm, image: true, login: true, fetchesAgain: true,
		},
		{
			name: "node-easywechat", folder: example("node-easywechat"), manifest: "package.json",
			pinned: regexp.MustCompile(`"(node-easywechat)": "([0-9.]+)"`), setting: "http.baseURL",
			install: npm, image: true, login: true,
		},
		{
			name: "wechat-api", folder: filepath.Join("testdata", "wechat-api"), manifest: "package.json",
			pinned: regexp.MustCompile(`"(wechat-api)": "([0-9.]+)"`), setting: "endpoint",
			install: npm, image: true,
		},
		{
			name: "wechat-jssdk", folder: filepath.Join("testdata", "wechat-jssdk"), manifest: "package.json",
			pinned:  regexp.MustCompile(`"(wechat-jssdk)": "([0-9.]+)"`),
			setting: "accessTokenUrl, ticketUrl, GET_SESSION_KEY_URL", install: npm, login: true, fetchesAgain: true,
		},
	}
}

func (s sdk) version(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.folder, s.manifest))
	if err != nil {
		t.Fatal(err)
	}
	match := s.pinned.FindStringSubmatch(string(content))
	if match == nil {
		t.Fatalf("%s of %s does not pin the SDK", s.manifest, s.name)
	}
	return match[1] + " " + match[2]
}

// prepare makes the program ready in a folder of its own. It returns the folder and the command that starts the program.
func (s sdk) prepare(t *testing.T) (dir string, command []string) {
	t.Helper()
	dir = t.TempDir()
	files, err := os.ReadDir(s.folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if file.IsDir() {
			continue // node_modules of somebody who tries the program there
		}
		content, err := os.ReadFile(filepath.Join(s.folder, file.Name()))
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, file.Name()), content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, s.install(t, dir)
}

// goBuild builds a Go program.
func goBuild(t *testing.T, dir string) []string {
	t.Helper()
	run(t, dir, "the Go module proxy", need(t, "go"), "build", "-buildvcs=false", "-o", "server", ".")
	return []string{filepath.Join(dir, "server")}
}

// npm installs exactly what package-lock.json names. What is in npm's cache is not downloaded again.
func npm(t *testing.T, dir string) []string {
	t.Helper()
	node := need(t, "node")
	run(t, dir, "the npm registry", need(t, "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline",
		"--fetch-retries=1")
	return []string{node, filepath.Join(dir, "server.mjs")}
}

// need finds a program. CI installs all of them, see .ci/run; a developer need not.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI must run every SDK", program)
	}
	t.Skipf("%s is not installed", program)
	return ""
}

// run runs a command that downloads from a source what is not in a cache.
func run(t *testing.T, dir, source string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v; it needs %s, or a cache that was filled from there\n%s", strings.Join(command, " "), err, source, out)
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
		t.Run(s.name, func(t *testing.T) {
			dir, command := s.prepare(t)
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
			t.Logf("%s, by %s: %d calls, %d failed", s.version(t), s.setting, calls, p.failed)
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
	dir, command := s.prepare(t)
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
	dir, command := s.prepare(t)
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
		if s.name != "silenceper" && s.name != "node-easywechat" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			const name = "api.weixin.qq.com"
			dir, command := s.prepare(t)
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
			t.Logf("%s, by name: %d calls, %d failed", s.version(t), calls, p.failed)
		})
	}
}

// TestSandbox checks that a program in the sandbox reaches the gateway and nothing else.
func TestSandbox(t *testing.T) {
	dir, command := sdks()[0].prepare(t)
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
