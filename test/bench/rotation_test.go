// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// TestOneRotationPerRun guards the lives of the tokens in the runs of rotations, which the harness chooses: no token may be due
// before the last one was issued, nor a second time before the last one was replaced.
func TestOneRotationPerRun(t *testing.T) {
	const n = 10_000
	for name, rate := range map[string]float64{"a quick machine": 376, "a slow one": 150, "void": 100} {
		t.Run(name, func(t *testing.T) {
			plain := result{N: n, Rate: rate}
			// The worst that was measured: a cold start at 0.5 of the plain loop's rate, and a burst that took 1.8 times its time.
			seconds := func(share float64) time.Duration { return time.Duration(share * n / rate * float64(time.Second)) }
			for _, r := range []rotation{rotationOf(n, plain), burstOf(n, plain)} {
				age := r.life() - refresh.StableOverlap // at which a token is due
				if start := r.spread + seconds(1/0.5); age < start {
					t.Errorf("%s: due after %v, and the last is issued after %v", r.run, age, start)
				}
				if done := r.spread + seconds(1.8); age < done {
					t.Errorf("%s: due again after %v, and the last is replaced after %v", r.run, age, done)
				}
			}
		})
	}
	if got, want := rotationOf(1000, result{}).spread, burstSpread; got != want {
		t.Errorf("without a plain loop the tokens are made over %v, want %v", got, want)
	}
}
