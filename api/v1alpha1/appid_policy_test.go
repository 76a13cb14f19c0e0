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

// appIDPolicy is the example policy, limited to the namespaces of the test.
type appIDPolicy struct {
	*testing.T

	appids *corev1.ConfigMap
}

// TestAppIDPolicy applies examples/appid-policy and checks who may use which appid.
func TestAppIDPolicy(t *testing.T) {
	p := &appIDPolicy{T: t}
	p.install()
	shop, staging, blog := p.namespace("shop"), p.namespace("shop-staging"), p.namespace("blog")
	p.list(map[string]string{appID: shop + ", " + staging, otherAppID: blog + "\n" + staging + "\n"})
	p.await(shop, unknownAppID, false)
	p.await(blog, otherAppID, true)

	for _, c := range []struct {
		namespace, appID string
		allowed          bool
	}{
		{shop, appID, true}, {staging, appID, true}, {blog, appID, false},
		{shop, otherAppID, false}, {staging, otherAppID, true}, {blog, otherAppID, true},
		{shop, unknownAppID, false},
	} {
		err := p.try(c.namespace, c.appID)
		if c.allowed != (err == nil) || !c.allowed && !p.refuses(err) {
			t.Errorf("%s in %s: %v", c.appID, c.namespace, err)
		}
	}

	u := create(t, shop, "kept", "")
	if err := p.merge(u, `{"spec":{"appID":"`+otherAppID+`"}}`); !p.refuses(err) {
		t.Errorf("another appid: %v", err)
	}
	if err := p.merge(u, `{"spec":{"checkInterval":"3m"}}`); err != nil {
		t.Errorf("another field: %v", err)
	}

	// The namespace is taken off the list: what is there may go on and go, and not be changed into something else.
	p.list(map[string]string{appID: staging})
	p.await(shop, appID, false)
	for what, change := range map[string]string{
		"an annotation": `{"metadata":{"annotations":{"wechat.apptoken.dev/check-requested-at":"now"}}}`,
		"a finalizer":   `{"metadata":{"finalizers":["example.com/x"]}}`,
	} {
		if err := p.merge(u, change); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := p.merge(u, `{"spec":{"suspend":true}}`); !p.refuses(err) {
		t.Errorf("a change of the spec: %v", err)
	}
	status := client.RawPatch(types.MergePatchType, []byte(`{"status":{"observedGeneration":1}}`))
	if err := api.Status().Patch(t.Context(), u.DeepCopy(), status); err != nil {
		t.Errorf("the operator's status: %v", err)
	}
	if err := api.Delete(t.Context(), u); err != nil {
		t.Errorf("its deletion: %v", err)
	}
	if err := p.merge(u, `{"metadata":{"finalizers":null}}`); err != nil {
		t.Errorf("the end of its deletion: %v", err)
	}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(u), u.DeepCopy()); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}

	// Without the list nothing is allowed.
	if err := api.Delete(t.Context(), p.appids); err != nil {
		t.Fatal(err)
	}
	p.await(staging, appID, false)
}

// install applies the files of the example. The binding is limited to namespaces with a label, because the tests share an API server.
func (p *appIDPolicy) install() {
	p.Helper()
	const dir = "../../examples/appid-policy/"
	raw, err := os.ReadFile(dir + "policy.yaml")
	if err != nil {
		p.Fatal(err)
	}
	policy, binding := &admissionregistrationv1.ValidatingAdmissionPolicy{}, &admissionregistrationv1.ValidatingAdmissionPolicyBinding{}
	documents := bytes.Split(raw, []byte("\n---\n"))
	if len(documents) != 2 {
		p.Fatalf("%d documents", len(documents))
	}
	p.appids = &corev1.ConfigMap{}
	list, err := os.ReadFile(dir + "appids.yaml")
	if err != nil {
		p.Fatal(err)
	}
	for _, d := range []struct {
		raw  []byte
		into client.Object
	}{{documents[0], policy}, {documents[1], binding}, {list, p.appids}} {
		if err := yaml.UnmarshalStrict(d.raw, d.into); err != nil {
			p.Fatal(err)
		}
	}
	binding.Spec.MatchResources = &admissionregistrationv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"appid-policy": "test"}}}
	system := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.appids.Namespace}}
	for _, o := range []client.Object{system, p.appids, policy, binding} {
		if err := api.Create(p.Context(), o); err != nil {
			p.Fatal(err)
		}
	}
}

// namespace makes a namespace to which the policy applies. Its name begins with the prefix of another one's.
func (p *appIDPolicy) namespace(name string) string {
	p.Helper()
	o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"appid-policy": "test"}}}
	if err := api.Create(p.Context(), o); err != nil {
		p.Fatal(err)
	}
	return name
}

func (p *appIDPolicy) list(data map[string]string) {
	p.Helper()
	p.appids.Data = data
	if err := api.Update(p.Context(), p.appids); err != nil {
		p.Fatal(err)
	}
}

func (p *appIDPolicy) try(namespace, appID string) error {
	return api.Create(p.Context(), resource(p.T, namespace, "tried", "appID: "+appID), client.DryRunAll)
}

func (p *appIDPolicy) merge(u *unstructured.Unstructured, patch string) error {
	return api.Patch(p.Context(), u.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
}

func (p *appIDPolicy) refuses(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "may not use the appid")
}

// await waits until the API server knows the policy and its list.
func (p *appIDPolicy) await(namespace, appID string, allowed bool) {
	p.Helper()
	var err error
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if err = p.try(namespace, appID); (err == nil) == allowed {
			return
		}
	}
	p.Fatalf("%s in %s: %v", appID, namespace, err)
}
