// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startPatience is for a machine that is busy with other things.
const startPatience = 5 * time.Minute

// up starts the cluster, unless it runs, and waits until pods can run and find each other.
func (c *cluster) up(ctx context.Context) (err error) {
	if err := errors.Join(c.check(), c.checkAssets()); err != nil {
		return err
	}
	running, err := c.process()
	if err != nil {
		return err
	}
	start := time.Now()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\nlogs are in %s; run it again to go on, or end it with cluster down", err, c.path("logs"))
		}
	}()
	if running == nil {
		if err := c.launch(ctx); err != nil {
			return err
		}
	}
	// A cluster that runs may have been left before it was ready, so it goes through the steps too.
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for _, step := range []func(context.Context) error{c.waitForAPI, c.loadOwn, c.applyCoreDNS, c.waitForNode} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if running == nil {
		fmt.Printf("a cluster of one node runs after %s; all of it is in %s. To use it:\n", time.Since(start).Round(time.Second), c.dir)
	} else {
		fmt.Printf("a cluster of one node runs already; all of it is in %s. To use it:\n", c.dir)
	}
	path := c.assets
	if c.helm != "" {
		path += ":" + filepath.Dir(c.helm)
	}
	fmt.Printf("  export KUBECONFIG=%s PATH=%s:$PATH\n", c.kubeconfig("admin"), path)
	return nil
}

// printKubeconfig is for scripts that must reach this cluster and no other.
func (c *cluster) printKubeconfig() error {
	if _, err := c.running(); err != nil {
		return err
	}
	fmt.Println(c.kubeconfig("admin"))
	return nil
}

// launch starts the first process in namespaces of its own.
func (c *cluster) launch(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // the cluster has its own handle
	if err := c.prepare("https://" + listener.Addr().String()); err != nil {
		return err
	}
	api, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	log, err := os.Create(c.path("logs", "cluster.log"))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	//nolint:gosec,noctx // this program; it outlives this process
	cmd := exec.Command(self, "--dir", c.dir, "--assets", c.assets, initArg)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{api} // the first extra file is listenerFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true}
	if err := errors.Join(cmd.Start(), api.Close(), log.Close()); err != nil {
		return fmt.Errorf("starting in namespaces of its own: %w", err)
	}
	return c.remember(cmd.Process.Pid)
}

// namespaces are those that a machine has one of.
const namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS

// prepare makes the folder anew.
func (c *cluster) prepare(apiServer string) error {
	if err := c.clear(); err != nil {
		return err
	}
	for _, dir := range []string{"pki", "etc", "cni", "etcd", "logs", "pids"} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(c.path(marker), nil, 0o600); err != nil {
		return err
	}
	return errors.Join(c.writePKI(apiServer), c.writeConfig(), c.makeCgroups())
}

func (c *cluster) waitForAPI(ctx context.Context) error {
	return c.eventually(ctx, "the API server is ready", func() error {
		return c.kubectl(ctx, "get", "--raw", "/readyz")
	})
}

// loadOwn loads the images that the cluster itself needs.
func (c *cluster) loadOwn(ctx context.Context) error {
	if err := c.eventually(ctx, "containerd answers", func() error { return c.inside(ctx, nil, ctr("version")...) }); err != nil {
		return err
	}
	return c.load(ctx, []string{filepath.Join(c.images, "pause.tar"), filepath.Join(c.images, "coredns.tar")})
}

func (c *cluster) applyCoreDNS(ctx context.Context) error {
	return c.kubectl(ctx, "apply", "--server-side", "-f", c.path("etc", "coredns.yaml"))
}

func (c *cluster) waitForNode(ctx context.Context) error {
	if err := c.eventually(ctx, "the node is ready", func() error {
		return c.kubectl(ctx, "wait", "--for=condition=Ready", "node/"+nodeName, "--timeout=10s")
	}); err != nil {
		return err
	}
	return c.kubectl(ctx, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=3m")
}

func (c *cluster) kubectl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.assets, "kubectl"), args...) //nolint:gosec // the control plane's own
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig("admin"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// eventually tries until it works, the time is up or the cluster ended.
func (c *cluster) eventually(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if p, processErr := c.process(); p == nil {
			return errors.Join(fmt.Errorf("waiting until %s: the cluster ended", what), processErr)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s: %w", what, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}
