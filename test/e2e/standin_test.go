// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// forward makes a port of something in the cluster one of this machine, until the test ends.
func (w *world) forward(t *testing.T, namespace, what, port string) (address string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, w.kubectlPath, "-n", namespace, "port-forward", "--address=127.0.0.1", what, ":"+port)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	line, _ := lines.ReadString('\n')
	// Forwarding from 127.0.0.1:41773 -> 8080
	if _, err := fmt.Sscanf(line, "Forwarding from %s ->", &address); err != nil {
		cancel()
		_ = cmd.Wait()
		t.Fatalf("port-forward to %s: %q %s", what, line, complaint.String())
	}
	drained := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, lines); close(drained) }()
	t.Cleanup(func() {
		cancel()
		<-drained
		_ = cmd.Wait() // it was ended
	})
	return address
}

// standIn is the stand-in's ledger, for one step.
func (w *world) standIn(t *testing.T) *wechattest.Remote {
	t.Helper()
	return wechattest.NewRemote("http://" + w.forward(t, "wechat", "deployment/fake-wechat", "8081"))
}
