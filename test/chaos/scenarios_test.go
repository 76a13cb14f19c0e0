// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// stableLife rotates every 31 to 45 s; the old token lives for another 285 s.
	stableLife = 330 * time.Second
	// legacyLife rotates every 200 s, as slowly as the pace of unrequested mints wants it, and more slowly than a process that met the mark
	// of another one takes to wait for the next such mark.
	legacyLife = 400 * time.Second
	// quickLife rotates every 100 s, which the pace of mints allows three times.
	quickLife = 200 * time.Second
	// quickTime is enough for two such rotations and the lag after them.
	quickTime = 5 * time.Minute
	// slowTime is enough for two rotations of legacyLife, or for a ticket that changed in the second minute to end, and for the lag after them.
	slowTime = 9 * time.Minute
)

var (
	stableSteps = []string{
		"loaded", "credentials-resolved", "target-loaded", "decided", "acting", "before-wechat", "after-wechat",
		"before-secret", "after-secret", "before-status", "after-status", "before-ticket", "after-ticket",
	}
	legacySteps = []string{
		"loaded", "credentials-resolved", "target-loaded", "decided", "acting", "before-mark", "mark-written", "before-wechat",
		"after-wechat", "before-secret", "after-secret", "before-status", "after-status", "before-probe", "after-probe", "before-ticket", "after-ticket",
	}
)

func allScenarios() []*scenario {
	return []*scenario{
		{name: "stable-crash", life: stableLife, run: func(w *world) { w.crash(v1alpha1.ModeStable, 10, stableSteps) }},
		{name: "legacy-crash", life: legacyLife, run: func(w *world) { w.crash(v1alpha1.ModeLegacy, 24, legacySteps) }},
		{name: "api-down", life: stableLife, mostExcluded: 0.5, run: (*world).apiDown},
		{name: "api-restarts", life: stableLife, run: (*world).apiRestarts},
		{name: "api-faults", life: stableLife, run: (*world).apiFaults},
		{name: "wechat-faults", life: stableLife, mostExcluded: 0.3, run: (*world).wechatFaults},
		{name: "host-down", life: stableLife, run: (*world).hostDown},
		{name: "leader-paused", life: stableLife, run: (*world).leaderPaused},
		{name: "leader-killed", life: stableLife, run: (*world).leaderKilled},
		{name: "two-leaders", life: stableLife, run: (*world).twoLeaders},
		{name: "restarts", life: stableLife, run: (*world).restarts},
		{
			name: "rivals", life: 700 * time.Second, tickets: wechattest.TicketRules{Age: time.Hour, Overlap: wechattest.NoOverlap},
			run: (*world).rivals,
		},
		// Each of three tickets has a back-off of its own, and in Stable mode each attempt asks for the token too.
		{name: "ticket-faults", life: stableLife, mostCalls: 2 * mostCallsPerMinute, run: (*world).ticketFaults},
		{name: "ticket-hang", life: stableLife, run: (*world).ticketHang},
		{name: "clocks", life: stableLife, run: (*world).clocks},
		{name: "edits", life: stableLife, mostExcluded: 0.5, run: (*world).edits},
		{name: "recreated", life: stableLife, mostExcluded: 0.3, run: (*world).recreated},
		{name: "swaps", life: stableLife, run: (*world).swaps},
		{name: "requests", life: stableLife, mostExcluded: 0.5, run: (*world).requests},
		{name: "fleet", life: stableLife, namespaces: 10, run: (*world).fleet},
		{name: "fetchers", life: stableLife, namespaces: 6, run: (*world).fetchers},
		{name: "malice", life: stableLife, namespaces: 2, run: (*world).malice},
		{name: "combined", life: stableLife, mostExcluded: 0.3, run: (*world).combined},

		// Each protection is proven by the scenario before without it. These must find invalid samples.
		{name: "deposed", life: legacyLife, atMost: slowTime, run: func(w *world) { w.deposed(plan{}, legacyLife) }},
		{name: "without-mark", life: legacyLife, atMost: slowTime, mustFail: true, run: func(w *world) { w.deposed(off("mark"), legacyLife) }},
		{
			name: "without-precondition", life: legacyLife, atMost: slowTime, mustFail: true,
			run: func(w *world) { w.deposed(off("precondition"), legacyLife) },
		},
		{name: "write-refused", life: quickLife, atMost: quickTime, run: func(w *world) { w.writeRefused(plan{}, quickLife) }},
		{
			name: "without-kept-token", life: quickLife, atMost: quickTime, mustFail: true,
			run: func(w *world) { w.writeRefused(off("kept-token"), quickLife) },
		},
		{name: "shared-account", life: quickLife, atMost: quickTime, run: func(w *world) { w.sharedAccount(plan{}, quickLife) }},
		{
			name: "without-single-fetcher", life: quickLife, atMost: quickTime, mustFail: true,
			run: func(w *world) { w.sharedAccount(off("single-fetcher"), quickLife) },
		},
		{name: "lost-tickets", life: stableLife, run: (*world).lostTickets},
		{name: "shared-tickets", life: stableLife, atMost: slowTime, run: func(w *world) { w.sharedTickets(plan{}) }},
		{
			name: "without-told-members", life: stableLife, atMost: slowTime, mustFailTickets: true,
			run: func(w *world) { w.sharedTickets(off("told-members")) },
		},
		{name: "planted", life: stableLife, atMost: 2 * time.Minute, mustFail: true, mustFailTickets: true, run: (*world).planted},
	}
}

func off(protection string) plan { return plan{Off: []string{protection}} }

// mixed makes resources of both modes, some of which ask for tickets, waits for what they ask for, and polls the tickets from then on.
func (w *world) mixed(stable, legacy int) (refs []*targetRef) {
	for i := range stable {
		refs = append(refs, w.addStable(someTickets(i)))
	}
	for i := range legacy {
		refs = append(refs, w.addLegacy(legacyLife, someTickets(i)))
	}
	if !w.ready(refs...) && w.ctx.Err() == nil {
		w.Error("not all targets got a token")
	}
	w.pollTickets(refs...)
	return refs
}
