// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command cluster runs a real Kubernetes cluster of one node from this repository's own builds, for the end-to-end tests and to
// try the operator: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, CoreDNS and containerd.
//
//	cluster up          start it, unless it runs, and print what to export
//	cluster down        end it and remove everything that it made
//	cluster load        load image archives
//	cluster restart     restart a component, such as the kubelet
//	cluster exec        run a command among its processes, with their network and mounts
//	cluster check       say what this machine lacks; it needs no control plane
//	cluster kubeconfig  print the path of its kubeconfig, if it runs
//
// All of it runs in namespaces of its own, below one process: its links, firewall rules and mounts are not the machine's, and they
// are gone when that process is. One folder has its files. Only the API server can be reached from outside, on a loopback port.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	// nft and others are there, and not in the PATH of a root who became one by su.
	_ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

const usage = "usage: cluster [--dir DIR] [--assets DIR] up|down|load FILE…|restart COMPONENT|exec COMMAND…|check|kubeconfig"

func run(ctx context.Context, args []string) error {
	var c cluster
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprintln(flags.Output(), usage); flags.PrintDefaults() }
	flags.StringVar(&c.dir, "dir", defaultDir(), "folder for everything that the cluster keeps")
	flags.StringVar(&c.assets, "assets", os.Getenv("KUBEBUILDER_ASSETS"), "folder with the binaries of the control plane")
	flags.StringVar(&c.helm, "helm", "", "helm, for the PATH that up prints")
	flags.StringVar(&c.images, "images", "", "folder with the archives pause.tar and coredns.tar")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New(usage)
	}
	if err := c.resolve(); err != nil {
		return err
	}
	what, rest := flags.Arg(0), flags.Args()[1:]
	switch what {
	case "up":
		return c.up(ctx)
	case "down":
		return c.down(ctx)
	case "load":
		return c.load(ctx, rest)
	case "restart":
		return c.restart(ctx, rest)
	case "exec":
		return c.exec(rest)
	case "check":
		err := c.check()
		if err == nil {
			fmt.Println("this machine has what a cluster needs")
		}
		return err
	case "kubeconfig":
		return c.printKubeconfig()
	case initArg:
		return c.runInside(ctx)
	}
	return fmt.Errorf("%q: %s", what, usage)
}

// The addresses exist inside the cluster's own network only, so they cannot collide with anybody's.
const (
	nodeName   = "node"
	nodeIP     = "10.245.0.1"
	podCIDR    = "10.244.0.0/24"
	serviceIPs = "10.96.0.0/16"
	apiIP      = "10.96.0.1"
	dnsIP      = "10.96.0.10"
	apiPort    = "6443"
)

// cluster is where everything is.
type cluster struct {
	dir    string
	assets string
	images string
	// helm is for the user; the cluster does not need it.
	helm string
}

func defaultDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(cache, "wechat-token-operator", "cluster")
}

// hidden are the folders that the cluster's processes see with other contents than the machine has.
func hidden() []string { return []string{"/run", "/var/lib", "/var/log", "/proc"} }

func (c *cluster) resolve() (err error) {
	for _, dir := range []*string{&c.dir, &c.assets, &c.images, &c.helm} {
		if *dir == "" {
			continue
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	if c.dir == "" {
		return errors.New("--dir is needed: there is no cache folder")
	}
	for _, h := range hidden() {
		if strings.HasPrefix(c.dir+"/", h+"/") {
			return fmt.Errorf("--dir %s: choose a folder outside of %s", c.dir, h)
		}
	}
	return nil
}

// path is a file in the cluster's folder.
func (c *cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}
