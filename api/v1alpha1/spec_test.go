// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestAppID(t *testing.T) {
	const field = "spec.appID"
	const advice = "must be an AppID such as wx0123456789abcdef"
	try(t, []specCase{
		{name: "as the console shows it", spec: `appID: wx0123456789abcdef`},
		{name: "letters only", spec: `appID: wxabcdefghijklmnop`},
		{name: "letters beyond hex", spec: `appID: wxzzzzzzzzzzzzzzzz`},
		{name: "upper case", spec: `appID: WX0123456789ABCDEF`, field: field, advice: advice},
		{name: "upper case inside", spec: `appID: wx0123456789abcdeF`, field: field, advice: advice},
		{name: "blank before", spec: `appID: " wx0123456789abcdef"`, field: field, advice: "without spaces"},
		{name: "blank after", spec: `appID: "wx0123456789abcdef "`, field: field, advice: "without spaces"},
		{name: "newline after", spec: `appID: "wx0123456789abcdef\n"`, field: field, advice: advice},
		{name: "newline before", spec: `appID: "\nwx0123456789abcdef"`, field: field, advice: advice},
		{name: "original ID", spec: `appID: gh_0123456789ab`, field: field, advice: "the original ID (gh_…) is something else"},
		{name: "a digit too few", spec: `appID: wx0123456789abcde`, field: field, advice: "wx and 16 lower-case letters or digits"},
		{name: "a digit too many", spec: `appID: wx0123456789abcdef0`, field: field, advice: "wx and 16 lower-case letters or digits"},
		{name: "another prefix", spec: `appID: ww0123456789abcdef`, field: field, advice: advice},
		{name: "full-width digits", spec: `appID: wx０１２３４５６７８９abcdef`, field: field, advice: advice},
		{name: "empty", spec: `appID: ""`, field: field, advice: advice},
		{name: "longest that gets the advice", spec: fmt.Sprintf("appID: %q", strings.Repeat("w", 64)), field: field, advice: advice},
		{name: "too long", spec: fmt.Sprintf("appID: %q", strings.Repeat("w", 65)), field: field, advice: "Too long: may not be more than 64"},
		{name: "number", spec: `appID: 123456`, field: field, advice: "must be of type string"},
		{name: "null", spec: `appID: null`, field: field, advice: "Required value"},
	})
}

func TestRequiredFields(t *testing.T) {
	for field, path := range map[string][]string{
		"spec":                           {"spec"},
		"spec.appID":                     {"spec", "appID"},
		"spec.credentialsSecretRef":      {"spec", "credentialsSecretRef"},
		"spec.credentialsSecretRef.name": {"spec", "credentialsSecretRef", "name"},
	} {
		t.Run(field, func(t *testing.T) {
			u := resource(t, metav1.NamespaceDefault, "shop", "")
			parent := u.Object
			for _, key := range path[:len(path)-1] {
				parent = parent[key].(map[string]any)
			}
			delete(parent, path[len(path)-1])
			refused(t, api.Create(t.Context(), u, client.DryRunAll), field, "Required value")
		})
	}
}

func TestCredentialsSecretRef(t *testing.T) {
	const name, key = "spec.credentialsSecretRef.name", "spec.credentialsSecretRef.key"
	const nameAdvice, keyAdvice = "must be the name of a Secret: lower-case letters", "must be a key of a Secret: letters, digits"
	try(t, []specCase{
		{name: "name with dots", spec: `credentialsSecretRef: {name: shop-1.wechat.example}`},
		{name: "one letter", spec: `credentialsSecretRef: {name: a}`},
		{name: "longest name", spec: fmt.Sprintf("credentialsSecretRef: {name: %q}", strings.Repeat("a", 253))},
		{name: "name too long", spec: fmt.Sprintf("credentialsSecretRef: {name: %q}", strings.Repeat("a", 254)), field: name, advice: "may not be more than 253"},
		{name: "name empty", spec: `credentialsSecretRef: {name: ""}`, field: name, advice: nameAdvice},
		{name: "name with upper case", spec: `credentialsSecretRef: {name: Shop}`, field: name, advice: nameAdvice},
		{name: "name with another namespace", spec: `credentialsSecretRef: {name: other/shop}`, field: name, advice: nameAdvice},
		{name: "name ends with a dash", spec: `credentialsSecretRef: {name: shop-}`, field: name, advice: "starting and ending with a letter or digit"},
		{name: "name with two dots", spec: `credentialsSecretRef: {name: shop..wechat}`, field: name, advice: nameAdvice},
		{name: "name with newline", spec: `credentialsSecretRef: {name: "shop\n"}`, field: name, advice: nameAdvice},

		{name: "key", spec: `credentialsSecretRef: {name: c, key: App_Secret-1.txt}`},
		{name: "hidden file", spec: `credentialsSecretRef: {name: c, key: .appsecret}`},
		{name: "longest key", spec: fmt.Sprintf("credentialsSecretRef: {name: c, key: %q}", strings.Repeat("K", 253))},
		{name: "key too long", spec: fmt.Sprintf("credentialsSecretRef: {name: c, key: %q}", strings.Repeat("K", 254)), field: key, advice: "may not be more than 253"},
		{name: "key empty", spec: `credentialsSecretRef: {name: c, key: ""}`, field: key, advice: keyAdvice},
		{name: "key with slash", spec: `credentialsSecretRef: {name: c, key: a/b}`, field: key, advice: keyAdvice},
		{name: "key with blank", spec: `credentialsSecretRef: {name: c, key: "app secret"}`, field: key, advice: keyAdvice},
		{name: "key is a dot", spec: `credentialsSecretRef: {name: c, key: .}`, field: key, advice: "neither '.' nor starting with '..'"},
		{name: "key is two dots", spec: `credentialsSecretRef: {name: c, key: ..}`, field: key, advice: "neither '.' nor starting with '..'"},
		{name: "key starts with two dots", spec: `credentialsSecretRef: {name: c, key: ..data}`, field: key, advice: "neither '.' nor starting with '..'"},
	})
}

func TestModeAndSuspend(t *testing.T) {
	try(t, []specCase{
		{name: "Stable", spec: `mode: Stable`},
		{name: "Legacy", spec: `mode: Legacy`},
		{name: "lower case", spec: `mode: stable`, field: "spec.mode", advice: `supported values: "Stable", "Legacy"`},
		{name: "empty", spec: `mode: ""`, field: "spec.mode", advice: `supported values: "Stable", "Legacy"`},
		{name: "suspended", spec: `suspend: true`},
		{name: "not suspended", spec: `suspend: false`},
		{name: "suspend null", spec: `suspend: null`},
		{name: "suspend as a string", spec: `suspend: "true"`, field: "spec.suspend", advice: "must be of type boolean"},
	})
}

func TestCheckInterval(t *testing.T) {
	const field = "spec.checkInterval"
	const advice = "must be a duration from 30s to 1h in whole hours, minutes and seconds, such as 90s, 2m or 1h"
	cases := []specCase{{name: "null", spec: `checkInterval: null`}}
	for _, good := range []string{"30s", "2m", "90s", "1m30s", "3600s", "60m", "1h", "1h0m0s", "0h0m30s", "00030s", "59m59s"} {
		cases = append(cases, specCase{name: good, spec: fmt.Sprintf("checkInterval: %q", good)})
	}
	for _, bad := range []string{
		"29s", "0s", "61m", "1h0m1s", "3601s", "2h", "99999h", "99999h99999h9999h", "2", "", "0", "-5m", "+5m", "1d", "1.5h", "1000000h",
		"30000ms", "60000000us", "60000000000ns", "2M", "2m\n", " 2m", "2 m", "2m ", "1h-1m", "m", "٢m", "２m", "PT2M", "@every 2m",
		strings.Repeat("1", 100) + "s", strings.Repeat("1m", 1000),
	} {
		cases = append(cases, specCase{name: "not " + bad[:min(len(bad), 20)], spec: fmt.Sprintf("checkInterval: %q", bad), field: field, advice: advice})
	}
	for _, other := range []string{"120", "2.5", "true", "{}", "[2m]"} {
		cases = append(cases, specCase{name: "not " + other, spec: "checkInterval: " + other, field: field, advice: "must be of type string"})
	}
	try(t, cases)
}

// TestCheckIntervalIsWhatGoParses: a stored value that Go cannot parse would stop every informer of the kind.
func TestCheckIntervalIsWhatGoParses(t *testing.T) {
	accepted := 0
	attempt := func(value string) error {
		u := resource(t, metav1.NamespaceDefault, "shop", fmt.Sprintf("checkInterval: %q", value))
		if err := api.Create(t.Context(), u, client.DryRunAll); err != nil {
			return err
		}
		accepted++
		if d := decode(t, u).Spec.CheckInterval.Duration; d < 30*time.Second || d > time.Hour {
			t.Errorf("%q is accepted and means %s", value, d)
		}
		return nil
	}
	parts := []string{"", "0s", "00s", "30s", "1m", "59m", "1h", "60m", "99999s", "100000s", "1.5m", "-1m", "+1m", "1e2s", "500ms", "1µs", "1d", "5", "s", " ", ".", "١s"}
	for _, first := range parts {
		for _, second := range parts {
			_ = attempt(first + second) // refused is fine; what is accepted is looked at
		}
	}
	if accepted < 20 {
		t.Errorf("only %d made-up values were accepted: the test shows nothing", accepted)
	}
	// The other way round: what a Go client writes for an allowed duration is accepted.
	for d := 30 * time.Second; d <= time.Hour; d += 17 * time.Second {
		raw, err := json.Marshal(metav1.Duration{Duration: d})
		if err != nil {
			t.Fatal(err)
		}
		if err := attempt(strings.Trim(string(raw), `"`)); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// TestGoClient: fields that a Go client leaves at zero are left to the API server's defaults.
func TestGoClient(t *testing.T) {
	token := &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, GenerateName: "shop-"},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID:                appID,
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: credentials},
		},
	}
	if err := api.Create(t.Context(), token, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	spec := token.Spec
	if spec.Mode != v1alpha1.ModeStable || spec.CheckInterval.Duration != 2*time.Minute || spec.CredentialsSecretRef.Key != "appSecret" ||
		spec.Target.AccessTokenKey != v1alpha1.DefaultAccessTokenKey || spec.Target.DeletionPolicy != v1alpha1.DeletionDelete ||
		spec.Target.Delivery != v1alpha1.DeliveryKubelet {
		t.Errorf("not the defaults: %+v", spec)
	}
	if token.TargetName() != token.Name {
		t.Errorf("the target is %q, want the generated name %q", token.TargetName(), token.Name)
	}
}
