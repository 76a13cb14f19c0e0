// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// crash kills the operator once at each step, in a drawn order, again and again.
func (w *world) crash(mode v1alpha1.Mode, n int, steps []string) {
	w.operate(1, false, plan{})
	if mode == v1alpha1.ModeLegacy {
		for i := range n {
			life := w.between(legacyLife, legacyLife+2*time.Minute) // so that there is a mint to be killed at any time
			w.addLegacy(life, someTickets(i))
		}
	} else {
		for i := range n {
			w.addStable(someTickets(i))
		}
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token")
		return
	}
	w.pollTickets(w.targets...)
	o := w.replicas[0]
	for round := 0; ; round++ {
		for _, i := range w.rng.Perm(len(steps)) {
			step := steps[i]
			if step == "after-wechat" && mode == v1alpha1.ModeLegacy && round > 0 {
				continue // each of these ends a token for those who read late, and is not what this scenario measures
			}
			nth := 1 + w.rng.IntN(3)
			if mode == v1alpha1.ModeLegacy {
				nth = 1 // mints are rare
			}
			id := fmt.Sprintf("%d-%s", round, step)
			o.setRestart(w.between(100*time.Millisecond, 3*time.Second))
			w.must(o.setPlan(func(p *plan) { p.Rules = []rule{{ID: id, Step: step, Nth: nth}} }))
			if !w.until(5*time.Minute, func() bool { return o.fired(id) }) {
				if w.ctx.Err() == nil {
					w.Errorf("the operator never came to the step %s", step)
				}
				return
			}
			if !w.sleep(w.between(time.Second, 8*time.Second)) {
				return
			}
		}
	}
}
