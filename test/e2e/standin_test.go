// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// forward makes a port of something in the cluster one of this machine, until the test ends. Each connection has a kubectl of its own,
// because kubectl ends with the first connection that is reset, as those of a browser are now and then.
func (w *world) forward(t *testing.T, namespace, what, port string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // the test ended
			}
			open.Go(func() {
				defer conn.Close() //nolint:errcheck // whoever waits for more sees its end
				if err := w.forwardOne(ctx, conn, namespace, what, port); err != nil && ctx.Err() == nil {
					t.Logf("port-forward to %s: %v", what, err)
				}
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		open.Wait()
	})
	return listener.Addr().String()
}

// forwardOne forwards one connection until one of its sides ends it.
func (w *world) forwardOne(ctx context.Context, conn net.Conn, namespace, what, port string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.kubectlPath, "-n", namespace, "port-forward", "--address=127.0.0.1", what, ":"+port)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		return err
	}
	end := sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait() // it was ended, or its complaint tells more
	})
	defer end()
	line, _ := bufio.NewReader(out).ReadString('\n') // what follows, for one connection, fits into the pipe
	var address string
	// Forwarding from 127.0.0.1:41773 -> 8080
	if _, err := fmt.Sscanf(line, "Forwarding from %s ->", &address); err != nil {
		end()
		return fmt.Errorf("%q %s", line, complaint.String())
	}
	far, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer far.Close() //nolint:errcheck // whoever waits for more sees its end
	for _, way := range [][2]net.Conn{{far, conn}, {conn, far}} {
		go func() {
			_, _ = io.Copy(way[0], way[1]) // a connection that is reset is its caller's to notice
			cancel()
		}()
	}
	<-ctx.Done()
	return nil
}

// standIn is the stand-in's ledger, for one step.
func (w *world) standIn(t *testing.T) *wechattest.Remote {
	t.Helper()
	return wechattest.NewRemote("http://" + w.forward(t, "wechat", "deployment/fake-wechat", "8081"))
}
