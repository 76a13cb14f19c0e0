// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

func prompt(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Delivery = v1alpha1.DeliveryPrompt }

// grantPods gives all operators the role of config/prompt-delivery in the world's namespace.
func (w *world) grantPods() {
	w.Helper()
	raw, err := os.ReadFile("../../config/prompt-delivery/role.yaml")
	w.must(err)
	role := &rbacv1.Role{}
	w.must(yaml.Unmarshal(raw, role))
	role.TypeMeta, role.Namespace = metav1.TypeMeta{}, w.namespace
	w.must(w.Create(w.Context(), role))
	w.must(w.Create(w.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts:" + testenv.OperatorNamespace}},
	}))
}

// createPod makes a pod on a node that mounts the Secret "shop".
func (w *world) createPod(name string, mutate ...func(*corev1.PodSpec)) *corev1.Pod {
	w.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Spec: corev1.PodSpec{
		NodeName: "node",
		Volumes:  []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "shop"}}}},
		Containers: []corev1.Container{{
			Name: "app", Image: "app", VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/wechat"}},
		}},
	}}
	for _, f := range mutate {
		f(&p.Spec)
	}
	w.must(w.Create(w.Context(), p))
	return p
}

// told are the fingerprints on the pods of the world's namespace, for those that have one.
func (w *world) told() map[string]string {
	w.Helper()
	list := &corev1.PodList{}
	w.must(w.List(w.Context(), list, client.InNamespace(w.namespace)))
	out := map[string]string{}
	for _, p := range list.Items {
		if f := p.Annotations[v1alpha1.AnnotationTokenFingerprint]; f != "" {
			out[p.Name] = f
		}
	}
	return out
}

func (w *world) eventuallyDelivered(name string, pods int32) *v1alpha1.DeliveryStatus {
	w.Helper()
	var d *v1alpha1.DeliveryStatus
	w.Eventually(func(g gomega.Gomega) {
		d = w.token(name).Status.Delivery
		g.Expect(d).NotTo(gomega.BeNil())
		g.Expect(d.Fingerprint).To(gomega.Equal(vocab.NewValue(w.value(name)).Fingerprint())) // the status may be behind the Secret
		g.Expect([]int32{d.Pods, d.Reached}).To(gomega.Equal([]int32{pods, pods}))
	}).Should(gomega.Succeed())
	return d
}

// podRequests counts an operator's requests about pods, by verb.
func (w *world) podRequests(o *operator) map[string]int {
	w.Helper()
	all, err := env.Requests(func(r testenv.Request) bool {
		return r.UserAgent == o.name && r.Object.Resource == "pods" && r.Object.Namespace == w.namespace
	})
	w.must(err)
	out := map[string]int{}
	for _, r := range all {
		out[r.Verb]++
	}
	return out
}

// The pods that mount the Secret, and no others, are told of each new token; nothing else about them changes, and a
// process that starts later tells nobody again.
func TestPromptDelivery(t *testing.T) {
	w := newWorld(t)
	w.prompt = true
	w.grantPods()
	o := w.startOperator()
	w.createCredentials(appSecret)
	always := corev1.ContainerRestartPolicyAlways
	projected := []corev1.Volume{{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "shop"}}}},
	}}}}
	before := map[string]*corev1.Pod{
		"secret":    w.createPod("secret"),
		"projected": w.createPod("projected", func(s *corev1.PodSpec) { s.Volumes = projected }),
		"sidecar": w.createPod("sidecar", func(s *corev1.PodSpec) {
			sidecar := s.Containers[0]
			sidecar.Name, sidecar.RestartPolicy = "sidecar", &always
			s.InitContainers, s.Containers[0].VolumeMounts = []corev1.Container{sidecar}, nil
		}),
	}
	w.createPod("by-subpath", func(s *corev1.PodSpec) { s.Containers[0].VolumeMounts[0].SubPath = "access_token" })
	w.createPod("not-mounted", func(s *corev1.PodSpec) { s.Containers[0].VolumeMounts = nil })
	w.createPod("without-a-node", func(s *corev1.PodSpec) { s.NodeName = "" })
	w.createPod("another-secret", func(s *corev1.PodSpec) { s.Volumes[0].Secret.SecretName = "credentials" })
	w.createPod("by-env", func(s *corev1.PodSpec) {
		s.Volumes, s.Containers[0].VolumeMounts = nil, nil
		s.Containers[0].Env = []corev1.EnvVar{{Name: "TOKEN", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "shop"}, Key: "access_token"}}}}
	})
	finished := w.createPod("finished")
	finished.Status.Phase = corev1.PodSucceeded
	w.must(w.Client.Status().Update(w.Context(), finished))

	w.createToken("shop", prompt)
	value := w.eventuallyReady("shop")
	w.eventuallyDelivered("shop", 3)
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.eventuallyAnother("shop", value)
	d := w.eventuallyDelivered("shop", 3)
	if got := w.told(); len(got) != 3 || got["secret"] != d.Fingerprint || got["projected"] != d.Fingerprint || got["sidecar"] != d.Fingerprint {
		t.Errorf("told were %v, want secret, projected and sidecar of %s", got, d.Fingerprint)
	}
	for name, was := range before {
		is := &corev1.Pod{}
		w.must(w.Get(w.Context(), client.ObjectKeyFromObject(was), is))
		delete(is.Annotations, v1alpha1.AnnotationTokenFingerprint)
		if is.Generation != was.Generation || len(is.Annotations) > 0 || !maps.Equal(is.Labels, was.Labels) {
			t.Errorf("pod %s was changed: %+v", name, is.ObjectMeta)
		}
	}
	if c := w.condition("shop", v1alpha1.ConditionDeliveryDegraded); c.Type != "" {
		t.Errorf("%s: %s", c.Reason, c.Message)
	}
	if got := w.podRequests(o); got["patch"] != 6 || got["watch"] != 0 || got["list"] != 2 {
		t.Errorf("requests about pods for two tokens: %v", got)
	}
	counts, _, _ := w.recorder.take()
	if counts["pod reached"] != 6 || counts["pod failed"] != 0 || len(w.recorder.pods) != 2 || slices.Max(w.recorder.pods) > patience {
		t.Errorf("recorded %v, %v", counts, w.recorder.pods)
	}

	o.stop()
	o = w.startOperator()
	w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "1"))
	w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal("1"))
	w.Consistently(func() map[string]int { return w.podRequests(o) }).Should(gomega.BeEmpty())

	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Delivery = v1alpha1.DeliveryKubelet })
	w.Eventually(func() *v1alpha1.DeliveryStatus { return w.token("shop").Status.Delivery }).Should(gomega.BeNil())
}

// A process that died between the Secret and the last pod leaves the rest to the next one, which tells nobody twice.
func TestPromptDeliveryAfterACrash(t *testing.T) {
	w := newWorld(t)
	w.prompt = true
	w.grantPods()
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.createPod("told")
	missed := w.createPod("missed")
	w.createToken("shop", prompt)
	w.eventuallyReady("shop")
	d := w.eventuallyDelivered("shop", 2)
	for what, status := range map[string]*v1alpha1.DeliveryStatus{
		"the token before":   {Fingerprint: "0123456789abcdef", Pods: 2, Reached: 2, Time: d.Time},
		"a part of the pods": {Fingerprint: d.Fingerprint, Pods: 2, Reached: 1, Time: d.Time},
	} {
		o.stop()
		w.must(w.Patch(w.Context(), missed, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"annotations":null}}`))))
		shop := w.token("shop")
		shop.Status.Delivery = status
		w.must(w.Client.Status().Update(w.Context(), shop))
		o = w.startOperator()
		w.Eventually(w.told).Should(gomega.Equal(map[string]string{"told": d.Fingerprint, "missed": d.Fingerprint}), what)
		w.eventuallyDelivered("shop", 2)
		if got := w.podRequests(o); got["patch"] != 1 {
			t.Errorf("%s: requests about pods: %v", what, got)
		}
	}
}

// Without the flag or the permission the token is delivered the usual way, the status says what is missing, and nothing else
// of it changes. The permission is noticed without a restart.
func TestDeliveryDegraded(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.createPod("app")
	w.createToken("shop", prompt)
	value := w.eventuallyReady("shop")
	degraded := func(reason string, says ...string) {
		t.Helper()
		w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionDeliveryDegraded).Reason }).Should(gomega.Equal(reason))
		for _, text := range append(says, "within about 90 s") {
			if c := w.condition("shop", v1alpha1.ConditionDeliveryDegraded); !strings.Contains(c.Message, text) {
				t.Errorf("%s does not say %q: %s", reason, text, c.Message)
			}
		}
		if c := w.condition("shop", v1alpha1.ConditionReady); c.Status != metav1.ConditionTrue || len(w.token("shop").Status.Conditions) != 2 {
			t.Errorf("%s: other conditions: %v", reason, w.token("shop").Status.Conditions)
		}
	}
	degraded(v1alpha1.ReasonPromptDeliveryDisabled, "promptDelivery.enabled", "config/prompt-delivery")
	if got := w.podRequests(o); len(got) > 0 {
		t.Errorf("requests about pods: %v", got)
	}
	o.stop()

	w.prompt = true
	w.expectRefusal("list pods")
	w.startOperator()
	degraded(v1alpha1.ReasonPodsForbidden, "may not list", "promptDelivery.enabled", "config/prompt-delivery")
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.eventuallyAnother("shop", value)
	degraded(v1alpha1.ReasonPodsForbidden)
	if got := w.told(); len(got) > 0 {
		t.Errorf("told: %v", got)
	}
	w.grantPods()
	w.eventuallyDelivered("shop", 1)
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionDeliveryDegraded).Type }).Should(gomega.BeEmpty())
}

// A pod that cannot be told does not keep the token from the others.
func TestDeliveryToSomePods(t *testing.T) {
	w := newWorld(t)
	w.prompt = true
	w.grantPods()
	w.denyPod("b")
	w.expectRefusal("patch pods")
	for _, name := range []string{"a", "b", "c"} {
		w.createPod(name)
	}
	w.ready(v1alpha1.ModeStable, prompt)
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionDeliveryDegraded).Message }).
		Should(gomega.HavePrefix("1 of 3 pods that mount the Secret could not be told of the token: the API server forbids the annotation"))
	if got := slices.Sorted(maps.Keys(w.told())); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("told: %v", got)
	}
	if d := w.token("shop").Status.Delivery; d == nil || d.Pods != 3 || d.Reached != 2 {
		t.Errorf("status: %+v", d)
	}
	// Once the pod is gone, nobody is left to be told.
	w.must(w.Delete(w.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "b"}}, client.GracePeriodSeconds(0)))
	w.eventuallyDelivered("shop", 2)
}

// denyPod makes the API server refuse every change of a pod.
func (w *world) denyPod(name string) {
	w.Helper()
	meta := metav1.ObjectMeta{Name: w.namespace}
	pods := admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}}
	rule := admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.Update}, Rule: pods}}
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{rule}},
		Validations: []admissionv1.Validation{{Expression: fmt.Sprintf("request.namespace != '%s' || object.metadata.name != '%s'",
			w.namespace, name), Reason: new(metav1.StatusReasonForbidden)}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: meta.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny}}}
	w.must(w.Create(w.Context(), policy))
	w.must(w.Create(w.Context(), binding))
	w.Cleanup(func() {
		for _, o := range []client.Object{policy, binding} {
			if err := w.Delete(context.WithoutCancel(w.Context()), o); err != nil {
				w.Error(err)
			}
		}
	})
	probe := w.createPod(name)
	w.Eventually(func() error {
		return w.Patch(w.Context(), probe.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`)))
	}).ShouldNot(gomega.Succeed(), "a policy is in force a moment after it was made")
	w.must(w.Delete(w.Context(), probe, client.GracePeriodSeconds(0)))
}

// A namespace with many pods is listed in pages, told at a bounded rate, and keeps no other token waiting.
func TestPromptDeliveryToManyPods(t *testing.T) {
	const pods = 250
	w := newWorld(t)
	w.prompt = true
	w.grantPods()
	var group sync.WaitGroup
	for i := range 10 {
		group.Go(func() {
			for j := range pods / 10 {
				w.createPod(fmt.Sprintf("pod-%d-%d", i, j))
			}
		})
	}
	group.Wait()
	o := w.startOperator()
	w.createCredentials(appSecret)
	const otherApp = "wx0000000000000001"
	w.wechat.SetApp(wechattest.App{ID: otherApp, Secret: appSecret})
	w.createToken("other", func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = otherApp })
	other := w.eventuallyReady("other")
	w.createToken("shop", prompt)
	w.Eventually(func() int { return w.podRequests(o)["patch"] }).Should(gomega.BeNumerically(">", 0))
	w.update("other", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.eventuallyAnother("other", other)
	if done := len(w.told()); done >= pods {
		t.Error("the other token waited for all pods")
	}
	w.eventuallyDelivered("shop", pods)
	if got := w.podRequests(o); got["list"] != (pods+15)/16 || got["patch"] != pods { // 16 pods a page
		t.Errorf("requests about pods: %v", got)
	}
	// The first burst is free; the rest takes its time.
	if took := w.recorder.pods[0]; took < (pods-50)*10*time.Millisecond {
		t.Errorf("%d pods were told within %s", pods, took)
	}
}
