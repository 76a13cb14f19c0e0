// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"
)

// The runs, by the names of --runs and the report.
const (
	runPlainLoop = "plain"
	runCold      = "cold"
	runSteady    = "steady"
	runRestart   = "restart"
	runForeign   = "foreign"
	runTenant    = "tenant"
	runFailover  = "failover"
	runRotation  = "rotation"
	runBurst     = "burst"
	runFailing   = "failing"
	runSlow      = "slow"
)

// result is what one run measured. Absolute figures say something about one machine at one time; compare ratios.
type result struct {
	Run string `json:"run"`
	// N is the number of resources.
	N int `json:"n"`
	// Tokens is how many tokens were issued, rotated or checked: what "per token" divides by.
	Tokens int `json:"tokens"`
	// Seconds from the start of the process until the run's end, and until its caches were filled.
	Seconds      float64 `json:"seconds"`
	ReadySeconds float64 `json:"readySeconds,omitempty"`
	// Rate in tokens per second from the first token to the last.
	Rate float64 `json:"rate,omitempty"`
	// CPU in milliseconds per token, all of the process included.
	CPU    float64 `json:"cpuMillisecondsPerToken"`
	Memory memory  `json:"memory"`
	// Requests to the API server per token, by verb and resource, and how many lists the process made in all.
	Requests counts `json:"requestsPerToken"`
	// RequestSum is Requests without lists, which do not depend on the number of tokens.
	RequestSum float64 `json:"requestsPerTokenSum"`
	// Calls to WeChat, from the stand-in's ledger.
	Calls int `json:"weChatCalls"`
	// Lateness in seconds after refresh.DueAt; in rotation and burst only.
	Lateness *quantiles `json:"latenessSeconds,omitempty"`
	// More is what only this run has.
	More map[string]float64 `json:"more,omitempty"`
}

// quantiles of times in seconds.
type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	// Percentiles are all from 0 to 100, for the plot.
	Percentiles []float64 `json:"percentiles"`
}

// quantilesOf takes the smallest value that at least the share of all values do not exceed.
func quantilesOf(values []time.Duration) quantiles {
	sorted := slices.Sorted(slices.Values(values))
	at := func(percent int) float64 {
		if len(sorted) == 0 {
			return 0
		}
		return sorted[max(0, (len(sorted)*percent+99)/100-1)].Seconds()
	}
	q := quantiles{P50: at(50), P99: at(99), Max: at(100)}
	for percent := range 101 {
		q.Percentiles = append(q.Percentiles, at(percent))
	}
	return q
}

// rateOf is the number of steps from the first to the last time per second.
func rateOf(times []time.Time) float64 {
	if len(times) < 2 {
		return 0
	}
	return float64(len(times)-1) / times[len(times)-1].Sub(times[0]).Seconds()
}
