// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client/config"
)

// TestDocsFlags checks that docs/reference.md has a row with the right default for each flag of the operator, and for no other.
func TestDocsFlags(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Flags\n")
	if !found {
		t.Fatal("docs/reference.md has no section Flags")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{} // by flag, the cell with its default
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if !strings.HasPrefix(line, "| `--") || len(cells) < 4 {
			continue
		}
		for _, name := range regexp.MustCompile("`--([a-z-]+)`").FindAllStringSubmatch(cells[1], -1) {
			documented[name[1]] = strings.TrimSpace(cells[2])
		}
	}
	fs := flag.NewFlagSet("operator", flag.ContinueOnError)
	(&options{}).bind(fs)
	config.RegisterFlags(fs) // --kubeconfig
	fs.VisitAll(func(f *flag.Flag) {
		cell, ok := documented[f.Name]
		delete(documented, f.Name)
		switch {
		case !ok:
			t.Errorf("--%s is not in docs/reference.md", f.Name)
		case strings.HasPrefix(f.Name, "zap-"):
			// One row describes all of them, because their defaults depend on each other.
		case f.DefValue != "" && f.Name != "version" && cell != "`"+f.DefValue+"`":
			t.Errorf("docs/reference.md says that --%s is %s by default, and it is %s", f.Name, cell, f.DefValue)
		case f.DefValue == "" && strings.HasPrefix(cell, "`"):
			t.Errorf("docs/reference.md says that --%s is %s by default, and it has none", f.Name, cell)
		}
	})
	for name := range documented {
		t.Errorf("docs/reference.md tells of --%s, which does not exist", name)
	}
}
