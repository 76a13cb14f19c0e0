// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// userHZ is the unit of the times in /proc/PID/stat. The kernel shows them in hundredths on every architecture that
// Go runs on.
const userHZ = 100

// endPatience is for a process to end by itself.
const endPatience = 20 * time.Second

// process is a program that is measured from outside.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string // path
	exited chan error
}

// launch starts a program; its output goes to the file log, except what stdout takes.
func launch(name, log string, stdout *os.File, path string, args ...string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("creating the log of %s: %w", name, err)
	}
	defer file.Close()                 //nolint:errcheck // the process has its own handle
	cmd := exec.Command(path, args...) //nolint:gosec,noctx // built from this repository; stop ends it
	cmd.Stdout, cmd.Stderr = file, file
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log, exited: make(chan error, 1)}
	go func() { p.exited <- cmd.Wait() }()
	return p, nil
}

// stop ends the process as Kubernetes does. It is an error if it had ended by itself.
func (p *process) stop() error {
	select {
	case err := <-p.exited:
		p.exited <- err
		return errors.Join(fmt.Errorf("%s ended by itself: %w", p.name, err), p.tail())
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("ending %s: %w", p.name, err)
	}
	select {
	case err := <-p.exited:
		if err != nil {
			return errors.Join(fmt.Errorf("%s did not end cleanly: %w", p.name, err), p.tail())
		}
		return nil
	case <-time.After(endPatience):
		return errors.Join(fmt.Errorf("%s did not end within %s", p.name, endPatience), p.kill())
	}
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("killing %s: %w", p.name, err)
	}
	<-p.exited //nolint:errcheck // it was killed
	return nil
}

// tail is the end of the log, as an error.
func (p *process) tail() error {
	log, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	lines := strings.Split(string(bytes.TrimSpace(log)), "\n")
	return errors.New("the end of its log:\n" + strings.Join(lines[max(0, len(lines)-10):], "\n"))
}

// cpu is the time that the process has used so far, in user mode and in the kernel.
func (p *process) cpu() (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("reading the CPU time of %s (this needs Linux): %w", p.name, err)
	}
	return parseCPU(string(raw))
}

// parseCPU adds utime and stime, fields 14 and 15. The second field may hold spaces and parentheses.
func parseCPU(stat string) (time.Duration, error) {
	_, rest, found := strings.Cut(stat, ") ")
	if last := strings.LastIndex(stat, ") "); last >= 0 {
		rest = stat[last+2:]
	}
	fields := strings.Fields(rest)
	if !found || len(fields) < 13 {
		return 0, fmt.Errorf("/proc/PID/stat has an unknown form: %q", stat)
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("utime in /proc/PID/stat: %w", err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("stime in /proc/PID/stat: %w", err)
	}
	return time.Duration(user+system) * time.Second / userHZ, nil
}

// memory in bytes: resident now, and the most that ever was.
type memory struct {
	Resident int64 `json:"resident"`
	Peak     int64 `json:"peak"`
	// Anonymous is the part of Resident that no file backs: heap and stacks. The rest is the program itself, as far as it was
	// ever used, which the kernel may drop.
	Anonymous int64 `json:"anonymous"`
}

func (p *process) memory() (memory, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return memory{}, fmt.Errorf("reading the memory of %s (this needs Linux): %w", p.name, err)
	}
	return parseMemory(string(raw))
}

func parseMemory(status string) (m memory, err error) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"VmRSS": &m.Resident, "VmHWM": &m.Peak, "RssAnon": &m.Anonymous}[key]
		if into == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			return memory{}, fmt.Errorf("%s in /proc/PID/status: %w", key, err)
		}
		*into = kib << 10
	}
	if m.Resident == 0 || m.Peak == 0 {
		return memory{}, errors.New("/proc/PID/status names no VmRSS and VmHWM")
	}
	return m, nil
}

// settleTime is how long memory is watched once a run is over; the most that is resident in it counts.
const settleTime = 5 * time.Second

// settled watches the memory for a while, because a single look depends on the garbage collector's mood.
func (p *process) settled(ctx context.Context) (memory, error) {
	var most memory
	for end := time.Now().Add(settleTime); ; {
		m, err := p.memory()
		if err != nil {
			return memory{}, err
		}
		most = memory{Resident: max(most.Resident, m.Resident), Anonymous: max(most.Anonymous, m.Anonymous), Peak: m.Peak}
		if time.Now().After(end) {
			return most, nil
		}
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			return memory{}, err
		}
	}
}

// answers waits until a URL answers 200.
func (p *process) answers(ctx context.Context, url string, within time.Duration) error {
	client := &http.Client{Timeout: time.Second}
	deadline := time.Now().Add(within)
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-p.exited:
			p.exited <- err
			return errors.Join(fmt.Errorf("%s ended: %w", p.name, err), p.tail())
		default:
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s did not answer at %s within %s", p.name, url, within), p.tail())
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
