// SPDX-License-Identifier: Apache-2.0

// Package library tests what Argo CD's own code says of WeChatAppTokens and WeChatAppClients. Its controller calls this code; it does not
// run here itself, because it also needs Redis and Argo CD's repository server.
package library

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/yaml"
)

const (
	config = "../../../config"
	group  = "wechat.apptoken.dev"
	layout = config + "/argocd/resource_customizations/" + group
	// manager is Argo CD's field manager. It takes over what others manage.
	manager = "argocd-controller"
)

// overrides returns the health checks as Argo CD takes them from the ConfigMap that config/argocd/argocd-cm.sh prints a patch of.
func overrides(t *testing.T) lua.ResourceHealthOverrides {
	t.Helper()
	patch, err := exec.CommandContext(t.Context(), config+"/argocd/argocd-cm.sh").Output()
	if err != nil {
		t.Fatal(err)
	}
	var configMap struct{ Data map[string]string }
	if err := yaml.Unmarshal(patch, &configMap); err != nil {
		t.Fatal(err)
	}
	out := lua.ResourceHealthOverrides{}
	for key, script := range configMap.Data {
		if kind, ok := strings.CutPrefix(key, "resource.customizations.health."+group+"_"); ok {
			out[group+"/"+kind] = v1alpha1.ResourceOverride{HealthLua: script}
		}
	}
	return out
}

func object(t *testing.T, file string) *unstructured.Unstructured {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, raw)
}

func decode(t *testing.T, raw []byte) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(raw, &o.Object); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return o
}

// TestHealth runs the tests in config/argocd, whose format is that of Argo CD's own tests.
func TestHealth(t *testing.T) {
	overrides := overrides(t)
	for _, kind := range []string{"WeChatAppToken", "WeChatAppClient"} {
		raw, err := os.ReadFile(filepath.Join(layout, kind, "health_test.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		var tests struct {
			Tests []struct {
				HealthStatus struct{ Status, Message string }
				InputPath    string
			}
		}
		if err := yaml.UnmarshalStrict(raw, &tests); err != nil {
			t.Fatal(err)
		}
		seen := map[health.HealthStatusCode]bool{}
		for _, c := range tests.Tests {
			got, err := health.GetResourceHealth(object(t, filepath.Join(layout, kind, c.InputPath)), overrides)
			if err != nil || got == nil {
				t.Errorf("%s: %v, %v", c.InputPath, got, err)
				continue
			}
			if string(got.Status) != c.HealthStatus.Status || got.Message != c.HealthStatus.Message {
				t.Errorf("%s: Argo CD says %s: %s\nwant %s: %s", c.InputPath, got.Status, got.Message, c.HealthStatus.Status, c.HealthStatus.Message)
			}
			seen[got.Status] = true
		}
		t.Logf("%s: %d statuses, %q", kind, len(tests.Tests), slices.Sorted(maps.Keys(seen)))
		if len(seen) != 4 {
			t.Errorf("%s: want Degraded, Healthy, Progressing and Suspended", kind)
		}
	}
}

// kubectl runs a command with this standard input on the API server.
type kubectl struct {
	*testing.T

	kubeconfig string
}

func (k kubectl) run(input string, args ...string) []byte {
	k.Helper()
	program := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	cmd := exec.CommandContext(k.Context(), program, append([]string{"--kubeconfig", k.kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		k.Fatalf("kubectl %q: %v: %s", args, err, stderr.String())
	}
	return out
}

// Run is a dry run of a server-side apply, by which Argo CD finds differences if it is told to ask the API server.
func (k kubectl) Run(_ context.Context, o *unstructured.Unstructured, manager string) (string, error) {
	raw, err := o.MarshalJSON()
	if err != nil {
		return "", err
	}
	return string(k.run(string(raw), "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--field-manager="+manager,
		"-o=json", "-f", "-")), nil
}

// TestDiff checks that Argo CD sees no difference between what is in Git and a resource with the API server's defaults and a status, by each
// of its ways to look for one, and that it sees a change by hand.
func TestDiff(t *testing.T) {
	env := &envtest.Environment{CRDDirectoryPaths: []string{config + "/crd/bases"}, ErrorIfCRDPathMissing: true}
	if _, err := env.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	k := kubectl{t, filepath.Join(t.TempDir(), "kubeconfig")}
	if err := os.WriteFile(k.kubeconfig, env.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	status, err := yaml.Marshal(map[string]any{"status": object(t, layout+"/WeChatAppToken/testdata/healthy.yaml").Object["status"]})
	if err != nil {
		t.Fatal(err)
	}
	serverSide := []string{"apply", "--server-side", "--field-manager=" + manager, "-f", "-"}
	for name, c := range map[string]struct {
		apply []string
		opts  []diff.Option
	}{
		"three-way": {[]string{"apply", "-f", "-"}, nil},
		"server-side": {serverSide, []diff.Option{
			diff.WithServerSideDiff(true), diff.WithServerSideDryRunner(k), diff.WithManager(manager),
			diff.WithIgnoreMutationWebhook(false), // sees more than Argo CD by default, what an admission webhook changes
		}},
		"two-way after the SSA": {serverSide, nil},
	} {
		inGit := decode(t, []byte("apiVersion: "+group+"/v1alpha1\nkind: WeChatAppToken\nmetadata:\n  namespace: default\n"+
			"  name: "+strings.ToLower(strings.ReplaceAll(name, " ", "-"))+"\n"+
			"spec:\n  appID: wx0123456789abcdef\n  checkInterval: 10m\n  credentialsSecretRef: {name: shop-wechat}\n"))
		raw, err := inGit.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		k.run(string(raw), c.apply...)
		k.run("", "patch", "wechatapptoken", inGit.GetName(), "--subresource=status", "--type=merge", "--patch", string(status))
		modified := func() bool {
			t.Helper()
			live := decode(t, k.run("", "get", "wechatapptoken", inGit.GetName(), "-o", "json", "--show-managed-fields"))
			if _, found, _ := unstructured.NestedString(live.Object, "spec", "mode"); !found || live.Object["status"] == nil {
				t.Fatalf("%s: the resource has no defaults or no status: %v", name, live.Object)
			}
			result, err := diff.Diff(inGit, live, append([]diff.Option{diff.WithNormalizer(diff.GetNoopNormalizer())}, c.opts...)...)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return result.Modified
		}
		if modified() {
			t.Errorf("%s: Argo CD sees a difference in a resource that nobody changed", name)
		}
		k.run("", "patch", "wechatapptoken", inGit.GetName(), "--type=merge", "--patch", `{"spec":{"checkInterval":"1h"}}`)
		if !modified() {
			t.Errorf("%s: Argo CD does not see the change by hand", name)
		}
	}
}
