// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a program that the test started.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	// url is where a program of an SDK serves.
	url string
}

// start starts a program whose output goes to a file. With says, it waits until the program has said where it serves.
func start(t *testing.T, logFile, dir string, env []string, says bool, command ...string) *process {
	t.Helper()
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{ended: make(chan struct{}), cmd: exec.Command(command[0], command[1:]...)}
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if says {
		p.cmd.Stdout = writer
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	go func() {
		_ = p.cmd.Wait() // most are killed
		_ = log.Close()
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	if !says {
		_ = reader.Close()
		return p
	}
	line, err := bufio.NewReader(reader).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("%s says %q: %v; see %s", command[0], line, err, logFile)
	}
	p.url = url
	t.Cleanup(func() { _ = reader.Close() })
	return p
}

// kill kills the process and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// terminate tells the process to end, and reports whether it did so in time and without an error.
func (p *process) terminate(within time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
		if !p.cmd.ProcessState.Success() {
			return fmt.Errorf("after SIGTERM it ended with %s", p.cmd.ProcessState)
		}
		return nil
	case <-time.After(within):
		return fmt.Errorf("it still runs %s after SIGTERM", within)
	}
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// build builds a program of this repository.
func build(ctx context.Context, dir, name string) (binary string, err error) {
	binary = filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, "../../../cmd/"+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	return binary, nil
}

// sdk is a program of examples/gateway.
type sdk struct {
	name    string
	dir     string
	command []string
}

// prepareSDKs makes the programs ready. One whose tools are not installed is left out, except in CI.
func prepareSDKs(t *testing.T) []*sdk {
	t.Helper()
	sdks := []*sdk{{name: "silenceper", command: []string{"./server"}}}
	run(t, sdks[0].copy(t), "go", "build", "-buildvcs=false", "-o", "server", ".")
	node, err := exec.LookPath("node")
	if err == nil {
		_, err = exec.LookPath("npm")
	}
	switch {
	case err == nil:
		s := &sdk{name: "co-wechat-api", command: []string{node, "server.mjs"}}
		run(t, s.copy(t), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1")
		sdks = append(sdks, s)
	case os.Getenv("CI") == "true":
		t.Fatal("node and npm are missing, and CI must run every SDK")
	default:
		t.Log("node and npm are not installed: co-wechat-api is left out")
	}
	return sdks
}

// copy copies the program's files to a folder of its own.
func (s *sdk) copy(t *testing.T) (dir string) {
	t.Helper()
	from := filepath.Join("..", "..", "..", "examples", "gateway", s.name)
	s.dir = t.TempDir()
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if file.IsDir() {
			continue // node_modules of somebody who tries the program there
		}
		content, err := os.ReadFile(filepath.Join(from, file.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(s.dir, file.Name()), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s.dir
}

func run(t *testing.T, dir string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}
