// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const (
	root            = "../.."
	operatorSpace   = "wechat-token-operator-system"
	operator        = "wechat-token-operator"
	operatorPods    = "control-plane=controller-manager"
	shop            = "shop"
	wechatURL       = "https://fake-wechat.wechat.svc"
	firstTag        = "dev"
	secondTag       = "next"
	patience        = 3 * time.Minute
	operatorRunning = "deployment/wechat-token-operator-controller-manager"
)

// world is the cluster and what the steps tell each other.
type world struct {
	client.Client

	typed *kubernetes.Clientset
	// programs of the control plane's folder and of this repository.
	kubectlPath, helmPath, pluginPath string
	// restartKubelet is a command for the node; empty if it cannot be done.
	restartKubelet []string
	// nodeExec is the beginning of a command that runs another one on the node; empty if there is none.
	nodeExec []string
	// ca is the stand-in's certificate authority.
	ca    string
	watch *observer
	users []tokenUser
	table table
}

func TestE2E(t *testing.T) {
	if os.Getenv("E2E") == "" {
		t.Skip("make e2e runs it on a cluster")
	}
	w := newWorld(t)
	defer w.table.print(os.Stdout)
	for _, step := range w.steps() {
		start := time.Now()
		before := w.refusals(t)
		if !t.Run(strings.ReplaceAll(step.name, " ", "_"), func(t *testing.T) { step.run(t) }) {
			w.diagnose(t)
			return // what follows builds on it
		}
		w.table.add(step.name, time.Since(start), len(w.refusals(t))-len(before))
	}
	w.judgeUsers(t)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	w := &world{
		kubectlPath: filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), helmPath: os.Getenv("HELM"),
		pluginPath:     os.Getenv("WXTOKEN"),
		restartKubelet: strings.Fields(os.Getenv("E2E_RESTART_KUBELET")), nodeExec: strings.Fields(os.Getenv("E2E_NODE_EXEC")),
	}
	if w.Client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	if w.typed, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	w.watch = observe(t, w.typed)
	return w
}

// kubectl runs kubectl and gives what it printed.
func (w *world) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.command(t.Context(), nil, w.kubectlPath, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// apply applies manifests.
func (w *world) apply(t *testing.T, manifests string) {
	t.Helper()
	if _, err := w.command(t.Context(), strings.NewReader(manifests), w.kubectlPath, "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func (w *world) helm(t *testing.T, args ...string) {
	t.Helper()
	if _, err := w.command(t.Context(), nil, w.helmPath, append(args, "--namespace", operatorSpace)...); err != nil {
		t.Fatal(err)
	}
}

// command runs a program and gives what it printed; the error has it too.
func (w *world) command(ctx context.Context, stdin io.Reader, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin = stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), err
}

// diagnose shows the state in which a step failed.
func (w *world) diagnose(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "pods,wxtoken", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"-n", operatorSpace, "logs", "-l", operatorPods, "--tail=40", "--prefix"},
	} {
		out, err := w.command(context.WithoutCancel(t.Context()), nil, w.kubectlPath, args...)
		lines := strings.Split(out, "\n")
		t.Logf("kubectl %s (%v):\n%s", strings.Join(args, " "), err, strings.Join(lines[max(0, len(lines)-80):], "\n"))
	}
}
