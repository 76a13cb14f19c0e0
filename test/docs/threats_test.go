// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// namedTest is how the documents name a test: `internal/wechat: TestNothingLeaks`.
var namedTest = regexp.MustCompile("`([a-z0-9][a-zA-Z0-9_/-]*): ((?:Test|Fuzz)[A-Za-z0-9_]+)`")

// testIn tells whether a folder has a test of this name.
func testIn(folder, name string) bool {
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(folder), "*_test.go"))
	if err != nil {
		return false
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains("\n"+string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

// TestNamedTests: every test that a document names as the one that holds something exists.
func TestNamedTests(t *testing.T) {
	for _, p := range pages(t) {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p.path)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range namedTest.FindAllStringSubmatch(string(text), -1) {
			if !testIn(m[1], m[2]) {
				t.Errorf("%s names %s in %s, which does not exist", p.path, m[2], m[1])
			}
		}
	}
	if testIn("test/docs", "TestNothingOfThisName") || !testIn("test/docs", "TestNamedTests") {
		t.Error("this test does not see what exists")
	}
}

// TestThreatModel: each control is held by a test or says who else sees to it, and each threat names its controls.
func TestThreatModel(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| (C\d+|T\d+) \|(.*)\|$`)
	control := regexp.MustCompile(`C\d+`)
	controls, threats, used := map[string]bool{}, 0, map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		cells := strings.Split(m[2], " | ")
		last := strings.TrimSpace(cells[len(cells)-1])
		switch m[1][0] {
		case 'C':
			if controls[m[1]] {
				t.Errorf("%s is there twice", m[1])
			}
			controls[m[1]] = true
			if !namedTest.MatchString(last) && !strings.HasPrefix(last, "no test: ") {
				t.Errorf("%s names no test and does not say why: %s", m[1], last)
			}
		default:
			threats++
			names := control.FindAllString(last, -1)
			if len(names) == 0 && !strings.HasPrefix(last, "none: ") {
				t.Errorf("%s names no control and does not say so: %s", m[1], last)
			}
			for _, name := range names {
				used[name] = true
			}
		}
	}
	if threats < 10 || len(controls) < 10 {
		t.Errorf("only %d threats and %d controls were found: does the test still read them?", threats, len(controls))
	}
	for name := range used {
		if !controls[name] {
			t.Errorf("%s is named by a threat and does not exist", name)
		}
	}
	for name := range controls {
		if !used[name] {
			t.Errorf("%s is against no threat", name)
		}
	}
}

// namedCode matches the way in which documents say where code is: `eligible` in `internal/controller/members.go`.
var namedCode = regexp.MustCompile("`([A-Za-z0-9_]+)`\\s+in\\s+`([a-z0-9][A-Za-z0-9_/-]*\\.go)`")

// TestNamedCode checks that a Go file contains the identifier that a document looks for there.
func TestNamedCode(t *testing.T) {
	found := 0
	for _, p := range pages(t) {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p.path)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range namedCode.FindAllStringSubmatch(string(text), -1) {
			name, file := m[1], m[2]
			if !strings.Contains(file, "/") {
				continue // the sentence before names the folder
			}
			found++
			code, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
			if err != nil || !regexp.MustCompile(`\b`+name+`\b`).Match(code) {
				t.Errorf("%s says that %s is in %s, and it is not", p.path, name, file)
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d places in the code were found: does the expression still match?", found)
	}
}
