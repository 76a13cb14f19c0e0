// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// With prompt delivery the operator tells pods of a token, and whoever has its identity can do nothing else to a pod, even
// with every right on pods that RBAC knows.
func TestPromptDeliveryPolicy(t *testing.T) {
	i := install(t, "promptDelivery: {enabled: true}\n")
	pod := i.createPod("app")
	i.createToken(i.shop, func(r *v1alpha1.WeChatAppToken) { r.Spec.Target.Delivery = v1alpha1.DeliveryPrompt })
	i.eventuallyReady(i.shop)
	i.Eventually(func(g gomega.Gomega) {
		s := i.token(i.shop).Status
		g.Expect(s.Delivery).NotTo(gomega.BeNil(), "%v", s.Conditions)
		g.Expect([]int32{s.Delivery.Pods, s.Delivery.Reached}).To(gomega.Equal([]int32{1, 1}))
		g.Expect(i.Get(t.Context(), client.ObjectKeyFromObject(pod), pod)).To(gomega.Succeed())
		g.Expect(pod.Annotations).To(gomega.HaveKeyWithValue(v1alpha1.AnnotationTokenFingerprint, s.Token.Fingerprint))
	}).Should(gomega.Succeed())
	i.policyGuardsPods(pod)
	i.operator.stop()
	if refused := i.refused(i.operator); len(refused) > 0 {
		t.Errorf("the API server refused requests of the operator: %q", refused)
	}
}

// createPod makes a pod in the namespace shop that mounts the token.
func (i *installed) createPod(name string) *corev1.Pod {
	i.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: i.shop, Name: name, Labels: map[string]string{"app": "app"}, Annotations: map[string]string{"team": "shop"},
		},
		Spec: corev1.PodSpec{
			NodeName: "node",
			Volumes:  []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "shop-token"}}}},
			Containers: []corev1.Container{{
				Name: "app", Image: "app", VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/token"}},
			}},
		},
	}
	i.must(i.Create(i.Context(), p))
	return p
}

func (i *installed) policyGuardsPods(pod *corev1.Pod) {
	i.Helper()
	i.grantEverythingOnPods()
	thief := i.asOperator()
	patch := func(by client.Client, mutate func(*corev1.Pod)) error {
		changed := pod.DeepCopy()
		mutate(changed)
		return by.Patch(i.Context(), changed, client.MergeFrom(pod), client.DryRunAll)
	}
	fingerprint := func(value string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations[v1alpha1.AnnotationTokenFingerprint] = value }
	}
	image := func(p *corev1.Pod) { p.Spec.Containers[0].Image = "evil" }
	// A role and a policy are in force a moment after they were made; the deletion needs both.
	i.Eventually(func() error { return thief.Delete(i.Context(), pod.DeepCopy(), client.DryRunAll) }).
		Should(gomega.MatchError(gomega.ContainSubstring("ValidatingAdmissionPolicy")))
	fresh := pod.DeepCopy()
	fresh.ObjectMeta = metav1.ObjectMeta{Namespace: i.shop, Name: "evil"}
	for what, c := range map[string]struct {
		err  error
		says string
	}{
		"an image":                 {patch(thief, image), "spec"},
		"a deadline":               {patch(thief, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(1)) }), "spec"},
		"a toleration":             {patch(thief, func(p *corev1.Pod) { p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "a"}) }), "spec"},
		"another annotation":       {patch(thief, func(p *corev1.Pod) { p.Annotations["team"] = "evil" }), "annotation"},
		"a new annotation":         {patch(thief, func(p *corev1.Pod) { p.Annotations["evil"] = "" }), "annotation"},
		"taking an annotation off": {patch(thief, func(p *corev1.Pod) { delete(p.Annotations, "team") }), "annotation"},
		"one more besides its own": {patch(thief, func(p *corev1.Pod) { fingerprint("0123456789abcdef")(p); p.Annotations["evil"] = "" }), "annotation"},
		"a label":                  {patch(thief, func(p *corev1.Pod) { p.Labels["app"] = "evil" }), "label"},
		"a new label":              {patch(thief, func(p *corev1.Pod) { p.Labels["evil"] = "" }), "label"},
		"all labels":               {patch(thief, func(p *corev1.Pod) { p.Labels = nil }), "label"},
		"a finalizer":              {patch(thief, func(p *corev1.Pod) { p.Finalizers = []string{"evil.example.com/x"} }), "finalizer"},
		"an owner": {patch(thief, func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "x", UID: "x"}}
		}), "owner"},
		"a text in its annotation":      {patch(thief, fingerprint("$(evil)")), "16 hex digits"},
		"a line below a fingerprint":    {patch(thief, fingerprint("0123456789abcdef\nevil")), "16 hex digits"},
		"taking its annotation off":     {patch(thief, func(p *corev1.Pod) { delete(p.Annotations, v1alpha1.AnnotationTokenFingerprint) }), "annotation"},
		"a new pod":                     {thief.Create(i.Context(), fresh, client.DryRunAll), "no pod"},
		"a deletion":                    {thief.Delete(i.Context(), pod.DeepCopy(), client.DryRunAll), "no pod"},
		"an eviction":                   {thief.SubResource("eviction").Create(i.Context(), pod.DeepCopy(), &policyv1.Eviction{}), "no pod"},
		"a status":                      {thief.Status().Patch(i.Context(), withPhase(pod), client.MergeFrom(pod)), "no pod"},
		"a container for investigation": {thief.SubResource("ephemeralcontainers").Patch(i.Context(), withDebugger(pod), client.MergeFrom(pod)), "no pod"},
	} {
		if !apierrors.IsForbidden(c.err) || !strings.Contains(c.err.Error(), c.says) ||
			!strings.Contains(c.err.Error(), "ValidatingAdmissionPolicy") {
			i.Errorf("%s: %v", what, c.err)
		}
	}
	for what, err := range map[string]error{
		"its own annotation":     patch(thief, fingerprint("0123456789abcdef")),
		"somebody else's change": patch(i.Client, image),
	} {
		if err != nil {
			i.Errorf("%s: %v", what, err)
		}
	}
}

func withPhase(pod *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	out.Status.Phase = corev1.PodSucceeded
	return out
}

func withDebugger(pod *corev1.Pod) *corev1.Pod {
	out := pod.DeepCopy()
	out.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "evil", Image: "evil", TerminationMessagePolicy: corev1.TerminationMessageReadFile, ImagePullPolicy: corev1.PullAlways}}}
	return out
}

// grantEverythingOnPods leaves the policy alone between the operator's identity and the pods.
func (i *installed) grantEverythingOnPods() {
	i.Helper()
	namespace, account, _ := strings.Cut(strings.TrimPrefix(i.operator.username, "system:serviceaccount:"), ":")
	meta := metav1.ObjectMeta{Namespace: i.shop, Name: "everything-on-pods"}
	i.must(i.Create(i.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods", "pods/eviction", "pods/status", "pods/ephemeralcontainers"}, Verbs: []string{"*"}}}}))
	i.must(i.Create(i.Context(), &rbacv1.RoleBinding{ObjectMeta: meta,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}}}))
}

// Without the option there is no right on pods, with a list of namespaces there is one in each, and the same objects come
// from kustomize.
func TestPromptDeliveryManifests(t *testing.T) {
	for key, doc := range render(t, release, releaseSystem, "watch: {namespaces: [shop, blog]}\n") {
		if strings.HasPrefix(key, "CustomResourceDefinition ") {
			continue // it tells of both
		}
		if strings.Contains(string(doc), "pods]") || strings.Contains(string(doc), "- pods") || strings.Contains(string(doc), "prompt-delivery") {
			t.Errorf("without the option: %s:\n%s", key, doc)
		}
	}
	var pods []string
	for key, doc := range render(t, release, releaseSystem, "watch: {namespaces: [shop, blog]}\npromptDelivery: {enabled: true}\n") {
		if strings.Contains(key, "prompt-delivery") {
			kind, _, _ := strings.Cut(key, " ")
			pods = append(pods, kind)
		}
		if strings.HasPrefix(key, "ClusterRole") && strings.Contains(string(doc), "- pods") {
			t.Errorf("a cluster-wide right: %s", key)
		}
	}
	slices.Sort(pods)
	if want := []string{"Role", "Role", "RoleBinding", "RoleBinding"}; !slices.Equal(pods, want) {
		t.Errorf("with a list of namespaces: %q, want %q", pods, want)
	}

	want, got := kustomizeWith(t, "prompt-delivery"), render(t, release, releaseSystem, "promptDelivery: {enabled: true}\n")
	sameAsChart(t, "kustomize", want, got)
}

// kustomizeWith builds an overlay of config/default with components, in this order.
func kustomizeWith(t *testing.T, components ...string) map[string][]byte {
	t.Helper()
	return buildOverlay(t, []string{"default"}, components)
}

// buildOverlay builds an overlay of folders of config: resources and components.
func buildOverlay(t *testing.T, resources, components []string) map[string][]byte {
	t.Helper()
	folders := func(names []string) string {
		var out strings.Builder
		for _, name := range names {
			out.WriteString("\n- ../config/" + name)
		}
		return out.String()
	}
	text := "resources:" + folders(resources)
	if len(components) > 0 {
		text += "\ncomponents:" + folders(components)
	}
	return buildBesideConfig(t, text+fmt.Sprintf("\nimages: [{name: controller, newName: %s, newTag: %s}]\n", image, version))
}

// buildBesideConfig builds a kustomization in a folder beside config.
func buildBesideConfig(t *testing.T, text string) map[string][]byte {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "overlay")
	if err := errors.Join(os.CopyFS(filepath.Join(root, "config"), os.DirFS("../../config")), os.Mkdir(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return buildKustomization(t, dir)
}
