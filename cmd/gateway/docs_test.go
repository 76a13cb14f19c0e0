// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client/config"
)

// rows returns the first two cells of the rows of a table below a heading.
func rows(t *testing.T, page, heading string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page)
	must(t, err)
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("docs/%s has no %q", page, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	out := map[string]string{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if !strings.HasPrefix(line, "| `") || len(cells) < 4 {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			out[strings.Trim(strings.TrimSpace(name), "`")] = strings.TrimSpace(cells[2])
		}
	}
	return out
}

// TestDocsFlags checks that docs/reference.md has a row with the right default for each flag of the gateway, and for no other.
func TestDocsFlags(t *testing.T) {
	documented := rows(t, "reference.md", "## Flags of the gateway")
	fs := flag.NewFlagSet("gateway", flag.ContinueOnError)
	(&options{}).bind(fs)
	config.RegisterFlags(fs) // --kubeconfig
	fs.VisitAll(func(f *flag.Flag) {
		cell, ok := documented["--"+f.Name]
		delete(documented, "--"+f.Name)
		switch {
		case !ok:
			t.Errorf("--%s is not in docs/reference.md", f.Name)
		case strings.HasPrefix(f.Name, "zap-"):
			// One row describes all of them.
		case f.DefValue != "" && f.Name != "version" && cell != "`"+f.DefValue+"`":
			t.Errorf("docs/reference.md says that --%s is %s by default, and it is %s", f.Name, cell, f.DefValue)
		case f.DefValue == "" && strings.HasPrefix(cell, "`"):
			t.Errorf("docs/reference.md says that --%s is %s by default, and it has none", f.Name, cell)
		}
	})
	for name := range documented {
		t.Errorf("docs/reference.md tells of %s, which does not exist", name)
	}
}

// refusals finds the reasons in the source of the gateway.
var refusals = regexp.MustCompile(`(?:\bcode[A-Z]\w+, |reason: |reason[A-Z]\w* += )"([a-z_]+)"`)

// TestDocsReasons checks that docs/gateway.md has each reason of the audit log, and no other.
func TestDocsReasons(t *testing.T) {
	documented := rows(t, "gateway.md", "## The audit log")
	for _, outcome := range []string{"answered", "relayed", "denied", "limited", "unavailable"} {
		if documented[outcome] == "" {
			t.Errorf("docs/gateway.md does not tell of the outcome %s", outcome)
		}
		delete(documented, outcome)
	}
	sources, err := filepath.Glob("../../internal/gateway/*.go")
	must(t, err)
	reasons := map[string]bool{}
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text, err := os.ReadFile(path)
		must(t, err)
		for _, m := range refusals.FindAllStringSubmatch(string(text), -1) {
			reasons[m[1]] = true
		}
	}
	for reason := range reasons {
		if documented[reason] == "" {
			t.Errorf("docs/gateway.md does not tell of the reason %s", reason)
		}
		delete(documented, reason)
	}
	for reason := range documented {
		t.Errorf("docs/gateway.md tells of the reason %s, which does not exist", reason)
	}
}
