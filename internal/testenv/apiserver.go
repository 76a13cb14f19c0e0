// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
)

// APIServer is a further kube-apiserver on the control plane's etcd. A test can kill it and start it again while the first one goes on.
type APIServer struct {
	// Host is its URL. It accepts the same users as the control plane's first API server.
	Host string

	path    string
	args    []string
	client  *http.Client
	process *exec.Cmd
}

// AddAPIServer returns a further API server, which has not been started.
func (e *Environment) AddAPIServer() (*APIServer, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("finding a free port: %w", err)
	}
	first := e.env.ControlPlane.GetAPIServer()
	in := func(name string) string { return filepath.Join(first.CertDir, name) }
	a := &APIServer{Host: "https://" + address, path: first.Path, args: []string{
		"--etcd-servers=" + first.EtcdURL.String(),
		"--bind-address=127.0.0.1", "--secure-port=" + port,
		"--cert-dir=" + first.CertDir,
		"--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
		"--disable-admission-plugins=ServiceAccount",
		"--service-account-issuer=" + first.SecureServing.URL("https", "/").String(),
		"--service-account-key-file=" + in("sa-signer.crt"), "--service-account-signing-key-file=" + in("sa-signer.key"),
	}}
	for _, flag := range [...]string{"client-ca-file", "enable-admission-plugins"} {
		for _, value := range first.Configure().Get(flag).Get(nil) {
			a.args = append(a.args, "--"+flag+"="+value)
		}
	}
	config := rest.CopyConfig(e.Config)
	config.Host = a.Host
	if a.client, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	return a, nil
}

// Start starts the process and waits until it is ready.
func (a *APIServer) Start(ctx context.Context) error {
	a.process = exec.Command(a.path, a.args...) //nolint:gosec,noctx // it is the control plane's own, and Kill ends it
	if err := a.process.Start(); err != nil {
		return fmt.Errorf("starting the API server: %w", err)
	}
	for !a.ready(ctx) {
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), a.Kill())
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

func (a *APIServer) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Host+"/readyz", nil)
	if err != nil {
		return false
	}
	res, err := a.client.Do(req)
	if err != nil {
		return false
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// Kill kills the process and waits for its end. It may be called if the process does not run.
func (a *APIServer) Kill() error {
	if a.process == nil {
		return nil
	}
	err := a.process.Process.Kill()
	_ = a.process.Wait() // the error says that it was killed
	a.process = nil
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
