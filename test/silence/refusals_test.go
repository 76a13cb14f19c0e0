// SPDX-License-Identifier: Apache-2.0

package silence

import (
	"context"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// refusals are the ways of the cluster to fail: admission that quotes what it refuses or warns about, Secrets of others,
// credentials that are none, and requests that WeChat refuses.
func (s *stage) refusals(t *testing.T) {
	t.Helper()
	const quote = `"no " + string(object.data["access_token"])`
	for i, code := range []metav1.StatusReason{
		metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge,
	} {
		s.policy(t, strings.ToLower(string(code)), code, quote, admissionv1.Deny)
		s.subject(t, strings.ToLower(string(code)), 9000+i, true)
	}
	s.policy(t, "warned", metav1.StatusReasonInvalid, quote, admissionv1.Warn)
	s.subject(t, "warned", 9010, false)

	s.subject(t, "conflict", 9011, true, func(*v1alpha1.WeChatAppToken) {
		must(t, s.Create(t.Context(), s.secret("conflict", appSecret)))
	})
	s.subject(t, "malformed", 9012, true, func(token *v1alpha1.WeChatAppToken) {
		must(t, s.Create(t.Context(), s.secret("malformed-credentials", needle)))
		token.Spec.CredentialsSecretRef.Name = "malformed-credentials"
	})
	s.subject(t, "requests", 9013, false)
	eventually(t, "the ordinary resources are Ready", func() bool { return s.ready(t, "requests") && s.ready(t, "warned") })
	token := &v1alpha1.WeChatAppToken{}
	must(t, s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "requests"}, token))
	base := token.DeepCopy()
	token.Annotations = map[string]string{v1alpha1.AnnotationRefreshRequestedAt: "1", v1alpha1.AnnotationRevokeRequestedAt: "1"}
	must(t, s.Patch(t.Context(), token, client.MergeFrom(base)))
	// Somebody else's hand, before and after.
	secret := &corev1.Secret{}
	must(t, s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "warned"}, secret))
	secret.Data[tokenKey] = []byte(needle)
	must(t, s.Update(t.Context(), secret))
}

func (s *stage) ready(t *testing.T, name string) bool {
	t.Helper()
	secret := &corev1.Secret{}
	err := s.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, secret)
	return client.IgnoreNotFound(err) == nil && len(secret.Data[tokenKey]) > 0
}

// subject is a resource whose Secret carries the label of a policy.
func (s *stage) subject(t *testing.T, name string, n int, failing bool, mutate ...func(*v1alpha1.WeChatAppToken)) {
	t.Helper()
	token := newToken(s.namespace, name, fmt.Sprintf("wx%016d", n), v1alpha1.ModeStable)
	token.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"policy": v1alpha1.LabelValue(name)}
	for _, f := range mutate {
		f(token)
	}
	must(t, s.Create(t.Context(), token))
	if failing {
		s.failing = append(s.failing, name)
	}
}

// policy makes the API server speak of Secrets with a label, and waits until it does.
func (s *stage) policy(t *testing.T, name string, reason metav1.StatusReason, message string, action admissionv1.ValidationAction) {
	t.Helper()
	full := s.namespace + "-" + name
	must(t, s.Create(t.Context(), &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: full},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"policy": name}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				}}},
			},
			Validations: []admissionv1.Validation{{Expression: "false", MessageExpression: message, Reason: &reason}},
		},
	}))
	must(t, s.Create(t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: full},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: full,
			ValidationActions: []admissionv1.ValidationAction{action}},
	}))
	warnings := &warned{}
	config := *env.Config
	config.WarningHandlerWithContext = warnings
	watching, err := client.New(&config, client.Options{Scheme: scheme()})
	must(t, err)
	eventually(t, "the policy "+name+" speaks", func() bool {
		probe := s.secret("probe-"+name, "")
		probe.Labels, probe.StringData = map[string]string{"policy": name}, map[string]string{tokenKey: needle}
		err := watching.Create(t.Context(), probe, client.DryRunAll)
		return err != nil && strings.Contains(err.Error(), full) || strings.Contains(warnings.text.String(), full)
	})
}

// warned keeps the API server's warnings.
type warned struct{ text strings.Builder }

func (w *warned) HandleWarningHeaderWithContext(_ context.Context, _ int, _, message string) {
	w.text.WriteString(message)
}
