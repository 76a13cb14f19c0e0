// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// proxy is a proxy in a process of its own.
type proxy struct {
	cmd *exec.Cmd
	url string
	// stdin and stdout ask for its cost; nil for Caddy, which does not tell.
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

// start starts one of this program's own proxies, which writes its address first.
func start(ctx context.Context, env []string, command ...string) (*proxy, error) {
	p := &proxy{cmd: exec.CommandContext(ctx, command[0], command[1:]...)} //nolint:gosec // this program
	p.cmd.Env, p.cmd.Stderr = env, os.Stderr
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.stdin, p.stdout = stdin, bufio.NewReader(stdout)
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("starting a proxy: %w", err)
	}
	p.url = strings.TrimSpace(line)
	return p, nil
}

// startCaddy starts Caddy, which is configured to do what the bare proxy does.
func startCaddy(ctx context.Context, caddy, upstream, caFile, dir string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	_ = l.Close()
	config := fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	log {
		level ERROR
	}
}
http://%s {
	reverse_proxy %s {
		transport http {
			tls_trust_pool file %s
			versions 1.1
			compression off
			keepalive_idle_conns_per_host %d
		}
	}
}
`, address, upstream, caFile, pool)
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "taskset", "-c", "0", caddy, "run", "--config", file, "--adapter", "caddyfile") //nolint:gosec // a tool
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &proxy{cmd: cmd, url: "http://" + address}
	for range 100 {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			return p, conn.Close()
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.stop()
	return nil, errors.New("starting Caddy: it does not serve within 10 s")
}

func (p *proxy) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// cost returns what the process has used.
func (p *proxy) cost() (cost, error) {
	if p.stdin == nil {
		cpu, err := cpuOf(p.cmd.Process.Pid)
		return cost{CPU: cpu}, err
	}
	if _, err := io.WriteString(p.stdin, "\n"); err != nil {
		return cost{}, err
	}
	var c cost
	line, err := p.stdout.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &c)
	}
	return c, err
}

// cpuOf returns the time that a process has spent on a CPU, in steps of 10 ms.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("/proc has no times")
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// memory returns a value of /proc/<pid>/status in bytes, such as VmRSS or VmHWM.
func (p *proxy) memory(name string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc has no %s", name)
}

// forgetPeak makes VmHWM start from the memory in use.
func (p *proxy) forgetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0o600)
}

// tokenOf buys a token of the gateway. Other proxies get one that nobody looks at.
func (p *proxy) tokenOf(ctx context.Context, kind, key string) (string, error) {
	if kind != ownKind {
		return strings.Repeat("t", 136), nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+tokenPath+key, nil)
	if err != nil {
		return "", err
	}
	res, err := probe().Do(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct {
		Token string `json:"access_token"`
		Text  string `json:"errmsg"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return "", err
	}
	if answer.Token == "" {
		return "", errors.New(answer.Text)
	}
	return answer.Token, nil
}
