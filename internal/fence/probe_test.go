// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

var (
	admin client.Client
	// operator has the rights of the operator's ServiceAccount, and those on pods that prompt delivery needs.
	operator client.Client
)

func TestMain(m *testing.M) {
	testenv.Main(m, func(ctx context.Context, env *testenv.Environment) (_ func() error, err error) {
		if admin, err = client.New(env.Config, client.Options{}); err != nil {
			return nil, err
		}
		config, err := env.Operator(ctx, "policy-probe")
		if err != nil {
			return nil, err
		}
		operator, err = client.New(config, client.Options{})
		return nil, err
	})
}

type world struct {
	*testing.T
	gomega.Gomega

	pod types.NamespacedName
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, Gomega: gomega.NewWithT(t)}
	w.SetDefaultEventuallyTimeout(20 * time.Second)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	w.create(namespace)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "pod"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}}}
	w.create(pod)
	w.pod = client.ObjectKeyFromObject(pod)
	return w
}

// create creates an object, which is deleted at the end of the test.
func (w *world) create(o client.Object) {
	w.Helper()
	if err := admin.Create(w.Context(), o); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := admin.Delete(context.WithoutCancel(w.Context()), o); client.IgnoreNotFound(err) != nil {
			w.Error(err)
		}
	})
}

func (w *world) load(path string, into any) {
	w.Helper()
	raw, err := os.ReadFile("../../config/" + path)
	if err != nil {
		w.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(raw, into); err != nil {
		w.Fatal(err)
	}
}

// grantPods gives the operator the rights of config/prompt-delivery in the namespace of the test.
func (w *world) grantPods() {
	w.Helper()
	role := &rbacv1.Role{}
	clusterRole := &rbacv1.ClusterRole{}
	w.load("prompt-delivery/role.yaml", clusterRole)
	role.Namespace, role.Name, role.Rules = w.pod.Namespace, "pods", clusterRole.Rules
	w.create(role)
	w.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: w.pod.Namespace, Name: "pods"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: testenv.OperatorUser}}})
	w.Eventually(func() error {
		return operator.List(w.Context(), &corev1.PodList{}, client.InNamespace(w.pod.Namespace))
	}).Should(gomega.Succeed())
}

// install installs the policy of a folder of config, for this user unless it is empty.
func (w *world) install(folder, user string, mutate ...func(*admissionregistrationv1.ValidatingAdmissionPolicyBinding)) {
	w.Helper()
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
	w.load(folder+"/policy.yaml", policy)
	if user != "" {
		policy.Spec.MatchConditions[0].Expression = fmt.Sprintf("request.userInfo.username == '%s'", user)
	}
	w.create(policy)
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	w.load(folder+"/binding.yaml", binding)
	for _, f := range mutate {
		f(binding)
	}
	w.create(binding)
}

// barrier waits until the API server enforces policies that were installed before it, by one that is installed now and refuses ConfigMaps.
func (w *world) barrier() {
	w.Helper()
	w.refuse("barrier", "configmaps", "barrier")
	w.Eventually(func() error {
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.pod.Namespace, GenerateName: "x-"}}
		return admin.Create(w.Context(), config, client.DryRunAll)
	}).Should(gomega.MatchError(apierrors.IsForbidden, "IsForbidden"))
}

// refuse installs a policy that refuses all writes of a resource in the namespace of the test with this message.
func (w *world) refuse(name, resource, message string) {
	w.Helper()
	meta := metav1.ObjectMeta{Name: w.pod.Namespace + "-" + name}
	fail, forbidden := admissionregistrationv1.Fail, metav1.StatusReasonForbidden
	w.create(&admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: &fail,
		MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
			RuleWithOperations: admissionregistrationv1.RuleWithOperations{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}},
			}}}},
		Validations: []admissionregistrationv1.Validation{{
			Expression: fmt.Sprintf("request.namespace != '%s'", w.pod.Namespace), Message: message, Reason: &forbidden}},
	}})
	w.create(&admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta,
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: meta.Name,
			ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny}}})
}

// webhook installs a webhook that refuses all writes of a resource in the namespace of the test with this message.
func (w *world) webhook(resource, message string) {
	w.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		review := &admissionv1.AdmissionReview{}
		raw, err := io.ReadAll(req.Body)
		if err != nil || json.Unmarshal(raw, review) != nil {
			http.Error(rw, "no review", http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID,
			Result: &metav1.Status{Message: message, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden}}
		review.Request = nil
		_ = json.NewEncoder(rw).Encode(review) // the API server notices
	}))
	w.Cleanup(server.Close)
	fail, none, url := admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNone, server.URL
	w.create(&admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: w.pod.Namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "refuses.example.com", AdmissionReviewVersions: []string{"v1"}, FailurePolicy: &fail, SideEffects: &none,
			ClientConfig:      admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: certificate(server)},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.pod.Namespace}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{resource}},
			}},
		}}})
	w.Eventually(func() error { return w.adminWrites(resource) }).
		Should(gomega.MatchError(gomega.ContainSubstring("refuses.example.com")))
}

// certificate returns the certificate of a server as PEM, which is its own authority.
func certificate(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func (w *world) adminWrites(resource string) error {
	if resource == "pods" {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: w.pod.Namespace, Name: w.pod.Name}}
		return admin.Patch(w.Context(), pod, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`)), client.DryRunAll)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.pod.Namespace, Name: "x"}}
	return admin.Create(w.Context(), secret, client.DryRunAll)
}

const wrongUser = "" // that of config/, which is not the one of the tests

// TestPod tries the policy for pods on a real API server: with the operator's name, with another one, without the policy, and with what
// else may refuse the dry run.
func TestPod(t *testing.T) {
	const policyFolder = "prompt-delivery"
	warnOnly := func(b *admissionregistrationv1.ValidatingAdmissionPolicyBinding) {
		b.Spec.ValidationActions = []admissionregistrationv1.ValidationAction{admissionregistrationv1.Warn, admissionregistrationv1.Audit}
	}
	forged := `pods "pod" is forbidden: ValidatingAdmissionPolicy 'x' with binding 'x' denied request: ` + podMessages[3]
	for _, c := range []struct {
		name string
		set  func(w *world)
		// bound and unbound say which answer is right; neither stands for an error that leaves the question open.
		bound, unbound bool
	}{
		{"with its own name", func(w *world) { w.grantPods(); w.install(policyFolder, testenv.OperatorUser) }, true, false},
		{"with another name", func(w *world) { w.grantPods(); w.install(policyFolder, wrongUser) }, false, true},
		{"absent", func(w *world) { w.grantPods() }, false, true},
		{"only warns", func(w *world) { w.grantPods(); w.install(policyFolder, testenv.OperatorUser, warnOnly) }, false, true},
		{"no right on pods", func(w *world) { w.install(policyFolder, wrongUser) }, false, false},
		{"another policy refuses", func(w *world) { w.grantPods(); w.refuse("other", "pods", "no annotations here") }, false, false},
		{"a webhook refuses", func(w *world) { w.grantPods(); w.webhook("pods", podMessages[3]) }, false, false},
		{"a webhook refuses in the policy's words", func(w *world) { w.grantPods(); w.webhook("pods", forged) }, false, false},
		{"both refuse", func(w *world) {
			w.grantPods()
			w.webhook("pods", "no")
			w.install(policyFolder, testenv.OperatorUser)
		}, true, false},
		{"the pod is gone", func(w *world) {
			w.grantPods()
			w.install(policyFolder, testenv.OperatorUser)
			w.pod.Name = "another"
		}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.set(w)
			w.barrier()
			err := Probe{operator}.Pod(t.Context(), w.pod)
			if (err == nil) != c.bound || errors.Is(err, ErrUnbound) != c.unbound {
				t.Errorf("got %v, bound %t, unbound %t", err, c.bound, c.unbound)
			}
			pod := &corev1.Pod{}
			if err := admin.Get(t.Context(), client.ObjectKey{Namespace: w.pod.Namespace, Name: "pod"}, pod); err != nil || len(pod.Annotations) > 0 {
				t.Errorf("the pod was changed: %v, %v", pod.Annotations, err)
			}
		})
	}
}

// TestSecret tries the policy for Secrets in the same ways.
func TestSecret(t *testing.T) {
	const policyFolder = "admission-policy"
	for _, c := range []struct {
		name           string
		set            func(w *world)
		bound, unbound bool
	}{
		{"with its own name", func(w *world) { w.install(policyFolder, testenv.OperatorUser) }, true, false},
		{"with another name", func(w *world) { w.install(policyFolder, wrongUser) }, false, true},
		{"absent", func(*world) {}, false, true},
		{"another policy refuses", func(w *world) { w.refuse("other", "secrets", "no Secrets here") }, false, false},
		{"a webhook refuses", func(w *world) { w.webhook("secrets", secretMessages[2]) }, false, false},
		{"no such namespace", func(w *world) { w.install(policyFolder, wrongUser); w.pod.Namespace += "-x" }, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			namespace := w.pod.Namespace
			c.set(w)
			tried := w.pod.Namespace
			w.pod.Namespace = namespace
			w.barrier()
			err := Probe{operator}.Secret(t.Context(), tried)
			if (err == nil) != c.bound || errors.Is(err, ErrUnbound) != c.unbound {
				t.Errorf("got %v, bound %t, unbound %t", err, c.bound, c.unbound)
			}
			secrets := &corev1.SecretList{}
			if err := admin.List(t.Context(), secrets, client.InNamespace(namespace)); err != nil || len(secrets.Items) > 0 {
				t.Errorf("there are %d Secrets: %v", len(secrets.Items), err)
			}
		})
	}
}

// TestMessages compares the messages by which a refusal counts as the policy's own with those of the policies.
func TestMessages(t *testing.T) {
	w := &world{T: t}
	for folder, want := range map[string][]string{"prompt-delivery": podMessages, "admission-policy": secretMessages} {
		policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
		w.load(folder+"/policy.yaml", policy)
		var got []string
		for _, v := range policy.Spec.Validations {
			got = append(got, v.Message)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has the messages\n%q\nwant\n%q", folder, got, want)
		}
	}
}
