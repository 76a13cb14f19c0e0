// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// allParts turns on every object that the chart can make.
const allParts = `
image: {repository: registry.example.com/operator}
promptDelivery: {enabled: true}
admissionPolicy: {enabled: true}
wechat: {caBundle: {inline: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}}
proxy: {httpsProxy: "http://proxy.example.com:3128"}
metrics:
  certificate: {secretName: metrics}
  serviceMonitor: {enabled: true}
  prometheusRule: {enabled: true}
  dashboards: {enabled: true}
networkPolicy: {egress: {enabled: true}}
gateway: {enabled: true, namespaces: [shop], tls: {certManager: {enabled: true}}, autoscaling: {enabled: true}}
`

// foreign is an object of a kind whose Go types are not here.
type foreign struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              map[string]any `json:"spec"`
}

func (f *foreign) DeepCopyObject() runtime.Object { return f }

// typed returns an empty object of a kind.
func typed(kind string) client.Object {
	switch kind {
	case "Deployment":
		return &appsv1.Deployment{}
	case "Service":
		return &corev1.Service{}
	case "ServiceAccount":
		return &corev1.ServiceAccount{}
	case "ConfigMap":
		return &corev1.ConfigMap{}
	case "Role":
		return &rbacv1.Role{}
	case "RoleBinding":
		return &rbacv1.RoleBinding{}
	case "ClusterRole":
		return &rbacv1.ClusterRole{}
	case "ClusterRoleBinding":
		return &rbacv1.ClusterRoleBinding{}
	case "PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}
	case "HorizontalPodAutoscaler":
		return &autoscalingv2.HorizontalPodAutoscaler{}
	case "NetworkPolicy":
		return &networkingv1.NetworkPolicy{}
	case "ValidatingAdmissionPolicy":
		return &admissionregistrationv1.ValidatingAdmissionPolicy{}
	case "ValidatingAdmissionPolicyBinding":
		return &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	default:
		return &foreign{}
	}
}

// rendering is what helm template is given.
type rendering struct {
	release, namespace string
	// chart is the folder of the chart; empty for the operator's own.
	chart  string
	values string
}

// strictly renders the chart and reads every object as strictly as the API server does.
func (r rendering) strictly(t *testing.T) []client.Object {
	t.Helper()
	dir := chartDir
	if r.chart != "" {
		dir = r.chart
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Getenv("HELM"), //nolint:gosec // our helm
		"template", r.release, dir, "-n", r.namespace, "-f", "-")
	errs := &bytes.Buffer{}
	cmd.Stdin, cmd.Stderr = strings.NewReader(r.values), errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm template %s -n %s: %v: %s\n%s", r.release, r.namespace, err, errs, r.values)
	}
	var objects []client.Object
	stream := yamlutil.NewYAMLReader(bufio.NewReader(bytes.NewReader(out)))
	for {
		doc, err := stream.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		if kind.Kind == "" {
			continue
		}
		o := typed(kind.Kind)
		if err := yaml.UnmarshalStrict(doc, o); err != nil {
			t.Fatalf("%s of release %s in %s: %v\n%s\nwith\n%s", kind.Kind, r.release, r.namespace, err, doc, r.values)
		}
		objects = append(objects, o)
	}
	sound(t, r, objects)
	return objects
}

// sound checks what the API server would refuse and Go's types allow.
func sound(t *testing.T, r rendering, objects []client.Object) {
	t.Helper()
	seen := map[string]bool{}
	for _, o := range objects {
		kind := o.GetObjectKind().GroupVersionKind().Kind
		key := fmt.Sprintf("%s %s/%s", kind, o.GetNamespace(), o.GetName())
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
		problems := validation.IsDNS1123Subdomain(o.GetName())
		if kind == "Service" { // as on the oldest Kubernetes that the chart admits
			problems = validation.IsDNS1035Label(o.GetName())
		}
		if n := o.GetNamespace(); n != "" && n != r.namespace && !slices.Contains([]string{"shop", "blog", "1"}, n) {
			problems = append(problems, "it is in another namespace")
		}
		for _, e := range metavalidation.ValidateLabels(o.GetLabels(), field.NewPath("labels")) {
			problems = append(problems, e.Error())
		}
		for _, e := range apivalidation.ValidateAnnotations(o.GetAnnotations(), field.NewPath("annotations")) {
			problems = append(problems, e.Error())
		}
		switch o := o.(type) {
		case *appsv1.Deployment:
			problems = append(problems, deploymentProblems(o)...)
		case *networkingv1.NetworkPolicy:
			// A rule without ports or peers allows all of them, so an empty value must not make one.
			for _, e := range o.Spec.Egress {
				if len(e.Ports) == 0 {
					problems = append(problems, "an egress rule without ports")
				}
			}
		}
		if len(problems) > 0 {
			t.Errorf("%s: %s\nwith\n%s", key, strings.Join(problems, "; "), r.values)
		}
	}
	if !seen[fmt.Sprintf("Deployment %s/%s", r.namespace, deploymentOf(objects).Name)] {
		t.Errorf("no Deployment in %s", r.namespace)
	}
}

// deploymentOf returns the operator's.
func deploymentOf(objects []client.Object) *appsv1.Deployment {
	for _, o := range objects {
		if d, ok := o.(*appsv1.Deployment); ok && strings.HasSuffix(d.Name, "-controller-manager") {
			return d
		}
	}
	return &appsv1.Deployment{}
}

func deploymentProblems(d *appsv1.Deployment) (problems []string) {
	for _, e := range metavalidation.ValidateLabels(d.Spec.Template.Labels, field.NewPath("template labels")) {
		problems = append(problems, e.Error())
	}
	if !labels.SelectorFromSet(d.Spec.Selector.MatchLabels).Matches(labels.Set(d.Spec.Template.Labels)) {
		problems = append(problems, "the selector does not match the pods")
	}
	// These are the keys by which server-side apply merges lists: one that comes twice is refused.
	once := map[string]bool{}
	note := func(list, key string) {
		if once[list+key] {
			problems = append(problems, list+" "+key+" is there twice")
		}
		once[list+key] = true
	}
	c := d.Spec.Template.Spec.Containers[0]
	for _, e := range c.Env {
		note("env", e.Name)
	}
	for _, p := range c.Ports {
		note("port", fmt.Sprint(p.ContainerPort))
		note("port name", p.Name)
	}
	for _, m := range c.VolumeMounts {
		note("mount", m.MountPath)
	}
	for _, v := range d.Spec.Template.Spec.Volumes {
		note("volume", v.Name)
	}
	return problems
}

// Names that YAML takes for something else than a string, that are cut, or that some kinds do not allow.
func TestNames(t *testing.T) {
	long := strings.Repeat("a", 39) + "." + strings.Repeat("b", 13)
	releases := []string{"a", "1", "123", "1e3", "0x1f", "1.5", "true", "null", "on", "2001-01-01", "a.b", long,
		strings.Repeat("1", 53), strings.Repeat("a-", 26) + "a", "a." + strings.Repeat("b", 51)}
	namespaces := []string{"1", "123", "1e3", "0x10", "true", "null", "on", strings.Repeat("1", 63), strings.Repeat("n", 63)}
	overrides := []string{"", "nameOverride: '1'\n", "fullnameOverride: '1e3'\n", "fullnameOverride: a.b\n",
		"nameOverride: " + long + "\n", "fullnameOverride: " + long + long + "\n",
		"serviceAccount: {name: '1'}\npriorityClassName: 'on'\nwatch: {namespaces: ['1']}\n"}
	for i := range max(len(releases), len(namespaces), len(overrides)) {
		r := rendering{releases[i%len(releases)], namespaces[i%len(namespaces)], "", allParts + overrides[i%len(overrides)]}
		t.Run(fmt.Sprintf("%s in %s", r.release, r.namespace), func(t *testing.T) {
			t.Parallel()
			r.strictly(t)
		})
	}
}

// The API server itself accepts every object under such names.
func TestNamesOnTheAPIServer(t *testing.T) {
	w := newWorld(t, shared)
	const namespace = "1000"
	for _, name := range []string{namespace, "shop"} { // the gateway has Roles in the second one
		w.must(client.IgnoreAlreadyExists(w.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})))
	}
	api, err := client.New(w.env.Config, client.Options{})
	w.must(err)
	for _, o := range (rendering{"1.5", namespace, "", allParts + "commonLabels: {a: '1'}\npodAnnotations: {b: 'null'}\n"}).strictly(t) {
		if f, ok := o.(*foreign); ok && f.Kind != "CustomResourceDefinition" {
			continue // its CRD is not here
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		w.must(err)
		object := &unstructured.Unstructured{Object: content}
		unstructured.RemoveNestedField(object.Object, "status")
		apply := client.ApplyConfigurationFromUnstructured(object)
		if err := api.Apply(t.Context(), apply, client.DryRunAll, client.ForceOwnership, client.FieldOwner("test")); err != nil {
			t.Errorf("%s %s: %v", object.GetKind(), o.GetName(), err)
		}
	}
}

// gatewayService is the name of the gateway's Service. Programs call it by that, so it is a value and not made from the release's name.
const gatewayService = "wechat-gateway"

// Two releases whose long names begin alike have no object in common.
func TestLongNamesDiffer(t *testing.T) {
	names := map[string]bool{}
	for _, last := range []string{"1", "2"} {
		for _, o := range (rendering{strings.Repeat("a", 50) + last, "x", "", allParts + "crds: {enabled: false}\n"}).strictly(t) {
			key := fmt.Sprintf("%T %s", o, o.GetName())
			if f, ok := o.(*foreign); ok {
				key = f.Kind + " " + f.Name
			}
			if o.GetName() == gatewayService {
				continue
			}
			if names[key] {
				t.Errorf("both have a %s", key)
			}
			names[key] = true
		}
	}
}

// Maps of labels and annotations, as people and tools fill them.
func TestMaps(t *testing.T) {
	plain := map[string]any{"a": "1", "b": "true", "c": "null", "d": "", "e": "1e3", "example.com/f": "on", "0": "0x1f", "gone": nil}
	annotations := map[string]any{"g": "a: b # c\n\"d\" 'e' {{ f }} \\\t", "h": "{}", "i": " ", "kubectl.kubernetes.io/default-container": "x"}
	maps.Copy(annotations, plain)
	// What the chart sets on the same objects, which a tool may want to be otherwise.
	all := maps.Clone(plain)
	for _, key := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version",
		"app.kubernetes.io/part-of", "app.kubernetes.io/managed-by", "helm.sh/chart", "control-plane", "team"} {
		all[key] = "mine"
	}
	common := maps.Clone(plain)
	common["team"], common["rbac.authorization.k8s.io/aggregate-to-view"], common["grafana_dashboard"] = "other", "false", "0"
	values := map[string]any{
		"commonLabels": common, "podLabels": plain, "podAnnotations": annotations, "deploymentAnnotations": annotations,
		"nodeSelector": plain, "serviceAccount": map[string]any{"annotations": annotations, "labels": all},
		"metrics": map[string]any{
			"certificate":    map[string]any{"secretName": "1"},
			"service":        map[string]any{"annotations": annotations},
			"serviceMonitor": map[string]any{"enabled": true, "labels": all},
			"prometheusRule": map[string]any{"enabled": true, "labels": all},
			"dashboards":     map[string]any{"enabled": true, "labels": all, "annotations": annotations},
		},
	}
	raw, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	objects := rendering{"a", "b", "", overlay(t, allParts, string(raw))}.strictly(t)
	for _, o := range objects {
		for _, key := range []string{"a", "e"} {
			if got := o.GetLabels()[key]; got != plain[key] {
				t.Errorf("%T %s: the label %s is %q", o, o.GetName(), key, got)
			}
		}
		if f, ok := o.(*foreign); ok && f.Kind == "ServiceMonitor" && f.Labels["app.kubernetes.io/instance"] != "mine" {
			t.Errorf("a label of the ServiceMonitor is not what its value says: %v", f.Labels)
		}
	}
	d := deploymentOf(objects)
	if got := d.Spec.Template.Annotations["g"]; got != annotations["g"] {
		t.Errorf("the annotation is %q", got)
	}
}

// overlay puts values over others as Helm does.
func overlay(t *testing.T, below, above string) string {
	t.Helper()
	out := map[string]any{}
	for _, text := range []string{below, above} {
		var v map[string]any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		merge(out, v)
	}
	raw, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func merge(to, from map[string]any) {
	for key, value := range from {
		inner, ok := value.(map[string]any)
		if below, both := to[key].(map[string]any); ok && both {
			merge(below, inner)
		} else {
			to[key] = value
		}
	}
}

// freeForm are the values inside which null removes a key, as the people expect who replace a default.
var freeForm = []string{"resources", "podSecurityContext", "securityContext", "metrics.dashboards.labels"}

// A null stands for the default, wherever it is, also where the chart is a dependency: a value that is missing must not turn off
// what protects, and with --reuse-values every value of a newer chart is missing.
func TestNulls(t *testing.T) {
	const base = "image: {repository: registry.example.com/operator}\n"
	var defaults map[string]any
	if err := yaml.Unmarshal(read(t, chartDir+"/values.yaml"), &defaults); err != nil {
		t.Fatal(err)
	}
	cases := map[string]string{}
	leaves := map[string]any{}
	for key, value := range defaults {
		if key == "image" || slices.Contains(freeForm, key) {
			continue
		}
		cases[key] = key + ": null\n"
		if m, ok := value.(map[string]any); ok && len(m) > 0 {
			leaves[key] = nulls(m)
		} else {
			leaves[key] = nil
		}
	}
	raw, err := yaml.Marshal(leaves)
	if err != nil {
		t.Fatal(err)
	}
	cases["every leaf"] = string(raw)
	cases["inner sections"] = "metrics: {service: null, certificate: null, serviceMonitor: null, prometheusRule: null, dashboards: null}\n" +
		"wechat: {caBundle: null}\nnetworkPolicy: {egress: null}\n"
	want := texts(t, rendering{"a", "b", "", base}.strictly(t))
	umbrella := newUmbrella(t, "wechat-token-operator")
	wantBelow := texts(t, rendering{"a", "b", umbrella, "wechat-token-operator:\n" + indent(base, "  ")}.strictly(t))
	for name, values := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := texts(t, rendering{"a", "b", "", base + values}.strictly(t)); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			below := "wechat-token-operator:\n" + indent(base+values, "  ")
			if got := texts(t, rendering{"a", "b", umbrella, below}.strictly(t)); got != wantBelow {
				t.Errorf("as a dependency: got\n%s\nwant\n%s", got, wantBelow)
			}
		})
	}
	t.Run("free form", func(t *testing.T) {
		objects := rendering{"a", "b", "", base + "resources: {limits: null, requests: {memory: null}}\nsecurityContext: null\n" +
			"podSecurityContext: {seccompProfile: null}\nimage: {repository: x, tag: null, digest: null, pullPolicy: null}\n" +
			"metrics: {dashboards: {enabled: true, labels: {grafana_dashboard: null}}}\n"}.strictly(t)
		pod := deploymentOf(objects).Spec.Template.Spec
		if c := pod.Containers[0]; len(c.Resources.Limits) != 0 || len(c.Resources.Requests) != 1 || c.SecurityContext != nil ||
			pod.SecurityContext.SeccompProfile != nil {
			t.Errorf("null leaves a default in place: %v, %v, %v", c.Resources, c.SecurityContext, pod.SecurityContext)
		}
		rendering{"a", "b", "", base + "resources: null\npodSecurityContext: null\nmetrics: {dashboards: {enabled: true, labels: null}}\n"}.strictly(t)
	})
}

func nulls(m map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range m {
		if inner, ok := value.(map[string]any); ok && len(inner) > 0 && key != "labels" {
			out[key] = nulls(inner)
		} else if key != "labels" {
			out[key] = nil
		}
	}
	return out
}

func texts(t *testing.T, objects []client.Object) string {
	t.Helper()
	raw, err := yaml.Marshal(objects)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Numbers that come as strings, as from --set-string and from tools that know strings only, and numbers that are large.
func TestNumbers(t *testing.T) {
	numbers := `
replicaCount: %[1]s3%[1]s
terminationGracePeriodSeconds: %[1]s1234567%[1]s
podDisruptionBudget: {maxUnavailable: %[1]s2%[1]s}
revisionHistoryLimit: %[1]s1234567%[1]s
livenessProbe: {periodSeconds: %[1]s1234567%[1]s, failureThreshold: %[1]s9%[1]s}
readinessProbe: {successThreshold: %[1]s2%[1]s}
metrics: {port: %[1]s9443%[1]s}
networkPolicy: {egress: {dnsPorts: [%[1]s53%[1]s], apiServerPorts: [%[1]s16443%[1]s], wechatPorts: [%[1]s8443%[1]s]}}
`
	want := rendering{"a", "b", "", overlay(t, allParts, fmt.Sprintf(numbers, ""))}.strictly(t)
	got := rendering{"a", "b", "", overlay(t, allParts, fmt.Sprintf(numbers, `"`))}.strictly(t)
	if want, got := texts(t, want), texts(t, got); want != got {
		t.Errorf("as strings\n%s\nas numbers\n%s", got, want)
	}
	if d := deploymentOf(want); *d.Spec.Replicas != 3 || *d.Spec.Template.Spec.TerminationGracePeriodSeconds != 1234567 {
		t.Errorf("got %v", d.Spec)
	}
	if d := deploymentOf(want); *d.Spec.RevisionHistoryLimit != 1234567 || d.Spec.Template.Spec.Containers[0].LivenessProbe.PeriodSeconds != 1234567 {
		t.Errorf("got %v", d.Spec)
	}
	d := deploymentOf(rendering{"a", "b", "", allParts + "replicaCount: 2147483647\n"}.strictly(t))
	if *d.Spec.Replicas != 2147483647 {
		t.Errorf("got %d replicas", *d.Spec.Replicas)
	}
}

// newUmbrella writes a chart that has the operator's as a dependency with a condition, under an alias.
func newUmbrella(t *testing.T, alias string) string {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf("apiVersion: v2\nname: umbrella\nversion: 0.1.0\ndependencies:\n- name: wechat-token-operator\n  version: 0.1.0\n"+
		"  alias: %s\n  condition: %s.enabled\n", alias, alias)
	if err := os.WriteFile(filepath.Join(dir, "Chart.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "charts", "wechat-token-operator"), os.DirFS(chartDir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// As a dependency the chart may have a condition, an alias and global values.
func TestDependency(t *testing.T) {
	for _, alias := range []string{"wechat-token-operator", "operator", "My_Operator-", "_1"} {
		t.Run(alias, func(t *testing.T) {
			t.Parallel()
			values := fmt.Sprintf("global: {a: b}\n%q:\n  enabled: %%s\n%s\n", alias, indent(allParts, "  "))
			rendering{"1", "2", newUmbrella(t, alias), fmt.Sprintf(values, "true")}.strictly(t)
			cmd := exec.CommandContext(t.Context(), os.Getenv("HELM"), "template", "a", newUmbrella(t, alias), "-f", "-") //nolint:gosec // our helm
			cmd.Stdin = strings.NewReader(fmt.Sprintf(values, "false"))
			if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("kind:")) {
				t.Errorf("with the condition false: %v: %s", err, out)
			}
		})
	}
}

// Two dependencies of one chart have no object in common, whatever the release is called.
func TestTwoDependencies(t *testing.T) {
	dir := newUmbrella(t, "operator")
	more := "- name: wechat-token-operator\n  version: 0.1.0\n  alias: operator-b\n"
	text := append(read(t, filepath.Join(dir, "Chart.yaml")), more...)
	if err := os.WriteFile(filepath.Join(dir, "Chart.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(allParts, "gateway: {enabled: true,", "gateway: {enabled: true, service: {name: another},", 1)
	for _, release := range []string{"a", "operator-b", "operator", "operator-b-operator"} {
		values := fmt.Sprintf("operator:\n%s\noperator-b:\n%s\n  crds: {enabled: false}\n", indent(allParts, "  "), indent(other, "  "))
		rendering{release, "b", dir, values}.strictly(t)
	}
}

// The rule for Leases names the one that the operator makes of what it serves, or none.
func TestLeaseName(t *testing.T) {
	for values, known := range map[string]bool{
		"{}":                             true,
		"namespaces: [shop, blog]":       true,
		"namespaces: ['1', '1a']":        true,
		"labelSelector: example.com/a=b": true,
		"{labelSelector: a=b, namespaces: [shop, blog]}": true,
		"labelSelector: ' a = b '":                       false,
		"labelSelector: a==b":                            false,
		"labelSelector: 'a in (c,b)'":                    false,
		"labelSelector: 'b=1,a=2'":                       false,
	} {
		var watch struct {
			LabelSelector string
			Namespaces    []string
		}
		if err := yaml.Unmarshal([]byte(values), &watch); err != nil {
			t.Fatal(err)
		}
		selector, err := labels.Parse(watch.LabelSelector)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(watch.Namespaces)
		// As cmd/operator does, whose test compares it with the rule of config/rbac.
		sum := sha256.Sum256([]byte(selector.String() + "\n" + strings.Join(watch.Namespaces, ",")))
		want := []string{fmt.Sprintf("wechat-token-operator-%x", sum[:4])}
		if !known {
			want = nil
		}
		role := &rbacv1.Role{}
		rendered := render(t, release, releaseSystem, "watch:\n"+indent(values, "  ")+"\n")["Role "+release+"-leader-election-role"]
		if err := yaml.UnmarshalStrict(rendered, role); err != nil {
			t.Fatal(err)
		}
		if got := role.Rules[0].ResourceNames; !slices.Equal(got, want) {
			t.Errorf("%s: the rule names %q, want %q", values, got, want)
		}
	}
}

// Values in combinations that nobody thought of.
func TestCombinations(t *testing.T) {
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // a test that is the same each time
	choices := []string{
		"metrics: {enabled: false, serviceMonitor: {enabled: false}}", "metrics: {secure: false}", "metrics: {certificate: {certName: a.pem, keyName: b.pem}}",
		"metrics: {serviceMonitor: {interval: 1m30s, scrapeTimeout: 500ms, authorization: {credentials: {name: '1', key: 'on'}}}}",
		"metrics: {serviceMonitor: {tlsConfig: {serverName: '1', ca: {configMap: {name: a, key: b}}}}}",
		"metrics: {serviceMonitor: {insecureSkipVerify: true}, certificate: null}",
		"proxy: {httpsProxy: '', secretName: '1', secretKey: '1'}\nnetworkPolicy: {egress: {wechatPorts: [1]}}",
		"proxy: {httpsProxy: 'https://u:p%23@proxy/', secretName: ''}", "proxy: {httpsProxy: 'http://[::1]:3128', secretName: '', noProxy: ['*', '1', '#']}",
		"proxy: {httpsProxy: '', noProxy: null}", "proxy: {httpsProxy: \"http://proxy:3128\\n\", secretName: ''}",
		"proxy: {httpsProxy: 'proxy:3128', secretName: ''}",
		"wechat: {caBundle: {inline: '', configMap: '1', key: '1'}}", "wechat: {caBundle: {inline: '-----BEGIN CERTIFICATE-----', configMap: '', key: 'null'}}", "wechat: {caBundle: null}",
		"wechat: {endpoints: ['https://a: b #c', 'https://1:8443']}",
		"watch: {namespaces: ['1', shop], labelSelector: 'a in (b, c),!d'}", "watch: {labelSelector: \"a=1\"}",
		"requireCredentialsLabel: true", "rbac: {create: false}", "rbac: {aggregateToDefaultRoles: false}",
		"serviceAccount: {create: false, name: '1'}", "serviceAccount: {name: '1'}", "crds: {enabled: false}", "crds: {keep: false}",
		"image: {tag: '1.10', pullPolicy: Always}", "image: {repository: 'localhost:5000/a'}",
		"extraArgs: ['--a=\"b\" #c', '-1', '--leader-election-id=x']",
		"extraEnv: [{name: HTTPS_PROXY, value: '1'}, {name: NO_PROXY, value: 'on'}, {name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]\n" +
			"networkPolicy: {egress: {wechatPorts: [1]}}",
		"extraVolumes: [{name: a, emptyDir: {}}]\nextraVolumeMounts: [{name: a, mountPath: /a}]",
		"networkPolicy: {enabled: false}", "networkPolicy: {metricsFrom: [{ipBlock: {cidr: 10.0.0.0/8}}]}",
		"networkPolicy: {probesFrom: [{ipBlock: {cidr: 10.0.0.0/8}}]}",
		"networkPolicy: {egress: {enabled: true, extra: [{to: [{podSelector: {}}], ports: [{port: 1}]}]}}",
		"podDisruptionBudget: {enabled: false}", "podDisruptionBudget: {maxUnavailable: 50%}", "replicaCount: 0",
		"dnsConfig: {options: [{name: ndots, value: '1'}]}", "hostAliases: [{ip: 10.0.0.1, hostnames: [a, '1']}]",
		"topologySpreadConstraints: [{topologyKey: a, maxSkew: 1, whenUnsatisfiable: DoNotSchedule, labelSelector: null}]",
		"wechat: {caBundle: {inline: \"  \\t-----BEGIN CERTIFICATE-----\\r\\nMIIB\\n\\n\", configMap: ''}}",
		"topologySpreadConstraints: []", "tolerations: [{key: '1', operator: Exists}]", "affinity: {podAntiAffinity: {}}",
		"imagePullSecrets: [{name: '1'}]", "nodeSelector: {a: '1'}", "resources: {}", "podSecurityContext: {}", "securityContext: {}",
		"podSecurityContext: {runAsUser: 1000680000, fsGroup: 1000680000}", "resources: {limits: {memory: 268435456, cpu: 1}}",
		"tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 12345678}]",
		"priorityClassName: '1'", "deploymentAnnotations: {a: '1'}", "podAnnotations: {a: '1'}", "podLabels: {a: '1'}",
		"gateway: {namespaces: [], allNamespaces: true, autoscaling: {enabled: false}, replicaCount: '3'}",
		"gateway: {tls: {certManager: {enabled: false}, secretName: '', insecure: true}}\nmetrics: {serviceMonitor: {insecureSkipVerify: true}}", "gateway: {enabled: false}",
		"gateway: {tls: {insecure: false, secretName: '', certManager: {enabled: true, issuerRef: {name: '1', kind: ClusterIssuer}}}, service: {name: a, annotations: {a: '1'}}}",
		"gateway: {tls: {certManager: {enabled: false}, secretName: '1', insecure: false}, tokenAudience: '1', auditLog: ''}",
		"gateway: {networkPolicy: {enabled: false}, podDisruptionBudget: {maxUnavailable: 50%}, podLabels: {a: '1'}, podAnnotations: {a: '1'}}",
		"gateway: {serviceAccount: {create: false, name: '2'}, extraArgs: ['--a=\"b\" #c'], url: 'https://a', resources: {}}",
		"gateway: {extraEnv: [{name: HTTPS_PROXY, value: '1'}, {name: A, value: 'on'}]}\nnetworkPolicy: {egress: {wechatPorts: [1]}}",
		"gateway: {extraVolumes: [{name: a, emptyDir: {}}], extraVolumeMounts: [{name: a, mountPath: /a}]}",
		"log: {level: debug, format: console}", "log: {level: '3'}", "strategy: {type: Recreate}", "strategy: {rollingUpdate: {maxSurge: 50%}}",
		"revisionHistoryLimit: 0", "livenessProbe: {terminationGracePeriodSeconds: 1}", "readinessProbe: {failureThreshold: 1}",
		"dnsPolicy: None\ndnsConfig: {nameservers: ['10.0.0.10']}", "serviceAccount: {labels: {a: '1'}}",
		"extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: extra}, data: {a: '{{ .Release.Name }}'}}]",
		"extraObjects: [\"apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: extra}\\n\"]",
		"metrics: {serviceMonitor: {relabelings: [{targetLabel: a, replacement: '1'}], metricRelabelings: [{action: labeldrop, regex: a}]}}",
		"metrics: {prometheusRule: {severities: {critical: '1', info: page}, runbookBaseURL: 'https://example.com/#a'}}",
		"metrics: {dashboards: {annotations: {grafana_folder: '1'}}}",
		"enabled: true", "global: {imageRegistry: x}", "commonLabels: {a: '1'}",
	}
	for range 25 {
		values := allParts
		var chosen []string
		for range 5 {
			chosen = append(chosen, choices[random.IntN(len(choices))])
		}
		for _, c := range chosen {
			values = overlay(t, values, c)
		}
		release, namespace := []string{"a", "1", "1.5", "true"}[random.IntN(4)], []string{"b", "1", "null"}[random.IntN(3)]
		t.Run(strings.Join(chosen, " & "), func(t *testing.T) {
			t.Parallel()
			rendering{release, namespace, "", values}.strictly(t)
		})
	}
	// And each by itself.
	for _, c := range choices {
		t.Run(c, func(t *testing.T) {
			t.Parallel()
			rendering{"1", "2", "", overlay(t, allParts, c)}.strictly(t)
		})
	}
}
