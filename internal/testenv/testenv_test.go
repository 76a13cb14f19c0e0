// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestOperatorHasTheRightsOfItsServiceAccount(t *testing.T) {
	env, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	config, err := env.Operator(t.Context(), "operator")
	if err != nil {
		t.Fatal(err)
	}
	inDefault, err := env.NamespacedOperator(t.Context(), "default-only", metav1.NamespaceDefault)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		config                   *rest.Config
		namespace, group, object string
		verbs                    map[string]bool
	}{
		{config, "default", "", "secrets", map[string]bool{"create": true, "list": true, "patch": true, "delete": false, "update": false}},
		{config, "default", "wechat.apptoken.dev", "wechatapptokens", map[string]bool{"list": true, "patch": false}},
		{config, "default", "events.k8s.io", "events", map[string]bool{"patch": true}},
		{config, "default", "coordination.k8s.io", "leases", map[string]bool{"create": false, "get": false}},
		{config, OperatorNamespace, "coordination.k8s.io", "leases", map[string]bool{"create": true, "get": false, "update": false}},
		{inDefault, "default", "", "secrets", map[string]bool{"create": true, "delete": false}},
		{inDefault, "kube-system", "", "secrets", map[string]bool{"get": false}},
		{inDefault, "", "", "secrets", map[string]bool{"list": false}},
	} {
		for verb, want := range tc.verbs {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: tc.namespace, Group: tc.group, Resource: tc.object, Verb: verb},
			}}
			got, err := kubernetes.NewForConfigOrDie(tc.config).AuthorizationV1().SelfSubjectAccessReviews().
				Create(t.Context(), review, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got.Status.Allowed != want {
				t.Errorf("%s may %s %s in %q: %t, want %t", tc.config.UserAgent, verb, tc.object, tc.namespace, got.Status.Allowed, want)
			}
		}
	}
	reviews, err := env.Requests(func(r Request) bool { return r.UserAgent == "operator" && r.User.Username == OperatorUser })
	if err != nil {
		t.Fatal(err)
	}
	if len(reviews) != 13 {
		t.Errorf("the audit log holds %d of 13 requests", len(reviews))
	}
}
