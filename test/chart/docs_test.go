// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

var (
	documentedHeading = regexp.MustCompile(`(?m)^(#+) .*$`)
	documentedBlock   = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
)

// documented are the blocks of a language below a heading of a page, in their order.
func documented(t *testing.T, page, heading, language string) []string {
	t.Helper()
	_, section, found := strings.Cut(string(read(t, "../../docs/"+page)), "\n"+heading+"\n")
	if !found {
		t.Fatalf("docs/%s has no heading %q", page, heading)
	}
	// Comments in blocks look like headings.
	bare := documentedBlock.ReplaceAllStringFunc(section, func(b string) string { return strings.ReplaceAll(b, "#", " ") })
	if next := documentedHeading.FindStringIndex(bare); next != nil {
		section = section[:next[0]]
	}
	var out []string
	for _, m := range documentedBlock.FindAllStringSubmatch(section, -1) {
		if m[1] == language {
			out = append(out, m[2])
		}
	}
	if len(out) == 0 {
		t.Fatalf("docs/%s has no %s block below %q", page, language, heading)
	}
	return out
}

// shell runs commands as people do, in the root of the repository.
func (w *world) shell(script string) string {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), "bash", "-euo", "pipefail", "-c", script) //nolint:gosec // our own
	cmd.Dir = "../.."
	path := []string{filepath.Dir(os.Getenv("HELM")), os.Getenv("KUBEBUILDER_ASSETS"), os.Getenv("PATH")}
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.kubeconfig, "PATH="+strings.Join(path, string(filepath.ListSeparator)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%v: %s\n%s", err, script, out)
	}
	return string(out)
}

// docs/install.md tells how an installation by kubectl becomes Helm's: its commands work in the order in which they are there.
func TestMoveFromKubectl(t *testing.T) {
	w := newWorld(t, shared)
	writeInstaller(t)
	w.shell("kubectl apply --server-side -f dist/install.yaml")
	if out, err := w.tryHelm("install", release, chartDir, "-n", releaseSystem, "--set", "image.repository="+image); err == nil {
		t.Errorf("helm took what is not its own: %s", out)
	}
	for _, commands := range documented(t, "install.md", "## Move from kubectl to Helm", "sh") {
		if strings.HasPrefix(w.helm("version", "--short"), "v3.") {
			commands = strings.ReplaceAll(commands, " --force-conflicts", "") // as the page says
		}
		w.shell(commands)
	}
	w.helm("uninstall", release, "-n", releaseSystem)
	w.must(w.Get(t.Context(), client.ObjectKey{Name: crdName}, newCRD()))
}

// The values in docs/install.md for Prometheus make what they say, and its commands let Prometheus' account read the metrics of
// a release with the names that the page uses.
func TestDocumentedPrometheus(t *testing.T) {
	const heading = "### With Prometheus"
	values := ""
	for _, block := range documented(t, "install.md", heading, "yaml") {
		values = overlay(t, values, block)
	}
	objects := render(t, release, releaseSystem, values)
	for _, key := range []string{
		"ServiceMonitor " + deployment + "-metrics-monitor", "PrometheusRule " + release + "-rules", "ConfigMap " + release + "-dashboards",
	} {
		if len(objects[key]) == 0 {
			t.Errorf("the values give no %s", key)
		}
	}
	for key, want := range map[string]string{
		"ServiceMonitor " + deployment + "-metrics-monitor": "replacement: eu-1",
		"PrometheusRule " + release + "-rules":              "runbook_url: https://runbooks.example.com/wechat/WeChatOutage.md",
		"ConfigMap " + release + "-dashboards":              "grafana_folder: WeChat",
	} {
		if !strings.Contains(string(objects[key]), want) {
			t.Errorf("%s does not say %q", key, want)
		}
	}
	commands := strings.Join(documented(t, "install.md", heading, "sh"), "\n")
	role := regexp.MustCompile(`--clusterrole=(\S+)`).FindStringSubmatch(commands)
	if role == nil || !strings.Contains(string(objects["ClusterRole "+role[1]]), "/metrics") {
		t.Errorf("the command binds %q, which the chart does not make", role)
	}
	// The recipe makes the Secret by which the ServiceMonitor verifies the operator, for the name that it asks for.
	recipe := regexp.MustCompile(`kubectl apply -f (\S+)`).FindStringSubmatch(commands)
	if recipe == nil {
		t.Fatal("there is no recipe for a certificate")
	}
	var leaf struct {
		Spec struct {
			SecretName string
			DNSNames   []string
		}
	}
	if err := yaml.Unmarshal(split(t, read(t, "../../"+recipe[1]))["Certificate "+release+"-metrics"], &leaf); err != nil {
		t.Fatal(err)
	}
	var monitor struct {
		Spec struct {
			Endpoints []struct {
				TLSConfig struct {
					CA         struct{ Secret, ConfigMap struct{ Name string } }
					ServerName string
				}
			}
		}
	}
	if err := yaml.Unmarshal(objects["ServiceMonitor "+deployment+"-metrics-monitor"], &monitor); err != nil {
		t.Fatal(err)
	}
	verify := monitor.Spec.Endpoints[0].TLSConfig
	if verify.CA.Secret.Name != leaf.Spec.SecretName || !slices.Contains(leaf.Spec.DNSNames, verify.ServerName) {
		t.Errorf("%s makes %+v, and Prometheus asks for %+v", recipe[1], leaf.Spec, verify)
	}

	// The same for OpenShift, whose own service CA knows the Service by this name.
	blocks := documented(t, "install.md", "### Under OpenShift", "yaml")
	made, objects := split(t, []byte(blocks[0])), render(t, release, releaseSystem, blocks[1])
	text := string(objects["ServiceMonitor "+deployment+"-metrics-monitor"])
	for _, want := range []string{"serverName: " + verify.ServerName, "name: metrics-scraper", "name: metrics-service-ca"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "File:") {
		t.Errorf("a file is named in\n%s", text)
	}
	for _, key := range []string{"Secret metrics-scraper", "ConfigMap metrics-service-ca", "ServiceAccount metrics-scraper"} {
		if len(made[key]) == 0 {
			t.Errorf("the page makes no %s", key)
		}
	}
	if binding := string(made["ClusterRoleBinding "+release+"-metrics-scraper"]); !strings.Contains(binding, "name: "+role[1]+"\n") {
		t.Errorf("the binding is\n%s", binding)
	}
}

// The overlay in docs/namespaces.md builds, and leaves no right for the whole cluster on Secrets and none on a Lease of another name.
func TestDocumentedNamespaces(t *testing.T) {
	blocks := documentedBlock.FindAllStringSubmatch(string(read(t, "../../docs/namespaces.md")), -1)
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, release, "config"), os.DirFS("../../config")); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay")
	if err := os.Mkdir(overlay, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"kustomization.yaml", "rolebindings.yaml"} {
		if err := os.WriteFile(filepath.Join(overlay, name), []byte(blocks[i][2]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	out, err := exec.CommandContext(t.Context(), kubectl, "kustomize", overlay).CombinedOutput() //nolint:gosec // our own
	if err != nil {
		t.Fatalf("kubectl kustomize: %v: %s", err, out)
	}
	objects := split(t, out)
	if len(objects["ClusterRoleBinding "+release+"-manager-rolebinding"]) > 0 {
		t.Error("the role is bound in the whole cluster")
	}
	// kubectl apply deletes nothing, so the page deletes the binding of a namespace that leaves the list.
	binding := &rbacv1.RoleBinding{}
	if err := yaml.UnmarshalStrict(split(t, []byte(blocks[1][2]))["RoleBinding "+release+"-manager-rolebinding in blog"], binding); err != nil {
		t.Fatal(err)
	}
	commands := strings.Join(documented(t, "namespaces.md", "## Change the list", "sh"), "\n")
	if want := "kubectl delete rolebinding -n " + binding.Namespace + " " + binding.Name + "\n"; !strings.Contains(commands, want) {
		t.Errorf("%q is not among\n%s", want, commands)
	}
	role := &rbacv1.Role{}
	if err := yaml.UnmarshalStrict(objects["Role "+release+"-leader-election-role"], role); err != nil {
		t.Fatal(err)
	}
	for _, r := range role.Rules {
		if len(r.ResourceNames) > 0 {
			t.Errorf("a rule names %q, which is another Lease", r.ResourceNames)
		}
	}
}

// letScrape gives a ServiceAccount the right to read the metrics by the command that helm printed.
func (i *installed) letScrape(namespace, account string) {
	i.Helper()
	command := regexp.MustCompile(`(?m)^ *kubectl create clusterrolebinding .*$`).FindString(i.notes)
	const example = "monitoring:prometheus-k8s"
	if !strings.Contains(command, example) {
		i.Fatalf("helm does not tell how to let %s read the metrics:\n%s", example, i.notes)
	}
	i.shell(strings.ReplaceAll(command, example, namespace+":"+account))
}

// A namespace of the list that is deleted stops neither a process that runs nor a new one from serving the others. The list is changed as
// docs/install.md says.
func TestListedNamespaceIsDeleted(t *testing.T) {
	i := install(t, "")
	i.createToken(i.shop)
	i.eventuallyReady(i.shop)
	i.deleteNamespace(i.blog)
	i.proveServed(i.shop, "without the other namespace")
	i.operator.stop()

	i.operator = i.start(i.system, deployment)
	i.proveServed(i.shop, "after a restart without the other namespace")
	if log := string(read(t, i.operator.log)); !strings.Contains(log, "cannot be read, the others are served") || !strings.Contains(log, i.blog) {
		t.Error("the log does not name the namespace that cannot be read")
	}
	i.operator.stop()
	if out, err := i.tryHelm("upgrade", release, chartDir, "-n", i.system, "--reset-then-reuse-values"); err == nil {
		t.Errorf("helm made a Role in a namespace that is not there: %s", out)
	}

	blocks := documented(t, "install.md", "### For a few namespaces only", "sh")
	commands := strings.NewReplacer(releaseSystem, i.system, "={shop}", "={"+i.shop+"}").Replace(blocks[len(blocks)-1])
	i.shell(strings.ReplaceAll(commands, "helm upgrade", "helm upgrade --set replicaCount=1"))
	d := &appsv1.Deployment{}
	i.must(i.Get(t.Context(), client.ObjectKey{Namespace: i.system, Name: deployment}, d))
	if *d.Spec.Replicas != 1 {
		t.Errorf("the operator is to have %d replicas after all commands", *d.Spec.Replicas)
	}
	i.operator = i.start(i.system, deployment)
	i.proveServed(i.shop, "with another list")
}

// deleteNamespace deletes a namespace with all that is in it.
func (i *installed) deleteNamespace(name string) {
	i.Helper()
	stop, err := shared.env.StartControllers("namespace-controller")
	i.must(err)
	defer func() { i.must(stop()) }()
	i.must(i.Delete(i.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	i.Eventually(func() error { return i.Get(i.Context(), client.ObjectKey{Name: name}, &corev1.Namespace{}) }).
		Should(gomega.MatchError(apierrors.IsNotFound, "IsNotFound"))
}

// The commands in docs/prompt-delivery.md take away what the component brought.
func TestTurnOffPromptDelivery(t *testing.T) {
	w := newWorld(t, shared)
	w.shell("kubectl apply --server-side -k config/prompt-delivery")
	role := &rbacv1.ClusterRole{}
	key := client.ObjectKey{Name: release + "-prompt-delivery-role"}
	w.must(w.Get(t.Context(), key, role))
	for _, commands := range documented(t, "prompt-delivery.md", "## Turn it off", "sh") {
		for line := range strings.Lines(commands) {
			if strings.HasPrefix(line, "kubectl delete ") {
				w.shell(line)
			}
		}
	}
	if left := w.shell("kubectl get --ignore-not-found -k config/prompt-delivery"); left != "" {
		t.Errorf("there is still:\n%s", left)
	}
}

// make undeploy deletes all that make deploy with its options may have made, and the policy that is applied by itself.
func TestUndeploy(t *testing.T) {
	dir := t.TempDir()
	deleted := filepath.Join(dir, "deleted.yaml")
	kubectl := filepath.Join(dir, "kubectl")
	script := "#!/bin/sh\n[ \"$*\" = 'delete --ignore-not-found -f -' ] || exit 1\n{ echo ---; cat; } >>" + deleted + "\n"
	if err := os.WriteFile(kubectl, []byte(script), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	undeploy := exec.CommandContext(t.Context(), "make", "-s", "-C", "../..", "undeploy", "KUBECTL="+kubectl) //nolint:gosec // our own
	if out, err := undeploy.CombinedOutput(); err != nil {
		t.Fatalf("make undeploy: %v: %s", err, out)
	}
	want := kustomizeWith(t, "prompt-delivery")
	for _, file := range []string{"policy.yaml", "binding.yaml"} {
		maps.Copy(want, split(t, read(t, "../../config/admission-policy/"+file)))
	}
	if got, want := slices.Sorted(maps.Keys(split(t, read(t, deleted)))), slices.Sorted(maps.Keys(want)); !slices.Equal(got, want) {
		t.Errorf("it deletes\n%s\nand there is\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
