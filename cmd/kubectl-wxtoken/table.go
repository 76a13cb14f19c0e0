// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// gap separates two columns, as in kubectl's tables.
const gap = "   "

// cell is a text with a colour.
type cell struct {
	text  string
	color color
}

// table aligns cells in columns. Its last column is never padded.
type table struct {
	header []string
	rows   [][]cell
	// least holds the minimum widths of the columns, so that one table can continue another.
	least []int
}

// add appends a row. Whatever its texts come from, they are clean afterwards.
func (t *table) add(cells ...cell) {
	for i := range cells {
		cells[i].text = clean(cells[i].text)
	}
	t.rows = append(t.rows, cells)
}

// lines returns the lines of the table, with the header first if there is one.
func (t *table) lines(p palette) []string {
	widths := t.widths()
	var out []string
	if len(t.header) > 0 {
		cells := make([]cell, len(t.header))
		for i, h := range t.header {
			cells[i] = cell{text: h}
		}
		out = append(out, render(cells, widths, p))
	}
	for _, row := range t.rows {
		out = append(out, render(row, widths, p))
	}
	return out
}

func (t *table) widths() []int {
	widths := slices.Clone(t.least)
	measure := func(i int, text string) {
		for len(widths) <= i {
			widths = append(widths, 0)
		}
		widths[i] = max(widths[i], utf8.RuneCountInString(text))
	}
	for i, h := range t.header {
		measure(i, h)
	}
	for _, row := range t.rows {
		for i, c := range row {
			measure(i, c.text)
		}
	}
	return widths
}

func render(cells []cell, widths []int, p palette) string {
	var b strings.Builder
	for i, c := range cells {
		b.WriteString(p.in(c.color, c.text))
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)))
			b.WriteString(gap)
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// fit cuts a line to the width of the terminal. Escape sequences of colours do not count, and a cut line ends with the default colour.
func fit(line string, width int) string {
	if width <= 0 {
		return line
	}
	var b strings.Builder
	seen, escape := 0, false
	for _, r := range line {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			if seen == width-1 {
				b.WriteString("…\x1b[0m")
				return b.String()
			}
			seen++
		}
		b.WriteRune(r)
	}
	return b.String()
}
