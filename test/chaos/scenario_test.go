// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// scenario is an attack on resources of its own, with operators of its own.
type scenario struct {
	name       string
	namespaces int // default 1
	// life of a token; lag of a volume, default kubeletLag.
	life, lag time.Duration
	// mostExcluded is the share that windows may exclude; default mostExcluded. Others state it only if they are about
	// windows (c), (d) or (e).
	mostExcluded float64
	// mustFail: a protection is switched off, and samples must show it.
	mustFail bool
	// atMost ends the scenario before the others; 0 for no sooner.
	atMost time.Duration
	run    func(w *world)
}

// play runs scenarios side by side for a time, prints the table and checks each.
func play(t *testing.T, scenarios []*scenario, d time.Duration) {
	t.Helper()
	n := seed(t)
	t.Logf("seed %d, %s", n, d)
	var mu sync.Mutex
	var results []*result
	t.Run("scenarios", func(t *testing.T) {
		only := os.Getenv("SCENARIOS")
		for i, sc := range scenarios {
			if only != "" && !slices.Contains(strings.Split(only, ","), sc.name) {
				continue
			}
			t.Run(sc.name, func(t *testing.T) {
				t.Parallel()
				time.Sleep(time.Duration(i) * 400 * time.Millisecond) // so that not all operators start at once
				length := d
				if sc.atMost > 0 {
					length = min(length, sc.atMost)
				}
				ctx, cancel := context.WithTimeout(t.Context(), length)
				defer cancel()
				w := newWorld(t, ctx, sc, n)
				sc.run(w)
				<-ctx.Done()
				r := w.result()
				mu.Lock()
				results = append(results, r)
				mu.Unlock()
				r.check(t)
			})
		}
	})
	slices.SortFunc(results, func(a, b *result) int {
		return slices.Index(scenarios, a.scenario) - slices.Index(scenarios, b.scenario)
	})
	printTable(os.Stdout, results)
}

// TestChaos is the full run: make chaos.
func TestChaos(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("CHAOS_TIME"))
	if err != nil {
		t.Skip("this takes long: run make chaos")
	}
	play(t, allScenarios(), d)
}
