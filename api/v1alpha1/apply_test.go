// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	applyv1alpha1 "github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

const (
	pipeline = client.FieldOwner("pipeline")
	person   = client.FieldOwner("person")
)

// shop is what a pipeline applies.
func shop(namespace string) *applyv1alpha1.WeChatAppTokenApplyConfiguration {
	return applyv1alpha1.WeChatAppToken("shop", namespace).
		WithLabels(map[string]string{"team": "shop"}).
		WithSpec(applyv1alpha1.WeChatAppTokenSpec().
			WithAppID(appID).
			WithCredentialsSecretRef(applyv1alpha1.CredentialsSecretReference().WithName(credentials)).
			WithCheckInterval(metav1.Duration{Duration: 90 * time.Second}).
			WithTarget(applyv1alpha1.TargetSpec().
				WithName("shop-token").
				WithLabels(map[string]v1alpha1.LabelValue{"team": "shop"}).
				WithAnnotations(map[string]v1alpha1.AnnotationValue{"note": "kept by the operator"})))
}

// get reads the resource named shop.
func get(t *testing.T, namespace string) *v1alpha1.WeChatAppToken {
	t.Helper()
	token := &v1alpha1.WeChatAppToken{}
	if err := api.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: "shop"}, token); err != nil {
		t.Fatal(err)
	}
	return token
}

func TestApplyRoundTrip(t *testing.T) {
	namespace := newNamespace(t)
	if err := api.Apply(t.Context(), shop(namespace), pipeline); err != nil {
		t.Fatal(err)
	}
	token := get(t, namespace)
	if spec := token.Spec; spec.Mode != v1alpha1.ModeStable || spec.CheckInterval.Duration != 90*time.Second ||
		spec.Target.Name != "shop-token" || spec.Target.Labels["team"] != "shop" || spec.Target.AccessTokenKey != v1alpha1.DefaultAccessTokenKey {
		t.Errorf("applied as %+v", spec)
	}
	// The pipeline owns what it applied: no default, and nothing of the status.
	owned, err := applyv1alpha1.ExtractWeChatAppToken(token, string(pipeline))
	if err != nil {
		t.Fatal(err)
	}
	if want := shop(namespace); !reflect.DeepEqual(owned, want) {
		t.Errorf("the pipeline owns %+v,\nwant %+v", *owned.Spec, *want.Spec)
	}
	// Applied again and again it changes nothing, so that a pipeline that runs each minute writes nothing. The first time
	// is let off: the API server then stores the status's default, which the creation had dropped with the status.
	var versions [2]string
	for i := range versions {
		if err := api.Apply(t.Context(), owned, pipeline); err != nil {
			t.Fatal(err)
		}
		again := get(t, namespace)
		versions[i] = again.ResourceVersion
		if again.Generation != 1 {
			t.Error("applying the same again is a new generation")
		}
		if owned, err = applyv1alpha1.ExtractWeChatAppToken(again, string(pipeline)); err != nil {
			t.Fatal(err)
		}
	}
	if versions[0] != versions[1] {
		t.Error("applying the same again writes the resource each time")
	}
	// What is no longer applied goes, or goes back to its default.
	less := shop(namespace)
	less.Spec.CheckInterval, less.Spec.Target.Labels = nil, nil
	if err := api.Apply(t.Context(), less, pipeline); err != nil {
		t.Fatal(err)
	}
	if spec := get(t, namespace).Spec; spec.CheckInterval.Duration != 2*time.Minute || spec.Target.Labels != nil {
		t.Errorf("after less was applied: %+v", spec)
	}
	less.Spec.Target.Name = nil
	refused(t, api.Apply(t.Context(), less, pipeline), "spec.target.name", "is immutable")
}

func TestApplyConflict(t *testing.T) {
	namespace := newNamespace(t)
	if err := api.Apply(t.Context(), shop(namespace), pipeline); err != nil {
		t.Fatal(err)
	}
	other := func() *applyv1alpha1.WeChatAppTokenApplyConfiguration {
		return applyv1alpha1.WeChatAppToken("shop", namespace).WithSpec(applyv1alpha1.WeChatAppTokenSpec().
			WithAppID(appID).
			WithCredentialsSecretRef(applyv1alpha1.CredentialsSecretReference().WithName(credentials)).
			WithMode(v1alpha1.ModeLegacy).
			WithCheckInterval(metav1.Duration{Duration: time.Minute}).
			WithTarget(applyv1alpha1.TargetSpec().WithLabels(map[string]v1alpha1.LabelValue{"tier": "1"})))
	}
	err := api.Apply(t.Context(), other(), person)
	if !apierrors.IsConflict(err) {
		t.Fatalf("want a conflict, got %v", err)
	}
	for _, want := range []string{".spec.checkInterval", string(pipeline)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the conflict does not name %s: %v", want, err)
		}
	}
	// Only what the pipeline set is in conflict: no default and no label of another key.
	for _, wrong := range []string{".spec.mode", ".spec.target", ".spec.appID"} {
		if strings.Contains(err.Error(), wrong) {
			t.Errorf("%s is in conflict: %v", wrong, err)
		}
	}
	if err := api.Apply(t.Context(), other(), person, client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	spec := get(t, namespace).Spec
	if spec.Mode != v1alpha1.ModeLegacy || spec.CheckInterval.Duration != time.Minute || len(spec.Target.Labels) != 2 || spec.Target.Name != "shop-token" {
		t.Errorf("the two together are %+v", spec)
	}
	if err := api.Apply(t.Context(), shop(namespace), pipeline); !apierrors.IsConflict(err) {
		t.Errorf("the pipeline takes the field back in silence: %v", err)
	}
}

// TestApplyBesideTheOperator: status writes and applies do not meet.
func TestApplyBesideTheOperator(t *testing.T) {
	namespace := newNamespace(t)
	if err := api.Apply(t.Context(), shop(namespace), pipeline); err != nil {
		t.Fatal(err)
	}
	token := get(t, namespace)
	token.Status = largestStatus()
	if err := api.Status().Update(t.Context(), token, client.FieldOwner("operator")); err != nil {
		t.Fatal(err)
	}
	changed := shop(namespace)
	changed.Spec.WithSuspend(true)
	changed.WithStatus(applyv1alpha1.WeChatAppTokenStatus().WithTargetSecretName("forged"))
	if err := api.Apply(t.Context(), changed, pipeline); err != nil {
		t.Fatal(err)
	}
	after := get(t, namespace)
	if !after.Spec.Suspend || !reflect.DeepEqual(after.Status, token.Status) {
		t.Errorf("after an apply: suspend %t, status %+v", after.Spec.Suspend, after.Status)
	}
	status := applyv1alpha1.WeChatAppToken("shop", namespace).WithStatus(applyv1alpha1.WeChatAppTokenStatus().WithObservedGeneration(2))
	if err := api.Status().Apply(t.Context(), status, person, client.ForceOwnership); err != nil {
		t.Errorf("applying a status: %v", err)
	}
	if got := get(t, namespace).Status; got.ObservedGeneration != 2 || got.Token == nil {
		t.Errorf("after a status was applied: %+v", got)
	}
	owned, err := applyv1alpha1.ExtractWeChatAppTokenStatus(get(t, namespace), string(person))
	if err != nil || owned.Status == nil || owned.Status.ObservedGeneration == nil || *owned.Status.ObservedGeneration != 2 || owned.Spec != nil {
		t.Errorf("who applied the status owns %+v, %v", owned, err)
	}
}
