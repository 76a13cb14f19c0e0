// SPDX-License-Identifier: Apache-2.0

package plain

import (
	"os"
	"slices"
	"testing"
)

// around are the invisible characters that files, editors and copying leave around a value.
var around = []string{"\n", "\r\n", "\t", " ", "\v\f", "\x00", "\x7f", "\u00a0", "\u0085", "\ufeff", "\u200b", "\u200e", "\u2028", "\u202e", "\u3000"}

func TestTrim(t *testing.T) {
	for _, a := range around {
		for _, value := range []string{"", "a", "a b", "a\nb", "密钥", "a\xffb"} {
			for _, with := range []string{value, a + value, value + a, a + a + value + a} {
				if got := Trim(with); got != value {
					t.Errorf("%q becomes %q, want %q", with, got, value)
				}
			}
		}
	}
}

func TestShow(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		`plain "text" C:\x`:     `plain "text" C:\x`,
		"密钥":                    "密钥",
		"a\nb\tc":               `a\nb\tc`,
		"\x1b[2J":               `\x1b[2J`,
		"a\u200bb\u00a0c\ufeff": `a\u200bb\u00a0c\ufeff`,
		"\xff\ufffd":            "\\xff\ufffd",
	} {
		if got := Show(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

func TestHidden(t *testing.T) {
	for value, want := range map[string]string{
		"":         "",
		"a b!":     "",
		"a\nb":     "the invisible character U+000A at position 2",
		"密\u200b":  "the invisible character U+200B at position 2",
		"a\xffb":   "a byte that is not UTF-8 at position 2",
		"\ufffd\n": "the invisible character U+000A at position 2",
	} {
		if got := Hidden(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

func TestArgs(t *testing.T) {
	for _, a := range around {
		got := Args([]string{"--name" + a + "=" + a + "value" + a, "-b" + a, a + "--list", a + "x=" + a + "y" + a, "--empty=" + a, a, "--"})
		want := []string{"--name=value", "-b", "--list", "x=" + a + "y", "--empty=", "", "--"}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", a, got, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("PLAIN_TEST_A", "\ufeffhttp://proxy \n")
	t.Setenv("PLAIN_TEST_B", "a b")
	t.Setenv("PLAIN_TEST_C", "\n")
	if err := Environment(); err != nil {
		t.Fatal(err)
	}
	if a, b, c := os.Getenv("PLAIN_TEST_A"), os.Getenv("PLAIN_TEST_B"), os.Getenv("PLAIN_TEST_C"); a != "http://proxy" || b != "a b" || c != "" {
		t.Errorf("%q, %q, %q", a, b, c)
	}
}
