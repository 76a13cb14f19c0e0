// SPDX-License-Identifier: Apache-2.0

package argocd

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// layout is the folder of Argo CD's own repository, so that a copy of it is all that a contribution there needs.
const layout = "../../config/argocd/resource_customizations/" + group

// group and the kinds are what Argo CD gets to know. Only a WeChatAppToken has actions.
const (
	group      = "wechat.apptoken.dev"
	tokenKind  = "WeChatAppToken"
	clientKind = "WeChatAppClient"
)

// healthTests and actionTests are the formats of Argo CD's own tests.
type healthTests struct {
	Tests []struct {
		HealthStatus struct{ Status, Message string }
		InputPath    string
	}
}

type actionTests struct {
	DiscoveryTests []struct {
		InputPath string
		Result    []struct {
			Name     string
			Disabled bool
		}
	}
	ActionTests []struct {
		Action, InputPath, ExpectedOutputPath string
	}
}

func load(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(read(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(layout, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func object(t *testing.T, path string) map[string]any {
	t.Helper()
	o := map[string]any{}
	if err := yaml.Unmarshal([]byte(read(t, path)), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func runScript(t *testing.T, script string, o map[string]any) map[string]any {
	t.Helper()
	out, err := run(read(t, script), o)
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	m, ok := out.(map[string]any)
	if !ok {
		t.Fatalf("%s returned %v", script, out)
	}
	return m
}

func TestHealth(t *testing.T) {
	for _, kind := range []string{tokenKind, clientKind} {
		t.Run(kind, func(t *testing.T) { checkHealth(t, kind) })
	}
}

func checkHealth(t *testing.T, kind string) {
	t.Helper()
	tests := healthTests{}
	load(t, kind+"/health_test.yaml", &tests)
	seen := map[string]bool{}
	var used []string
	for _, c := range tests.Tests {
		used = append(used, c.InputPath)
		t.Run(c.InputPath, func(t *testing.T) {
			health := runScript(t, kind+"/health.lua", object(t, filepath.Join(kind, c.InputPath)))
			if health["status"] != c.HealthStatus.Status || health["message"] != c.HealthStatus.Message {
				t.Errorf("got %v: %v, want %s: %s", health["status"], health["message"], c.HealthStatus.Status, c.HealthStatus.Message)
			}
			seen[c.HealthStatus.Status] = true
		})
	}
	if got := strings.Join(slices.Sorted(maps.Keys(seen)), " "); got != "Degraded Healthy Progressing Suspended" {
		t.Errorf("only these are tested: %s", got)
	}
	files, err := filepath.Glob(filepath.Join(layout, kind, "testdata", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(used, "testdata/"+filepath.Base(f)) {
			t.Errorf("no test uses %s", f)
		}
	}
}

// actions are the ones that discovery.lua offers, with whether they are disabled.
func actions(t *testing.T, path string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for name, a := range runScript(t, tokenKind+"/actions/discovery.lua", object(t, path)) {
		action, ok := a.(map[string]any)
		if !ok {
			t.Fatalf("%s: %v", name, a)
		}
		out[name], _ = action["disabled"].(bool)
	}
	return out
}

func TestActions(t *testing.T) {
	tests := actionTests{}
	load(t, tokenKind+"/actions/action_test.yaml", &tests)
	for _, c := range tests.DiscoveryTests {
		want := map[string]bool{}
		for _, r := range c.Result {
			want[r.Name] = r.Disabled
		}
		if got := actions(t, filepath.Join(tokenKind, "actions", c.InputPath)); !maps.Equal(got, want) {
			t.Errorf("discovery of %s: got %v, want %v", c.InputPath, got, want)
		}
	}
	tested := map[string]bool{}
	for _, c := range tests.ActionTests {
		tested[c.Action] = true
		t.Run(c.Action, func(t *testing.T) {
			before := time.Now().Add(-time.Second)
			got := runScript(t, tokenKind+"/actions/"+c.Action+"/action.lua", object(t, filepath.Join(tokenKind, "actions", c.InputPath)))
			want := object(t, filepath.Join(tokenKind, "actions", c.ExpectedOutputPath))
			settleTime(t, got, want, c.Action, before)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got\n%v\nwant\n%v", got, want)
			}
		})
	}
	offered := actions(t, tokenKind+"/actions/testdata/healthy.yaml")
	if !slices.Equal(slices.Sorted(maps.Keys(tested)), slices.Sorted(maps.Keys(offered))) {
		t.Errorf("tested are %v, offered %v", tested, offered)
	}
}

// settleTime checks that a request was made now, and puts the time that the file expects.
func settleTime(t *testing.T, got, want map[string]any, action string, before time.Time) {
	t.Helper()
	annotations := func(o map[string]any) map[string]any {
		meta, _ := o["metadata"].(map[string]any)
		a, _ := meta["annotations"].(map[string]any)
		return a
	}
	key := "wechat.apptoken.dev/" + action + "-requested-at"
	expected, found := annotations(want)[key]
	if !found {
		return
	}
	value, _ := annotations(got)[key].(string)
	at, err := time.Parse(time.RFC3339, value)
	if err != nil || at.Before(before.Truncate(time.Second)) || at.After(time.Now()) {
		t.Errorf("the request is %q (%v)", value, err)
	}
	annotations(got)[key] = expected
}

// installed is what Argo CD gets to know: the health check of each kind, and the actions in the form of argocd-cm.
type installed struct {
	health  map[string]string
	actions string
}

// script prints them.
const script = "../../config/argocd/argocd-cm.sh"

// TestInstallation checks that each form in which the health check and the actions are handed out contains all scripts as they are.
func TestInstallation(t *testing.T) {
	inConfigMap := func(keys map[string]string) installed {
		health := map[string]string{}
		for key, script := range keys {
			if kind, found := strings.CutPrefix(key, "resource.customizations.health."+group+"_"); found {
				health[kind] = script
			}
		}
		return installed{health, keys["resource.customizations.actions."+group+"_"+tokenKind]}
	}
	for format, read := range map[string]func(*testing.T, []byte) installed{
		"patch": func(t *testing.T, raw []byte) installed {
			t.Helper()
			var patch struct {
				Data map[string]string `json:"data"`
			}
			decode(t, raw, &patch)
			return inConfigMap(patch.Data)
		},
		"values": func(t *testing.T, raw []byte) installed {
			t.Helper()
			var values struct {
				Configs struct {
					CM map[string]string `json:"cm"`
				} `json:"configs"`
			}
			decode(t, raw, &values)
			return inConfigMap(values.Configs.CM)
		},
		"operator": func(t *testing.T, raw []byte) installed {
			t.Helper()
			type item struct{ Group, Kind, Check, Action string }
			var resource struct {
				Spec struct {
					ResourceHealthChecks, ResourceActions []item
				}
			}
			decode(t, raw, &resource)
			checks, actions := resource.Spec.ResourceHealthChecks, resource.Spec.ResourceActions
			if len(actions) != 1 || actions[0].Kind != tokenKind {
				t.Fatalf("the actions are %+v", actions)
			}
			health := map[string]string{}
			for _, i := range slices.Concat(checks, actions) {
				if i.Group != group {
					t.Errorf("it is about %s of %s", i.Kind, i.Group)
				}
			}
			for _, i := range checks {
				health[i.Kind] = i.Check
			}
			return installed{health, actions[0].Action}
		},
	} {
		t.Run(format, func(t *testing.T) {
			if _, err := os.Stat(script); err != nil { // Go's cache of test results then knows of it
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), script, format).Output()
			if err != nil {
				t.Fatal(err)
			}
			checkInstalled(t, read(t, out))
		})
	}
	if err := exec.CommandContext(t.Context(), script, "nonsense").Run(); err == nil {
		t.Error("a form that does not exist is no error")
	}
}

func decode(t *testing.T, raw []byte, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(raw, into); err != nil {
		t.Fatalf("%v in\n%s", err, raw)
	}
}

func checkInstalled(t *testing.T, got installed) {
	t.Helper()
	want := map[string]string{tokenKind: read(t, tokenKind+"/health.lua"), clientKind: read(t, clientKind+"/health.lua")}
	if !maps.Equal(got.health, want) {
		t.Errorf("the health checks are\n%q", got.health)
	}
	var offered struct {
		Discovery   string `json:"discovery.lua"`
		Definitions []struct {
			Name   string `json:"name"`
			Action string `json:"action.lua"`
		} `json:"definitions"`
	}
	decode(t, []byte(got.actions), &offered)
	if offered.Discovery != read(t, tokenKind+"/actions/discovery.lua") {
		t.Errorf("the discovery is\n%s", offered.Discovery)
	}
	var names []string
	for _, d := range offered.Definitions {
		names = append(names, d.Name)
		if d.Action != read(t, filepath.Join(tokenKind, "actions", d.Name, "action.lua")) {
			t.Errorf("the action %s is\n%s", d.Name, d.Action)
		}
	}
	slices.Sort(names)
	if want := slices.Sorted(maps.Keys(actions(t, tokenKind+"/actions/testdata/healthy.yaml"))); !slices.Equal(names, want) {
		t.Errorf("the actions are %v, discovery offers %v", names, want)
	}
}
