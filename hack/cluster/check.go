// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// install is what a machine with Debian's packages needs.
const install = "apt-get install -y containerd runc containernetworking-plugins iproute2 nftables"

// check says everything that this machine lacks. What is built from source is not part of it: checkAssets looks for that.
func (c *cluster) check() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may make namespaces, mounts and links: run it as root")
	}
	if missing := missingPackages(); len(missing) > 0 {
		return fmt.Errorf("missing: %s; on Debian and Ubuntu, install them with\n  %s", strings.Join(missing, ", "), install)
	}
	if missing := c.lacks(); len(missing) > 0 {
		return fmt.Errorf("missing: %s", strings.Join(missing, ", "))
	}
	return nil
}

// missingPackages names what the distribution has to bring and is not there.
func missingPackages() (missing []string) {
	for _, program := range []string{"containerd", "ctr", "runc", "ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if _, err := pluginDir(); err != nil {
		missing = append(missing, "CNI plugins")
	}
	return missing
}

// checkAssets says which binaries of the control plane are not there.
func (c *cluster) checkAssets() error {
	var missing []string
	for _, name := range []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
	} {
		if _, err := os.Stat(filepath.Join(c.assets, name)); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("--assets %q lacks %s: give the folder that hack/controlplane/build.sh all prints",
			c.assets, strings.Join(missing, ", "))
	}
	return nil
}

// lacks is what the kernel does not have or does not allow, for example in a container.
func (c *cluster) lacks() (missing []string) {
	probe := exec.Command("ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1") //nolint:noctx // ends at once
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if out, err := probe.CombinedOutput(); err != nil {
		missing = append(missing, fmt.Sprintf("namespaces with links of their own (%v %s)", err, strings.TrimSpace(string(out))))
	}
	const rules = "add table inet probe; add chain inet probe c { type nat hook prerouting priority 0; }"
	firewall := exec.Command("nft", rules) //nolint:noctx // ends at once
	firewall.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if out, err := firewall.CombinedOutput(); err != nil {
		missing = append(missing, fmt.Sprintf("nftables in the kernel (%v %s)", err, strings.TrimSpace(string(out))))
	}
	if kinds, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(kinds), "\toverlay\n") {
		missing = append(missing, "overlay file systems in the kernel")
	}
	if _, err := os.Stat("/dev/kmsg"); err != nil {
		missing = append(missing, "/dev/kmsg, which the kubelet reads")
	}
	if err := c.tryCgroups(); err != nil {
		missing = append(missing, fmt.Sprintf("control groups that may be changed (%v)", err))
	}
	return missing
}

// tryCgroups makes control groups and removes them, unless a cluster uses them.
func (c *cluster) tryCgroups() error {
	if p, err := c.process(); p != nil || err != nil {
		return err
	}
	return errors.Join(c.makeCgroups(), c.removeCgroups())
}
