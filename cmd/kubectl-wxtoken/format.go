// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
)

// countdown formats a remaining time to the second, such as 1h58m07s.
func countdown(d time.Duration) string {
	d = d.Truncate(time.Second)
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case h > 0:
		return fmt.Sprintf("%dh%02dm%02ds", h, m, s)
	case m > 0:
		return fmt.Sprintf("%dm%02ds", m, s)
	}
	return fmt.Sprintf("%ds", s)
}

// short formats a duration without trailing zeros, such as 2m, 2h or 1h30m.
func short(d time.Duration) string {
	text := d.Truncate(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// ago formats the time since t, such as "3m ago".
func ago(t, now time.Time) string {
	if d := now.Sub(t); d >= time.Second {
		return duration.HumanDuration(d) + " ago"
	}
	return "now"
}

// relative formats the time until t, such as "in 1m30s", or the time since t.
func relative(t, now time.Time) string {
	if t.After(now) {
		return "in " + countdown(t.Sub(now))
	}
	return ago(t, now)
}

// age formats the time since t as kubectl's column AGE does.
func age(t, now time.Time) string { return duration.HumanDuration(now.Sub(t)) }

// clean removes from a text of the cluster what a terminal would not show but obey: control characters, escape sequences and marks that
// change the direction of writing.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, printers.EscapeTerminal(text))
}

// cleanLines returns the lines of a text, each of them clean.
func cleanLines(text string) []string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = clean(lines[i])
	}
	return lines
}

// sentence returns the text with a capital letter at its beginning and a full stop at its end.
func sentence(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	first := []rune(text)
	// A name such as appID or spec.x keeps its case: only a word of lower-case letters is changed.
	if word, _, _ := strings.Cut(text, " "); strings.IndexFunc(word, notLower) < 0 {
		first[0] = unicode.ToUpper(first[0])
	}
	text = string(first)
	if !strings.ContainsRune(".!?…", []rune(text)[len([]rune(text))-1]) {
		text += "."
	}
	return text
}

func notLower(r rune) bool { return !unicode.IsLower(r) }

// wrap breaks a text into lines of at most width characters. A word that is longer has a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len([]rune(line))+1+len([]rune(word)) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// plural returns the number with the noun in singular or plural, such as "1 token" or "2 tokens".
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// palette colours text, or leaves it alone if it is off.
type palette struct{ on bool }

type color string

const (
	plain  color = ""
	bold   color = "1"
	dim    color = "2"
	red    color = "31"
	green  color = "32"
	yellow color = "33"
	cyan   color = "36"
)

func (p palette) in(c color, text string) string {
	if !p.on || c == plain || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}
