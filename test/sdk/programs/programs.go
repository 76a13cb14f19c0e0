// SPDX-License-Identifier: Apache-2.0

// Package programs makes the programs ready that use SDKs for WeChat.
package programs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Program is a folder with a program that uses an SDK.
type Program struct {
	Name, Folder string
	// Manifest names the version of the SDK. Pinned finds the SDK's name and its version there.
	Manifest string
	Pinned   *regexp.Regexp
	// Install makes the program ready in a copy of its folder and returns the command that starts it.
	Install func(t *testing.T, dir string) []string
}

// Version returns the SDK's name and version, as its manifest pins it.
func (p Program) Version(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(p.Folder, p.Manifest))
	if err != nil {
		t.Fatal(err)
	}
	match := p.Pinned.FindStringSubmatch(string(content))
	if match == nil {
		t.Fatalf("%s of %s does not pin the SDK", p.Manifest, p.Name)
	}
	return match[1] + " " + match[2]
}

// Prepare makes the program ready in a folder of its own. It returns the folder and the command that starts the program.
func (p Program) Prepare(t *testing.T) (dir string, command []string) {
	t.Helper()
	dir = Copy(t, p.Folder)
	return dir, p.Install(t, dir)
}

// Copy copies a program's sources into a folder of its own. Go's cache of test results knows that the test depends on them, because they
// are read here.
func Copy(t *testing.T, folder string) string {
	t.Helper()
	dir := t.TempDir()
	files, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if file.IsDir() {
			continue // node_modules of somebody who tries the program there
		}
		content, err := os.ReadFile(filepath.Join(folder, file.Name()))
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, file.Name()), content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// GoBuild builds a Go program.
func GoBuild(t *testing.T, dir string) []string {
	t.Helper()
	run(t, dir, "the Go module proxy", need(t, "go"), "build", "-buildvcs=false", "-o", "server", ".")
	return []string{filepath.Join(dir, "server")}
}

// NPM installs exactly what package-lock.json names. What is in npm's cache is not downloaded again.
func NPM(t *testing.T, dir string) []string {
	t.Helper()
	node := need(t, "node")
	run(t, dir, "the npm registry", need(t, "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline",
		"--fetch-retries=1")
	return []string{node, filepath.Join(dir, "server.mjs")}
}

// need finds a program. CI installs all of them, see .ci/run; a developer need not.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI must run every SDK", program)
	}
	t.Skipf("%s is not installed", program)
	return ""
}

// run runs a command that downloads from a source what is not in a cache.
func run(t *testing.T, dir, source string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v; it needs %s, or a cache that was filled from there\n%s", strings.Join(command, " "), err, source, out)
	}
}
