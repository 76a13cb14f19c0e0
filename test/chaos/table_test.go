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

	scenario     *scenario
	runs         int
	calls        int
	busiest      int // minute of an account
	statusWrites int64
}

// check fails the test if the scenario proved nothing or found something.
func (r *result) check(t *testing.T) {
	t.Helper()
	for _, e := range r.examples {
		t.Log(e)
	}
	if r.scenario.mustFail {
		if r.invalid == 0 {
			t.Error("no invalid sample, although a protection was switched off: this scenario cannot find anything")
		}
		return
	}
	limit := r.scenario.mostExcluded
	if limit == 0 {
		limit = mostExcluded
	}
	if r.invalid > 0 {
		t.Errorf("%d invalid samples", r.invalid)
	}
	if r.rotations == 0 {
		t.Error("no rotation")
	}
	if r.samples < leastSamples {
		t.Errorf("%d samples, want at least %d", r.samples, leastSamples)
	}
	if r.busiest > mostCallsPerMinute {
		t.Errorf("%d WeChat calls for one account within a minute, at most %d are allowed", r.busiest, mostCallsPerMinute)
	}
	if share := r.excludedShare(); share > limit {
		t.Errorf("windows exclude %.1f %% of the samples, at most %.0f %% are allowed", share*100, limit*100)
	}
}

func (r *result) windows() string {
	if len(r.excluded) == 0 {
		return "-"
	}
	var out []string
	for _, kind := range slices.Sorted(maps.Keys(r.excluded)) {
		out = append(out, fmt.Sprintf("%c:%d", kind, r.excluded[kind]))
	}
	return strings.Join(out, " ")
}

// printTable prints the results in the order of the scenarios.
func printTable(w io.Writer, results []*result) {
	if len(results) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\truns\trotations\tsamples\texcluded by window\tshare\tlongest window\tinvalid\tWeChat calls\tin a minute\tstatus writes\tworst recovery\t")
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%.1f %%\t%s\t%d\t%d\t%d\t%d\t%s\t\n",
			r.scenario.name, r.runs, r.rotations, r.samples, r.windows(), r.excludedShare()*100, r.longest.Round(time.Second),
			r.invalid, r.calls, r.busiest, r.statusWrites, r.slowest.Round(100*time.Millisecond))
	}
	_ = t.Flush()
}

func discard() *log.Logger { return log.New(io.Discard, "", 0) }
