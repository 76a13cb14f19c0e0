// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func TestOperatorUserHasTheOperatorsRole(t *testing.T) {
	env, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	config, err := env.Operator("operator")
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	for verb, want := range map[string]bool{"create": true, "patch": true, "delete": false, "update": false} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "default", Resource: "secrets", Verb: verb},
		}}
		got, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Status.Allowed != want {
			t.Errorf("may %s Secrets: %t, want %t", verb, got.Status.Allowed, want)
		}
	}
	reviews, err := env.Requests(func(r Request) bool { return r.Object.Resource == "selfsubjectaccessreviews" })
	if err != nil {
		t.Fatal(err)
	}
	if len(reviews) != 4 {
		t.Errorf("the audit log holds %d of 4 requests", len(reviews))
	}
}
