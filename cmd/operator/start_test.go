// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	"k8s.io/client-go/rest"

	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// TestMissingCRD starts operators in a cluster without the CRD, one for all namespaces and one for a list of them. Each must say how to
// install it, and serve once it is installed.
func TestMissingCRD(t *testing.T) {
	t.Parallel() // it waits for a process
	g := gomega.NewWithT(t)
	env := testenv.ForTest(t, testenv.Bare())
	probe := &http.Client{Timeout: 5 * time.Second}
	ready := func(address string) func() string {
		return func() string {
			res, err := probe.Get("http://" + address + "/readyz/caches")
			if err != nil {
				return err.Error()
			}
			defer res.Body.Close() //nolint:errcheck // it is read
			body, err := io.ReadAll(res.Body)
			g.Expect(err).NotTo(gomega.HaveOccurred())
			return string(body)
		}
	}
	processes := map[string]*process{}
	for _, args := range [][]string{nil, {"--namespaces=default"}} {
		address, err := testenv.FreeAddress()
		if err != nil {
			t.Fatal(err)
		}
		processes[address] = startProcess(t, env.KubeConfig, append(args, "--health-probe-bind-address="+address)...)
	}
	for address, p := range processes {
		g.Eventually(ready(address), 20*time.Second).Should(gomega.ContainSubstring(kube.InstallCRD))
		g.Expect(strings.Count(p.logged(), kube.InstallCRD)).To(gomega.Equal(1), "one line of the log tells")
		g.Expect(p.logged()).NotTo(gomega.ContainSubstring("a namespace of --namespaces"), "the namespace is not the reason")
	}

	path := filepath.Join(t.TempDir(), "kubeconfig")
	g.Expect(os.WriteFile(path, env.KubeConfig, 0o600)).To(gomega.Succeed())
	args := append(strings.Fields(kube.InstallCRD)[1:], "--kubeconfig="+path)
	kubectl := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), args...) //nolint:gosec // a test's
	kubectl.Dir = "../.."
	out, err := kubectl.CombinedOutput()
	g.Expect(err).NotTo(gomega.HaveOccurred(), string(out))
	for address, p := range processes {
		g.Eventually(ready(address), 20*time.Second).Should(gomega.Equal("ok"))
		p.terminate(t, 10*time.Second)
	}

	discovery, err := env.Requests(func(r testenv.Request) bool {
		return strings.HasPrefix(r.UserAgent, "wechat-token-operator/") && r.Object.Resource == ""
	})
	g.Expect(err).NotTo(gomega.HaveOccurred())
	g.Expect(discovery).To(gomega.BeEmpty(), "the operator needs no discovery")
}

// TestCachesMayTakeTheirTime holds that the process does not end because its caches are not filled, as controller-runtime would end
// it after two minutes.
func TestCachesMayTakeTheirTime(t *testing.T) {
	opts := parse(t)
	if err := opts.complete(); err != nil {
		t.Fatal(err)
	}
	mgr, _, err := newManager(&rest.Config{Host: "http://127.0.0.1:1"}, opts, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if got := mgr.GetControllerOptions().CacheSyncTimeout; got < 365*24*time.Hour {
		t.Errorf("the controller waits %s for its caches", got)
	}
}
