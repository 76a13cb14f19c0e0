// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// TestRolesForUsers: the roles for users cover one kind each and nothing else: they cannot write a status, which is what the
// operator trusts, and have no Secrets. Only roles that may read Secrets may create these kinds, and clients only who administers a
// namespace.
func TestRolesForUsers(t *testing.T) {
	read, change := []string{"get", "list", "watch"}, []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
	for file, want := range map[string]struct{ verbs, aggregated []string }{
		"wechatapptoken_viewer_role.yaml":  {read, []string{"view"}},
		"wechatapptoken_editor_role.yaml":  {change, []string{"admin", "edit"}},
		"wechatappclient_viewer_role.yaml": {read, []string{"view"}},
		// Who makes a client calls WeChat as the app.
		"wechatappclient_editor_role.yaml": {change, []string{"admin"}},
	} {
		t.Run(file, func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join(root, "config", "rbac", file))
			if err != nil {
				t.Fatal(err)
			}
			role := &rbacv1.ClusterRole{}
			if err := yaml.UnmarshalStrict(raw, role); err != nil {
				t.Fatal(err)
			}
			kind, _, _ := strings.Cut(file, "_")
			kind += "s"
			rights := map[string]string{}
			for _, rule := range role.Rules {
				rights[fmt.Sprint(rule.APIGroups, rule.Resources)] += fmt.Sprint(slices.Sorted(slices.Values(rule.Verbs)))
			}
			if wanted := (map[string]string{
				"[wechat.apptoken.dev] [" + kind + "]":        fmt.Sprint(want.verbs),
				"[wechat.apptoken.dev] [" + kind + "/status]": "[get]",
			}); !maps.Equal(rights, wanted) {
				t.Errorf("rights %v, want %v", rights, wanted)
			}
			var aggregated []string
			for _, name := range []string{"admin", "edit", "view"} {
				if role.Labels["rbac.authorization.k8s.io/aggregate-to-"+name] == "true" {
					aggregated = append(aggregated, name)
				}
			}
			if !slices.Equal(aggregated, want.aggregated) {
				t.Errorf("part of the roles %v, want %v", aggregated, want.aggregated)
			}
		})
	}
}

// TestActionsArePinned: a workflow uses actions by commit, with the version that it is, so that nobody can move a tag under it.
func TestActionsArePinned(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, ".github", "workflows", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no workflows: %v", err)
	}
	uses, pinned := regexp.MustCompile(`(?m)^.*\buses:.*$`), regexp.MustCompile(`^\s*(- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range uses.FindAllString(string(text), -1) {
			if !pinned.MatchString(line) {
				t.Errorf("%s: not pinned by commit and version: %s", filepath.Base(file), line)
			}
		}
	}
}
