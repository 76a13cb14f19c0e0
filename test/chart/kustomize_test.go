// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Several components fit together in any order: none takes from the operator's pods what another gave them.
func TestSeveralComponents(t *testing.T) {
	chart := render(t, release, releaseSystem, gatewayValues+
		"promptDelivery: {enabled: true}\nmetrics: {certificate: {secretName: metrics-server-cert}}\n")
	sortLists(t, chart)
	for _, components := range [][]string{
		{"metrics-certificate", "gateway", "prompt-delivery"},
		{"prompt-delivery", "gateway", "metrics-certificate"},
	} {
		t.Run(strings.Join(components, ","), func(t *testing.T) {
			built := kustomizeWith(t, components...)
			mountsAreThere(t, built)
			maps.DeleteFunc(built, func(key string, _ []byte) bool { // the chart leaves the certificate of the metrics to the user
				return (strings.HasPrefix(key, "Issuer ") || strings.HasPrefix(key, "Certificate ")) && !strings.Contains(key, "gateway")
			})
			sortLists(t, built)
			sameAsChart(t, "the overlay", built, chart)
		})
	}
}

// What is optional can be put into an overlay of config/default as docs/install.md prints it: it comes under the names and into the
// namespace of the operator.
func TestOptionalFolders(t *testing.T) {
	base := buildOverlay(t, []string{"default"}, nil)
	for _, c := range []struct {
		folders []string
		added   []string
	}{
		{[]string{"network-policy-egress"}, []string{"NetworkPolicy " + deployment + "-egress"}},
		{[]string{"prometheus"}, []string{"PrometheusRule " + release + "-rules", "ServiceMonitor " + deployment + "-metrics-monitor"}},
		{[]string{"gateway-network-policy-egress"}, []string{"NetworkPolicy " + release + "-gateway-egress"}},
		{[]string{"gateway-monitor"}, []string{"ServiceMonitor " + release + "-gateway"}},
		{[]string{"admission-policy"}, []string{"ValidatingAdmissionPolicy " + release + "-secrets",
			"ValidatingAdmissionPolicyBinding " + release + "-secrets"}},
	} {
		t.Run(strings.Join(c.folders, ","), func(t *testing.T) {
			got := buildOverlay(t, append([]string{"default"}, c.folders...), nil)
			maps.DeleteFunc(got, func(key string, _ []byte) bool { return base[key] != nil })
			if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, c.added) {
				t.Errorf("it adds %q, want %q", names, c.added)
			}
			for key, doc := range got {
				var o metav1.PartialObjectMetadata
				if err := yaml.Unmarshal(doc, &o); err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(key, "Validating") && o.Namespace != releaseSystem {
					t.Errorf("%s is in the namespace %q", key, o.Namespace)
				}
				if o.Labels["app.kubernetes.io/name"] != release || o.Labels["app.kubernetes.io/part-of"] != release {
					t.Errorf("%s has the labels %v", key, o.Labels)
				}
			}
		})
	}
}

// The overlay that docs/install.md prints builds, and everything in it is in the operator's namespace.
func TestDocumentedOverlay(t *testing.T) {
	found := documented(t, "install.md", "## With kubectl", "yaml")
	if len(found) != 1 {
		t.Fatalf("found %q", found)
	}
	got := buildBesideConfig(t, found[0])
	mountsAreThere(t, got)
	for _, key := range []string{
		"Deployment " + deployment, "NetworkPolicy " + deployment + "-egress", "PrometheusRule " + release + "-rules",
		"ServiceMonitor " + deployment + "-metrics-monitor", "Certificate " + release + "-metrics",
	} {
		if got[key] == nil {
			t.Errorf("there is no %s", key)
		}
	}
	for key, doc := range got {
		var o metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(doc, &o); err != nil {
			t.Fatal(err)
		}
		if o.Namespace != "" && o.Namespace != releaseSystem {
			t.Errorf("%s is in the namespace %q", key, o.Namespace)
		}
	}
	pod := deployments(t, got)["Deployment "+deployment].Spec.Template.Spec
	if image := pod.Containers[0].Image; !strings.HasPrefix(image, "registry.example.com/") {
		t.Errorf("the overlay runs the image %q", image)
	}
}

// mountsAreThere checks that each volume that a container of a Deployment mounts exists, and that each file that its arguments name is in
// one.
func mountsAreThere(t *testing.T, objects map[string][]byte) {
	t.Helper()
	files := 0
	for key, d := range deployments(t, objects) {
		volumes := map[string]bool{}
		for _, v := range d.Spec.Template.Spec.Volumes {
			volumes[v.Name] = true
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			for _, m := range c.VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s mounts the volume %s, which is not there", key, m.Name)
				}
			}
			for _, arg := range c.Args {
				_, path, _ := strings.Cut(arg, "=")
				if !strings.HasPrefix(path, "/") {
					continue
				}
				files++
				if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
					return path == m.MountPath || strings.HasPrefix(path, m.MountPath+"/")
				}) {
					t.Errorf("%s: no volume is mounted where %s looks", key, arg)
				}
			}
		}
	}
	if files == 0 {
		t.Error("no argument names a file: does the test still read them?")
	}
}

func deployments(t *testing.T, objects map[string][]byte) map[string]*appsv1.Deployment {
	t.Helper()
	out := map[string]*appsv1.Deployment{}
	for key, doc := range objects {
		if !strings.HasPrefix(key, "Deployment ") {
			continue
		}
		out[key] = &appsv1.Deployment{}
		if err := yaml.UnmarshalStrict(doc, out[key]); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	return out
}

// sortLists sorts the lists of Deployments in which the order of the components shows and means nothing.
func sortLists(t *testing.T, objects map[string][]byte) {
	t.Helper()
	for key, d := range deployments(t, objects) {
		pod := &d.Spec.Template.Spec
		slices.SortFunc(pod.Volumes, func(a, b corev1.Volume) int { return cmp.Compare(a.Name, b.Name) })
		for i := range pod.Containers {
			slices.Sort(pod.Containers[i].Args)
			slices.SortFunc(pod.Containers[i].VolumeMounts, func(a, b corev1.VolumeMount) int { return cmp.Compare(a.Name, b.Name) })
		}
		out, err := yaml.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		objects[key] = out
	}
}
