// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// good are results that meet all goals.
func good() []result {
	fine := memory{Resident: 30 << 20, Peak: 40 << 20}
	return []result{
		{Run: runPlainLoop, N: 1000, Tokens: 1000, Rate: 300, CPU: 1, Seconds: 4, Memory: fine},
		{Run: runCold, N: 1000, Tokens: 1000, Rate: 270, CPU: 1.2, Seconds: 5, RequestSum: 3, Calls: 1000, Memory: fine},
		{Run: runSteady, N: 1000, Tokens: 1000, CPU: 0.3, Calls: 1000, Memory: fine},
		{Run: runRestart, N: 1000, Tokens: 1000, CPU: 0.5, RequestSum: 1, Calls: 1000, Memory: fine},
		{Run: runForeign, N: 1000, Tokens: 1000, Memory: fine, More: map[string]float64{"foreignSecrets": 50_000, "addedResident": 20 << 20}},
		{Run: runTenant, N: 1000, Tokens: 1000, Memory: fine, More: map[string]float64{
			"hostileSecrets": 150, "addedWhile": 40 << 20, "addedPeak": 40 << 20, "addedByHeaders": 2 << 20,
		}},
		{Run: runFailover, N: 1000, Tokens: 1001, Seconds: 12, Memory: fine},
		{Run: runRotation, N: 1000, Tokens: 1000, RequestSum: 2, CPU: 1, Lateness: &quantiles{P50: 0.1, P99: 1, Max: 3}, Memory: fine},
		{
			Run: runBurst, N: 1000, Tokens: 1000, RequestSum: 2, CPU: 1, Lateness: &quantiles{P50: 20, P99: 30, Max: 40}, Memory: fine,
			More: map[string]float64{"dueWithinSeconds": 60, "doneWithinSeconds": 77},
		},
		{Run: runFailing, N: 1000, Tokens: 900, Rate: 270, Memory: fine},
		{Run: runSlow, N: 1000, Tokens: 1000, Rate: 120, Memory: fine},
	}
}

func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		change func(map[string]*result)
		known  []exception
		says   string
	}{
		"all met":             {},
		"slow cold start":     {change: func(r map[string]*result) { r[runCold].Rate = 200 }, says: "cold/share/1000"},
		"too many requests":   {change: func(r map[string]*result) { r[runCold].RequestSum = 3.5 }, says: "cold/requests/1000"},
		"a check asks":        {change: func(r map[string]*result) { r[runSteady].RequestSum = 0.5 }, says: "steady/requests/1000"},
		"memory":              {change: func(r map[string]*result) { r[runCold].Memory.Resident = 51 << 20 }, says: "cold/memory/1000"},
		"memory of a restart": {change: func(r map[string]*result) { r[runRestart].Memory.Resident = 51 << 20 }, says: "restart/memory/1000"},
		"CPU of an issue":     {change: func(r map[string]*result) { r[runCold].CPU = 1.9 }, says: "cold/cpu/1000"},
		"CPU of a check":      {change: func(r map[string]*result) { r[runSteady].CPU = 0.6 }, says: "steady/cpu/1000"},
		"foreign Secrets": {
			change: func(r map[string]*result) { r[runForeign].More["addedResident"] = 41 << 20 }, says: "foreign/added-memory/1000",
		},
		"a tenant's Secrets": {
			change: func(r map[string]*result) { r[runTenant].More["addedWhile"] = 61 << 20 }, says: "tenant/added-while/1000",
		},
		"a start over a tenant's Secrets": {
			change: func(r map[string]*result) { r[runTenant].More["addedPeak"] = 61 << 20 }, says: "tenant/added-peak/1000",
		},
		"a neighbour's headers": {
			change: func(r map[string]*result) { r[runTenant].More["addedByHeaders"] = 33 << 20 }, says: "tenant/added-headers/1000",
		},
		"late rotation":     {change: func(r map[string]*result) { r[runRotation].Lateness.P99 = 2.1 }, says: "rotation/p99/1000"},
		"slow burst":        {change: func(r map[string]*result) { r[runBurst].More["doneWithinSeconds"] = 79 }, says: "burst/done/1000"},
		"rotation requests": {change: func(r map[string]*result) { r[runRotation].RequestSum = 2.5 }, says: "rotation/requests/1000"},
		"slow failover":     {change: func(r map[string]*result) { r[runFailover].Seconds = 21 }, says: "failover/seconds/1000"},
		"failover calls": {
			change: func(r map[string]*result) { r[runFailover].More = map[string]float64{"unscheduledCalls": 1} }, says: "failover/calls/1000",
		},
		"a known miss": {
			change: func(r map[string]*result) { r[runCold].Rate = 200 }, known: []exception{{Row: "cold/share/1000", Cause: "c", Figure: "f"}},
		},
		"another is known": {
			change: func(r map[string]*result) { r[runCold].Rate = 200 }, known: []exception{{Row: "cold/share/10000", Cause: "c", Figure: "f"}},
			says: "cold/share/1000",
		},
		"void": {change: func(r map[string]*result) { r[runPlainLoop].Rate = 149 }, says: "void"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReport("", time.Unix(0, 0))
			r.Results = good()
			if c.change != nil {
				byRun := map[string]*result{}
				for i := range r.Results {
					byRun[r.Results[i].Run] = &r.Results[i]
				}
				c.change(byRun)
			}
			r.finish(c.known)
			err := r.verdict()
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("the verdict is %v, want one that says %q", err, c.says)
			}
		})
	}
}

func TestTableShowsGoalFigureAndRatio(t *testing.T) {
	r := newReport("", time.Unix(0, 0))
	r.Results = good()
	r.Results[1].Rate = 210
	r.finish([]exception{{Row: "cold/cpu/1000", Cause: "c", Figure: "f"}})
	var out strings.Builder
	must(t, r.writeTable(&out))
	for _, want := range []string{
		"cold/share/1000 cold start: share of the plain loop's rate ≥ 0.90 0.70 × plain MISSED",
		"cold/cpu/1000 CPU of a first issue ≤ 1.80 1.20 ms/token 1.00 1.20 met: take it off exceptions.yaml",
		"slow/rate/1000 rate, WeChat answers in 500 ms 120 tokens/s 300 0.40",
	} {
		found := slices.ContainsFunc(strings.Split(out.String(), "\n"), func(line string) bool {
			return strings.Join(strings.Fields(line), " ") == want
		})
		if !found {
			t.Errorf("no line is %q:\n%s", want, &out)
		}
	}
}

func TestCompareWithRanges(t *testing.T) {
	r := newReport("", time.Unix(0, 0))
	r.Results = good()
	r.finish(nil)
	for name, c := range map[string]struct {
		e    expectation
		says string
	}{
		"inside":             {e: expectation{Row: "cold/rate/1000", Of: "ratio", Min: 0.8, Max: 1}},
		"below":              {e: expectation{Row: "cold/rate/1000", Of: "ratio", Min: 0.95, Max: 1}, says: "0.90"},
		"above":              {e: expectation{Row: "cold/requests/1000", Of: "value", Min: 1, Max: 2}, says: "3.00"},
		"a row that is none": {e: expectation{Row: "cold/requests/7", Of: "value"}, says: "no value was measured"},
		"a row without one":  {e: expectation{Row: "cold/requests/1000", Of: "ratio", Max: 9}, says: "no ratio was measured"},
	} {
		if err := r.compare([]expectation{c.e}); (c.says == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want one that says %q", name, err, c.says)
		}
	}
}

// The committed files must be readable, and name rows that the gate measures.
func TestCommittedFiles(t *testing.T) {
	if _, err := readExceptions("exceptions.yaml"); err != nil {
		t.Error(err)
	}
	ranges, err := readRanges("ranges.yaml")
	if err != nil || len(ranges) == 0 {
		t.Fatalf("%d ranges, %v", len(ranges), err)
	}
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	must(t, err)
	size := ""
	for line := range strings.Lines(string(makefile)) {
		if value, found := strings.CutPrefix(line, "BENCH_CHECK_SIZE ?= "); found {
			size = strings.TrimSpace(value)
		}
	}
	for _, e := range ranges {
		if !strings.HasSuffix(e.Row, "/"+size) {
			t.Errorf("make bench-check measures N = %q, and ranges.yaml has %s", size, e.Row)
		}
	}
}

func TestExceptionsNeedACause(t *testing.T) {
	path := filepath.Join(t.TempDir(), "exceptions.yaml")
	must(t, os.WriteFile(path, []byte("exceptions: [{row: cold/share/1000}]\n"), 0o600))
	if got, err := readExceptions(path); err == nil {
		t.Errorf("accepted %v", got)
	}
}

func TestOptionsAreRefused(t *testing.T) {
	for arg, says := range map[string]string{
		"--sizes=ten":    "--sizes",
		"--sizes=5":      "--sizes",
		"--runs=warm":    "--runs",
		"--no-such-flag": "no-such-flag",
		"cold":           "no flag",
	} {
		if _, err := parseOptions([]string{arg}, io.Discard); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}
