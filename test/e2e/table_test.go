// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table is what is printed at the end.
type table struct {
	rows []row
	seen []string
}

type row struct {
	step    string
	took    time.Duration
	refused int
	seen    []string
}

// saw notes what the current step found.
func (b *table) saw(format string, args ...any) {
	b.seen = append(b.seen, fmt.Sprintf(format, args...))
}

// add closes the current step.
func (b *table) add(step string, took time.Duration, refused int) {
	b.rows = append(b.rows, row{step, took, refused, b.seen})
	b.seen = nil
}

func (b *table) print(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nstep\ttook\trefused\tseen")
	var whole time.Duration
	refused := 0
	for _, r := range b.rows {
		fmt.Fprintf(t, "%s\t%.1f s\t%d\t%s\n", r.step, r.took.Seconds(), r.refused, strings.Join(r.seen, "; "))
		whole += r.took
		refused += r.refused
	}
	fmt.Fprintf(t, "all\t%.0f s\t%d\t\n", whole.Seconds(), refused)
	_ = t.Flush() // a terminal that is gone is nobody's error
}
