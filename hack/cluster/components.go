// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"embed"
	"errors"
	"os"
	"path/filepath"
)

//go:embed config
var configFiles embed.FS

const (
	pauseImage   = "docker.io/library/pause:cluster"
	coreDNSImage = "docker.io/library/coredns:cluster"
)

// component is a process that is started again when it ends.
type component struct {
	name string
	// args begin with the program.
	args []string
}

func (c *cluster) etcd() component {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return c.binary("etcd", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
}

func (c *cluster) apiServer() component {
	return c.binary("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address="+nodeIP, "--secure-port="+apiPort, "--service-cluster-ip-range="+serviceIPs,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--client-ca-file="+c.pki("ca.crt"),
		"--tls-cert-file="+c.pki("apiserver.crt"), "--tls-private-key-file="+c.pki("apiserver.key"),
		// The node's name is in no DNS.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority="+c.pki("ca.crt"),
		"--kubelet-client-certificate="+c.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key="+c.pki("apiserver-kubelet-client.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.pki("service-account.key"),
		"--service-account-signing-key-file="+c.pki("service-account.key"))
}

func (c *cluster) controllerManager() component {
	config := c.kubeconfig("kube-controller-manager")
	return c.binary("kube-controller-manager", "--kubeconfig="+config,
		"--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--bind-address=127.0.0.1", "--leader-elect=false", "--use-service-account-credentials",
		"--service-account-private-key-file="+c.pki("service-account.key"), "--root-ca-file="+c.pki("ca.crt"))
}

func (c *cluster) scheduler() component {
	config := c.kubeconfig("kube-scheduler")
	return c.binary("kube-scheduler", "--kubeconfig="+config,
		"--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--bind-address=127.0.0.1", "--leader-elect=false")
}

func (c *cluster) kubelet() component {
	return c.binary("kubelet", "--config="+c.path("etc", "kubelet.yaml"), "--kubeconfig="+c.kubeconfig("kubelet-client"),
		"--hostname-override="+nodeName, "--node-ip="+nodeIP)
}

func (c *cluster) kubeProxy() component {
	return c.binary("kube-proxy", "--config="+c.path("etc", "kube-proxy.yaml"))
}

func (c *cluster) containerd() component {
	return component{name: "containerd", args: []string{"containerd", "--config", c.path("etc", "containerd.toml")}}
}

// binary is a component from the control plane's folder.
func (c *cluster) binary(name string, args ...string) component {
	return component{name: name, args: append([]string{filepath.Join(c.assets, name)}, args...)}
}

// writeConfig writes the files that the components are started with.
func (c *cluster) writeConfig() error {
	plugins, err := pluginDir()
	if err != nil {
		return err
	}
	etc := func(name string) string { return c.path("etc", name) }
	return errors.Join(
		os.WriteFile(etc("resolv.conf"), nil, 0o644),
		c.render("kubelet.yaml", etc("kubelet.yaml"), map[string]string{
			"NodeIP": nodeIP, "CA": c.pki("ca.crt"), "Certificate": c.pki("kubelet.crt"), "Key": c.pki("kubelet.key"),
			"DNS": dnsIP, "ResolvConf": etc("resolv.conf"), "CgroupRoot": c.cgroup(),
		}),
		c.render("kube-proxy.yaml", etc("kube-proxy.yaml"), map[string]string{
			"Kubeconfig": c.kubeconfig("kube-proxy"), "PodCIDR": podCIDR, "Node": nodeName,
		}),
		c.render("containerd.toml", etc("containerd.toml"), map[string]string{
			"Pause": pauseImage, "Plugins": plugins, "CNI": c.path("cni"),
		}),
		c.render("cni.conflist", c.path("cni", "10-pods.conflist"), map[string]string{"PodCIDR": podCIDR}),
		c.render("coredns.yaml", etc("coredns.yaml"), map[string]string{"Image": coreDNSImage, "DNS": dnsIP}),
	)
}

// pluginDir is where the CNI plugins are: in Debian's folder or in the one that most others use.
func pluginDir() (string, error) {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if _, err := os.Stat(filepath.Join(dir, "ptp")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("the CNI plugins are missing")
}
