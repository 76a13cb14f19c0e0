// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestTargetName(t *testing.T) {
	const field = "spec.target.name"
	const advice = "leave it out for the name of this WeChatAppToken"
	// The resource's name is shop in all cases.
	try(t, []specCase{
		{name: "left out", spec: `target: {}`},
		{name: "null", spec: `target: {name: null}`},
		{name: "with dots", spec: `target: {name: shop-1.token.example}`},
		{name: "the default spelled out", spec: `target: {name: shop}`},
		{name: "longest", spec: fmt.Sprintf("target: {name: %q}", strings.Repeat("a", 253))},
		{name: "too long", spec: fmt.Sprintf("target: {name: %q}", strings.Repeat("a", 254)), field: field, advice: "may not be more than 253"},
		{name: "empty", spec: `target: {name: ""}`, field: field, advice: advice},
		{name: "upper case", spec: `target: {name: Shop}`, field: field, advice: "lower-case letters, digits, '-' and '.'"},
		{name: "underscore", spec: `target: {name: shop_token}`, field: field, advice: "lower-case letters, digits, '-' and '.'"},
		{name: "another namespace", spec: `target: {name: other/shop}`, field: field, advice: "lower-case letters, digits, '-' and '.'"},
		{name: "starts with a dash", spec: `target: {name: -shop}`, field: field, advice: "starting and ending with a letter or digit"},
		{name: "part ends with a dash", spec: `target: {name: shop-.token}`, field: field, advice: "starting and ending with a letter or digit"},
		{name: "two dots", spec: `target: {name: shop..token}`, field: field, advice: advice},
		{name: "newline", spec: `target: {name: "shop\n"}`, field: field, advice: advice},
	})
}

func TestTargetIsNotTheCredentialsSecret(t *testing.T) {
	const field, advice = "spec.target.name", "the target Secret must not be the credentials Secret: set spec.target.name to another name"
	try(t, []specCase{
		{name: "other name", spec: `{credentialsSecretRef: {name: a}, target: {name: b}}`},
		{name: "credentials have the resource's name, target another", spec: `{credentialsSecretRef: {name: shop}, target: {name: b}}`},
		{name: "same name", spec: `{credentialsSecretRef: {name: a}, target: {name: a}}`, field: field, advice: advice},
		{name: "same by default", spec: `{credentialsSecretRef: {name: shop}, target: {}}`, field: field, advice: advice},
		{name: "same by default, target left out", spec: `credentialsSecretRef: {name: shop}`, field: field, advice: advice},
		{name: "same, default spelled out", spec: `{credentialsSecretRef: {name: shop}, target: {name: shop}}`, field: field, advice: advice},
	})
}

func TestAccessTokenKey(t *testing.T) {
	const field, advice = "spec.target.accessTokenKey", "must be a key of a Secret: letters, digits, '-', '_' and '.'"
	try(t, []specCase{
		{name: "the default", spec: `target: {accessTokenKey: access_token}`},
		{name: "other", spec: `target: {accessTokenKey: WECHAT_ACCESS-TOKEN.txt}`},
		{name: "hidden file", spec: `target: {accessTokenKey: .token}`},
		{name: "nearly reserved", spec: `target: {accessTokenKey: app_id_}`},
		{name: "longest", spec: fmt.Sprintf("target: {accessTokenKey: %q}", strings.Repeat("k", 253))},
		{name: "too long", spec: fmt.Sprintf("target: {accessTokenKey: %q}", strings.Repeat("k", 254)), field: field, advice: "may not be more than 253"},
		{name: "expires_at", spec: `target: {accessTokenKey: expires_at}`, field: field, advice: "choose another key"},
		{name: "app_id", spec: `target: {accessTokenKey: app_id}`, field: field, advice: "choose another key"},
		{name: "empty", spec: `target: {accessTokenKey: ""}`, field: field, advice: advice},
		{name: "slash", spec: `target: {accessTokenKey: a/b}`, field: field, advice: advice},
		{name: "blank", spec: `target: {accessTokenKey: "access token"}`, field: field, advice: advice},
		{name: "newline", spec: `target: {accessTokenKey: "access_token\n"}`, field: field, advice: advice},
		{name: "dot", spec: `target: {accessTokenKey: .}`, field: field, advice: "neither '.' nor starting with '..'"},
		{name: "two dots", spec: `target: {accessTokenKey: ..}`, field: field, advice: "neither '.' nor starting with '..'"},
		{name: "like the link of a volume", spec: `target: {accessTokenKey: ..data}`, field: field, advice: "neither '.' nor starting with '..'"},
	})
}

func TestDeletionPolicy(t *testing.T) {
	const field, advice = "spec.target.deletionPolicy", `supported values: "Delete", "Retain"`
	try(t, []specCase{
		{name: "Delete", spec: `target: {deletionPolicy: Delete}`},
		{name: "Retain", spec: `target: {deletionPolicy: Retain}`},
		{name: "Orphan", spec: `target: {deletionPolicy: Orphan}`, field: field, advice: advice},
		{name: "lower case", spec: `target: {deletionPolicy: retain}`, field: field, advice: advice},
		{name: "empty", spec: `target: {deletionPolicy: ""}`, field: field, advice: advice},
	})
}

func TestDelivery(t *testing.T) {
	const field, advice = "spec.target.delivery", `supported values: "Kubelet", "Prompt"`
	try(t, []specCase{
		{name: "Kubelet", spec: `target: {delivery: Kubelet}`},
		{name: "Prompt", spec: `target: {delivery: Prompt}`},
		{name: "Restart", spec: `target: {delivery: Restart}`, field: field, advice: advice},
		{name: "lower case", spec: `target: {delivery: prompt}`, field: field, advice: advice},
		{name: "empty", spec: `target: {delivery: ""}`, field: field, advice: advice},
	})
}

// pairs is a spec whose target has this map as its labels or annotations.
func pairs(t *testing.T, which string, of map[string]string) string {
	t.Helper()
	raw, err := yaml.Marshal(map[string]any{"target": map[string]any{which: of}})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// longPrefix is a DNS name of 253 characters.
var longPrefix = strings.Repeat("a.", 126) + "a"

// many are n pairs with keys of the greatest length.
func many(n int, value string) map[string]string {
	out := make(map[string]string, n)
	for i := range n {
		out[fmt.Sprintf("%s/%s%02d", longPrefix, strings.Repeat("k", 61), i)] = value
	}
	return out
}

func TestLabelAndAnnotationKeys(t *testing.T) {
	good := map[string]string{
		"plain": "team", "upper case": "Team", "digit first": "1st", "dots": "a.b_c-d", "longest name": strings.Repeat("k", 63),
		"prefix": "example.com/team", "prefix of one word": "example/team", "longest prefix": longPrefix + "/team",
		"the operator's name without a slash": "wechat.apptoken.dev", "domain below the operator's": "team.wechat.apptoken.dev/a",
		"domain that ends as the operator's": "mywechat.apptoken.dev/a", "domain above the operator's": "apptoken.dev/a",
		"other tools": "argocd.argoproj.io/instance",
	}
	bad := map[string]string{
		"empty": "", "slash only": "/", "no prefix": "/team", "no name": "example.com/", "two slashes": "example.com/a/b",
		"name too long": strings.Repeat("k", 64), "prefix too long": longPrefix + "a/team", "prefix much too long": strings.Repeat("a", 900) + "/team",
		"upper-case prefix": "Example.com/team", "prefix with two dots": "a..b/team", "prefix starts with a dot": ".a/team",
		"part of prefix ends with a dash": "a-.b/team", "blank": "my team", "dash first": "-team", "dot last": "team.", "newline": "team\n",
		"not ASCII": "团队", "the operator's prefix in upper case": "WeChat.AppToken.dev/mode",
	}
	for which, keyAdvice := range map[string]string{
		"labels": "each key must be a label key: at most 63", "annotations": "each key must be an annotation key: at most 63",
	} {
		field := "spec.target." + which
		cases := []specCase{
			{name: "none", spec: pairs(t, which, nil)},
			{name: "no pairs", spec: pairs(t, which, map[string]string{})},
			{name: "32", spec: pairs(t, which, many(32, ""))},
			{name: "33", spec: pairs(t, which, many(33, "")), field: field, advice: "must have at most 32 items"},
		}
		for name, key := range good {
			cases = append(cases, specCase{name: name, spec: pairs(t, which, map[string]string{key: "v"})})
		}
		for name, key := range bad {
			of := map[string]string{"good": "v", key: "v"}
			cases = append(cases, specCase{name: "bad: " + name, spec: pairs(t, which, of), field: field, advice: keyAdvice})
		}
		for _, key := range []string{v1alpha1.LabelManagedBy, v1alpha1.AnnotationAdopt, v1alpha1.AnnotationOwnerUID, v1alpha1.AnnotationPrefix + "new"} {
			of := map[string]string{"good": "v", key: "v"}
			cases = append(cases, specCase{name: key, spec: pairs(t, which, of), field: field, advice: "belong to the operator: choose another prefix"})
		}
		t.Run(which, func(t *testing.T) { try(t, cases) })
	}
}

func TestLabelValues(t *testing.T) {
	const field, advice = "spec.target.labels[team]", "must be a label value: empty, or at most 63 letters, digits, '-', '_' and '.'"
	label := func(value string) string { return pairs(t, "labels", map[string]string{"team": value}) }
	try(t, []specCase{
		{name: "empty", spec: label("")},
		{name: "one letter", spec: label("a")},
		{name: "all kinds", spec: label("A.b_c-9")},
		{name: "longest", spec: label(strings.Repeat("v", 63))},
		{name: "null goes", spec: `target: {labels: {team: null}}`},
		{name: "too long", spec: label(strings.Repeat("v", 64)), field: "spec.target.labels.team", advice: "may not be more than 63"},
		{name: "blank", spec: label("my team"), field: field, advice: advice},
		{name: "dash first", spec: label("-team"), field: field, advice: "starting and ending with a letter or digit"},
		{name: "dot last", spec: label("team."), field: field, advice: "starting and ending with a letter or digit"},
		{name: "newline", spec: label("team\n"), field: field, advice: advice},
		{name: "slash", spec: label("a/b"), field: field, advice: advice},
		{name: "not ASCII", spec: label("团队"), field: field, advice: advice},
		{name: "number", spec: `target: {labels: {team: 1}}`, field: "spec.target.labels.team", advice: "must be of type string"},
	})
}

func TestAnnotationValues(t *testing.T) {
	annotation := func(value string) string { return pairs(t, "annotations", map[string]string{"note": value}) }
	// Keys of 317 characters leave 1219 for each of 32 values.
	tooMuch := many(31, strings.Repeat("v", 1219))
	tooMuch[longPrefix+"/"+strings.Repeat("l", 63)] = strings.Repeat("v", 1220)
	try(t, []specCase{
		{name: "empty", spec: annotation("")},
		{name: "any text", spec: annotation("{\"a\": \"团队\"}\nline two ")},
		{name: "longest", spec: annotation(strings.Repeat("值", 4096))},
		{name: "null goes", spec: `target: {annotations: {note: null}}`},
		{name: "too long", spec: annotation(strings.Repeat("v", 4097)), field: "spec.target.annotations.note", advice: "may not be more than 4096"},
		{name: "boolean", spec: `target: {annotations: {note: true}}`, field: "spec.target.annotations.note", advice: "must be of type string"},
		{name: "most together", spec: pairs(t, "annotations", many(32, strings.Repeat("𝕏", 1219)))},
		{
			name: "too much together", spec: pairs(t, "annotations", tooMuch),
			field: "spec.target.annotations", advice: "shorten or remove some",
		},
	})
}

// TestLargestResource: the rules can be paid for at their limits, at creation, at updates and at status updates, which check
// the spec again.
func TestLargestResource(t *testing.T) {
	namespace := newNamespace(t)
	spec := map[string]any{
		"credentialsSecretRef": map[string]any{"name": strings.Repeat("c", 253), "key": strings.Repeat("k", 253)},
		"checkInterval":        "0000h0059m00059s",
		"target": map[string]any{
			"name": strings.Repeat("t", 253), "accessTokenKey": strings.Repeat("k", 253),
			"labels": many(32, strings.Repeat("v", 63)), "annotations": many(32, strings.Repeat("v", 1219)),
		},
	}
	raw, err := yaml.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	u := create(t, namespace, strings.Repeat("n", 253), string(raw))
	token := decode(t, u)
	secretsCanExist(t, token)

	token.Spec.Mode = v1alpha1.ModeLegacy
	if err := api.Update(t.Context(), token); err != nil {
		t.Errorf("updating: %v", err)
	}
	token.Status = largestStatus()
	if err := api.Status().Update(t.Context(), token); err != nil {
		t.Errorf("updating the status: %v", err)
	}
	keys := slices.Sorted(maps.Keys(token.Spec.Target.Labels))
	token.Spec.Target.Labels[keys[0]] = "x"
	if err := api.Update(t.Context(), token); err != nil {
		t.Errorf("updating with a full status: %v", err)
	}
}

// TestHugeValues: what is far beyond the limits is refused for the same reason, and not because it costs too much to look at.
func TestHugeValues(t *testing.T) {
	huge := strings.Repeat("a", 1<<20)
	for field, c := range map[string]struct {
		value  any
		advice string
	}{
		"spec.appID":                     {huge, "may not be more than 64"},
		"spec.checkInterval":             {strings.Repeat("1m", 1<<19), "must be a duration from 30s to 1h"},
		"spec.credentialsSecretRef.name": {huge, "may not be more than 253"},
		"spec.target.name":               {huge, "may not be more than 253"},
		"spec.target.labels":             {map[string]any{huge: "v"}, "each key must be a label key"},
		"spec.target.annotations":        {map[string]any{huge + "/": "v"}, "each key must be an annotation key"},
	} {
		t.Run(field, func(t *testing.T) {
			u := resource(t, metav1.NamespaceDefault, "shop", "")
			if err := unstructured.SetNestedField(u.Object, c.value, strings.Split(field, ".")...); err != nil {
				t.Fatal(err)
			}
			refused(t, api.Create(t.Context(), u, client.DryRunAll), field, c.advice)
		})
	}
}

// TestMetadataName: a name of the greatest length is fine as the default target too.
func TestMetadataName(t *testing.T) {
	for name, length := range map[string]int{"longest": 253, "too long": 254} {
		t.Run(name, func(t *testing.T) {
			u := resource(t, metav1.NamespaceDefault, strings.Repeat("n", length), "")
			err := api.Create(t.Context(), u, client.DryRunAll)
			if length > 253 {
				refused(t, err, "metadata.name", "must be no more than 253 characters")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			token := decode(t, u)
			if token.TargetName() != token.Name {
				t.Errorf("the target is %q", token.TargetName())
			}
			secretsCanExist(t, token)
		})
	}
}
