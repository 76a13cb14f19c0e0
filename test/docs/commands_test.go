// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

var (
	// ourResources are the plural names of our kinds.
	ourResources = regexp.MustCompile(`(?m)^    plural: (\S+)$`)
	// saving is a command that writes resources to a file.
	saving = regexp.MustCompile(`(?m)^kubectl get \S+ -A .* > \S+$`)
)

// TestBackup: what saves resources saves those of all our kinds, and the commands for the time after an older CRD give every resource
// the spec that it had.
func TestBackup(t *testing.T) {
	crds, err := filepath.Glob(filepath.Join(root, "config/crd/bases/*.yaml"))
	if err != nil || len(crds) < 2 {
		t.Fatalf("found %q: %v", crds, err)
	}
	for _, path := range []string{"docs/recovery.md", "docs/upgrade.md"} {
		commands := saving.FindAllString(strings.ReplaceAll(text(t, path), "\\\n", ""), -1)
		if len(commands) == 0 {
			t.Errorf("%s saves nothing", path)
		}
		for _, command := range commands {
			for _, crd := range crds {
				plural := ourResources.FindStringSubmatch(text(t, strings.TrimPrefix(crd, root)))
				if plural == nil || !strings.Contains(command, plural[1]) {
					t.Errorf("%s: %q does not save %q of %s", path, command, plural, crd)
				}
			}
		}
	}

	meta := metav1.ObjectMeta{Namespace: "backup", Name: "shop"}
	token := &v1alpha1.WeChatAppToken{ObjectMeta: meta, Spec: v1alpha1.WeChatAppTokenSpec{
		AppID: "wx0123456789abcdef", CheckInterval: metav1.Duration{Duration: time.Minute},
		CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "shop-wechat"},
	}}
	program := &v1alpha1.WeChatAppClient{ObjectMeta: meta, Spec: v1alpha1.WeChatAppClientSpec{
		TokenRef: v1alpha1.TokenReference{Name: "shop"}, Paths: []v1alpha1.ClientPath{"/wxa/*"},
		Key: &v1alpha1.ClientKeySpec{SecretName: "shop-key"},
	}}
	for _, o := range []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "backup"}}, token, program} {
		if err := api.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(api.Delete(ctx, token), api.Delete(ctx, program)); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	run := func(says string) {
		t.Helper()
		if out, err := kubectl(t.Context(), "cd "+dir+"\n"+blockOf(t, "docs/upgrade.md", says), ""); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run("> specs.txt")
	// An older CRD drops fields.
	token.Spec.CheckInterval, program.Spec.Paths = metav1.Duration{Duration: 2 * time.Minute}, []v1alpha1.ClientPath{"/cgi-bin/*"}
	if err := errors.Join(api.Update(t.Context(), token), api.Update(t.Context(), program)); err != nil {
		t.Fatal(err)
	}
	run("< specs.txt")
	if err := errors.Join(api.Get(t.Context(), client.ObjectKeyFromObject(token), token),
		api.Get(t.Context(), client.ObjectKeyFromObject(program), program)); err != nil {
		t.Fatal(err)
	}
	if token.Spec.CheckInterval.Duration != time.Minute || !slices.Equal(program.Spec.Paths, []v1alpha1.ClientPath{"/wxa/*"}) {
		t.Errorf("they came back with the interval %v and the paths %q", token.Spec.CheckInterval, program.Spec.Paths)
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
