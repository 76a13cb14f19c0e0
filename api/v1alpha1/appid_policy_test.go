// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

const (
	otherAppID   = "wx0000000000000001"
	unknownAppID = "wx0000000000000002"
)

// TestAppIDPolicy applies examples/appid-policy and checks who may use which appid.
func TestAppIDPolicy(t *testing.T) {
	appids := installAppIDPolicy(t)
	shop, staging, blog := labelledNamespace(t, "shop"), labelledNamespace(t, "shop-staging"), labelledNamespace(t, "blog")
	listAppIDs(t, appids, map[string]string{appID: shop + ", " + staging, otherAppID: blog + "\n" + staging + "\n"})
	awaitAppID(t, shop, unknownAppID, false)
	awaitAppID(t, blog, otherAppID, true)
	for _, c := range []struct {
		namespace, appID string
		allowed          bool
	}{
		{shop, appID, true}, {staging, appID, true}, {blog, appID, false},
		{shop, otherAppID, false}, {staging, otherAppID, true}, {blog, otherAppID, true},
		{shop, unknownAppID, false},
	} {
		err := tryAppID(t, c.namespace, c.appID)
		if c.allowed != (err == nil) || !c.allowed && !appIDRefused(err) {
			t.Errorf("%s in %s: %v", c.appID, c.namespace, err)
		}
	}

	kept := create(t, shop, "kept", "")
	mayChange(t, kept, map[string]string{"another field": `{"spec":{"checkInterval":"3m"}}`})
	mayNotChange(t, kept, map[string]string{"another appid": `{"spec":{"appID":"` + otherAppID + `"}}`})

	// The namespace is taken off the list: what is there may go on and go, and not be changed into something else.
	listAppIDs(t, appids, map[string]string{appID: staging})
	awaitAppID(t, shop, appID, false)
	mayChange(t, kept, map[string]string{
		"an annotation": `{"metadata":{"annotations":{"wechat.apptoken.dev/check-requested-at":"now"}}}`,
		"a finalizer":   `{"metadata":{"finalizers":["example.com/x"]}}`,
	})
	mayNotChange(t, kept, map[string]string{"the spec": `{"spec":{"suspend":true}}`})
	status := client.RawPatch(types.MergePatchType, []byte(`{"status":{"observedGeneration":1}}`))
	if err := api.Status().Patch(t.Context(), kept.DeepCopy(), status); err != nil {
		t.Errorf("the operator's status: %v", err)
	}
	if err := api.Delete(t.Context(), kept); err != nil {
		t.Errorf("its deletion: %v", err)
	}
	mayChange(t, kept, map[string]string{"the end of its deletion": `{"metadata":{"finalizers":null}}`})
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(kept), kept.DeepCopy()); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}

	// Without the list nothing is allowed.
	if err := api.Delete(t.Context(), appids); err != nil {
		t.Fatal(err)
	}
	awaitAppID(t, staging, appID, false)
}

// mayChange applies patches that the policy must allow.
func mayChange(t *testing.T, u *unstructured.Unstructured, patches map[string]string) {
	t.Helper()
	for what, patch := range patches {
		if err := mergePatch(t, u, patch); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// mayNotChange tries patches that the policy must refuse.
func mayNotChange(t *testing.T, u *unstructured.Unstructured, patches map[string]string) {
	t.Helper()
	for what, patch := range patches {
		if err := mergePatch(t, u, patch); !appIDRefused(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func mergePatch(t *testing.T, u *unstructured.Unstructured, patch string) error {
	t.Helper()
	return api.Patch(t.Context(), u.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
}

// installAppIDPolicy applies the files of the example, and returns the list. The binding is limited to namespaces with a label, because the
// tests share an API server.
func installAppIDPolicy(t *testing.T) *corev1.ConfigMap {
	t.Helper()
	policy, binding := &admissionregistrationv1.ValidatingAdmissionPolicy{}, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	documents := bytes.Split(readExample(t, "policy.yaml"), []byte("\n---\n"))
	if len(documents) != 2 {
		t.Fatalf("%d documents", len(documents))
	}
	appids := &corev1.ConfigMap{}
	for i, into := range []client.Object{policy, binding, appids} {
		raw := append(documents, readExample(t, "appids.yaml"))[i]
		if err := yaml.UnmarshalStrict(raw, into); err != nil {
			t.Fatal(err)
		}
	}
	binding.Spec.MatchResources = &admissionregistrationv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"appid-policy": "test"}}}
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: appids.Namespace}}
	for _, o := range []client.Object{system, appids, policy, binding} {
		if err := api.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	return appids
}

func readExample(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile("../../examples/appid-policy/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// labelledNamespace makes a namespace to which the policy applies.
func labelledNamespace(t *testing.T, name string) string {
	t.Helper()
	o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"appid-policy": "test"}}}
	if err := api.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return name
}

func listAppIDs(t *testing.T, appids *corev1.ConfigMap, data map[string]string) {
	t.Helper()
	appids.Data = data
	if err := api.Update(t.Context(), appids); err != nil {
		t.Fatal(err)
	}
}

func tryAppID(t *testing.T, namespace, appID string) error {
	t.Helper()
	return api.Create(t.Context(), resource(t, namespace, "tried", "appID: "+appID), client.DryRunAll)
}

func appIDRefused(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "may not use the appid")
}

// awaitAppID waits until the API server knows the policy and its list.
func awaitAppID(t *testing.T, namespace, appID string, allowed bool) {
	t.Helper()
	var err error
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if err = tryAppID(t, namespace, appID); (err == nil) == allowed {
			return
		}
	}
	t.Fatalf("%s in %s: %v", appID, namespace, err)
}
