// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// crdAnnotations says by which annotations Argo CD, Flux and Helm leave an object that their source does not contain any more.
var crdAnnotations = map[string]string{
	"argocd.argoproj.io/sync-options":   "Prune=false",
	"kustomize.toolkit.fluxcd.io/prune": "disabled",
	"helm.sh/resource-policy":           "keep",
}

// metadataOf returns the labels and annotations of a rendered object.
func metadataOf(t *testing.T, doc []byte) (labels, annotations map[string]string) {
	t.Helper()
	o := struct {
		Metadata struct{ Labels, Annotations map[string]string }
	}{}
	if err := yaml.Unmarshal(doc, &o); err != nil || len(doc) == 0 {
		t.Fatalf("%q: %v", doc, err)
	}
	return o.Metadata.Labels, o.Metadata.Annotations
}

// buildKustomization returns the objects of a kustomization, by kind and name.
func buildKustomization(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	out, err := exec.CommandContext(t.Context(), kubectl, "kustomize", dir).Output() //nolint:gosec // our own
	if err != nil {
		t.Fatalf("kubectl kustomize %s: %v", dir, err)
	}
	return split(t, out)
}

// TestCRDIsNotPruned checks that no GitOps tool deletes the CRD, and with it all tokens, when its source does not contain the CRD any
// more. Argo CD and Flux read the annotations of the object in the cluster. Argo CD may be told to find its objects by the label
// app.kubernetes.io/instance, which must not make the CRD a part of an Application that has the name of the release.
func TestCRDIsNotPruned(t *testing.T) {
	const key = "CustomResourceDefinition " + crdName
	for name, c := range map[string]struct {
		doc  []byte
		want map[string]string
	}{
		"chart":                 {render(t, release, releaseSystem, "")[key], crdAnnotations},
		"chart, with labels":    {render(t, release, releaseSystem, "commonLabels: {team: platform}\n")[key], crdAnnotations},
		"chart, not to be kept": {render(t, release, releaseSystem, "crds: {keep: false}\n")[key], nil},
		"config/crd":            {buildKustomization(t, "../../config/crd")[key], withoutHelm(crdAnnotations)},
		"config/default":        {buildKustomization(t, "../../config/default")[key], withoutHelm(crdAnnotations)},
	} {
		labels, annotations := metadataOf(t, c.doc)
		for annotation := range crdAnnotations {
			if got := annotations[annotation]; got != c.want[annotation] {
				t.Errorf("%s: the annotation %s is %q, want %q", name, annotation, got, c.want[annotation])
			}
		}
		if label, found := labels["app.kubernetes.io/instance"]; found {
			t.Errorf("%s: the CRD is labelled as a part of %q", name, label)
		}
	}
}

// TestKustomizeGenerators builds what docs/gitops.md says about kustomize's generators with the real kustomize: references follow the hash
// and a prefix.
func TestKustomizeGenerators(t *testing.T) {
	tool, err := exec.CommandContext(t.Context(), "../../hack/tools/build.sh", "kustomize").Output()
	if err != nil {
		t.Fatalf("building kustomize: %v", err)
	}
	blocks := documented(t, "gitops.md", "## With kustomize's generators", "yaml")
	if len(blocks) != 2 {
		t.Fatalf("the page has %d blocks, want the references and the kustomization", len(blocks))
	}
	references, kustomization := blocks[0], blocks[1]
	workload := func(kind string) string {
		return "---\napiVersion: apps/v1\nkind: " + kind + "\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n" +
			"      volumes: [{name: token, secret: {secretName: shop}}]\n"
	}
	for name, c := range map[string]struct{ references, prefix, credentials, target string }{
		"as documented":          {references, "", `shop-wechat-[0-9a-z]{10}`, `shop`},
		"with a prefix":          {references, "namePrefix: eu-\n", `eu-shop-wechat-[0-9a-z]{10}`, `eu-shop`},
		"without the references": {"nameReference: []\n", "", `shop-wechat`, `shop`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range map[string]string{
				"kustomization.yaml":     kustomization + c.prefix,
				"wechat-references.yaml": c.references,
				"app-secret.txt":         appSecret,
				"token.yaml": "apiVersion: wechat.apptoken.dev/v1alpha1\nkind: WeChatAppToken\nmetadata: {name: shop}\n" +
					"spec: {appID: wx0123456789abcdef, credentialsSecretRef: {name: shop-wechat}}\n",
				"deployment.yaml": workload("Deployment") + workload("StatefulSet") + workload("DaemonSet"),
			} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			out, err := exec.CommandContext(t.Context(), strings.TrimSpace(string(tool)), "build", dir).CombinedOutput() //nolint:gosec // our own
			if err != nil {
				t.Fatalf("kustomize build: %v: %s", err, out)
			}
			for what, want := range map[string]string{
				"credentials":       `(?m)^  credentialsSecretRef:\n    name: ` + c.credentials + `$`,
				"name of the token": `(?m)^kind: WeChatAppToken\nmetadata:\n  name: ` + c.target + `$`,
			} {
				if !regexp.MustCompile(want).Match(out) {
					t.Errorf("%s: there is no %s in\n%s", what, want, out)
				}
			}
			if n := len(regexp.MustCompile(`(?m)^          secretName: `+c.target+`$`).FindAll(out, -1)); n != 3 {
				t.Errorf("%d of 3 workloads mount %s:\n%s", n, c.target, out)
			}
		})
	}
}

func withoutHelm(all map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range all {
		if key != "helm.sh/resource-policy" {
			out[key] = value
		}
	}
	return out
}
