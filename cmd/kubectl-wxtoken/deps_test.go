// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestOperatorDoesNotLinkThePlugin checks that the operator's binary has none of the plugin's dependencies, although they share a
// go.mod.
func TestOperatorDoesNotLinkThePlugin(t *testing.T) {
	for program, want := range map[string]bool{"../operator": false, ".": true} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", program).Output() //nolint:gosec // our own packages
		if err != nil {
			t.Fatal(err)
		}
		for _, dep := range []string{"k8s.io/cli-runtime/", "github.com/spf13/cobra", "sigs.k8s.io/kustomize/", "github.com/moby/term"} {
			if got := strings.Contains("\n"+string(out), "\n"+dep); got != want {
				t.Errorf("%s links %s: %t, want %t", program, dep, got, want)
			}
		}
	}
}
