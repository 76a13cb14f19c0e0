// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// maxReadme is the number of lines in which the README must say what the operator is. Everything else has a page in docs.
const maxReadme = 150

// TestReadme checks that the README stays short and names the oldest Kubernetes that the chart admits, as the page about installing does.
func TestReadme(t *testing.T) {
	if n := strings.Count(text(t, "README.md"), "\n"); n > maxReadme {
		t.Errorf("README.md has %d lines, more than %d: move what has a page of its own there", n, maxReadme)
	}
	var chart struct {
		KubeVersion string `json:"kubeVersion"`
	}
	if err := yaml.Unmarshal([]byte(text(t, "charts/wechat-token-operator/Chart.yaml")), &chart); err != nil {
		t.Fatal(err)
	}
	oldest := regexp.MustCompile(`^>=(\d+\.\d+)\.0-0$`).FindStringSubmatch(chart.KubeVersion)
	if oldest == nil {
		t.Fatalf("the chart admits Kubernetes %q, which this test cannot read", chart.KubeVersion)
	}
	for _, path := range []string{"README.md", "docs/install.md"} {
		if want := "Kubernetes " + oldest[1] + " or later"; !strings.Contains(text(t, path), want) {
			t.Errorf("%s does not say %q", path, want)
		}
	}
}

// TestReadmeOutput compares what the README shows of the plugin, which leaves out the end, with what the plugin's own tests found that it
// prints. Names, times and fingerprints may differ.
func TestReadmeOutput(t *testing.T) {
	golden := func(name string) []string { return lines(text(t, "cmd/kubectl-wxtoken/testdata/"+name)) }
	list, status := golden("list.txt"), golden("status-ready.txt")
	want := []string{"$ kubectl wxtoken list -n shop", list[0]}
	for _, line := range list[1:] {
		if strings.HasPrefix(line, "shop ") {
			want = append(want, line)
		}
	}
	end := slices.Index(status, "Token")
	if end < 1 {
		t.Fatal("the plugin prints no chapter Token, before which the README ends")
	}
	want = append(append(append(want, "$ kubectl wxtoken status shop -n shop"), status[:end-1]...), "…")
	var shown []string
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if p.path == "README.md" && b.lang == "console" {
				shown = lines(b.text)
			}
		}
	}
	for i := range max(len(want), len(shown)) {
		if i >= len(want) || i >= len(shown) || shown[i] != want[i] {
			t.Fatalf("README.md shows\n%s\nwhere the plugin prints\n%s", strings.Join(shown, "\n"), strings.Join(want, "\n"))
		}
	}
}

var (
	moment      = regexp.MustCompile(`[\dy]{4}-[\dm]{2}-[\dd]{2}[T ][\dh]{2}:[\dm]{2}:[\ds]{2}`)
	duration    = regexp.MustCompile(`\b(?:[\d?]+[hms])+`)
	fingerprint = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
	gap         = regexp.MustCompile(` {2,}`)
)

// lines returns the lines of a plugin's output without what differs from one run to the next.
func lines(output string) []string {
	output = strings.ReplaceAll(output, "status/shop ", "shop/shop ")
	output = moment.ReplaceAllString(output, "MOMENT")
	output = duration.ReplaceAllString(output, "DURATION")
	output = fingerprint.ReplaceAllString(output, "FINGERPRINT")
	output = gap.ReplaceAllString(output, "  ")
	return strings.Split(strings.TrimSpace(output), "\n")
}

// text returns the content of a file of the repository.
func text(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
