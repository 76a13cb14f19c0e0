// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// child is a process that runs beside the operator.
type child struct {
	name   string
	cmd    *exec.Cmd
	exited chan error
	// log is the file with what the process printed.
	log string
}

// startChild starts a command and gives it a log of its own. Ctrl-C does not reach it: the demo ends it.
func (s *stage) startChild(name string, cmd *exec.Cmd) (*child, error) {
	c := &child{name: name, cmd: cmd, exited: make(chan error, 1), log: filepath.Join(s.dir, name+".log")}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, fmt.Errorf("creating the log of %s: %w", name, err)
	}
	defer log.Close() //nolint:errcheck // the process has its own handle
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() { c.exited <- cmd.Wait() }()
	return c, nil
}

// stop asks the process to end.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("ending %s: %w", c.name, errors.Join(err, <-c.exited))
	}
	select {
	case err := <-c.exited:
		if err != nil {
			return fmt.Errorf("ending %s: %w", c.name, err)
		}
		return nil
	case <-time.After(shutdownPatience):
		return errors.Join(fmt.Errorf("%s did not end when it was told to", c.name), c.cmd.Process.Kill())
	}
}

// kill ends the process at once. It returns an error if the process had ended by itself.
func (c *child) kill() error {
	err := c.cmd.Process.Kill()
	exited := <-c.exited
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%s ended by itself: %w", c.name, errors.Join(exited, logTail(c.log)))
	}
	return err
}
