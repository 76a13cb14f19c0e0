// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const gatewayValues = "gateway: {enabled: true, allNamespaces: true, tls: {certManager: {enabled: true}}}\n"

// The same objects come from kustomize and from the chart.
func TestSameAsGateway(t *testing.T) {
	sameAsChart(t, "kustomize", kustomizeWith(t, "gateway"), render(t, release, releaseSystem, gatewayValues))
}

// With a list of namespaces the gateway may read no Secret of others, and without it nothing of the gateway is there.
func TestGatewayOfNamespaces(t *testing.T) {
	const tls = "tls: {insecure: true}"
	for key, doc := range render(t, "x", "y", "watch: {namespaces: [shop]}\ngateway: {enabled: true, namespaces: [shop], "+tls+"}\n") {
		if strings.HasPrefix(key, "ClusterRole ") && strings.Contains(string(doc), "secrets") {
			t.Errorf("a cluster-wide right on Secrets: %s", key)
		}
	}
	for key, doc := range render(t, "x", "y", "gateway: {enabled: false, namespaces: [shop], "+tls+"}\n") {
		if !strings.HasPrefix(key, "CustomResourceDefinition ") && strings.Contains(string(doc), "gateway") {
			t.Errorf("without the gateway: %s:\n%s", key, doc)
		}
	}
}

// The API server accepts the gateway's pod in a namespace that enforces the level restricted.
func TestRestrictedGateway(t *testing.T) {
	w := newWorld(t, shared)
	namespace := w.newNamespace(restricted)
	d := &appsv1.Deployment{}
	if err := yaml.Unmarshal(render(t, release, namespace, gatewayValues)["Deployment "+release+"-gateway"], d); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "gateway"}, Spec: d.Spec.Template.Spec}
	pod.Spec.ServiceAccountName = "" // it is not there
	w.must(w.Create(t.Context(), pod, client.DryRunAll))
}
