// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// kubectl runs the control plane's kubectl with the plugin on its PATH, as a user does.
func (w *world) kubectl(path string, args ...string) result {
	w.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(w.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), args...) //nolint:gosec // our own kubectl
	cmd.Env = append(os.Environ(), "PATH="+path+string(os.PathListSeparator)+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatal(err)
	}
	return result{code: cmd.ProcessState.ExitCode(), out: out.String(), err: errOut.String()}
}

// installPlugin builds the plugin into a folder for the PATH, beside a kubectl for its completion script.
func (w *world) installPlugin() string {
	w.Helper()
	dir := w.TempDir()
	build := exec.CommandContext(w.Context(), "go", "build", "-ldflags", "-s -w -X main.version=v1.2.3", "-o", filepath.Join(dir, "kubectl-wxtoken"), ".") //nolint:gosec // our own package
	if out, err := build.CombinedOutput(); err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	here, err := os.Getwd()
	w.must(err)
	w.must(os.Symlink(filepath.Join(here, "kubectl_complete-wxtoken"), filepath.Join(dir, "kubectl_complete-wxtoken")))
	w.must(os.Symlink(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), filepath.Join(dir, "kubectl")))
	return dir
}

// TestThroughKubectl checks output, kubectl's flags, exit codes and completion when kubectl runs the plugin.
func TestThroughKubectl(t *testing.T) {
	w := newWorld(t, "kubectl")
	path := w.installPlugin()
	w.createToken("shop")
	w.createTokenOnly("empty")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	w.eventuallyState("empty", stateReconciling, v1alpha1.ReasonCredentialsNotFound)

	w.wants(w.kubectl(path, "wxtoken", "list", "-n", w.namespace), exitOK, "NAME    APP ID", "shop    "+w.appID+"   Stable   Ready         1h59m", "TokenValid")
	w.wants(w.kubectl(path, "wxtoken", "version"), exitOK, "kubectl-wxtoken v1.2.3 for wechat.apptoken.dev/v1alpha1")
	w.wants(w.kubectl(path, "wxtoken", "check", "shop", "-n", w.namespace), exitOK, "is the right one")
	w.wants(w.kubectl(path, "wxtoken", "status", "nobody", "-n", w.namespace), exitFailed, "error: namespace", "This shows those that exist:\n  kubectl wxtoken list -A\n")
	w.wants(w.kubectl(path, "wxtoken", "lits"), exitUsage, `unknown command "lits". Did you mean list?`)
	w.wants(w.kubectl(path, "wxtoken", "wait", "empty", "-n", w.namespace, "--timeout=1s"), exitTimeout)
	w.wants(w.kubectl(path, "wxtoken", "list", "-n", w.namespace, "--as", "nobody"), exitFailed, "forbidden", "Ask for the role")
	w.wants(w.kubectl(path, "wxtoken", "list", "--context", "nowhere"), exitFailed, `"nowhere"`)
	w.wants(w.kubectl(path, "wxtoken", "list", "--server", "https://127.0.0.1:1"), exitFailed, "Is the cluster up")
	if r := w.kubectl(path, "plugin", "list", "--name-only"); !strings.Contains(r.out, "kubectl-wxtoken") {
		t.Errorf("kubectl plugin list: %+v", r)
	}

	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"rev"}, []string{"reveal\tPrint the token", "revoke\tEnd a leaked token"}},
		{[]string{"status", "-n", w.namespace, ""}, []string{"shop\tReady, appid " + w.appID, "empty\tReconciling"}},
		{[]string{"status", "-n", w.namespace, "sh"}, []string{"shop"}},
		{[]string{"list", "-o", ""}, []string{"wide", "yaml"}},
		{[]string{"list", "-n", "kube-s"}, []string{"kube-system"}},
		{[]string{"list", "--context", ""}, []string{"envtest"}},
	} {
		r := w.kubectl(path, append([]string{"__complete", "wxtoken"}, c.args...)...)
		w.wants(r, exitOK, c.want...)
	}
	if r := w.kubectl(path, "__complete", "wxtoken", "status", "-n", w.namespace, "shop", ""); strings.Contains(r.out, "empty") {
		t.Errorf("a second name is offered to status:\n%s", r.out)
	}
}

// TestWriteCredentials checks that the command by which status has the AppSecret written repairs each fault of the credentials, and leaves no
// copy of it in an annotation.
func TestWriteCredentials(t *testing.T) {
	w := newWorld(t, "write-credentials")
	w.createSecret("no-key-wechat", map[string]string{"other": "stays"})
	w.createSecret("malformed-wechat", map[string]string{"appSecret": "paste me"})
	w.createSecret("wrong-wechat", map[string]string{"appSecret": strings.Repeat("e", 32)})
	for name, reason := range map[string]string{
		"missing": v1alpha1.ReasonCredentialsNotFound, "no-key": v1alpha1.ReasonCredentialsNotFound,
		"malformed": v1alpha1.ReasonCredentialsMalformed, "wrong": v1alpha1.ReasonAppSecretInvalid,
	} {
		w.createTokenOnly(name)
		w.Eventually(func() string { return lookAt(w.token(name), w.now()).reason() }).Should(gomega.Equal(reason))
		out := w.ok("status", name)
		_, command, _ := strings.Cut(out, "\n      kubectl create ")
		command, _, _ = strings.Cut("kubectl create "+command, "\n")
		paste := exec.CommandContext(t.Context(), "sh", "-c", command) //nolint:gosec // what the plugin printed
		paste.Env = append(os.Environ(), "PATH="+os.Getenv("KUBEBUILDER_ASSETS")+string(os.PathListSeparator)+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig)
		paste.Stdin = strings.NewReader(appSecret + "\n")
		if said, err := paste.CombinedOutput(); err != nil {
			t.Fatalf("%s: %q: %v: %s\n%s", name, command, err, said, out)
		}
		w.eventuallyState(name, stateReady, v1alpha1.ReasonTokenValid)
		secret := &corev1.Secret{}
		w.must(w.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name + "-wechat"}, secret))
		if len(secret.Annotations) > 0 || name == "no-key" && string(secret.Data["other"]) != "stays" {
			t.Errorf("%s: annotations %v, data under %d keys", name, secret.Annotations, len(secret.Data))
		}
	}
}

// TestCompletionScripts checks that there is a completion script for each shell.
func TestCompletionScripts(t *testing.T) {
	w := newBareWorld(t, "scripts")
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := w.ok("completion", shell); !strings.Contains(out, "kubectl-wxtoken") {
			t.Errorf("%s:\n%s", shell, out)
		}
	}
}

// TestHelp checks that the help of each command fits a terminal and leaves out kubectl's own flags.
func TestHelp(t *testing.T) {
	w := newBareWorld(t, "help")
	w.golden("help.txt", w.ok())
	for _, name := range []string{"list", "status", "wait", "doctor", "check", "refresh", "revoke", "suspend", "resume", "reveal", "version", "options"} {
		out := w.ok(name, "--help")
		if strings.Contains(out, "--kubeconfig") || !strings.Contains(out, "kubectl wxtoken "+name) {
			t.Errorf("%s --help:\n%s", name, out)
		}
		for line := range strings.Lines(out) {
			if len(line) > 141 {
				t.Errorf("%s --help has a line of %d characters: %s", name, len(line), line)
			}
		}
		w.wants(w.wxtoken(name, "--nonsense"), exitUsage, "--nonsense", name+" --help")
	}
	w.wants(w.wxtoken("options"), exitOK, "--kubeconfig", "--as")
}
