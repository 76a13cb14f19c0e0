// SPDX-License-Identifier: Apache-2.0

// Package sdk_test runs the programs of examples/sdk: real SDKs for WeChat that take the token from a mounted volume. They call the
// stand-in for WeChat, whose ledger tells which calls were made.
package sdk_test

import (
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
	"github.com/wechat-token-operator/wechat-token-operator/test/sdk/programs"
)

// examples is the folder of the programs, seen from this folder.
var examples = filepath.Join("..", "..", "examples", "sdk")

// overlap is more than the time for which WeChat accepts a replaced token.
const overlap = 6 * time.Minute

func sdks() []programs.Program {
	example := func(name, manifest, pinned string, install func(*testing.T, string) []string) programs.Program {
		return programs.Program{
			Name: name, Folder: filepath.Join(examples, name), Manifest: manifest, Pinned: regexp.MustCompile(pinned), Install: install,
		}
	}
	return []programs.Program{
		example("silenceper", "go.mod", `require github\.com/(silenceper/wechat)/v2 (v\S+)`, programs.GoBuild),
		example("co-wechat-api", "package.json", `"(co-wechat-api)": "([0-9.]+)"`, programs.NPM),
		example("node-easywechat", "package.json", `"(node-easywechat)": "([0-9.]+)"`, programs.NPM),
	}
}

// TestSDKs: each SDK follows the file of the token without a restart, gives up where it can only wait, and never fetches a token or
// a ticket, although it has the AppSecret.
func TestSDKs(t *testing.T) {
	for _, s := range sdks() {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			dir, command := s.Prepare(t)
			f := newFixture(t, dir, command)
			for _, step := range []struct {
				name string
				run  func(f *fixture)
			}{
				{"rotation", (*fixture).rotation},
				{"refused", (*fixture).refused},
				{"overtaken", (*fixture).overtaken},
				{"refused twice", (*fixture).refusedTwice},
				{"errcodes", (*fixture).errcodes},
				{"failures", (*fixture).failures},
				{"signature", (*fixture).signature},
			} {
				if !t.Run(step.name, func(t *testing.T) { step.run(f.in(t)) }) {
					break // the next step begins where this one should have ended
				}
			}
			f.fetchedNothing()
			f.keptSecrets()
			t.Logf("%s: %d calls of WeChat with %d tokens from the file, none fetched", s.Version(t),
				f.wechat.Count(wechattest.Filter{}), len(f.wechat.Tokens(appID)))
		})
	}
}

// TestVersions: docs/sdk.md names the versions that are run.
func TestVersions(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "sdk.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sdks() {
		if want := "Run with " + s.Version(t); !strings.Contains(string(page), want) {
			t.Errorf("docs/sdk.md does not say %q", want)
		}
	}
}

// TestSyntax: what cannot be run here for want of its SDK has at least no mistake that its own language finds. A language that is not
// installed is left out, in CI too, which does not install PHP for this alone.
func TestSyntax(t *testing.T) {
	for name, tc := range map[string]struct {
		program, file string
		args          []string
	}{
		"wechatpy":     {"python3", "mounted_token.py", []string{"-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())"}},
		"easywechat-6": {"php", "MountedToken.php", []string{"-l"}},
		"easywechat-5": {"php", "MountedToken.php", []string{"-l"}},
	} {
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(tc.program)
			if err != nil {
				t.Skipf("%s is not installed", tc.program)
			}
			dir := programs.Copy(t, filepath.Join(examples, name))
			out, err := exec.CommandContext(t.Context(), program, append(tc.args, filepath.Join(dir, tc.file))...).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// rotation replaces the token and lets the old one die. A program that kept it would fail.
func (f *fixture) rotation() {
	f.wantCalls("/callback-ips", http.StatusOK, 1)
	f.mint()
	f.mount()
	f.wechat.Advance(overlap)
	f.wantCalls("/callback-ips", http.StatusOK, 1)
}

// refused lets the token die before the volume has the new one. Nothing but the volume can help, so the call is not repeated.
func (f *fixture) refused() {
	f.mint()
	f.wechat.Advance(overlap)
	answer := f.wantCalls("/callback-ips", http.StatusServiceUnavailable, 1)
	if got := answer.header.Get("Retry-After"); got != "10" {
		f.Errorf("Retry-After is %q, want 10", got)
	}
	f.mount()
	f.wantCalls("/callback-ips", http.StatusOK, 1)
}

// overtaken replaces the volume while the call with the dead token is under way. The call is repeated with the new one.
func (f *fixture) overtaken() {
	f.mint()
	f.wechat.Advance(overlap)
	f.beforeAnswer(f.mount)
	f.wantCalls("/callback-ips", http.StatusOK, 2)
}

// refusedTwice replaces the volume, but by a token that WeChat refuses as well. Two attempts are enough.
func (f *fixture) refusedTwice() {
	f.mint()
	stale := f.token
	f.mint()
	f.wechat.Advance(2 * overlap)
	current := f.token
	f.beforeAnswer(func() {
		f.token = stale
		f.mount()
		f.token = current
	})
	f.wantCalls("/callback-ips", http.StatusServiceUnavailable, 2)
	f.mount()
	f.wantCalls("/callback-ips", http.StatusOK, 1)
}

// errcodes answers with each errcode of a refused token, and with some that have nothing to do with it.
func (f *fixture) errcodes() {
	for errcode, want := range map[int]int{
		40001: http.StatusServiceUnavailable,
		40014: http.StatusServiceUnavailable,
		42001: http.StatusServiceUnavailable,
		45009: http.StatusBadGateway,
		48001: http.StatusBadGateway,
		40164: http.StatusBadGateway,
	} {
		f.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointCallbackIP, Times: 1, Errcode: errcode})
		f.wantCalls("/callback-ips", want, 1)
	}
	f.wantCalls("/callback-ips", http.StatusOK, 1)
}

// failures makes the SDKs fail in ways in which they tell the URL, which has the token in it.
func (f *fixture) failures() {
	f.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointCallbackIP, Times: 1, Status: http.StatusInternalServerError})
	f.wantCalls("/callback-ips", http.StatusBadGateway, 1)
	f.abort.Store(true)
	f.wantCalls("/callback-ips", http.StatusBadGateway, 0)
	f.abort.Store(false)
	f.wantCalls("/callback-ips", http.StatusOK, 1)
}

// signature signs with the ticket in the volume, and with the next one when the volume has it.
func (f *fixture) signature() {
	const page = "https://shop.example.com/list?id=1"
	for range 2 {
		signed := f.wantCalls("/signature?url="+url.QueryEscape(page), http.StatusOK, 0).signed(f)
		if !f.wechat.SignatureValid(signed.AppID, signed.NonceStr, signed.Timestamp.String(), page, signed.Signature) {
			f.Errorf("the signature is not valid")
		}
		f.ticket = f.wechat.RivalTicket(appID, jsapi, 0).Ticket
		f.mount()
		f.wechat.Advance(overlap)
	}
}

// fetchedNothing checks what the stand-in for WeChat was asked for from first to last.
func (f *fixture) fetchedNothing() {
	f.Helper()
	for _, call := range f.wechat.Calls(wechattest.Filter{}) {
		if call.Endpoint != wechattest.EndpointCallbackIP {
			f.Errorf("the SDK called %q, and it must not: %+v", call.Endpoint, call)
		}
	}
	for _, endpoint := range []wechattest.Endpoint{wechattest.EndpointLegacy, wechattest.EndpointStable, wechattest.EndpointTicket} {
		if n := f.wechat.Count(wechattest.Filter{Endpoint: endpoint}); n != 0 {
			f.Errorf("%d calls of %s, want none", n, endpoint)
		}
	}
}

// keptSecrets ends the program and checks that nothing that it wrote or answered holds a token, a ticket or the AppSecret. It also
// checks that the program left no file behind, in which an SDK could keep them.
func (f *fixture) keptSecrets() {
	f.Helper()
	f.end()
	told := f.answers.String() + f.out.String()
	for _, secret := range append([]string{appSecret}, f.secrets...) {
		if strings.Contains(told, secret) {
			f.Errorf("the program told a secret")
		}
	}
	if strings.TrimSpace(told) == "" {
		f.Errorf("the program told nothing at all")
	}
	for _, name := range f.files() {
		if !f.installed[name] {
			f.Errorf("the SDK wrote %s", name)
		}
	}
}

// files lists the files beside the program, without what is below node_modules.
func (f *fixture) files() []string {
	f.Helper()
	var list []string
	err := filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "node_modules" {
			return filepath.SkipDir
		}
		list = append(list, path)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return list
}
