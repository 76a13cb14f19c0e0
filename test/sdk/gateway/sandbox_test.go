// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"
)

// sandboxed is set in the environment of this test's own program when it is started again inside a sandbox.
const sandboxed = "WECHAT_GATEWAY_TEST_SANDBOX"

func TestMain(m *testing.M) {
	if dir := os.Getenv(sandboxed); dir != "" {
		if err := runSandbox(dir, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "sandbox:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// sandbox runs a program in a network namespace of its own, whose only way out are two Unix sockets in dir: one to the gateway and one
// from the test to the program. There is no other interface than the loopback, so the program reaches nothing but the gateway.
type sandbox struct {
	dir string
	cmd *exec.Cmd
	// out is what the program wrote. It is complete after end.
	out    strings.Builder
	stdout *bufio.Reader
}

// Names in the folder of a sandbox.
const (
	toGateway = "gateway.sock" // the test listens
	toProgram = "program.sock" // the sandbox listens
	hostsFile = "hosts"
	// gatewayPorts are where the gateway is reached inside.
	plainPort, securePort = "127.0.0.1:8080", "127.0.0.1:443"
)

// startSandbox starts a program. It must say where it serves, as the examples do.
func startSandbox(t *testing.T, dir, workDir string, env, command []string) *sandbox {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &sandbox{dir: dir}
	s.cmd = exec.CommandContext(t.Context(), self, command...)
	s.cmd.Dir = workDir
	s.cmd.Env = append(env, sandboxed+"="+dir)
	s.cmd.Stderr = &s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Getuid(); uid != 0 {
		s.cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		s.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		s.cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = s.cmd.Start()
	if errors.Is(err, syscall.EPERM) && os.Getenv("CI") != "true" {
		t.Skip("this machine allows no network namespaces")
	}
	if err != nil {
		t.Fatal(err)
	}
	s.stdout = bufio.NewReader(stdout)
	t.Cleanup(s.end)
	line, err := s.stdout.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "ready" {
		s.end()
		t.Fatalf("the program says %q: %v\n%s", line, err, &s.out)
	}
	return s
}

// end ends the program and what runs with it.
func (s *sandbox) end() {
	if s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(s.stdout)
	_ = s.cmd.Wait()
	s.out.Write(rest)
}

// runSandbox is the program inside: it joins the sockets and starts the command.
func runSandbox(dir string, command []string) error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("the loopback: %w", err)
	}
	hosts := filepath.Join(dir, hostsFile)
	if _, err := os.Stat(hosts); err == nil {
		if err := replaceHosts(hosts); err != nil {
			return fmt.Errorf("/etc/hosts: %w", err)
		}
	}
	for _, address := range []string{plainPort, securePort} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go join(l, func() (net.Conn, error) { return net.Dial("unix", filepath.Join(dir, toGateway)) })
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = os.Environ()
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := bufio.NewReader(out)
	line, err := said.ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on http://")
	if err != nil || !ok {
		_ = cmd.Process.Kill()
		return fmt.Errorf("the program says %q: %w", line, err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, toProgram))
	if err != nil {
		return err
	}
	go join(l, func() (net.Conn, error) { return net.Dial("tcp", address) })
	fmt.Println("ready")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go func() {
		<-end
		_ = cmd.Process.Kill()
	}()
	_, _ = io.Copy(os.Stdout, said)
	_ = cmd.Wait()
	return nil
}

// join passes on what comes to a listener, both ways.
func join(l net.Listener, dial func() (net.Conn, error)) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			out, err := dial()
			if err != nil {
				_ = in.Close()
				return
			}
			both(in, out)
		}()
	}
}

// both copies both ways until both ends are closed.
func both(a, b net.Conn) {
	var wg sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
	wg.Go(func() { pass(a, b) })
	wg.Go(func() { pass(b, a) })
	wg.Wait()
	_, _ = a.Close(), b.Close()
}

// loopbackUp brings the loopback of a new network namespace up.
func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	// This is struct ifreq with the name and the flags.
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}

// replaceHosts lets this process, which has a mount namespace of its own, see another /etc/hosts.
func replaceHosts(with string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	return syscall.Mount(with, "/etc/hosts", "", syscall.MS_BIND, "")
}
