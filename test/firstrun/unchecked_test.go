// SPDX-License-Identifier: Apache-2.0

package firstrun

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// optional are the programs without which the tests of a command check less, with a word of the line that then says so. The commands are
// the arguments of hack/unchecked.sh.
func optional(of string) map[string]string {
	if of == "" {
		return map[string]string{
			"java": "Java", "javac": "Java", "python3": "Python", "node": "Node.js", "chromium": "browser", "curl": "download",
		}
	}
	// The C compiler that Go looks for.
	compiler := "gcc"
	if runtime.GOOS == "darwin" {
		compiler = "clang"
	}
	return map[string]string{"shellcheck": "shell scripts", compiler: "data races"}
}

// unchecked returns what the script prints where the optional programs are there, except one.
func unchecked(t *testing.T, of, without string) string {
	t.Helper()
	m := newMachine(t)
	for name := range optional(of) {
		if name != without {
			m.write("bin/"+name, "#!/usr/bin/env bash\n")
		}
	}
	m.copy("hack/unchecked.sh")
	cmd := exec.CommandContext(t.Context(), "bash", filepath.Join(m.dir, "hack/unchecked.sh"), of)
	cmd.Env = []string{"PATH=" + filepath.Join(m.dir, "bin"), "HOME=" + os.Getenv("HOME")}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// A program that is missing adds one line.
func TestUnchecked(t *testing.T) {
	t.Parallel()
	for of, always := range map[string][]string{
		"programs": {"make test-integration"},
		"":         {".NET", "make test-more", "make e2e", "make chaos", "make govulncheck"},
	} {
		full := unchecked(t, of, "")
		for _, want := range always {
			if !strings.Contains(full, want) {
				t.Errorf("%s is not in %s", want, full)
			}
		}
		for program, word := range optional(of) {
			got := unchecked(t, of, program)
			if strings.Contains(full, word) || !strings.Contains(got, word) || strings.Count(got, "\n") != strings.Count(full, "\n")+1 {
				t.Errorf("without %s it says\n%s", program, got)
			}
		}
	}
}

// Whatever a test looks for, and is skipped without, is in the list.
func TestUncheckedIsWhole(t *testing.T) {
	t.Parallel()
	readers, err := os.ReadFile("../../examples/readers/readers_test.go")
	if err != nil {
		t.Fatal(err)
	}
	needs := regexp.MustCompile(`need\(t, "(\w+)"\)`).FindAllStringSubmatch(string(readers), -1)
	if len(needs) < 4 {
		t.Fatalf("the readers need %q, which cannot be all", needs)
	}
	for _, need := range needs {
		// Without Go there is no test.
		if _, ok := optional("")[need[1]]; !ok && need[1] != "go" {
			t.Errorf("a reader needs %s, which hack/unchecked.sh does not look for", need[1])
		}
	}
}
