// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestDefaults(t *testing.T) {
	const all = `
appID: wx0123456789abcdef
credentialsSecretRef: {name: credentials, key: appSecret}
mode: Stable
checkInterval: 2m
suspend: false
target: {accessTokenKey: access_token, deletionPolicy: Delete, delivery: Kubelet}`
	for name, c := range map[string]struct{ spec, want string }{
		"required fields alone": {"", all},
		"target null":           {"target: null", all},
		"target empty":          {"target: {}", all},
		"all null": {"{mode: null, checkInterval: null, suspend: null, target: {name: null, accessTokenKey: null, labels: null, " +
			"annotations: null, deletionPolicy: null, delivery: null}}", all},
		"nothing overwritten": {`
credentialsSecretRef: {name: credentials, key: secret}
mode: Legacy
checkInterval: 1h
suspend: true
target: {name: token, accessTokenKey: token, labels: {a: b}, annotations: {c: d}, deletionPolicy: Retain, delivery: Prompt}`, `
appID: wx0123456789abcdef
credentialsSecretRef: {name: credentials, key: secret}
mode: Legacy
checkInterval: 1h
suspend: true
target: {name: token, accessTokenKey: token, labels: {a: b}, annotations: {c: d}, deletionPolicy: Retain, delivery: Prompt}`},
		"a part of target": {"target: {name: token}", strings.Replace(all, "target: {", "target: {name: token, ", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			u := resource(t, metav1.NamespaceDefault, "shop", c.spec)
			if err := api.Create(t.Context(), u, client.DryRunAll); err != nil {
				t.Fatal(err)
			}
			want := map[string]any{}
			if err := yaml.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			if got := u.Object["spec"]; !reflect.DeepEqual(got, any(want)) {
				t.Errorf("stored as %v,\nwant %v", got, want)
			}
			token := decode(t, u)
			if name == "required fields alone" && token.Spec.CheckInterval.Duration != 2*time.Minute {
				t.Errorf("the default of checkInterval is %s in Go", token.Spec.CheckInterval.Duration)
			}
		})
	}
}

func TestImmutableFields(t *testing.T) {
	namespace := newNamespace(t)
	const name, nameAdvice = "spec.target.name", "create a second WeChatAppToken with the new name, move the pods, then delete this one"
	const key, keyAdvice = "spec.target.accessTokenKey", "create a second WeChatAppToken with the new key, move the pods, then delete this one"
	stored := map[string]*unstructured.Unstructured{
		"plain":   create(t, namespace, "plain", ""),
		"named":   create(t, namespace, "named", "target: {name: token, accessTokenKey: token}"),
		"spelled": create(t, namespace, "spelled", "target: {name: spelled, accessTokenKey: access_token}"),
	}
	for _, c := range []struct {
		name, of, spec string // spec is a merge patch
		field, advice  string
	}{
		{name: "unset to another name", of: "plain", spec: "target: {name: other}", field: name, advice: nameAdvice},
		{name: "unset to the default name", of: "plain", spec: "target: {name: plain}"},
		{name: "default name to unset", of: "spelled", spec: "target: {name: null}"},
		{name: "default name to no target", of: "spelled", spec: "target: null"},
		{name: "name to another", of: "named", spec: "target: {name: other}", field: name, advice: nameAdvice},
		{name: "name to unset", of: "named", spec: "target: {name: null}", field: name, advice: nameAdvice},
		{name: "name to the default", of: "named", spec: "target: {name: named}", field: name, advice: nameAdvice},
		{name: "name the same", of: "named", spec: "target: {name: token}"},
		{name: "name to the credentials'", of: "named", spec: "{credentialsSecretRef: {name: token}}", field: name, advice: "must not be the credentials Secret"},
		{name: "default name to the credentials'", of: "plain", spec: "{credentialsSecretRef: {name: plain}}", field: name, advice: "must not be the credentials Secret"},

		{name: "unset to another key", of: "plain", spec: "target: {accessTokenKey: token}", field: key, advice: keyAdvice},
		{name: "unset to the default key", of: "plain", spec: "target: {accessTokenKey: access_token}"},
		{name: "default key to unset", of: "spelled", spec: "target: {accessTokenKey: null}"},
		{name: "key to another", of: "named", spec: "target: {accessTokenKey: other}", field: key, advice: keyAdvice},
		{name: "key to unset", of: "named", spec: "target: {accessTokenKey: null}", field: key, advice: keyAdvice},
		{name: "key to the default", of: "named", spec: "target: {accessTokenKey: access_token}", field: key, advice: keyAdvice},
		{name: "key the same", of: "named", spec: "target: {accessTokenKey: token}"},

		{name: "everything else", of: "named", spec: "{appID: wxfedcba9876543210, credentialsSecretRef: {name: c, key: k}, mode: Legacy, checkInterval: 1h, " +
			"suspend: true, target: {labels: {a: b}, annotations: {c: d}, deletionPolicy: Retain, delivery: Prompt}}"},
		{name: "a bad duration later", of: "plain", spec: "checkInterval: 1d", field: "spec.checkInterval", advice: "must be a duration from 30s to 1h"},
		{name: "the operator's label later", of: "plain", spec: "target: {labels: {wechat.apptoken.dev/mode: Stable}}", field: "spec.target.labels", advice: "choose another prefix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, err := yaml.YAMLToJSON([]byte(c.spec))
			if err != nil {
				t.Fatal(err)
			}
			u := stored[c.of].DeepCopy()
			patch := client.RawPatch(types.MergePatchType, []byte(`{"spec": `+string(raw)+`}`))
			err = api.Patch(t.Context(), u, patch, client.DryRunAll)
			if c.field != "" {
				refused(t, err, c.field, c.advice)
			} else if err != nil {
				t.Error(err)
			} else {
				secretsCanExist(t, decode(t, u))
			}
		})
	}
}

// TestGoClientUpdates: a typed client writes back what it read. It spells a duration its own way, and nothing else changes.
func TestGoClientUpdates(t *testing.T) {
	namespace := newNamespace(t)
	u := create(t, namespace, "shop", "checkInterval: 90s")
	token := decode(t, u)
	token.Labels = map[string]string{"a": "b"}
	if err := api.Update(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	after := &unstructured.Unstructured{}
	after.SetGroupVersionKind(u.GroupVersionKind())
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(u), after); err != nil {
		t.Fatal(err)
	}
	want := u.Object["spec"].(map[string]any)
	want["checkInterval"] = "1m30s"
	if got := after.Object["spec"]; !reflect.DeepEqual(got, any(want)) {
		t.Errorf("the spec became %v, want %v", got, want)
	}
}

// TestInformer: whatever people tried to store, an informer of the kind starts and sees every resource.
func TestInformer(t *testing.T) {
	namespace := newNamespace(t)
	small := create(t, namespace, "small", "")
	create(t, namespace, "large", "{checkInterval: 0000h0059m00059s, target: {labels: {a: null}, annotations: {b: null}}}")
	for _, poison := range []string{`"1d"`, `"1000000h"`, `""`, `"2"`, `"-5m"`, `"9999999999999h"`, `2`, `{}`, `[]`, `true`} {
		raw := []byte(`{"spec": {"checkInterval": ` + poison + `}}`)
		if !json.Valid(raw) {
			t.Fatalf("this test is wrong: %s", raw)
		}
		if err := api.Patch(t.Context(), small.DeepCopy(), client.RawPatch(types.MergePatchType, raw)); err == nil {
			t.Errorf("the API server stores checkInterval: %s", poison)
		}
	}
	informers, err := cache.New(env.Config, cache.Options{Scheme: scheme, DefaultNamespaces: map[string]cache.Config{namespace: {}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	stopped := make(chan error)
	go func() { stopped <- informers.Start(ctx) }()
	defer func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}()
	list := &v1alpha1.WeChatAppTokenList{}
	if err := informers.List(ctx, list); err != nil { // waits until the informer has all
		t.Fatal(err)
	}
	if len(list.Items) != 2 {
		t.Errorf("the informer sees %d of 2 resources", len(list.Items))
	}
	for _, token := range list.Items {
		if d := token.Spec.CheckInterval.Duration; d < 30*time.Second || d > time.Hour {
			t.Errorf("%s: the informer sees checkInterval %s", token.Name, d)
		}
	}
}
