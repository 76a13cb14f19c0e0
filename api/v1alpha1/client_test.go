// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// clientResource is a WeChatAppClient with the top-level fields of a spec, as YAML, laid over the required ones.
func clientResource(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	fields := map[string]any{"tokenRef": map[string]any{"name": "shop"}, "paths": []any{"/wxa/*"}, "key": map[string]any{"secretName": "shop-key"}}
	if err := yaml.Unmarshal([]byte(spec), &fields); err != nil {
		t.Fatalf("this test is wrong: %v in %s", err, spec)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"spec": fields}}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.ClientKind))
	u.SetNamespace(namespace)
	u.SetName(name)
	return u
}

func TestClientSpec(t *testing.T) {
	const path, accounts = "must be a path such as /cgi-bin/user/info", "spec.serviceAccounts[0].name"
	const overlap, interval = "spec.key.overlap", "spec.key.rotationInterval"
	paths := func(p ...string) string { return fmt.Sprintf("paths: [%s]", `"`+strings.Join(p, `", "`)+`"`) }
	accountsOf := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "{namespace: web, name: a%d}, ", i)
		}
		return "serviceAccounts: [" + b.String() + "]"
	}
	for _, c := range []specCase{
		{name: "a key"},
		{name: "accounts alone", spec: "{key: null, serviceAccounts: [{namespace: web, name: shop.api}]}"},
		{name: "both", spec: accountsOf(64)},
		{name: "nobody", spec: "key: null", field: "spec", advice: "nobody could call"},
		{name: "no accounts", spec: "{key: null, serviceAccounts: []}", field: "spec", advice: "nobody could call"},
		{name: "too many accounts", spec: accountsOf(65), field: "spec.serviceAccounts", advice: "must have at most 64 items"},
		{name: "an account twice", spec: "serviceAccounts: [{namespace: a, name: b}, {namespace: a, name: b}]", field: "spec.serviceAccounts[1]", advice: "Duplicate value"},
		{name: "an account with a slash", spec: "serviceAccounts: [{namespace: a, name: b/c}]", field: accounts, advice: "must be the name of a ServiceAccount"},
		{name: "no token", spec: "tokenRef: {}", field: "spec.tokenRef.name", advice: "Required value"},
		{name: "a token of another namespace", spec: "tokenRef: {name: other/shop}", field: "spec.tokenRef.name", advice: "must be the name of a WeChatAppToken"},

		{name: "paths", spec: paths("/cgi-bin/user/info", "/wxa/*", "/*", "/a.b_c-d")},
		{name: "no paths", spec: "paths: []", field: "spec.paths", advice: "should have at least 1 items"},
		{name: "a path twice", spec: paths("/a", "/a"), field: "spec.paths[1]", advice: "Duplicate value"},
		{name: "no slash", spec: paths("cgi-bin"), field: "spec.paths[0]", advice: path},
		{name: "a slash at the end", spec: paths("/cgi-bin/"), field: "spec.paths[0]", advice: path},
		{name: "two slashes", spec: paths("//a"), field: "spec.paths[0]", advice: path},
		{name: "a star inside", spec: paths("/wxa/*/x"), field: "spec.paths[0]", advice: path},
		{name: "a star in a word", spec: paths("/wxa/get*"), field: "spec.paths[0]", advice: path},
		{name: "dots", spec: paths("/../token"), field: "spec.paths[0]", advice: path},
		{name: "an escape", spec: paths("/cgi-bin%2ftoken"), field: "spec.paths[0]", advice: path},
		{name: "a query", spec: paths("/a?b"), field: "spec.paths[0]", advice: path},
		{name: "a host", spec: paths("https://evil/x"), field: "spec.paths[0]", advice: path},

		{name: "overlap and interval", spec: "key: {secretName: s, overlap: 1h, rotationInterval: 2160h}"},
		{name: "the longest overlap", spec: "key: {secretName: s, overlap: 168h}"},
		{name: "a short overlap", spec: "key: {secretName: s, overlap: 59m}", field: overlap, advice: "from 1h to 168h"},
		{name: "a long overlap", spec: "key: {secretName: s, overlap: 169h}", field: overlap, advice: "from 1h to 168h"},
		{name: "an interval like the overlap", spec: "key: {secretName: s, rotationInterval: 24h}", field: interval, advice: "must be longer than overlap"},
		{name: "days", spec: "key: {secretName: s, rotationInterval: 90d}", field: interval, advice: "in whole hours"},
		{name: "no Secret", spec: "key: {}", field: "spec.key.secretName", advice: "Required value"},
		{name: "a Secret with upper case", spec: "key: {secretName: Shop}", field: "spec.key.secretName", advice: "must be a name for a Secret"},
		{name: "another policy", spec: "key: {secretName: s, deletionPolicy: Keep}", field: "spec.key.deletionPolicy", advice: "supported values"},

		{name: "a rate", spec: "rate: {perReplica: {requestsPerSecond: 10000, burst: 1}}"},
		{name: "no rate", spec: "rate: {perReplica: {requestsPerSecond: 0}}", field: "spec.rate.perReplica.requestsPerSecond", advice: "greater than or equal to 1"},
		{name: "any rate", spec: "rate: {perReplica: {burst: 10001}}", field: "spec.rate.perReplica.burst", advice: "less than or equal to 10000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := api.Create(t.Context(), clientResource(t, metav1.NamespaceDefault, "shop", c.spec), client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
			if c.field != "" {
				refused(t, err, c.field, c.advice)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClientImmutableFields(t *testing.T) {
	namespace := newNamespace(t)
	u := clientResource(t, namespace, "shop", "")
	if err := api.Create(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	for _, c := range []specCase{
		{name: "another token", spec: `{"tokenRef":{"name":"other"}}`, field: "spec.tokenRef", advice: "immutable"},
		{name: "another Secret", spec: `{"key":{"secretName":"other"}}`, field: "spec.key.secretName", advice: "immutable"},
		{name: "no key", spec: `{"key":null,"serviceAccounts":[{"namespace":"a","name":"b"}]}`, field: "spec.key", advice: "cannot be removed"},
		{name: "everything else", spec: `{"key":{"overlap":"2h","rotationInterval":"720h","deletionPolicy":"Retain"},"paths":["/a"],"login":true,"suspend":true,"serviceAccounts":[{"namespace":"a","name":"b"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := api.Patch(t.Context(), u.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(`{"spec":`+c.spec+`}`)), client.DryRunAll)
			if c.field != "" {
				refused(t, err, c.field, c.advice)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	got := &v1alpha1.WeChatAppClient{}
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(u), got); err != nil {
		t.Fatal(err)
	}
	if s := got.Spec; s.Key.Overlap.Hours() != 24 || s.Rate.PerReplica.RequestsPerSecond != 50 || s.Rate.PerReplica.Burst != 100 || s.Key.DeletionPolicy != "Delete" ||
		got.Status.ObservedGeneration != -1 {
		t.Errorf("defaults: %+v, status %+v", s, got.Status)
	}
}
