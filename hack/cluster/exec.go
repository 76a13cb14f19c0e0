// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// enter is the command that runs another one among the cluster's processes.
func (c *cluster) enter(command []string) ([]string, error) {
	p, err := c.running()
	if err != nil {
		return nil, err
	}
	return append([]string{"nsenter", "--target", strconv.Itoa(p.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--wdns=/", "--"},
		command...), nil
}

// exec becomes a command among the cluster's processes.
func (c *cluster) exec(command []string) error {
	if len(command) == 0 {
		return errors.New("which command?")
	}
	args, err := c.enter(command)
	if err != nil {
		return err
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, args, os.Environ()) //nolint:gosec // that is what it is for
}

// inside runs a command among the cluster's processes.
func (c *cluster) inside(ctx context.Context, stdin io.Reader, command ...string) error {
	args, err := c.enter(command)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // see exec
	cmd.Stdin = stdin
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// load gives containerd the images of these archives.
func (c *cluster) load(ctx context.Context, archives []string) error {
	for _, archive := range archives {
		file, err := os.Open(archive)
		if err != nil {
			return err
		}
		err = c.inside(ctx, file, ctr("images", "import", "-")...)
		if err := errors.Join(err, file.Close()); err != nil {
			return fmt.Errorf("loading %s: %w", archive, err)
		}
	}
	return nil
}

// ctr is a command for containerd, about the images of Kubernetes.
func ctr(args ...string) []string { return append([]string{"ctr", "--namespace", "k8s.io"}, args...) }

// restart ends components; the supervisor starts them again.
func (c *cluster) restart(ctx context.Context, names []string) error {
	for _, name := range names {
		pid, err := os.ReadFile(c.path("pids", name))
		if err != nil {
			return fmt.Errorf("%s is no component: %w", name, err)
		}
		if err := c.inside(ctx, nil, "kill", string(pid)); err != nil {
			return err
		}
	}
	return nil
}
