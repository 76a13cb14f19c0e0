// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// prometheus is built on first use; make does it ahead of the tests.
func prometheus(t *testing.T) string {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), "../tools/build.sh", "prometheus").Output()
	if err != nil {
		t.Fatalf("building Prometheus: %v", err)
	}
	return strings.TrimSpace(string(path))
}

// Each query of the dashboard returns data from a real Prometheus that scrapes the real operator. A query that says
// nothing fails the story.
func TestDashboard(t *testing.T) {
	opts := options{sample: sample, observe: observation{
		prometheus: prometheus(t), dashboard: "../../config/grafana/dashboard.json", rules: "../../config/prometheus/rules.yaml",
	}}
	out, err := told(t, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"queries of the dashboard returned data",
		"pending WeChatAppTokenActionNeeded demo/wrong-secret AppSecretInvalid",
		"reason=RefreshDue result=success",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// A query that returns nothing, or no number, is found out.
func TestPointsThatSayNothing(t *testing.T) {
	for value, empty := range map[string]bool{"0": false, "1.5": false, "NaN": true, "": true, "many": true} {
		if got := (point{Value: [2]any{0.0, value}}).empty(); got != empty {
			t.Errorf("%q is empty: %v", value, got)
		}
	}
}
