// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func newTestCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{dir: filepath.Join(t.TempDir(), "cluster")}
	for _, dir := range []string{"pki", "etc"} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestPKI(t *testing.T) {
	c := newTestCluster(t)
	if err := c.writePKI("https://127.0.0.1:12345"); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(c.pki("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, tc := range []struct {
		file, user, group, host string
		usage                   x509.ExtKeyUsage
	}{
		{"apiserver", "apiserver", "", "127.0.0.1", x509.ExtKeyUsageServerAuth},
		{"apiserver", "apiserver", "", "kubernetes.default.svc", x509.ExtKeyUsageServerAuth},
		{"apiserver", "apiserver", "", apiIP, x509.ExtKeyUsageServerAuth},
		{"kubelet", "kubelet", "", nodeIP, x509.ExtKeyUsageServerAuth},
		// Node authorization goes by these names.
		{"kubelet-client", "system:node:node", "system:nodes", "", x509.ExtKeyUsageClientAuth},
		{"kube-proxy", "system:kube-proxy", "", "", x509.ExtKeyUsageClientAuth},
		{"admin", "kubernetes-admin", "system:masters", "", x509.ExtKeyUsageClientAuth},
	} {
		pair, err := tls.LoadX509KeyPair(c.pki(tc.file+".crt"), c.pki(tc.file+".key"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: tc.host, KeyUsages: []x509.ExtKeyUsage{tc.usage}})
		if err != nil {
			t.Errorf("%s for %q: %v", tc.file, tc.host, err)
		}
		if got := pair.Leaf.Subject; got.CommonName != tc.user || strings.Join(got.Organization, ",") != tc.group {
			t.Errorf("%s is %s", tc.file, got)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig("admin"))
	if err != nil || config.Host != "https://127.0.0.1:12345" {
		t.Errorf("the kubeconfig gives %+v, %v", config, err)
	}
	_ = filepath.WalkDir(c.dir, func(path string, entry os.DirEntry, err error) error {
		if info, _ := entry.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v, %v", path, info.Mode(), err)
		}
		return nil
	})
}

// A folder that is somebody else's is never deleted.
func TestClearsItsOwnFolderOnly(t *testing.T) {
	c := &cluster{dir: t.TempDir()}
	precious := c.path("thesis.txt")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.clear(); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("clearing another folder: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Fatal("it was deleted")
	}
	if err := os.WriteFile(c.path(marker), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.clear(); err != nil && os.Geteuid() == 0 {
		t.Error(err)
	}
	if _, err := os.Stat(precious); err == nil {
		t.Error("its own folder is still there")
	}
}

func TestRefusesHiddenFolders(t *testing.T) {
	for _, dir := range []string{"/run/x", "/var/lib/x", "/var/log", ""} {
		if c := (cluster{dir: dir}); c.resolve() == nil {
			t.Errorf("%q was accepted, although the cluster would not see it", dir)
		}
	}
	if c := (cluster{dir: "/var/libx"}); c.resolve() != nil {
		t.Error("a folder was refused for its neighbour")
	}
}

// A process id that somebody else has by now is not ended.
func TestKnowsItsProcess(t *testing.T) {
	c := newTestCluster(t)
	if p, err := c.process(); p != nil || err != nil {
		t.Errorf("without a file: %v, %v", p, err)
	}
	if err := c.remember(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if p, err := c.process(); p == nil || err != nil || p.pid != os.Getpid() {
		t.Errorf("its own: %v, %v", p, err)
	}
	content, _ := os.ReadFile(c.path("process"))
	for _, other := range []string{strings.TrimSpace(string(content)) + "1", "999999999 1"} {
		if err := os.WriteFile(c.path("process"), []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := c.process(); p != nil || err != nil {
			t.Errorf("%q is taken for it: %v, %v", other, p, err)
		}
	}
}

func TestForward(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inner.Close() }()
	go func() {
		for {
			conn, err := inner.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, io.LimitReader(conn, 5))
			_ = conn.Close()
		}
	}()
	outer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = outer.Close() }()
	file, err := outer.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	go forward(file, inner.Addr().String())
	for range 3 {
		conn, err := net.Dial("tcp", outer.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); string(got) != "hello" {
			t.Errorf("got %q, %v", got, err)
		}
		_ = conn.Close()
	}
}

// What make cluster needs is written down in other places too.
func TestInstallIsSaidAlike(t *testing.T) {
	packages := strings.TrimPrefix(install, "apt-get install -y ")
	for _, file := range []string{"README.md", "../../.ci/run"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(content), packages) {
			t.Errorf("%s does not install %s", file, packages)
		}
	}
}

func TestSaysWhatToInstall(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gets so far")
	}
	t.Setenv("PATH", t.TempDir())
	err := new(cluster).check()
	if err == nil || !strings.Contains(err.Error(), "containerd, ctr, runc, ip, nft") || !strings.HasSuffix(err.Error(), "\n  "+install) {
		t.Errorf("a machine without packages: %v", err)
	}
}

// TestOperatorGoesToItsClusterOnly runs the targets of make with the kubeconfig of another cluster exported. kubectl is a stand-in that
// tells which one it was given.
func TestOperatorGoesToItsClusterOnly(t *testing.T) {
	programs := t.TempDir()
	kubectl := []byte("#!/bin/sh\necho kubectl for $KUBECONFIG >&2\nexit 1\n")
	if err := os.WriteFile(filepath.Join(programs, "kubectl"), kubectl, 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	for _, file := range []string{"../../Makefile", "operator.sh", "qrcode.sh"} {
		if _, err := os.Stat(file); err != nil { // so that Go's cache of test results depends on it
			t.Fatal(err)
		}
	}
	program := filepath.Join(programs, "cluster")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, target := range []string{"cluster-operator", "cluster-qrcode"} {
		for _, running := range []bool{false, true} {
			c := newTestCluster(t)
			want := "no cluster runs in " + c.dir + ": run make cluster first"
			if running {
				if err := c.remember(os.Getpid()); err != nil {
					t.Fatal(err)
				}
				want = "kubectl for " + c.kubeconfig("admin")
			}
			// Neither the program nor the images are built, nor loaded into what is no cluster.
			cmd := exec.CommandContext(t.Context(), "make", "-C", "../..", "-o", "bin-cluster", "-o", "cluster-load", target,
				"CLUSTER="+program+" --dir "+c.dir)
			cmd.Env = append(os.Environ(), "MAKEFLAGS=", "KUBECONFIG=/production", "KUBEBUILDER_ASSETS="+programs)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "/production") {
				t.Errorf("%s, a cluster runs: %t: %v, want %q in\n%s", target, running, err, want, out)
			}
			if !running && strings.Contains(string(out), "kubectl for") {
				t.Errorf("%s runs kubectl without a cluster:\n%s", target, out)
			}
		}
	}
}

// machine is what a cluster could leave behind.
func machine(t *testing.T, dir string) map[string]string {
	t.Helper()
	state := map[string]string{}
	for what, command := range map[string]string{
		"links":          "ip -o link | cut -d: -f2",
		"addresses":      "ip -o address | awk '{print $2, $4}'",
		"routes":         "ip route",
		"firewall":       "nft list tables",
		"mounts":         "cut -d' ' -f5- /proc/self/mountinfo",
		"control groups": "find /sys/fs/cgroup -type d -name 'wechat-token-operator-*' -o -type d -name 'kubepods*'",
		"namespaces":     "ls /run/netns 2>/dev/null || true",
		"folders":        "ls -d /run/containerd /var/lib/containerd /var/lib/kubelet /var/lib/cni /etc/cni /var/log/pods /var/log/containers 2>/dev/null || true",
		"forwarding":     "cat /proc/sys/net/ipv4/ip_forward",
		"processes":      "ps -eo args | grep -F '" + dir + "' | grep -v grep || true",
	} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", what, err, out)
		}
		state[what] = string(out)
	}
	return state
}

// The whole life of a cluster leaves the machine as it was.
func TestLeavesNothingBehind(t *testing.T) {
	program := os.Getenv("CLUSTER")
	if program == "" {
		t.Skip("make e2e runs it, as root, with the program in CLUSTER and its images in CLUSTER_IMAGES")
	}
	dir := filepath.Join(t.TempDir(), "cluster")
	run := func(what string) (string, error) {
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "--dir", dir, "--images", os.Getenv("CLUSTER_IMAGES"), what)
		out, err := cmd.CombinedOutput()
		t.Logf("%s: %v: %s", what, err, out)
		return string(out), err
	}
	before := machine(t, dir)
	t.Cleanup(func() { _, _ = run("down") })
	first, err := run("up")
	if err != nil {
		t.Fatal(err)
	}
	process, _ := os.ReadFile(filepath.Join(dir, "process"))
	again, err := run("up")
	if now, _ := os.ReadFile(filepath.Join(dir, "process")); string(now) != string(process) {
		t.Error("a second cluster was started in the same folder")
	}
	_, export, _ := strings.Cut(first, "\n")
	if err != nil || export == "" || !strings.HasSuffix(again, export) {
		t.Errorf("a cluster that runs is not told of with %q: %v, %q", export, err, again)
	}
	if _, err := run("down"); err != nil {
		t.Fatal(err)
	}
	if _, err := run("down"); err != nil {
		t.Errorf("ending it again: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("its folder is still there")
	}
	for what, now := range machine(t, dir) {
		if now != before[what] {
			t.Errorf("%s were\n%s\nand are\n%s", what, before[what], now)
		}
	}
}
