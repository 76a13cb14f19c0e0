// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// TestNamespaceListMode repeats tests with operators that may do nothing outside of their namespaces. All other tests of
// the package run with the rights of an operator that serves all namespaces.
func TestNamespaceListMode(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"first issue":      TestFirstIssue,
		"rotation":         TestRotation,
		"Legacy":           TestLegacyIssueAndRotation,
		"a shared account": TestLegacyAccountIsShared,
		"a lost mint":      TestMintLostInACrash,
		"tampering":        TestTampering,
		"target deleted":   TestTargetDeleted,
		"adoption":         TestAdoption,
		"retained target":  TestRetainedTarget,
		"refresh":          TestRefreshRequest,
		"restart":          TestRestart,
		"outage":           TestOutageUntilTheTokenExpires,
	} {
		t.Run(name, test)
	}
}

// access is what an operator of this name gets for its namespaces.
func (w *world) access(name string, namespaces ...string) (*rest.Config, error) {
	if strings.HasPrefix(w.Name(), "TestNamespaceListMode/") {
		return env.NamespacedOperator(w.Context(), name, namespaces...)
	}
	return env.Operator(w.Context(), name)
}

// provoked are the requests that a test wants to be refused, as "namespace: verb resource".
var provoked sync.Map

// expectRefusal names a request of the operator that the API server is to refuse in this test.
func (w *world) expectRefusal(request string) { provoked.Store(w.namespace+": "+request, true) }

// judgeRights reads in the audit log what the API server said to the operators of all tests. It refused no request that
// was not to be refused; and after a run of all tests, no right of the role was of no use.
func judgeRights() error {
	refused, used := map[string]int{}, map[string]bool{}
	requests, err := env.Requests(func(r testenv.Request) bool {
		return strings.HasPrefix(r.User.Username, "system:serviceaccount:"+testenv.OperatorNamespace+":")
	})
	if err != nil {
		return err
	}
	for _, r := range requests {
		resource := r.Object.Resource
		if r.Object.Subresource != "" {
			resource += "/" + r.Object.Subresource
		}
		used[r.Object.Group+" "+resource+" "+r.Verb] = true
		what := r.Verb + " " + resource
		if _, expected := provoked.Load(r.Object.Namespace + ": " + what); expected {
			continue
		}
		if r.Status.Code == http.StatusForbidden || r.Status.Code == http.StatusUnauthorized {
			refused[fmt.Sprintf("%s: %d", what, r.Status.Code)]++
		}
	}
	var errs []error
	for _, what := range slices.Sorted(maps.Keys(refused)) {
		errs = append(errs, fmt.Errorf("the API server refused %d requests of operators: %s", refused[what], what))
	}
	if flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" {
		errs = append(errs, unusedRights(used))
	}
	return errors.Join(errs...)
}

// rightsOf are the rights of a rule, as "group resource verb".
func rightsOf(rule rbacv1.PolicyRule) []string {
	var out []string
	for _, resource := range rule.Resources {
		for _, verb := range rule.Verbs {
			out = append(out, rule.APIGroups[0]+" "+resource+" "+verb)
		}
	}
	return out
}

// unusedRights are those of the role that no request needed, but for two that a cluster may need: an informer lists when
// its API server cannot stream lists, and an event that comes again is patched.
func unusedRights(used map[string]bool) error {
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", "role.yaml"))
	if err != nil {
		return err
	}
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(raw, role); err != nil {
		return err
	}
	var errs []error
	for _, rule := range role.Rules {
		for _, right := range rightsOf(rule) {
			verb := right[strings.LastIndexByte(right, ' ')+1:]
			if strings.Contains(right, " wechatappclients") {
				continue // the tests of internal/appclient use them
			}
			if !used[right] && verb != "list" && right != "events.k8s.io events patch" {
				errs = append(errs, fmt.Errorf("config/rbac/role.yaml has a right that no test used: %s", right))
			}
		}
	}
	return errors.Join(errs...)
}
