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

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
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
	// tickets are WeChat's rules for tickets; the zero value stands for quickTickets.
	tickets wechattest.TicketRules
	// mostCalls for one account within a minute; default mostCallsPerMinute.
	mostCalls int
	// mustFail: a protection is switched off, and samples must show it. mustFailTickets: the same for samples of tickets.
	mustFail, mustFailTickets bool
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
				w := newWorld(ctx, t, sc, n)
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
	played = append(played, results...)
}

// played are the results that TestMain prints at the end.
var played []*result

// TestChaos is the full run: make chaos.
func TestChaos(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("CHAOS_TIME"))
	if err != nil {
		t.Skip("this takes long: run make chaos")
	}
	play(t, allScenarios(), d)
}

// TestChaosShort is the part of it that make test-integration has time for. Legacy tokens live for a minute there, so volumes lag by 15 s.
func TestChaosShort(t *testing.T) {
	const (
		life = time.Minute
		lag  = 15 * time.Second
	)
	play(t, []*scenario{
		{name: "stable-crash", life: 318 * time.Second, run: func(w *world) { w.crash(v1alpha1.ModeStable, 6, stableSteps) }},
		// It ends before the second rotation: in the time of one life, an operator waits for the mark of the other one only once.
		{name: "deposed", life: life, lag: lag, atMost: 55 * time.Second, run: func(w *world) { w.deposed(plan{}, life) }},
		{name: "without-mark", life: life, lag: lag, mustFail: true, run: func(w *world) { w.deposed(off("mark"), life) }},
		{name: "shared-account", life: life, lag: lag, run: func(w *world) { w.sharedAccount(plan{}, life) }},
		{name: "without-single-fetcher", life: life, lag: lag, mustFail: true, run: func(w *world) { w.sharedAccount(off("single-fetcher"), life) }},
	}, 75*time.Second)
}
