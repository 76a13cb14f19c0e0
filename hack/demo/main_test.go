// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
)

const sample = "../../config/samples/wechat_v1alpha1_wechatapptoken.yaml"

// told runs the demo and returns what it printed.
func told(t *testing.T, opts options) (string, error) {
	t.Helper()
	ctrl.SetLogger(logr.Discard())
	operator := filepath.Join(t.TempDir(), "operator")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", operator, "../../cmd/operator") //nolint:gosec // our own path
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out := &strings.Builder{}
	opts.operator, opts.out = operator, out
	err := run(t.Context(), opts)
	t.Log(out)
	return out.String(), err
}

func TestStory(t *testing.T) {
	t.Parallel()
	out, err := told(t, options{sample: sample})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"token issued", "rotated", "AppSecret replaced", "outage survived", "did not accept: 0"} {
		if !strings.Contains(out, want) {
			t.Errorf("the story does not say %q", want)
		}
	}
}

// What does not happen must not be told.
func TestStoryOfASuspendedResource(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	suspended := regexp.MustCompile(`(?m)^  appID:`).ReplaceAllString(string(text), "  suspend: true\n  appID:")
	if !strings.Contains(suspended, "suspend: true") {
		t.Fatal("the sample is not suspended")
	}
	path := filepath.Join(t.TempDir(), "sample.yaml")
	if err := os.WriteFile(path, []byte(suspended), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := told(t, options{sample: path})
	if err == nil || !strings.Contains(err.Error(), "until the Secret holds a token") {
		t.Errorf("the demo ended with %v", err)
	}
	if strings.Contains(out, "token issued") {
		t.Error("a token is told of that was never issued")
	}
	if !strings.Contains(out, "suspended") {
		t.Error("the resource's own word is not shown")
	}
}
