// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// process is a program under observation: the operator, or the one that leaks.
type process struct {
	cmd              *exec.Cmd
	exited           chan error
	out, err         string // paths
	metrics, healthy string // URLs
}

// start starts a program with the operator's flags.
func start(t *testing.T, program, kubeconfig, wechat string, env []string, args ...string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{out: filepath.Join(dir, "stdout"), err: filepath.Join(dir, "stderr"), exited: make(chan error, 1)}
	config := filepath.Join(dir, "kubeconfig")
	must(t, os.WriteFile(config, []byte(kubeconfig), 0o600))
	metrics, health := freeAddress(t), freeAddress(t)
	p.metrics, p.healthy = "http://"+metrics+"/metrics", "http://"+health
	args = append([]string{
		"--zap-log-level", "127", "--kubeconfig", config, "--wechat-endpoints", wechat, "--wechat-timeout", "2s",
		"--metrics-bind-address", metrics, "--metrics-secure=false", "--health-probe-bind-address", health,
	}, args...)
	p.cmd = exec.Command(program, args...) //nolint:gosec // a program of this test, which ends it
	p.cmd.Env = append(os.Environ(), append(env, "GOTRACEBACK=system")...)
	stdout, err := os.Create(p.out)
	must(t, err)
	stderr, err := os.Create(p.err)
	must(t, err)
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	must(t, p.cmd.Start())
	must(t, errors.Join(stdout.Close(), stderr.Close()))
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(p.kill)
	return p
}

func (p *process) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	select {
	case <-p.exited: //nolint:errcheck // it was killed
	case <-time.After(patience):
	}
}

// proc reads what the kernel shows of the process to others of its user.
func (p *process) proc(t *testing.T, what string) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, what))
	must(t, err)
	return string(text)
}

// dump makes the process write the stacks of all its goroutines and end, and gives what it wrote since.
func (p *process) dump(t *testing.T) string {
	t.Helper()
	before, err := os.Stat(p.err)
	must(t, err)
	must(t, p.cmd.Process.Signal(syscall.SIGQUIT))
	select {
	case err := <-p.exited:
		p.exited <- err
	case <-time.After(patience):
		t.Fatal("the process does not end")
	}
	text := read(t, p.err)
	return text[before.Size():]
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

// fetch gets a page; "" when nobody answers.
func fetch(ctx context.Context, url string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return ""
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer res.Body.Close() //nolint:errcheck // it is read below
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return ""
	}
	return fmt.Sprint(res.Status, res.Header, string(text))
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := testenv.FreeAddress()
	must(t, err)
	return address
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
