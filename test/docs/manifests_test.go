// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// foreignCRDs are those of other projects whose kinds the documents use; see hack/foreign-crds.
const foreignCRDs = "../testdata/foreign-crds"

// api is a real API server with our CRD and the foreign ones.
var api client.Client

func TestMain(m *testing.M) {
	testenv.Main(m, func(_ context.Context, env *testenv.Environment) (func() error, error) {
		env.Config.QPS = -1
		scheme := runtime.NewScheme()
		_, crdErr := envtest.InstallCRDs(env.Config, envtest.CRDInstallOptions{Paths: []string{foreignCRDs}, ErrorIfPathMissing: true})
		var clientErr error
		api, clientErr = client.New(env.Config, client.Options{Scheme: scheme})
		dir, dirErr := os.MkdirTemp("", "wechat-token-operator-docs-")
		kubeconfig = filepath.Join(dir, "kubeconfig")
		return func() error { return os.RemoveAll(dir) }, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme), crdErr,
			clientErr, dirErr, os.WriteFile(kubeconfig, env.KubeConfig, 0o600))
	})
}

// hereDocument is a manifest that a command in a shell block gets: kubectl apply -f - <<'YAML'.
var hereDocument = regexp.MustCompile(`(?ms)^[^\n]*kubectl [^\n]*<<-?'?(\w+)'?\n(.*?)^\s*(\w+)$`)

// manifests are the YAML blocks of a page, and what its shell blocks give to kubectl.
func manifests(p page) []block {
	var out []block
	for _, b := range p.blocks {
		switch b.lang {
		case "yaml", "yml":
			out = append(out, b)
		case "sh", "bash", "shell":
			for _, doc := range hereDocument.FindAllStringSubmatch(b.text, -1) {
				out = append(out, block{line: b.line, lang: "yaml", text: doc[2], fragment: b.fragment})
			}
		}
	}
	return out
}

// TestManifests: each manifest in the documents is accepted as it is, in a dry run with strict fields. A block that is no
// whole manifest says why in a comment above it: <!-- fragment: why -->. It must be YAML all the same.
func TestManifests(t *testing.T) {
	objects := 0
	for _, p := range pages(t) {
		for _, m := range manifests(p) {
			if m.fragment != "" {
				if err := yaml.Unmarshal([]byte(m.text), new(any)); err != nil {
					t.Errorf("%s: %v", p.where(m.line), err)
				}
				continue
			}
			n, err := accept(t.Context(), m.text)
			if err != nil {
				t.Errorf("%s: %v", p.where(m.line), err)
			}
			objects += n
		}
	}
	if objects < 5 {
		t.Errorf("only %d manifests were found: does the test still read them?", objects)
	}
}

// TestExampleManifests: the manifests in examples, and those of config for other projects' operators, are accepted as they
// are.
func TestExampleManifests(t *testing.T) {
	for _, dir := range []string{"examples", "config/prometheus", "config/gateway-monitor", "config/metrics-certificate"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".yaml" || entry.Name() == "kustomization.yaml" && dir != "examples" {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if _, err := accept(t.Context(), string(text)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// accept dry-runs all objects of a stream of YAML and counts them.
func accept(ctx context.Context, text string) (int, error) {
	decoder := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for n := 0; ; n++ {
		raw, err := decoder.Read()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		u := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(raw, &u.Object); err != nil {
			return n, err
		}
		if u.GetKind() == "" || u.GetAPIVersion() == "" {
			return n, errors.New("no apiVersion and kind; if it is part of something, say so above it: <!-- fragment: why -->")
		}
		if err := dryRun(ctx, u); err != nil {
			return n, fmt.Errorf("%s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
}

func dryRun(ctx context.Context, u *unstructured.Unstructured) error {
	mapping, err := api.RESTMapper().RESTMapping(u.GroupVersionKind().GroupKind(), u.GroupVersionKind().Version)
	if err != nil {
		return err
	}
	if mapping.Scope.Name() == "namespace" {
		if u.GetNamespace() == "" {
			u.SetNamespace(metav1.NamespaceDefault) // that of the user's kubeconfig
		}
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: u.GetNamespace()}}
		if err := client.IgnoreAlreadyExists(api.Create(ctx, ns)); err != nil {
			return err
		}
	}
	return api.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.DryRunAll, client.FieldOwner("docs"), client.ForceOwnership)
}

// TestAccept: what is wrong in a manifest is found.
func TestAccept(t *testing.T) {
	const token = "apiVersion: wechat.apptoken.dev/v1alpha1\nkind: WeChatAppToken\nmetadata:\n  name: shop\nspec:\n" +
		"  credentialsSecretRef:\n    name: shop-wechat\n  appID: "
	for name, tc := range map[string]struct{ text, says string }{
		"good":          {token + "wx0123456789abcdef\n", ""},
		"bad value":     {token + "gh_0123456789ab\n", "must be an AppID"},
		"unknown field": {token + "wx0123456789abcdef\n  checkIntervall: 2m\n", "checkIntervall"},
		"double field":  {token + "wx0123456789abcdef\n  appID: wx0123456789abcdef\n", "already set"},
		"no object":     {"spec:\n  suspend: true\n", "no apiVersion and kind"},
		"unknown kind":  {"apiVersion: example.com/v1\nkind: Thing\nmetadata:\n  name: x\n", "no matches for kind"},
		"foreign field": {"apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: x}\nspec:\n  interval: 10m\n" +
			"  prune: true\n  sourceRef: {kind: GitRepository, name: x}\n  waitt: true\n", "waitt"},
		"foreign value": {"apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: x}\nspec:\n  project: x\n" +
			"  destination: {}\n  source: {repoURL: [x]}\n", "repoURL"},
		"second one": {token + "wx0123456789abcdef\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndate: {}\n", "date"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := accept(t.Context(), tc.text)
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
	doc := parse("x.md", "<!-- fragment: because -->\n\n```yaml\na: 1\n```\n\n```sh\nkubectl apply -f - <<'YAML'\nb: 2\nYAML\nkubectl get wxtoken\n```\n")
	found := manifests(doc)
	if len(found) != 2 || found[0].fragment != "because" || found[1].text != "b: 2\n" || found[1].fragment != "" {
		t.Errorf("found %+v", found)
	}
}
