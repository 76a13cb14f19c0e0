// SPDX-License-Identifier: Apache-2.0

// Package plain removes invisible characters around settings and shows those inside them. A setting that comes from a Secret, a
// ConfigMap or a file often ends with a newline, and may begin with a byte order mark.
package plain

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Trim removes white space and other invisible characters from both ends of a setting.
func Trim(value string) string {
	return strings.TrimFunc(value, func(r rune) bool { return r == ' ' || invisible(r) })
}

// invisible reports whether nothing shows a character. unicode.IsPrint excludes all white space but the ASCII space.
func invisible(r rune) bool { return !unicode.IsPrint(r) }

// Show returns the text with each invisible character replaced by an escape such as \n or \u200b.
func Show(text string) string {
	var b strings.Builder
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			fmt.Fprintf(&b, `\x%02x`, text[i])
			continue
		}
		if !invisible(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// Hidden describes the first invisible character in a value that must not be shown, such as "the invisible character U+200B at position
// 3". It returns "" if there is none.
func Hidden(value string) string {
	position := 0
	for i, r := range value {
		position++
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(value[i:], string(utf8.RuneError)):
			return fmt.Sprintf("a byte that is not UTF-8 at position %d", position)
		case invisible(r):
			return fmt.Sprintf("the invisible character %U at position %d", r, position)
		}
	}
	return ""
}

// Args returns the arguments of a command line with each argument, and the value behind the equals sign of a flag, trimmed.
func Args(args []string) []string {
	out := make([]string, 0, len(args))
	for _, arg := range args {
		arg = Trim(arg)
		if name, value, found := strings.Cut(arg, "="); found && strings.HasPrefix(arg, "-") {
			arg = Trim(name) + "=" + Trim(value)
		}
		out = append(out, arg)
	}
	return out
}

// Environment trims all environment variables of the process. Call it before anything reads them.
func Environment() error {
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if trimmed := Trim(value); trimmed != value && name != "" {
			if err := os.Setenv(name, trimmed); err != nil {
				return fmt.Errorf("trimming %s: %w", name, err)
			}
		}
	}
	return nil
}
