// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// ask gets a path of the API server.
func ask(t *testing.T, path, accept string, into any) {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(env.Config)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := clientset.RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

func TestPrinterColumns(t *testing.T) {
	namespace := newNamespace(t)
	token := decode(t, create(t, namespace, "shop", "{mode: Legacy, suspend: true}"))
	token.Status = largestStatus()
	token.Status.TargetSecretName = "shop"
	token.Status.Conditions = []metav1.Condition{
		{Type: v1alpha1.ConditionRefreshFailing, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonIPNotAllowed, LastTransitionTime: metav1.Now()},
		{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonTokenValid, LastTransitionTime: metav1.Now()},
	}
	later := metav1.NewTime(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	token.Status.Token.ExpirationTime = later
	if err := api.Status().Update(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	create(t, namespace, "unseen", "")

	table := &metav1.Table{}
	ask(t, "/apis/wechat.apptoken.dev/v1alpha1/namespaces/"+namespace+"/wechatapptokens", "application/json;as=Table;v=v1;g=meta.k8s.io", table)
	type column struct {
		name     string
		priority int32
	}
	var columns []column
	for _, c := range table.ColumnDefinitions {
		columns = append(columns, column{c.Name, c.Priority})
	}
	want := []column{
		{"Name", 0}, {"App ID", 0}, {"Mode", 0}, {"Ready", 0}, {"Failing", 0}, {"Secret", 0}, {"Expires", 0}, {"Age", 0},
		{"Reason", 1}, {"Next refresh", 1}, {"Suspended", 1},
	}
	if !slices.Equal(columns, want) {
		t.Fatalf("the columns are %v,\nwant %v", columns, want)
	}
	if len(table.Rows) != 2 {
		t.Fatalf("%d rows", len(table.Rows))
	}
	for i, want := range [][]any{
		{"shop", appID, "Legacy", "True", v1alpha1.ReasonIPNotAllowed, "shop", "2030-01-02T03:04:05Z", nil, "TokenValid", "2026-01-02T15:04:05Z", true},
		{"unseen", appID, "Stable", nil, nil, nil, nil, nil, nil, nil, false},
	} {
		cells := table.Rows[i].Cells
		if age := fmt.Sprint(cells[7]); !strings.HasSuffix(age, "s") { // seconds, in this test
			t.Errorf("the age is %s", age)
		}
		cells[7] = nil
		if !reflect.DeepEqual(cells, want) {
			t.Errorf("the row is %v,\nwant %v", cells, want)
		}
	}
}

func TestFieldSelector(t *testing.T) {
	namespace := newNamespace(t)
	create(t, namespace, "one", "")
	create(t, namespace, "two", "appID: wxfedcba9876543210")
	list := &v1alpha1.WeChatAppTokenList{}
	if err := api.List(t.Context(), list, client.InNamespace(namespace), client.MatchingFields{"spec.appID": "wxfedcba9876543210"}); err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 1 || list.Items[0].Name != "two" {
		t.Errorf("selected %v", list.Items)
	}
	err := api.List(t.Context(), list, client.InNamespace(namespace), client.MatchingFields{"spec.mode": "Stable"})
	if !apierrors.IsBadRequest(err) {
		t.Errorf("a field that cannot be selected: %v", err)
	}
}

func TestDiscovery(t *testing.T) {
	resources := &metav1.APIResourceList{}
	ask(t, "/apis/wechat.apptoken.dev/v1alpha1", "application/json", resources)
	names := map[string]bool{}
	for _, r := range resources.APIResources {
		names[r.Name] = true
		want, found := map[string]metav1.APIResource{
			"wechatapptokens":  {Kind: v1alpha1.Kind, SingularName: "wechatapptoken", ShortNames: []string{"wxtoken"}},
			"wechatappclients": {Kind: v1alpha1.ClientKind, SingularName: "wechatappclient", ShortNames: []string{"wxclient"}},
		}[r.Name]
		if found && (!slices.Equal(r.ShortNames, want.ShortNames) || !slices.Equal(r.Categories, []string{"wechat"}) || !r.Namespaced ||
			r.Kind != want.Kind || r.SingularName != want.SingularName) {
			t.Errorf("discovered as %+v", r)
		}
	}
	if want := map[string]bool{
		"wechatapptokens": true, "wechatapptokens/status": true, "wechatappclients": true, "wechatappclients/status": true,
	}; !maps.Equal(names, want) {
		t.Errorf("the group serves %v", names)
	}
}

// TestDescriptions: kubectl explain has something to say about every field, and need not break our lines.
func TestDescriptions(t *testing.T) {
	document := struct {
		Components struct {
			Schemas map[string]map[string]any `json:"schemas"`
		} `json:"components"`
	}{}
	ask(t, "/openapi/v3/apis/wechat.apptoken.dev/v1alpha1", "application/json", &document)
	for kind, least := range map[string]int{v1alpha1.Kind: 50, v1alpha1.ClientKind: 30} {
		schema := document.Components.Schemas["dev.apptoken.wechat.v1alpha1."+kind]
		if seen := describe(t, kind, schema); seen < least {
			t.Errorf("only %d fields were looked at: %v", seen, schema)
		}
	}
}

// explainWidth is how much of a line of 80 characters kubectl explain leaves to a description.
const explainWidth = 76

// foreign are the fields that Kubernetes describes.
var foreign = regexp.MustCompile(`^WeChatApp(Token|Client)\.(apiVersion|kind|metadata|status\.conditions\[\])`)

// describe fails the test for fields without a description and tells how many it saw.
func describe(t *testing.T, path string, schema map[string]any) int {
	t.Helper()
	seen := 0
	text, _ := schema["description"].(string)
	if len(text) < 10 {
		t.Errorf("%s is described as %q", path, text)
	}
	for line := range strings.Lines(text) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > explainWidth && !foreign.MatchString(path) {
			t.Errorf("%s is described in a line of more than %d characters: %s", path, explainWidth, line)
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, property := range properties {
		seen += 1 + describe(t, path+"."+name, property.(map[string]any))
	}
	for _, below := range []string{"items", "additionalProperties"} {
		if values, ok := schema[below].(map[string]any); ok && values["properties"] != nil {
			seen += describe(t, path+"[]", values)
		}
	}
	return seen
}

func TestKubectl(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(config, env.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	namespace := newNamespace(t)
	create(t, namespace, "shop", "")
	for _, c := range []struct {
		args string
		want []string
	}{
		{"explain wechatapptokens.spec", []string{"appID\t<string> -required-", "enum: Stable, Legacy", "checkInterval is how often", "Stable, the default, is right for nearly"}},
		{"explain wxtoken.spec.target --recursive", []string{"deletionPolicy\t<string>", "labels\t<map[string]string>"}},
		{"get wxtoken -n " + namespace, []string{"APP ID", "shop   " + appID}},
		{"get wechat -n " + namespace, []string{"shop   " + appID}},
		{"get wxtoken -A --field-selector spec.appID=" + appID, []string{"shop"}},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := append([]string{"--kubeconfig", config, "--cache-dir", dir}, strings.Fields(c.args)...)
			out, err := exec.CommandContext(t.Context(), filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range c.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not in:\n%s", want, out)
				}
			}
		})
	}
}
