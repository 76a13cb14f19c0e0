// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// StartControllers runs some of Kubernetes' own controllers, such as garbage-collector-controller, until stop is called. The garbage
// collector looks for new kinds only every 30 s, so it should be started after the CRD is installed.
func (e *Environment) StartControllers(names ...string) (stop func() error, err error) {
	binary := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kube-controller-manager")
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("build it with hack/controlplane/build.sh kube-controller-manager: %w", err)
	}
	config := filepath.Join(e.dir, "controllers.kubeconfig")
	if err := os.WriteFile(config, e.KubeConfig, 0o600); err != nil {
		return nil, fmt.Errorf("writing the controllers' kubeconfig: %w", err)
	}
	output := &bytes.Buffer{}
	process := exec.Command(binary, //nolint:gosec,noctx // it is the control plane's own, and stop ends it
		"--kubeconfig="+config, "--controllers="+strings.Join(names, ","), "--leader-elect=false", "--secure-port=0", "--bind-address=127.0.0.1")
	process.Stdout, process.Stderr = output, output
	if err := process.Start(); err != nil {
		return nil, fmt.Errorf("starting kube-controller-manager: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- process.Wait() }()
	return func() error {
		select {
		case err := <-exited:
			return fmt.Errorf("kube-controller-manager ended by itself: %w: %s", err, output)
		default:
		}
		// Not an interrupt: a shell starts what runs in the background with interrupts ignored, and v1.31 does not ask for them.
		if err := process.Process.Signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("ending kube-controller-manager: %w", err)
		}
		select {
		case <-exited: //nolint:errcheck // it was told to end, and its exit code does not matter
			return nil
		case <-time.After(10 * time.Second):
			return errors.Join(errors.New("kube-controller-manager did not end when it was told to"), process.Process.Kill())
		}
	}, nil
}
