// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// restricted are labels that make the API server refuse pods that are not restricted.
var restricted = map[string]string{
	"pod-security.kubernetes.io/enforce":         "restricted",
	"pod-security.kubernetes.io/enforce-version": "latest",
}

// The API server accepts the chart's pod in a namespace that enforces the level restricted, and also with the arbitrary
// user that OpenShift gives it.
func TestRestrictedPodSecurity(t *testing.T) {
	w := newWorld(t, shared)
	namespace := w.newNamespace(restricted)
	for name, c := range map[string]struct {
		values  string
		mutate  func(*corev1.PodSpec)
		refused bool
	}{
		"default":  {},
		"all set":  {values: everything},
		"any user": {mutate: func(s *corev1.PodSpec) { s.SecurityContext.RunAsUser = new(int64(arbitraryUID)) }},
		"root":     {mutate: func(s *corev1.PodSpec) { s.SecurityContext.RunAsUser = new(int64) }, refused: true},
		"writable": {values: "securityContext: {allowPrivilegeEscalation: true}", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			d := &appsv1.Deployment{}
			objects := render(t, release, namespace, c.values)
			if err := yaml.Unmarshal(objects["Deployment "+deployment], d); err != nil {
				t.Fatal(err)
			}
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "operator"}, Spec: d.Spec.Template.Spec}
			if c.mutate != nil {
				c.mutate(&pod.Spec)
			}
			// There is no such class in a cluster without controllers; and what is asked for is the security.
			pod.Spec.PriorityClassName = ""
			err := w.Create(t.Context(), pod, client.DryRunAll)
			if c.refused && !apierrors.IsForbidden(err) || !c.refused && err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}
