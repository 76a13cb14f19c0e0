// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// initArg starts the process that everything runs below, the first one of its namespaces.
const initArg = "init"

// listenerFD is the API server's port on the machine's loopback address, opened before there were namespaces.
const listenerFD = 3

// runInside is that process. When it ends, the kernel ends all others and takes links, rules and mounts with them.
func (c *cluster) runInside(ctx context.Context) error {
	if os.Getpid() != 1 {
		return errors.New("init is for cluster up alone")
	}
	if err := errors.Join(c.mount(), c.network(ctx)); err != nil {
		return err
	}
	go forward(os.NewFile(listenerFD, "api"), "127.0.0.1:"+apiPort)
	s := newSupervisor(c.path("logs"), c.path("pids"))
	// They are started at once: each tries again until those that it needs are there.
	for _, component := range []component{
		c.etcd(), c.containerd(), c.apiServer(), c.controllerManager(), c.scheduler(), c.kubelet(), c.kubeProxy(),
	} {
		s.start(component)
	}
	s.reap()
	return nil
}

// mount gives the cluster's processes folders of their own where programs write by habit.
func (c *cluster) mount() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := syscall.Mount("run", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	for _, dir := range []string{"/var/lib", "/var/log"} {
		own := c.path(dir)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(own, dir, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", dir, err)
		}
	}
	// A volume that is mounted into a pod must be seen by containerd, which has the same mounts, and by nobody else.
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing mounts: %w", err)
	}
	return nil
}

// network gives the node its address. The plugin for pods makes a link for each, and a route to it.
func (c *cluster) network(ctx context.Context) error {
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", nodeIP + "/32", "dev", "lo"},
		// Something to be routed, so that the firewall can send it on to a pod.
		{"route", "add", serviceIPs, "dev", "lo"},
	} {
		if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil { //nolint:gosec // constants
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("letting packets through: %w", err)
	}
	return nil
}
