// SPDX-License-Identifier: Apache-2.0

package program

import (
	"os"
	"testing"
)

// TestNoProxyLists checks that a list of hosts may be separated by white space as well, as in a ConfigMap with a line for each.
func TestNoProxyLists(t *testing.T) {
	for value, want := range map[string]string{
		"":                             "",
		"a.example,b.example":          "a.example,b.example",
		"a.example, b.example\n":       "a.example,b.example",
		"a.example\nb.example\r\n":     "a.example,b.example",
		"\ufeffa.example ,\t.b\u200b,": "a.example,.b",
	} {
		for _, name := range []string{"NO_PROXY", "no_proxy"} {
			t.Setenv(name, value)
			if err := cleanNoProxy(); err != nil {
				t.Fatal(err)
			}
			if got := os.Getenv(name); got != want {
				t.Errorf("%s %q becomes %q, want %q", name, value, got, want)
			}
		}
	}
}
