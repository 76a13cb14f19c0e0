// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSnippets: docs/reading.md and docs/sdk.md show the code of examples as it is, between docs:start and docs:end, so that what
// people copy is what the tests run.
func TestSnippets(t *testing.T) {
	all := pages(t)
	for _, tc := range []struct {
		page, examples string
		files          []string
	}{
		{"docs/reading.md", "examples/readers", []string{"go/main.go", "java/Reader.java", "python/reader.py", "node/reader.mjs", "dotnet/Reader.cs"}},
		{"docs/sdk.md", "examples/sdk", []string{
			"silenceper/main.go", "co-wechat-api/server.mjs", "node-easywechat/server.mjs", "wxjava/MountedTokenConfig.java",
			"wechatpy/mounted_token.py", "easywechat-6/MountedToken.php", "easywechat-5/MountedToken.php",
		}},
	} {
		i := slices.IndexFunc(all, func(p page) bool { return p.path == tc.page })
		if i < 0 {
			t.Fatalf("%s does not exist", tc.page)
		}
		for _, file := range tc.files {
			raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(tc.examples), filepath.FromSlash(file)))
			if err != nil {
				t.Fatal(err)
			}
			want := snippet(string(raw))
			if want == "" || !slices.ContainsFunc(all[i].blocks, func(b block) bool { return b.text == want }) {
				t.Errorf("%s does not show %s as it is; it should have:\n%s", tc.page, file, want)
			}
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
