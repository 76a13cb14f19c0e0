// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// kubeconfig is a file with access to the API server as its administrator.
var kubeconfig string

// TestCommands runs commands of the documents as they are there, in the order of somebody who begins, and looks at what
// they bring about.
func TestCommands(t *testing.T) {
	secret := func() *corev1.Secret {
		t.Helper()
		s := &corev1.Secret{}
		if err := api.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "shop-wechat"}, s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	steps := []struct {
		page, says, stdin, prints string
		check                     func() bool
	}{
		// Each names a block by what only it has.
		{page: "README.md", says: "kubectl create namespace shop", stdin: "old\n", check: func() bool {
			return string(secret().Data["appSecret"]) == "old\n"
		}},
		{page: "docs/quickstart.md", says: "kubectl apply -f - <<'YAML'", prints: "shop created"},
		{page: "docs/quickstart.md", says: "kubectl get wxtoken -A --no-headers", check: func() bool {
			return secret().Labels[v1alpha1.LabelCredentials] == "true"
		}},
		{page: "docs/troubleshooting.md", says: "--dry-run=client", stdin: "new\n", check: func() bool {
			s := secret()
			return string(s.Data["appSecret"]) == "new\n" && s.Labels[v1alpha1.LabelCredentials] == "true"
		}},
		{page: "docs/quickstart.md", says: "kubectl -n shop describe wxtoken shop", prints: "wx0123456789abcdef"},
		{page: "docs/threat-model.md", says: "revoke-requested-at", prints: "annotated"},
		{page: "docs/runbooks/WeChatAppTokenExpired.md", says: "check-requested-at", prints: "annotated"},
	}
	// The other tests dry-run manifests of the same name.
	t.Cleanup(func() {
		if out, err := kubectl(context.WithoutCancel(t.Context()), "kubectl -n shop delete wxtoken,secret --all", ""); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	// A namespace cannot be created twice, so the commands of the quickstart are compared with those that are run.
	const first = "kubectl create namespace shop"
	if readme, quickstart := blockOf(t, "README.md", first), blockOf(t, "docs/quickstart.md", first); readme != quickstart {
		t.Errorf("README.md stores the AppSecret by\n%s\nand docs/quickstart.md by\n%s", readme, quickstart)
	}
	for _, step := range steps {
		out, err := kubectl(t.Context(), blockOf(t, step.page, step.says), step.stdin)
		if err != nil || !strings.Contains(out, step.prints) || step.check != nil && !step.check() {
			t.Errorf("%s: the command with %q did not do what the page says: %v: %s", step.page, step.says, err, out)
		}
	}
}

// logsOfPods is a command for the logs of all pods with some labels. Unless told otherwise, kubectl prints the last 10 lines of each.
var logsOfPods = regexp.MustCompile("kubectl [^\n`|]*\\blogs [^\n`|]*(-l|--selector)[ =][^\n`|]*")

// TestLogs: every command for the logs of pods that labels select says how many lines are wanted.
func TestLogs(t *testing.T) {
	found := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{".git", "bin", "dist", "node_modules"}, d.Name()) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, "_test.go") || !slices.Contains([]string{".md", ".go", ".txt", ".yaml", ".sh"}, filepath.Ext(path)) {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, command := range logsOfPods.FindAllString(string(raw), -1) {
			found++
			if !strings.Contains(command, "--tail") {
				t.Errorf("%s: %s", path, command)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 10 {
		t.Errorf("only %d commands were found: does the test still read them?", found)
	}
}

// blockOf is the first block of commands of a page with this text.
func blockOf(t *testing.T, path, text string) string {
	t.Helper()
	for _, p := range pages(t) {
		if p.path != path {
			continue
		}
		if i := slices.IndexFunc(p.blocks, func(b block) bool { return b.lang == "sh" && strings.Contains(b.text, text) }); i >= 0 {
			return p.blocks[i].text
		}
	}
	t.Fatalf("%s has no command with %q", path, text)
	return ""
}

// kubectl runs a script of the documents.
func kubectl(ctx context.Context, script, stdin string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	path := os.Getenv("KUBEBUILDER_ASSETS") + string(filepath.ListSeparator) + os.Getenv("PATH")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "PATH="+path)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
