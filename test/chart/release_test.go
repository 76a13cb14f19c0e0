// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	appsv1 "k8s.io/api/apps/v1"
)

// The chart of a release installs that release's image by its digest, without a value, also where a value is null.
func TestReleasedChart(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	pack := exec.CommandContext(t.Context(), "hack/release/chart.sh", "v1.2.3", "registry.example.com/operator", digest)
	pack.Dir = "../.."
	out, err := pack.Output()
	if err != nil {
		t.Fatal(err)
	}
	archive := "../../" + strings.TrimSpace(string(out))
	for _, values := range []string{"{}", "image: null"} {
		cmd := exec.CommandContext(t.Context(), os.Getenv("HELM"), "template", release, archive, "-f", "-") //nolint:gosec // our helm
		cmd.Stdin = strings.NewReader(values)
		rendered, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, rendered)
		}
		d := &appsv1.Deployment{}
		if err := yaml.Unmarshal(split(t, rendered)["Deployment "+deployment], d); err != nil {
			t.Fatal(err)
		}
		if got := d.Spec.Template.Spec.Containers[0].Image; got != "registry.example.com/operator@"+digest {
			t.Errorf("it installs %s", got)
		}
		if got := d.Labels["app.kubernetes.io/version"]; got != "v1.2.3" {
			t.Errorf("it says that it is %s", got)
		}
	}
}
