// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestOperatorDoesNotLinkAnAPIServer checks that the operator does not link the modules that controller-runtime's filter for metrics
// needs. They would add 20 MB and a large attack surface for two kinds of reviews. See docs/adr/0020-own-metrics-filter.md.
func TestOperatorDoesNotLinkAnAPIServer(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := []string{
		"k8s.io/apiserver", "k8s.io/component-base", "github.com/google/cel-go", "github.com/antlr4-go/antlr",
		"google.golang.org/grpc", "go.opentelemetry.io/otel",
	}
	own := false
	for dep := range strings.Lines(string(out)) {
		dep = strings.TrimSpace(dep)
		own = own || strings.HasSuffix(dep, "/internal/access")
		for _, module := range heavy {
			if dep == module || strings.HasPrefix(dep, module+"/") {
				t.Errorf("the operator links %s", dep)
			}
		}
	}
	if !own {
		t.Error("the list has not even what the operator is made of")
	}
}
