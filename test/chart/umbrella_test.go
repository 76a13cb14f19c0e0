// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// TestUmbrellaChart installs a chart that contains the operator and a WeChatAppToken in a cluster without the CRD, as docs/gitops.md
// says: one installation gives a token, an upgrade leaves it alone, and helm uninstall leaves the CRD.
func TestUmbrellaChart(t *testing.T) {
	const heading = "## In a chart of your own"
	env := testenv.ForTest(t, testenv.Bare())
	c, err := newCluster(env, shared.dir)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, c)
	files, commands := documented(t, "gitops.md", heading, "yaml"), documented(t, "gitops.md", heading, "sh")
	if len(files) != 3 || len(commands) != 2 {
		t.Fatalf("the page has %d files and %d blocks of commands", len(files), len(commands))
	}
	dir := w.umbrella(files)

	// Without a copy of the CRD Helm refuses the chart; the page says why.
	w.in(dir, "helm dependency update shop")
	if out, err := w.tryHelm("install", "shop", filepath.Join(dir, "shop"), "-n", "shop", "--create-namespace"); err == nil ||
		!strings.Contains(out, "no matches for kind") {
		t.Errorf("without the CRD in crds/: %v: %s", err, out)
	}

	w.in(dir, commands[0])
	w.must(w.Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop-wechat"}, StringData: map[string]string{"appSecret": appSecret},
	}))
	operator := w.start("shop", "shop-"+deployment)
	first := w.eventuallyReady("shop")

	w.in(dir, commands[1])
	w.proveServed("shop", "after the upgrade")
	if got := w.eventuallyReady("shop"); got != first {
		t.Error("the upgrade cost the token")
	}
	w.helm("uninstall", "shop", "-n", "shop")
	operator.stop()
	w.must(w.Get(t.Context(), client.ObjectKey{Name: crdName}, newCRD()))
	w.Eventually(func() error {
		return w.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "shop"}, &v1alpha1.WeChatAppToken{})
	}).Should(gomega.MatchError(apierrors.IsNotFound, "IsNotFound"))
}

// umbrella writes the documented chart, with the values that every installation of a test needs, beside a link to this repository.
func (w *world) umbrella(files []string) string {
	w.Helper()
	root, err := filepath.Abs("../..")
	w.must(err)
	dir := w.TempDir()
	w.must(os.MkdirAll(filepath.Join(dir, "shop", "templates"), 0o700))
	w.must(os.Symlink(root, filepath.Join(dir, "wechat-token-operator")))
	values := string(read(w.T, w.values(w.loopback("shop"))))
	if !strings.Contains(files[1], "enabled: false") {
		w.Fatalf("the values are\n%s", files[1])
	}
	for name, text := range map[string]string{
		"Chart.yaml":           files[0],
		"values.yaml":          "wechat-token-operator:\n  crds: {enabled: false}\n" + indent(values, "  ") + "\n",
		"templates/token.yaml": files[2],
	} {
		w.must(os.WriteFile(filepath.Join(dir, "shop", name), []byte(text), 0o600))
	}
	return dir
}

// in runs commands in a folder, with helm and kubectl on the path.
func (w *world) in(dir, script string) {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), "bash", "-euo", "pipefail", "-c", script) //nolint:gosec // our own
	cmd.Dir = dir
	path := []string{filepath.Dir(os.Getenv("HELM")), os.Getenv("KUBEBUILDER_ASSETS"), os.Getenv("PATH")}
	home := w.TempDir()
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.kubeconfig, "PATH="+strings.Join(path, string(filepath.ListSeparator)),
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("%v: %s\n%s", err, script, out)
	}
}
