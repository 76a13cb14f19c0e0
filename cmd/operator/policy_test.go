// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// TestPoliciesThatDoNotBind starts an operator with prompt delivery in a cluster whose policies name another ServiceAccount, as those of
// config/ do in an installation with another name. It must say so, change no pod, and begin once the policy is right.
func TestPoliciesThatDoNotBind(t *testing.T) {
	t.Parallel() // it waits for a process
	g := gomega.NewWithT(t)
	g.SetDefaultEventuallyTimeout(30 * time.Second)
	env := testenv.ForTest(t)
	admin := adminOf(t, env)
	pods := installPolicies(t, admin)
	api, err := wechattest.NewServer(wechattest.Options{AutoApps: true})
	must(t, err)
	t.Cleanup(api.Close)
	kubeconfig, err := env.OperatorKubeConfig(t.Context())
	must(t, err)
	p := startProcess(t, kubeconfig, "--wechat-endpoints="+api.URL(), "--health-probe-bind-address=0", "--prompt-delivery")

	must(t, admin.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop-wechat"},
		StringData: map[string]string{"appSecret": "0123456789abcdef0123456789abcdef"}}))
	must(t, admin.Create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.PodSpec{
		NodeName:   "node",
		Volumes:    []corev1.Volume{{Name: "t", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "shop"}}}},
		Containers: []corev1.Container{{Name: "web", Image: "web", VolumeMounts: []corev1.VolumeMount{{Name: "t", MountPath: "/t"}}}},
	}}))
	token := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop"}, Spec: v1alpha1.WeChatAppTokenSpec{
		AppID: "wx0123456789abcdef", CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "shop-wechat"},
		Target: v1alpha1.TargetSpec{Delivery: v1alpha1.DeliveryPrompt},
	}}
	must(t, admin.Create(t.Context(), token))

	g.Eventually(p.logged).Should(gomega.And(
		gomega.ContainSubstring("no admission policy confines what this operator writes to Secrets"),
		gomega.ContainSubstring("prompt delivery stays off, because no admission policy confines what this operator changes on pods"),
	))
	condition := func() *metav1.Condition {
		must(t, admin.Get(t.Context(), client.ObjectKeyFromObject(token), token))
		return apimeta.FindStatusCondition(token.Status.Conditions, v1alpha1.ConditionDeliveryDegraded)
	}
	g.Eventually(condition).ShouldNot(gomega.BeNil())
	if c := condition(); c.Reason != v1alpha1.ReasonPromptDeliveryDisabled || !strings.Contains(c.Message, "config/prompt-delivery") {
		t.Errorf("DeliveryDegraded is %s: %s", c.Reason, c.Message)
	}
	if !apimeta.IsStatusConditionTrue(token.Status.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("the token is not Ready: %v", token.Status.Conditions)
	}
	told := func() string {
		pod := &corev1.Pod{}
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "web"}, pod))
		return pod.Annotations[v1alpha1.AnnotationTokenFingerprint]
	}
	if got := told(); got != "" {
		t.Errorf("the pod was told %q", got)
	}

	pods.Spec.MatchConditions[0].Expression = "request.userInfo.username == '" + testenv.OperatorUser + "'"
	must(t, admin.Update(t.Context(), pods))
	g.Eventually(told, 90*time.Second).Should(gomega.Equal(token.Status.Token.Fingerprint))
	g.Eventually(condition).Should(gomega.BeNil())

	patches, err := env.Requests(func(r testenv.Request) bool {
		return r.User.Username == testenv.OperatorUser && r.Object.Resource == "pods" && r.Verb == "patch" && !strings.Contains(r.URI, "dryRun=All")
	})
	must(t, err)
	if len(patches) != 1 {
		t.Errorf("%d patches of pods, want the one that told it: %+v", len(patches), patches)
	}
	p.terminate(t, 10*time.Second)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// installPolicies installs the policies of config/ as they are, and the rights of prompt delivery for the operator of the tests. It returns
// the policy for pods.
func installPolicies(t *testing.T, admin client.Client) *admissionregistrationv1.ValidatingAdmissionPolicy {
	t.Helper()
	load := func(path string, into any) {
		raw, err := os.ReadFile("../../config/" + path)
		must(t, err)
		must(t, yaml.UnmarshalStrict(raw, into))
	}
	var pods *admissionregistrationv1.ValidatingAdmissionPolicy
	for _, folder := range []string{"admission-policy", "prompt-delivery"} {
		pods = &admissionregistrationv1.ValidatingAdmissionPolicy{}
		load(folder+"/policy.yaml", pods)
		must(t, admin.Create(t.Context(), pods))
		binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
		load(folder+"/binding.yaml", binding)
		must(t, admin.Create(t.Context(), binding))
	}
	role := &rbacv1.ClusterRole{}
	load("prompt-delivery/role.yaml", role)
	must(t, admin.Create(t.Context(), role))
	must(t, admin.Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: testenv.OperatorUser}}}))
	return pods
}
