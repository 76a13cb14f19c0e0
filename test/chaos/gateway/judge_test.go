// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

const (
	// around is how far from a failed call the control's calls show whether WeChat could be called.
	around = time.Second
	// wake is how long after an event a call that it hit may have begun at the latest.
	wake = 2 * time.Second
	// control is the caller that calls WeChat's hosts directly.
	control = "control"
	// mostExamples is how many failed calls of a scenario are shown.
	mostExamples = 5
)

// call is one call of a caller.
type call struct {
	caller, kind string
	from, to     time.Time
	err          error
}

// overlaps reports whether a call was under way at some time of a span.
func (c *call) overlaps(from, to time.Time) bool { return !c.from.After(to) && !c.to.Before(from) }

// loss allows calls to fail that were under way at an event which nobody can hide from them.
type loss struct {
	at time.Time
	n  int
}

// attack is what a scenario did.
type attack struct {
	name     string
	from, to time.Time
	losses   []loss
	// strict says that the control's failures excuse nothing, because the gateway can do what the control cannot.
	strict bool
	// did says what was done, for the table.
	did string
}

// verdict is a line of the table.
type verdict struct {
	*attack

	calls, failed, excused, allowed, controls, controlsFailed int
	// lost are the failures for which losses account.
	lost    int
	longest time.Duration
	// callers are those that made a call.
	callers  map[string]int
	examples []string
}

// violations is how many calls failed that should not have.
func (v *verdict) violations() int { return v.failed - v.excused - v.lost }

// judgeEach returns the verdicts about attacks that followed each other.
func judgeEach(attacks []*attack, calls []call) (verdicts []*verdict) {
	var losses []loss
	for _, a := range attacks {
		losses = append(losses, a.losses...)
	}
	for _, a := range attacks {
		verdicts = append(verdicts, judge(a, losses, calls))
	}
	return verdicts
}

// judge judges the calls that began during an attack. It takes the failures that an event accounts for out of left, which has the losses of
// all attacks: a call may begin at the end of one attack and be hit by the first event of the next one.
//
// A call that failed although all of the control's calls of that second succeeded is a violation. So is one without a call of the
// control's beside it, because nothing shows that WeChat could not be called.
func judge(a *attack, left []loss, calls []call) *verdict {
	v := &verdict{attack: a, callers: map[string]int{}}
	for _, l := range a.losses {
		v.allowed += l.n
	}
	for i := range calls {
		c := &calls[i]
		if c.from.Before(a.from) || !c.from.Before(a.to) {
			continue
		}
		if c.caller == control {
			v.controls++
			if c.err != nil {
				v.controlsFailed++
			}
			continue
		}
		v.calls++
		v.callers[c.caller]++
		v.longest = max(v.longest, c.to.Sub(c.from))
		if c.err == nil {
			continue
		}
		v.failed++
		switch {
		case spend(left, c):
			v.lost++
		case !a.strict && controlFailed(c, calls):
			v.excused++
		}
		if len(v.examples) < mostExamples {
			v.examples = append(v.examples, fmt.Sprintf("%s: %s %s after %s: %v", c.from.Format("15:04:05.000"), c.caller, c.kind,
				c.to.Sub(c.from).Round(time.Millisecond), strings.TrimSpace(c.err.Error())))
		}
	}
	return v
}

// spend reports whether a call is one of those that an event may have cost.
func spend(left []loss, c *call) bool {
	for i := range left {
		if left[i].n > 0 && c.overlaps(left[i].at, left[i].at.Add(wake)) {
			left[i].n--
			return true
		}
	}
	return false
}

// controlFailed reports whether the control failed around a call.
func controlFailed(c *call, calls []call) bool {
	return slices.ContainsFunc(calls, func(other call) bool {
		return other.caller == control && other.err != nil && other.overlaps(c.from.Add(-around), c.to.Add(around))
	})
}

// check fails the test for what a scenario found, or if it proved nothing.
func (v *verdict) check(t *testing.T, callers []string) {
	t.Helper()
	if n := v.violations(); n > 0 {
		t.Errorf("%s: %d calls failed that should not have, such as\n%s", v.name, n, strings.Join(v.examples, "\n"))
	}
	for _, name := range callers {
		if v.callers[name] == 0 {
			t.Errorf("%s: %s made no call", v.name, name)
		}
	}
	if v.controls == 0 || v.controlsFailed > 0 && !v.strict {
		t.Errorf("%s: %d of the control's %d calls failed, so it proves nothing", v.name, v.controlsFailed, v.controls)
	}
}

func printTable(w io.Writer, verdicts []*verdict) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "scenario\tcalls\tfailed\tallowed\texcused\tviolations\tcontrol calls\tcontrol failures\tlongest call\twhat was done")
	for _, v := range verdicts {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", v.name, v.calls, v.failed, v.allowed, v.excused, v.violations(),
			v.controls, v.controlsFailed, v.longest.Round(time.Millisecond), v.did)
	}
	_ = t.Flush()
}

// TestJudge checks what counts as a violation.
func TestJudge(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	failure := errors.New("no")
	made := func(caller string, from, to int, err error) call { return call{caller, "call", at(from), at(to), err} }
	for _, c := range []struct {
		name   string
		attack attack
		calls  []call
		want   int
	}{
		{name: "no failure", calls: []call{made("a", 100, 200, nil), made(control, 100, 200, nil)}},
		{name: "the control succeeded", calls: []call{made("a", 100, 200, failure), made(control, 100, 200, nil)}, want: 1},
		{name: "the control made no call", calls: []call{made("a", 100, 200, failure)}, want: 1},
		{name: "the control failed 0.9 s later", calls: []call{made("a", 100, 200, failure), made(control, 1100, 1200, failure)}},
		{name: "the control failed 1.1 s later", calls: []call{made("a", 100, 200, failure), made(control, 1301, 1400, failure)}, want: 1},
		{name: "the control failed 1.1 s before", calls: []call{made("a", 2000, 2100, failure), made(control, 800, 899, failure)}, want: 1},
		{
			name: "the control is no excuse", attack: attack{strict: true}, want: 1,
			calls: []call{made("a", 100, 200, failure), made(control, 100, 200, failure)},
		},
		{
			name: "one of two calls in flight", attack: attack{losses: []loss{{at(150), 1}}}, want: 1,
			calls: []call{made("a", 100, 200, failure), made("b", 100, 200, failure), made(control, 100, 200, nil)},
		},
		{
			name: "in flight at another time", attack: attack{losses: []loss{{at(300), 1}}}, want: 1,
			calls: []call{made("a", 100, 200, failure), made(control, 100, 200, nil)},
		},
		{name: "before the attack", calls: []call{made("a", -100, 200, failure)}},
		{name: "after the attack", calls: []call{made("a", 10000, 10100, failure)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.attack.from, c.attack.to = begin, at(10000)
			if got := judge(&c.attack, c.attack.losses, c.calls).violations(); got != c.want {
				t.Errorf("%d violations, want %d", got, c.want)
			}
		})
	}
}

// TestJudgeBetweenAttacks checks the judgment of calls that began in one attack and were hit by the first event of the next.
func TestJudgeBetweenAttacks(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	hit := begin.Add(time.Minute)
	attacks := []*attack{{from: begin, to: hit}, {from: hit, to: hit.Add(time.Minute), losses: []loss{{at: hit, n: 2}}}}
	failed := func(from time.Duration) call {
		return call{caller: "a", kind: kindCall, from: hit.Add(from), to: hit.Add(time.Second), err: errors.New("no")}
	}
	for i, v := range judgeEach(attacks, []call{failed(-time.Millisecond), failed(0), failed(time.Millisecond)}) {
		if got := v.violations(); got != i {
			t.Errorf("attack %d: %d violations, want %d, because two of the three calls may be lost", i, got, i)
		}
	}
}
