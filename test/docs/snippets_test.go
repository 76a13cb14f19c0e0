// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSnippets: docs/reading.md shows the code of examples/readers as it is, between docs:start and docs:end, so that what
// people copy is what the tests run.
func TestSnippets(t *testing.T) {
	all := pages(t)
	i := slices.IndexFunc(all, func(p page) bool { return p.path == "docs/reading.md" })
	if i < 0 {
		t.Fatal("docs/reading.md does not exist")
	}
	for _, file := range []string{"go/main.go", "java/Reader.java", "python/reader.py", "node/reader.mjs", "dotnet/Reader.cs"} {
		raw, err := os.ReadFile(filepath.Join(root, "examples", "readers", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		want := snippet(string(raw))
		if !slices.ContainsFunc(all[i].blocks, func(b block) bool { return b.text == want }) {
			t.Errorf("docs/reading.md does not show %s as it is; it should have:\n%s", file, want)
		}
	}
}

// snippet is what is between the markers, without the indentation that all of it has.
func snippet(source string) string {
	lines := strings.Split(source, "\n")
	isMarker := func(name string) func(string) bool {
		return func(line string) bool { return strings.HasSuffix(line, " docs:"+name) }
	}
	start, end := slices.IndexFunc(lines, isMarker("start")), slices.IndexFunc(lines, isMarker("end"))
	if start < 0 || end < start {
		return ""
	}
	indent := lines[start][:len(lines[start])-len(strings.TrimLeft(lines[start], " \t"))]
	var out []string
	for _, line := range lines[start+1 : end] {
		out = append(out, strings.TrimPrefix(line, indent))
	}
	return strings.Trim(strings.Join(out, "\n"), "\n") + "\n"
}
