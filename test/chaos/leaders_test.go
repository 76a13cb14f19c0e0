// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// createdAtKill is how long a resource that is created when the leader is killed may wait for its token.
const createdAtKill = 20 * time.Second

// leads tells whether the process that runs now became the leader.
func (r *replica) leads() bool {
	log, err := os.ReadFile(r.files + ".log")
	if err != nil {
		return false
	}
	i := bytes.LastIndex(log, []byte(`"starting"`))
	return i >= 0 && bytes.Contains(log[i:], []byte(`"Successfully acquired lease"`))
}

func (w *world) leader() *replica {
	for _, r := range w.replicas {
		if r.leads() {
			return r
		}
	}
	return nil
}

// leaderPaused stops the leader past its lease and lets it go on, or cuts it off from the API server alone.
func (w *world) leaderPaused() {
	w.operate(2, true, plan{})
	w.mixed(8, 8)
	attacks := 0
	for w.sleep(w.between(5*time.Second, 20*time.Second)) {
		leader := w.leader()
		if leader == nil {
			continue
		}
		attacks++
		if w.rng.IntN(2) == 0 {
			leader.signal(syscall.SIGSTOP)
			w.sleep(w.between(12*time.Second, 40*time.Second))
			leader.signal(syscall.SIGCONT)
			continue
		}
		leader.api.set([]line{refusing, silent}[w.rng.IntN(2)])
		w.sleep(w.between(12*time.Second, 40*time.Second))
		leader.api.set(connected)
	}
	w.attacked(attacks)
}

// attacked fails the test if no leader was ever found, so that nothing was done to it.
func (w *world) attacked(times int) {
	w.Logf("%d attacks on a leader", times)
	if times == 0 {
		w.Error("nobody was found to lead, so no leader was attacked")
	}
}

// leaderKilled kills the leader again and again. A resource that is created at that moment has its token within 20 s, and the
// tokens that are valid for two hours are not replaced.
func (w *world) leaderKilled() {
	w.operate(2, true, plan{})
	w.mixed(4, 2)
	for i := range 10 {
		mode := []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy}[i%2]
		account := len(w.targets)
		w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: 2 * time.Hour})
		w.addToken(w.namespaces[0], account, fmt.Sprintf("t%03d", account), mode)
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token")
		return
	}
	long, kills := w.targets[6:16], 0
	for w.sleep(w.between(10*time.Second, 30*time.Second)) {
		leader := w.leader()
		if leader == nil {
			continue
		}
		leader.kill()
		kills++
		at := time.Now()
		account := len(w.targets)
		w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: 2 * time.Hour})
		ref := w.addToken(w.namespaces[0], account, fmt.Sprintf("t%03d", account), v1alpha1.ModeStable)
		if !w.until(createdAtKill, func() bool { v, ok := w.held(ref); return ok && w.wechat.Valid(v.token) }) && w.ctx.Err() == nil {
			w.Errorf("a resource that was created when the leader was killed has no token after %s", createdAtKill)
		}
		w.Logf("a resource created when the leader was killed had its token after %s", time.Since(at).Round(100*time.Millisecond))
		long = append(long, ref)
	}
	w.attacked(kills)
	for _, ref := range long {
		if n := len(w.wechat.Tokens(ref.appID)); n > 1 {
			w.Errorf("%s: %d tokens were issued, although the first is valid", ref.name, n)
		}
	}
}

// twoLeaders runs two operators that both think that they lead.
func (w *world) twoLeaders() {
	w.operate(1, false, plan{})
	w.mixed(8, 8)
	w.operateMore()
}

// restarts kills the operator 50 times in a row, while Legacy tokens are valid for two hours: that costs no mint.
func (w *world) restarts() {
	w.operate(1, false, plan{})
	w.mixed(4, 0)
	for range 6 {
		account := len(w.targets)
		w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: 2 * time.Hour})
		w.addToken(w.namespaces[0], account, fmt.Sprintf("t%03d", account), v1alpha1.ModeLegacy)
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token")
		return
	}
	o := w.replicas[0]
	o.setRestart(100 * time.Millisecond)
	kills := 0
	for kills < 50 && w.sleep(w.between(200*time.Millisecond, 6*time.Second)) {
		if o.kill() {
			kills++
		}
	}
	mints := 0
	for _, ref := range w.targets[4:] {
		mints += len(w.wechat.Tokens(ref.appID)) - 1
	}
	w.Logf("%d kills cost %d Legacy mints", kills, mints)
	if mints != 0 {
		w.Errorf("%d restarts cost %d mints, want 0", kills, mints)
	}
}

// deposed runs two operators that both think that they lead, on Legacy tokens that come due at the same moment for both.
func (w *world) deposed(first plan, life time.Duration) {
	w.operate(1, false, first)
	for range 24 {
		w.addLegacy(life)
	}
	w.ready(w.targets...)
	w.operateMore()
}
