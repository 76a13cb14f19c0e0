// SPDX-License-Identifier: Apache-2.0

// Package flux tests what Flux's substitution of variables leaves of the manifests.
package flux

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	fluxkustomize "github.com/fluxcd/pkg/kustomize"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/provider"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const root = "../.."

// kustomizations returns the folders below config that people apply by themselves. A component is built as a part of config/default.
func kustomizations(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "config", "*", "kustomization.yaml"))
	if err != nil || len(files) < 8 {
		t.Fatalf("found %q: %v", files, err)
	}
	var out []string
	for _, file := range files {
		out = append(out, filepath.Dir(file))
	}
	return out
}

func build(t *testing.T, dir string) resmap.ResMap {
	t.Helper()
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return objects
}

// chart returns the chart's objects with everything that is optional.
func chart(t *testing.T) resmap.ResMap {
	t.Helper()
	helm, err := exec.CommandContext(t.Context(), root+"/hack/tools/build.sh", "helm").Output()
	if err != nil {
		t.Fatalf("building helm: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), strings.TrimSpace(string(helm)), "template", "wechat-token-operator", root+"/charts/wechat-token-operator",
		"--namespace=wechat-token-operator-system", "--set=image.repository=registry.example.com/wechat-token-operator",
		"--set=metrics.dashboards.enabled=true", "--set=metrics.prometheusRule.enabled=true",
		"--set=admissionPolicy.enabled=true", "--set=promptDelivery.enabled=true", "--set=networkPolicy.enabled=true")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm template: %v", err)
	}
	objects, err := resmap.NewFactory(provider.NewDefaultDepProvider().GetResourceFactory()).NewResMapFromBytes(out)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// substitute does to each object what Flux's kustomize-controller does for a Kustomization with spec.postBuild, and returns how many
// objects there are.
func substitute(t *testing.T, objects resmap.ResMap) int {
	t.Helper()
	kustomization := unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"postBuild": map[string]any{
		"substitute": map[string]any{"cluster": "production", "datasource": "changed", "name": "changed"},
	}}}}
	for _, object := range objects.Resources() {
		before, err := object.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		// Flux takes the object as it is if it gets none back.
		changed, err := fluxkustomize.SubstituteVariables(t.Context(), nil, kustomization, object,
			fluxkustomize.SubstituteWithDryRun(true), fluxkustomize.SubstituteWithAlways(true))
		if err != nil {
			t.Errorf("%s: %v", object.CurId(), err)
			continue
		}
		if changed == nil {
			continue
		}
		after, err := changed.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if string(before) != string(after) {
			t.Errorf("%s is changed:\n%s", object.CurId(), differing(string(before), string(after)))
		}
	}
	return objects.Size()
}

// differing returns the first line that differs.
func differing(before, after string) string {
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return "-" + a[i] + "\n+" + b[i]
		}
	}
	return "the length"
}

// TestSubstitution checks that Flux's substitution changes nothing in what config/ and the chart contain. It takes every ${…} for one of
// its variables, also those of Grafana, and puts nothing in the place of one that it does not know.
func TestSubstitution(t *testing.T) {
	for _, dir := range kustomizations(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			if n := substitute(t, build(t, dir)); n == 0 {
				t.Error("there is no object")
			}
		})
	}
	t.Run("chart", func(t *testing.T) {
		if n := substitute(t, chart(t)); n < 20 {
			t.Errorf("there are only %d objects", n)
		}
	})
}

// TestSubstitutionIsSeen checks that the test above sees what Flux changes.
func TestSubstitutionIsSeen(t *testing.T) {
	objects, err := resmap.NewFactory(provider.NewDefaultDepProvider().GetResourceFactory()).NewResMapFromBytes([]byte(
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: 'a ${nobody} b'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	changed, err := fluxkustomize.SubstituteVariables(t.Context(), nil, unstructured.Unstructured{Object: map[string]any{}}, objects.Resources()[0],
		fluxkustomize.SubstituteWithDryRun(true), fluxkustomize.SubstituteWithAlways(true))
	if err != nil {
		t.Fatal(err)
	}
	if after := changed.MustYaml(); !strings.Contains(after, "a: a  b") {
		t.Errorf("got %s", after)
	}
}
