// SPDX-License-Identifier: Apache-2.0

// Package readers_test runs each reader on a volume that is swapped under it.
package readers_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each reader reads while the volume is swapped as fast as it goes, until it has seen so many versions.
const (
	versions = 300
	// maxReads ends a reader that does not see the swaps.
	maxReads = 50_000
)

// language is one reader. command finds or builds its program.
type language struct {
	name    string
	command func(t *testing.T) []string
}

func languages() []language {
	return []language{
		{name: "go", command: func(t *testing.T) []string {
			t.Helper()
			bin := filepath.Join(t.TempDir(), "reader")
			if out, err := exec.CommandContext(t.Context(), need(t, "go"), "build", "-o", bin, "./go").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return []string{bin}
		}},
		// Java runs a source file only where its compiler is.
		{name: "java", command: func(t *testing.T) []string {
			t.Helper()
			need(t, "javac")
			return []string{need(t, "java"), "-XX:TieredStopAtLevel=1", "java/Reader.java"}
		}},
		{name: "python", command: func(t *testing.T) []string {
			t.Helper()
			return []string{need(t, "python3"), "python/reader.py"}
		}},
		{name: "node", command: func(t *testing.T) []string {
			t.Helper()
			return []string{need(t, "node"), "node/reader.mjs"}
		}},
		{name: "dotnet", command: func(t *testing.T) []string {
			t.Helper()
			t.Skip("Debian has no .NET SDK: this reader is not run anywhere")
			return nil
		}},
	}
}

// need finds a program. CI installs all of them, see .ci/run; a developer need not.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI must run every reader", program)
	}
	t.Skipf("%s is not installed", program)
	return ""
}

// answer is what a reader prints for one call.
type answer struct {
	Fingerprint string `json:"fingerprint"`
	ExpiresAt   string `json:"expires_at"`
	AppID       string `json:"app_id"`
	Calls       int    `json:"calls"`
	Errcode     int    `json:"errcode"`
}

// process is a running reader.
type process struct {
	*testing.T

	name   string
	in     io.WriteCloser
	out    *bufio.Reader
	errout *strings.Builder
	cmd    *exec.Cmd
}

func start(t *testing.T, l language, dir string) *process {
	t.Helper()
	args := append(l.command(t), dir)
	p := &process{T: t, name: l.name, errout: &strings.Builder{}}
	p.cmd = exec.CommandContext(t.Context(), args[0], args[1:]...)
	p.cmd.Stderr = p.errout
	in, err1 := p.cmd.StdinPipe()
	out, err2 := p.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, p.cmd.Start()); err != nil {
		t.Fatal(err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	return p
}

// call makes the reader use the token in one call that WeChat answers like this.
func (p *process) call(answers string) answer {
	p.Helper()
	if _, err := io.WriteString(p.in, answers+"\n"); err != nil {
		p.Fatalf("%v\n%s", err, p.end())
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.Fatalf("%v\n%s", err, p.end())
	}
	var a answer
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		p.Fatalf("%v: %s", err, line)
	}
	return a
}

// end ends the reader and returns what it complained about.
func (p *process) end() string {
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Sprintf("%v\n%s", err, p.errout)
	}
	return p.errout.String()
}

// TestReaders: while the volume is swapped all the time, token, expiry and appid always belong together, and every read is of
// the newest version, because nothing is kept between two calls.
func TestReaders(t *testing.T) {
	for _, l := range languages() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t)
			p := start(t, l, v.dir)
			readWhileSwapping(p, v)
			for range 3 {
				if err := v.swap(); err != nil {
					t.Fatal(err)
				}
				wantVersion(t, p.call("0"), v.current)
			}
			if complaints := p.end(); complaints != "" {
				t.Error(complaints)
			}
		})
	}
}

func readWhileSwapping(p *process, v *volume) {
	p.Helper()
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
				if err := v.swap(); err != nil {
					stopped <- err
					return
				}
			}
		}
	}()
	seen := map[string]bool{}
	for reads := 0; len(seen) < versions; reads++ {
		if reads == maxReads {
			p.Fatalf("only %d versions were seen in %d reads", len(seen), reads)
		}
		a := p.call("0")
		seen[a.Fingerprint] = true
		var n int
		if _, err := fmt.Sscanf(a.AppID, "wx%d", &n); err != nil {
			p.Fatalf("%v: %+v", err, a)
		}
		wantVersion(p.T, a, n)
	}
	close(stop)
	if err := <-stopped; err != nil {
		p.Fatal(err)
	}
}

func wantVersion(t *testing.T, a answer, n int) {
	t.Helper()
	want := versionOf(n)
	if a.Fingerprint != want.fingerprint() || a.ExpiresAt != want.expiresAt || a.AppID != want.appID {
		t.Errorf("read %+v, want version %d: %s, %s, %s", a, n, want.fingerprint(), want.expiresAt, want.appID)
	}
	if a.Calls != 1 || a.Errcode != 0 {
		t.Errorf("%d calls, errcode %d, want one that works", a.Calls, a.Errcode)
	}
}

// TestRepeatedCalls: the three codes of a token that is not accepted lead to one more read and one more call, no other does.
func TestRepeatedCalls(t *testing.T) {
	for _, l := range languages() {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, l, newVolume(t).dir)
			for answers, want := range map[string]answer{
				"40001 0":     {Calls: 2, Errcode: 0},
				"40014 0":     {Calls: 2, Errcode: 0},
				"42001 0":     {Calls: 2, Errcode: 0},
				"40001 40001": {Calls: 2, Errcode: 40001},
				"42001 -1":    {Calls: 2, Errcode: -1},
				"45009":       {Calls: 1, Errcode: 45009},
				"40164":       {Calls: 1, Errcode: 40164},
				"-1":          {Calls: 1, Errcode: -1},
			} {
				got := p.call(answers)
				if got.Calls != want.Calls || got.Errcode != want.Errcode {
					t.Errorf("WeChat answers %s: %d calls, errcode %d; want %d, %d", answers, got.Calls, got.Errcode, want.Calls, want.Errcode)
				}
			}
			if complaints := p.end(); complaints != "" {
				t.Error(complaints)
			}
		})
	}
}

// TestWhatIsNoVolume: a folder that is not a mounted Secret, and a Secret without the token, end a reader with its reason.
func TestWhatIsNoVolume(t *testing.T) {
	noToken := newVolume(t)
	if err := os.Remove(filepath.Join(noToken.folder, "access_token")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ dir, says string }{
		"folder":   {t.TempDir(), "is not a mounted Secret; mount the whole volume, without subPath"},
		"no token": {noToken.dir, "access_token"},
	} {
		for _, l := range languages() {
			t.Run(name+"/"+l.name, func(t *testing.T) {
				t.Parallel()
				p := start(t, l, tc.dir)
				if _, err := io.WriteString(p.in, "0\n"); err != nil {
					t.Fatal(err)
				}
				if out, _ := io.ReadAll(p.out); len(out) > 0 {
					t.Errorf("it read a token: %s", out)
				}
				complaints := p.end()
				if !strings.Contains(complaints, "exit status") || !strings.Contains(complaints, tc.says) {
					t.Errorf("want it to fail with %q, got %s", tc.says, complaints)
				}
			})
		}
	}
}
