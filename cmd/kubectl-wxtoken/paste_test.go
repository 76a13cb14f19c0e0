// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// TestPaste checks that a printed command goes to the cluster and the namespace that the flags chose.
func TestPaste(t *testing.T) {
	a := newApp(terminal{IOStreams: genericiooptions.NewTestIOStreamsDiscard(), getenv: func(string) string { return "" }})
	*a.flags.Namespace, *a.flags.Context, *a.flags.KubeConfig = "demo", "arn:aws:eks:eu-west-1:1:cluster/a", "/home/me/my config"
	const chosen = " --context arn:aws:eks:eu-west-1:1:cluster/a --kubeconfig '/home/me/my config'"
	for line, want := range map[string]string{
		"kubectl wxtoken list":                 "kubectl wxtoken list -n demo" + chosen,
		"kubectl wxtoken list -A":              "kubectl wxtoken list -A" + chosen,
		"kubectl wxtoken status shop -n other": "kubectl wxtoken status shop -n other" + chosen,
		"kubectl config current-context":       "kubectl config current-context" + chosen,
		"kubectl wxtoken list --help":          "kubectl wxtoken list --help",
		"Look at kubectl wxtoken list":         "Look at kubectl wxtoken list",
	} {
		if got := a.shell().paste(line); got != want {
			t.Errorf("%q becomes\n%q, want\n%q", line, got, want)
		}
	}
	if got, want := quote("it's"), `'it'\''s'`; got != want {
		t.Errorf("quoted: %s, want %s", got, want)
	}
}

// TestParagraph checks that text is wrapped and commands are not, and that programs get both apart.
func TestParagraph(t *testing.T) {
	const advice = "Text that is long enough to be wrapped.\nkubectl wxtoken status a-name-that-is-long -n demo\nMore text."
	got := shell{}.paragraph(advice, 20)
	want := []string{"Text that is long", "enough to be", "wrapped.", "  kubectl wxtoken status a-name-that-is-long -n demo", "More text."}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	text, commands := shell{}.split(advice)
	if text != "Text that is long enough to be wrapped. More text." || !slices.Equal(commands, []string{"kubectl wxtoken status a-name-that-is-long -n demo"}) {
		t.Errorf("split into %q and %q", text, commands)
	}
}
