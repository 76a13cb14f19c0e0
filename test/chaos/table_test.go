// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"io"
	"log"
	"maps"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

const (
	leastSamples = 1000
	// mostExcluded is the share of samples that windows may exclude, unless a scenario states another.
	mostExcluded = 0.05
	// mostCallsPerMinute is for one account. The resources of a large one, a restart and the quick retries after an outage stay far below.
	mostCallsPerMinute = 60
)

// result is a line of the table.
type result struct {
	verdict

	tickets      verdict
	scenario     *scenario
	runs         int
	calls        int
	busiest      int // minute of an account
	statusWrites int64
}

// check fails the test if the scenario proved nothing or found something.
func (r *result) check(t *testing.T) {
	t.Helper()
	limit := r.scenario.mostExcluded
	if limit == 0 {
		limit = mostExcluded
	}
	r.verdict.check(t, "token", r.scenario.mustFail, limit)
	if r.tickets.never > 0 {
		t.Errorf("%d tickets never came", r.tickets.never)
	}
	if r.tickets.samples > 0 || r.tickets.never > 0 {
		r.tickets.check(t, "ticket", r.scenario.mustFailTickets, limit)
	} else if r.scenario.mustFailTickets {
		t.Error("no sample of a ticket")
	}
	mostCalls := r.scenario.mostCalls
	if mostCalls == 0 {
		mostCalls = mostCallsPerMinute
	}
	if r.busiest > mostCalls && !r.scenario.mustFail {
		t.Errorf("%d WeChat calls for one account within a minute, at most %d are allowed", r.busiest, mostCalls)
	}
}

// check fails the test if the samples of tokens, or of tickets, proved nothing or found something.
func (v *verdict) check(t *testing.T, what string, mustFail bool, limit float64) {
	t.Helper()
	for _, e := range v.examples {
		t.Log(e)
	}
	if mustFail {
		if v.invalid == 0 {
			t.Errorf("no invalid sample of a %s, although a protection was switched off: this scenario cannot find anything", what)
		}
		return
	}
	if v.invalid > 0 {
		t.Errorf("%d invalid samples of a %s", v.invalid, what)
	}
	if v.rotations == 0 {
		t.Errorf("no %s was replaced", what)
	}
	if v.samples < leastSamples {
		t.Errorf("%d samples of a %s, want at least %d", v.samples, what, leastSamples)
	}
	if share := v.excludedShare(); share > limit {
		t.Errorf("windows exclude %.1f %% of the samples of a %s, at most %.0f %% are allowed", share*100, what, limit*100)
	}
}

func (v *verdict) windows() string {
	if len(v.excluded) == 0 {
		return "-"
	}
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(v.excluded)) {
		out = append(out, fmt.Sprintf("%c:%d", kind, v.excluded[kind]))
	}
	return strings.Join(out, " ")
}

// printTable prints the results in the order of the scenarios.
func printTable(w io.Writer, results []*result) {
	if len(results) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\truns\trotations\tsamples\texcluded by window\tshare\tlongest window\tinvalid\tworst recovery\t"+
		"ticket changes\tticket samples\tof them excluded\tinvalid tickets\tworst for a ticket\tWeChat calls\tin a minute\tstatus writes\t")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%.1f %%\t%s\t%d\t%s\t%d\t%d\t%s\t%d\t%s\t%d\t%d\t%d\t\n",
			r.scenario.name, r.runs, r.rotations, r.samples, r.windows(), r.excludedShare()*100, r.longest.Round(time.Second),
			r.invalid, r.slowest.Round(100*time.Millisecond), r.tickets.rotations, r.tickets.samples, r.tickets.windows(),
			r.tickets.invalid, r.tickets.slowest.Round(100*time.Millisecond), r.calls, r.busiest, r.statusWrites)
	}
	_ = t.Flush()
}

func discard() *log.Logger { return log.New(io.Discard, "", 0) }
