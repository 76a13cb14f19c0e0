// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// firstProcess is the one that everything runs below. A process id alone could be somebody else's by now, so its start belongs to it.
type firstProcess struct {
	pid   int
	start string
}

func (c *cluster) remember(pid int) error {
	start, err := startOf(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(c.path("process"), fmt.Appendf(nil, "%d %s\n", pid, start), 0o600)
}

// process is the cluster's first process, nil if it does not run.
func (c *cluster) process() (*firstProcess, error) {
	content, err := os.ReadFile(c.path("process"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var p firstProcess
	if _, err := fmt.Sscan(string(content), &p.pid, &p.start); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path("process"), err)
	}
	if start, err := startOf(p.pid); err != nil || start != p.start {
		return nil, nil //nolint:nilerr // no such process, or another one
	}
	return &p, nil
}

// running is the cluster's first process, an error if it does not run.
func (c *cluster) running() (*firstProcess, error) {
	p, err := c.process()
	if err == nil && p == nil {
		err = fmt.Errorf("no cluster runs in %s: run make cluster first", c.dir)
	}
	return p, err
}

// startOf is when a process was started, in the kernel's ticks since boot.
func startOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The second field, the name in brackets, may contain anything; the twentieth after it is the start.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("process %d: unexpected %q", pid, stat)
	}
	if fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}

// down ends the cluster and removes everything that it made.
func (c *cluster) down(ctx context.Context) error {
	p, err := c.process()
	if err != nil {
		return err
	}
	if p != nil {
		// The kernel ends all processes of the namespace before this one is gone.
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("ending process %d: %w", p.pid, err)
		}
		if err := c.waitForEnd(ctx); err != nil {
			return err
		}
	}
	return c.clear()
}

func (c *cluster) waitForEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if p, err := c.process(); p == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.New("the cluster did not end")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// marker is in every folder that may be deleted as a whole.
const marker = "wechat-token-operator-cluster"

// clear removes the control groups and the folder. Ended processes leave a control group a moment later.
func (c *cluster) clear() error {
	content, err := os.ReadDir(c.dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(content) == 0 {
		return c.removeCgroups()
	}
	if _, markErr := os.Stat(c.path(marker)); markErr != nil {
		return errors.Join(err, fmt.Errorf("%s is no folder of a cluster: choose another --dir", c.dir))
	}
	for range 100 {
		if err = c.removeCgroups(); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
