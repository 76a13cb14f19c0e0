// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const clientSample = "../../config/samples/wechat_v1alpha1_wechatappclient.yaml"

// relaysOf builds the gateway and the program with the SDK, which is a module of its own.
func relaysOf(t *testing.T) relays {
	t.Helper()
	dir := t.TempDir()
	r := relays{gateway: filepath.Join(dir, "gateway"), program: filepath.Join(dir, "program")}
	for _, args := range [][]string{
		{"build", "-o", r.gateway, "../../cmd/gateway"},
		{"-C", "../../examples/gateway/silenceper", "build", "-buildvcs=false", "-o", r.program, "."},
	} {
		if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil { //nolint:gosec // our own paths
			t.Fatalf("%v: %s", err, out)
		}
	}
	return r
}

func TestGatewayStory(t *testing.T) {
	t.Parallel()
	out, err := told(t, options{sample: clientSample, relays: relaysOf(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"neither the AppSecret nor WeChat's token is among it", "WeChat itself does not know the key", "logged a user in", "errcode 48001",
		"the one before goes on buying tokens for 24 h", "token rotated by itself", "the leaked token was dead", "the gateway told the operator",
		"Calls that failed: 0.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the story does not say %q", want)
		}
	}
}

// A client that may not log users in ends the story there.
func TestGatewayStoryWithoutLogin(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(clientSample)
	if err != nil {
		t.Fatal(err)
	}
	without := strings.Replace(string(text), "  login: true\n", "", 1)
	if without == string(text) {
		t.Fatal("the sample does not log users in")
	}
	path := filepath.Join(t.TempDir(), "sample.yaml")
	if err := os.WriteFile(path, []byte(without), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := told(t, options{sample: path, relays: relaysOf(t)})
	if err == nil || !strings.Contains(err.Error(), "logging a user in") || !strings.Contains(err.Error(), "48001") {
		t.Errorf("the demo ended with %v", err)
	}
	if strings.Contains(out, "logged a user in") {
		t.Error("a login is told of that did not happen")
	}
	if !strings.Contains(out, "the end of program-1.log") {
		t.Error("the program's own word is not shown")
	}
}

// A secret is found wherever the program has it.
func TestLeaks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secrets := []token.Value{token.NewValue("the AppSecret"), token.NewValue("the token")}
	log := filepath.Join(t.TempDir(), "program-1.log")
	p := &program{child: &child{log: log}, dir: dir, env: []string{"HARMLESS=yes", "SECRET=x the AppSecret="}}
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "wechat"), 0o700),
		os.WriteFile(filepath.Join(dir, "wechat", "app_id"), []byte("wx0123456789abcdef"), 0o600),
		os.WriteFile(filepath.Join(dir, "wechat", "token"), []byte("the token"), 0o600),
		os.WriteFile(log, []byte("a line\nthe token\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	places, err := p.places()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"environment variable SECRET", "file wechat/token", "log program-1.log"}
	if got := leaks(places, secrets); !slices.Equal(got, want) {
		t.Errorf("found in %q, want %q", got, want)
	}
	if len(places) != 5 {
		t.Errorf("looked into %d places, want 5", len(places))
	}
	if got := leaks(places, secrets[:0]); len(got) > 0 {
		t.Errorf("nothing is found in %q", got)
	}
}

// served returns a program whose calls a function answers.
func served(t *testing.T, answer http.HandlerFunc) *program {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return &program{address: strings.TrimPrefix(server.URL, "http://"), client: server.Client()}
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// One call that fails is found out, and told with the phase in which it began.
func TestFailedCall(t *testing.T) {
	t.Parallel()
	for what, answer := range map[string]string{
		"an error":                    `{"error":"errcode=40001"}`,
		"an answer that is no object": `too late`,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var fail atomic.Bool
			c := startCaller(t.Context(), served(t, func(w http.ResponseWriter, _ *http.Request) {
				if fail.CompareAndSwap(true, false) {
					w.WriteHeader(http.StatusBadGateway)
					fmt.Fprint(w, answer)
					return
				}
				fmt.Fprint(w, `{}`)
			}))
			t.Cleanup(c.stop)
			c.begin("all was well")
			await(t, "a call was answered", func() bool { return c.ended() > 0 })
			c.begin("a call failed")
			fail.Store(true)
			await(t, "a call failed", func() bool { return !fail.Load() && c.ended() > 1 })
			c.stop()
			out := &strings.Builder{}
			if err := c.table(out); err != nil {
				t.Fatal(err)
			}
			calls, err := c.judge()
			if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("1 of %d calls failed", calls)) ||
				!strings.Contains(err.Error(), "while a call failed: the program answers 502") {
				t.Errorf("judged: %v", err)
			}
			lines := strings.Split(out.String(), "\n")
			if len(lines) != 4 || strings.Fields(lines[1])[4] != "0" || strings.Fields(lines[2])[4] != "1" {
				t.Errorf("the table is\n%s", out)
			}
		})
	}
}

// A phase in which nobody called proves nothing.
func TestSilentPhase(t *testing.T) {
	t.Parallel()
	c := &caller{phases: []*phase{{}, {what: "the token was rotated", calls: 3, ended: 3}, {what: "nobody called"}}}
	if _, err := c.judge(); err == nil || !strings.Contains(err.Error(), "no call was made while nobody called") {
		t.Errorf("judged: %v", err)
	}
	c.phases = c.phases[:2]
	if calls, err := c.judge(); err != nil || calls != 3 {
		t.Errorf("judged: %d, %v", calls, err)
	}
}

// A program that is replaced answers its last calls.
func TestHandOver(t *testing.T) {
	t.Parallel()
	release, begun := make(chan struct{}), make(chan struct{}, 1000)
	old := served(t, func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-release
		fmt.Fprint(w, `{}`)
	})
	next := served(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) })
	c := startCaller(t.Context(), old)
	t.Cleanup(c.stop)
	<-begun
	handed := make(chan struct{})
	go func() {
		defer close(handed)
		c.handOver(next)
	}()
	await(t, "the next program is called", func() bool { return c.ended() > 0 })
	select {
	case <-handed:
		t.Error("the old program was given up before it had answered")
	default:
	}
	close(release)
	<-handed
	c.stop()
	if _, err := c.judge(); err != nil {
		t.Error(err)
	}
}
