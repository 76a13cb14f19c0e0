// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strconv"
)

// row is a line of the table: what was measured beside what is wanted and what the plain loop took.
type row struct {
	// ID names the figure in exceptions.yaml and ranges.yaml.
	ID   string `json:"id"`
	What string `json:"what"`
	N    int    `json:"n"`
	// Value is what was measured, in Unit.
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Goal bounds Value, from above unless AtLeast; nil for a figure without one.
	Goal    *float64 `json:"goal,omitempty"`
	AtLeast bool     `json:"atLeast,omitempty"`
	// Plain is the plain loop's figure in the same unit, and Ratio what Value is of it.
	Plain *float64 `json:"plain,omitempty"`
	Ratio *float64 `json:"ratio,omitempty"`
	// Missed goal; Excepted by exceptions.yaml.
	Missed   bool `json:"missed,omitempty"`
	Excepted bool `json:"excepted,omitempty"`
}

const (
	mebibyte       = 1 << 20
	unitRatio      = "× plain"
	unitRequests   = "req/token"
	unitCPU        = "ms/token"
	unitMiB        = "MiB"
	unitSeconds    = "s"
	unitTokens     = "tokens/s"
	unitCalls      = "calls"
	unitCallsToken = "calls/token"
)

// table makes the rows of results, in their order. The goals are those of the design, "Numbers to beat".
func table(results []result) []row {
	plain := plainOf(results)
	rows := make([]row, 0, 8*len(results))
	for _, r := range results {
		p := closest(plain, r.N)
		switch r.Run {
		case runPlainLoop:
			rows = append(rows,
				figure(r, "rate", "the plain loop: rate", r.Rate, unitTokens),
				figure(r, "cpu", "the plain loop: CPU", r.CPU, unitCPU))
		case runCold:
			rows = append(rows, coldRows(r, p)...)
		case runSteady:
			rows = append(rows,
				figure(r, "requests", "API requests of an unchanged check", r.RequestSum, unitRequests).atMost(0),
				figure(r, "cpu", "CPU of an unchanged check", r.CPU, unitCPU).atMost(0.45*p.CPU).against(p.CPU),
				figure(r, "checks", "checks seen", float64(r.Calls), unitCalls))
		case runRestart:
			rows = append(rows, restartRows(r, p)...)
		case runForeign:
			rows = append(rows,
				figure(r, "added-memory", fmt.Sprintf("resident, added by %.0f foreign Secrets", r.More["foreignSecrets"]),
					r.More["addedResident"]/mebibyte, unitMiB).atMost(40),
				figure(r, "added-peak", "peak, added by them", r.More["addedPeak"]/mebibyte, unitMiB))
		case runTenant:
			rows = append(rows, tenantRows(r)...)
		case runRotation, runBurst:
			rows = append(rows, rotationRows(r, p)...)
		case runFailing:
			rows = append(rows,
				figure(r, "rate", "rate of the healthy while a tenth fails", r.Rate, unitTokens).against(p.Rate),
				figure(r, "seconds", "until all the healthy are ready", r.Seconds, unitSeconds).against(p.Seconds))
		case runSlow:
			rows = append(rows,
				figure(r, "rate", "rate, WeChat answers in 500 ms", r.Rate, unitTokens).against(p.Rate),
				figure(r, "in-flight", "calls in flight, by Little's law", r.More["answersPerSecondInFlight"], unitCalls))
		case runFailover:
			rows = append(rows,
				figure(r, "seconds", "leader killed: a new resource has its token", r.Seconds, unitSeconds).atMost(20),
				figure(r, "calls", "leader killed: calls that are no scheduled check", r.More["unscheduledCalls"], unitCalls).atMost(0))
		}
	}
	return rows
}

func tenantRows(r result) []row {
	secrets := fmt.Sprintf("%.0f Secrets of a tenant", r.More["hostileSecrets"])
	return []row{
		figure(r, "added-while", "peak while "+secrets+" are made, added", r.More["addedWhile"]/mebibyte, unitMiB).atMost(60),
		figure(r, "added-memory", "resident, added by them", r.More["addedBySecrets"]/mebibyte, unitMiB),
		figure(r, "added-peak", "peak of a restart over them, added", r.More["addedPeak"]/mebibyte, unitMiB).atMost(60),
		figure(r, "added-headers", fmt.Sprintf("resident, added by %d connections with headers", hostileConnections),
			r.More["addedByHeaders"]/mebibyte, unitMiB).atMost(32),
	}
}

func coldRows(r, p result) []row {
	rate := figure(r, "rate", "cold start: rate", r.Rate, unitTokens).against(p.Rate)
	share := figure(r, "share", "cold start: share of the plain loop's rate", *rate.Ratio, unitRatio)
	if r.N <= 10_000 {
		share = share.atLeast(0.9)
	}
	return []row{
		rate, share,
		figure(r, "seconds", "cold start: until all are ready", r.Seconds, unitSeconds).against(p.Seconds),
		figure(r, "requests", "API requests of a first issue", r.RequestSum, unitRequests).atMost(3),
		figure(r, "calls", "WeChat calls of a first issue", float64(r.Calls)/float64(r.Tokens), unitCallsToken),
		figure(r, "cpu", "CPU of a first issue", r.CPU, unitCPU).atMost(1.8 * p.CPU).against(p.CPU),
		figure(r, "memory", "resident after a cold start", float64(r.Memory.Resident)/mebibyte, unitMiB).atMost(memoryGoal(r.N)),
		figure(r, "heap", "of that, heap and stacks", float64(r.Memory.Anonymous)/mebibyte, unitMiB),
		figure(r, "peak", "peak of a cold start", float64(r.Memory.Peak)/mebibyte, unitMiB),
	}
}

func restartRows(r, p result) []row {
	return []row{
		figure(r, "ready", "restart: until the caches are filled", r.ReadySeconds, unitSeconds),
		figure(r, "requests", "restart: API requests, lists apart", r.RequestSum, unitRequests),
		figure(r, "calls", "restart: WeChat calls, each the first check", float64(r.Calls)/float64(r.Tokens), unitCallsToken),
		figure(r, "cpu", "restart: CPU, first check included", r.CPU, unitCPU).against(p.CPU),
		figure(r, "memory", "restart: resident", float64(r.Memory.Resident)/mebibyte, unitMiB).atMost(memoryGoal(r.N)),
		figure(r, "heap", "of that, heap and stacks", float64(r.Memory.Anonymous)/mebibyte, unitMiB),
		figure(r, "peak", "restart: peak", float64(r.Memory.Peak)/mebibyte, unitMiB),
	}
}

// rotationRows judges each token of a rotation, and of a burst how long all took: where more are due than the API server takes, a queue
// builds up, and no token but the first can be in time. The last of a burst cannot be done before it is due.
func rotationRows(r, p result) []row {
	p99 := figure(r, "p99", r.Run+": lateness, 99 %", r.Lateness.P99, unitSeconds)
	done := figure(r, "done", r.Run+": all done within", r.More["doneWithinSeconds"], unitSeconds)
	if r.Run == runRotation {
		p99 = p99.atMost(2)
	} else {
		least := p.Seconds * float64(r.N) / float64(max(p.N, 1))
		done = done.atMost(1.3 * max(least, r.More["dueWithinSeconds"])).against(least)
	}
	return []row{
		figure(r, "p50", r.Run+": lateness, half of them", r.Lateness.P50, unitSeconds),
		p99,
		figure(r, "max", r.Run+": lateness, the latest", r.Lateness.Max, unitSeconds),
		figure(r, "window", r.Run+": all due within", r.More["dueWithinSeconds"], unitSeconds),
		done,
		figure(r, "expired", r.Run+": written after the old token's end", r.More["afterExpiry"], "tokens").atMost(0),
		figure(r, "requests", "API requests of a rotation", r.RequestSum, unitRequests).atMost(2),
		figure(r, "calls", "WeChat calls in the run, checks included", float64(r.Calls)/float64(r.Tokens), unitCallsToken),
		figure(r, "cpu", "CPU of a rotation, checks included", r.CPU, unitCPU).against(p.CPU),
	}
}

// plainOf returns the plain loop's results by their size.
func plainOf(results []result) map[int]result {
	plain := map[int]result{}
	for _, r := range results {
		if r.Run == runPlainLoop {
			plain[r.N] = r
		}
	}
	return plain
}

// memoryGoal is that of the next larger size which has one.
func memoryGoal(n int) float64 {
	switch {
	case n <= 1_000:
		return 50
	case n <= 10_000:
		return 100
	case n <= 100_000:
		return 500
	}
	return math.NaN()
}

// closest is the plain loop's result of the same size, or else of the nearest.
func closest(plain map[int]result, n int) result {
	best, distance := result{}, math.MaxInt
	for size, r := range plain {
		if d := max(size-n, n-size); d < distance {
			best, distance = r, d
		}
	}
	return best
}

func figure(r result, name, what string, value float64, unit string) row {
	return row{ID: r.Run + "/" + name + "/" + strconv.Itoa(r.N), What: what, N: r.N, Value: value, Unit: unit}
}

// tolerance is for the API server's own requests between two looks, which are not many but not none.
const tolerance = 0.01

func (r row) atMost(goal float64) row {
	if !math.IsNaN(goal) {
		r.Goal, r.Missed = &goal, r.Value > goal+tolerance
	}
	return r
}

func (r row) atLeast(goal float64) row {
	r.Goal, r.AtLeast, r.Missed = &goal, true, r.Value < goal
	return r
}

func (r row) against(plain float64) row {
	ratio := 0.0
	if plain > 0 {
		ratio = r.Value / plain
	}
	r.Plain, r.Ratio = &plain, &ratio
	return r
}
