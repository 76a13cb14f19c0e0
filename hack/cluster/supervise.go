// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// supervisor keeps components running. As the first process it also collects what others left behind.
type supervisor struct {
	logs, pids string

	mu      sync.Mutex
	running map[int]component
}

func newSupervisor(logs, pids string) *supervisor {
	return &supervisor{logs: logs, pids: pids, running: map[int]component{}}
}

// start runs a component. One that cannot be started is tried again like one that ended.
func (s *supervisor) start(c component) {
	s.mu.Lock() // before reap can see the end of it
	defer s.mu.Unlock()
	pid, err := s.launch(c)
	if err != nil {
		fmt.Printf("%s: %v\n", c.name, err)
		s.startLater(c)
		return
	}
	s.running[pid] = c
	fmt.Printf("%s: started as %d\n", c.name, pid)
}

func (s *supervisor) launch(c component) (pid int, err error) {
	program, err := exec.LookPath(c.args[0])
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile(filepath.Join(s.logs, c.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	process, err := os.StartProcess(program, c.args, &os.ProcAttr{Dir: "/", Env: os.Environ(), Files: []*os.File{nil, log, log}})
	if err != nil {
		return 0, err
	}
	pid = process.Pid
	_ = process.Release() // reap waits for all
	return pid, os.WriteFile(filepath.Join(s.pids, c.name), []byte(strconv.Itoa(pid)), 0o600)
}

func (s *supervisor) startLater(c component) { time.AfterFunc(time.Second, func() { s.start(c) }) }

// reap collects every process that ends, for ever.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // there is no process just now
			time.Sleep(100 * time.Millisecond)
			continue
		}
		s.mu.Lock()
		c, ours := s.running[pid]
		delete(s.running, pid)
		s.mu.Unlock()
		if ours {
			fmt.Printf("%s: ended, code %d, signal %d\n", c.name, status.ExitStatus(), status.Signal())
			s.startLater(c)
		}
	}
}

// forward passes connections to a listener of another network on to an address of this one.
func forward(file *os.File, to string) {
	listener, err := net.FileListener(file)
	if err != nil {
		fmt.Println("forwarding:", err)
		return
	}
	for {
		outer, err := listener.Accept()
		if err != nil {
			fmt.Println("forwarding:", err)
			return
		}
		go func() {
			inner, err := net.Dial("tcp", to) //nolint:noctx // an address of this machine: nothing to wait for
			if err != nil {
				_ = outer.Close() // the caller tries again
				return
			}
			join(outer, inner)
		}()
	}
}

// join copies both ways until one side ends.
func join(a, b net.Conn) {
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1]) // an end is an end, clean or not
			done <- struct{}{}
		}()
	}
	<-done
	_, _ = a.Close(), b.Close()
	<-done
}
