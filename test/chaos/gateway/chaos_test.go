// SPDX-License-Identifier: Apache-2.0

// Package gateway attacks the gateway while unmodified SDKs and a ServiceAccount call WeChat through it. It runs the real programs against
// a real API server and a stand-in for WeChat with two hosts. A control makes the same calls at WeChat's hosts with the real token: a call
// through the gateway that failed while the control's calls succeeded is a violation.
package gateway

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	// pause is the time between two attacks. What an attack still causes in it counts for that attack.
	pause = 2 * time.Second
	// drain is how long a gateway may take to end after SIGTERM: its own 10 s, and 40 s for the calls under way.
	drain = 60 * time.Second
	// hintPause is the least time between two checks that the gateway's hints cause.
	hintPause = 11 * time.Second
	// slowness is how long WeChat takes for an answer while replicas end, so that calls are in flight on them.
	slowness = 150 * time.Millisecond
)

// scenario is an attack that goes on for a time, or once if it takes longer.
type scenario struct {
	name string
	// share is the part of CHAOS_TIME.
	share  float64
	strict bool
	run    func(w *world, a *attack, d time.Duration)
}

func scenarios() []scenario {
	return []scenario{
		{name: "no-attack", share: 0.03, run: func(_ *world, a *attack, d time.Duration) { time.Sleep(d); a.did = d.String() }},
		{name: "token-replaced", share: 0.1, run: (*world).tokenReplaced},
		{name: "operator-killed", share: 0.07, run: (*world).operatorKilled},
		{name: "gateway-killed", share: 0.1, run: (*world).gatewayKilled},
		{name: "rolling-update", share: 0.1, run: (*world).rollingUpdate},
		{name: "hosts-refuse", share: 0.07, run: (*world).hostsRefuse},
		{name: "hosts-cut-or-hang", share: 0.05, run: (*world).hostsCutOrHang},
		{name: "token-killed", share: 0.1, strict: true, run: (*world).tokenKilled},
		// The full run asks for a new key right after the outage, and waits for an operator that follows up to a minute late. A key is rotated
		// once within its overlap, so it cannot be done twice.
		{name: "api-server-down", share: 1. / 3, run: (*world).apiServerDown},
		{name: "key-rotated", share: 0.03, run: (*world).keyRotated},
	}
}

// shortScenarios are the same in an order that takes less time.
func shortScenarios() []scenario {
	all := scenarios()
	last := len(all) - 1
	all[last-1], all[last] = all[last], all[last-1]
	return all
}

// TestChaos is the full run: make chaos-gateway.
func TestChaos(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("CHAOS_TIME"))
	if err != nil {
		t.Skip("this takes long: run make chaos-gateway")
	}
	play(t, scenarios(), d)
}

// TestChaosShort has each attack once, which is what make test-integration has time for.
func TestChaosShort(t *testing.T) { play(t, shortScenarios(), 45*time.Second) }

// play runs the scenarios one after the other, prints the table and checks each.
func play(t *testing.T, scenarios []scenario, d time.Duration) {
	t.Helper()
	w := newWorld(t)
	stop := w.callAll()
	defer w.judgeAll(stop) // also if a scenario ends the test
	time.Sleep(pause)
	only := os.Getenv("SCENARIOS")
	for _, s := range scenarios {
		if only != "" && !slices.Contains(strings.Split(only, ","), s.name) {
			continue
		}
		a := &attack{name: s.name, strict: s.strict, from: time.Now()}
		s.run(w, a, time.Duration(float64(d)*s.share).Round(time.Second))
		time.Sleep(pause)
		a.to = time.Now()
		w.attacks = append(w.attacks, a)
	}
}

// judgeAll ends the calls, prints the table and checks each scenario that has ended.
func (w *world) judgeAll(stop func()) {
	w.Helper()
	stop()
	verdicts := judgeEach(w.attacks, w.load.made())
	var table strings.Builder
	printTable(&table, verdicts)
	fmt.Printf("%s\n", &table)
	for _, v := range verdicts {
		v.check(w.T, w.callers)
	}
}

// until repeats a round until the time is over, but does it at least once.
func until(d time.Duration, round func()) (rounds int) {
	for end := time.Now().Add(d); rounds == 0 || time.Now().Before(end); rounds++ {
		round()
	}
	return rounds
}

// tokenReplaced lets the operator replace a token that lives for five minutes more.
func (w *world) tokenReplaced(a *attack, d time.Duration) {
	_, before := w.token()
	replaced := func() int { _, n := w.token(); return n - before }
	end := time.Now().Add(d)
	w.await("a new token", func() bool { return replaced() > 0 })
	time.Sleep(time.Until(end))
	w.setLife(longLife)
	w.await("a token for the other scenarios", func() bool { return w.left() > rotatingLife })
	a.did = fmt.Sprintf("%d tokens in turn", replaced())
}

// operatorKilled kills the operator and starts it again.
func (w *world) operatorKilled(a *attack, d time.Duration) {
	n := until(d, func() {
		w.operator.kill()
		time.Sleep(2 * time.Second)
		w.operate()
		time.Sleep(2 * time.Second)
	})
	a.did = fmt.Sprintf("%d times SIGKILL, 2 s away", n)
}

// gatewayKilled kills a replica and starts another one in its place.
//
// The bound: a call may fail if it was in flight on that replica at that moment, or if the balancer sent its connection to the dead
// replica before it noticed, which takes half a second. Nothing in front of a process that is killed can hide either.
func (w *world) gatewayKilled(a *attack, d time.Duration) {
	w.wechat.Inject(wechattest.Fault{Delay: slowness})
	defer w.wechat.ClearFaults()
	flying, refused := 0, 0
	n := until(d, func() {
		i := w.started % len(w.replicas)
		before := w.balancer.lost()
		at := time.Now()
		inFlight := w.balancer.kill(w.replicas[i])
		time.Sleep(wake)
		lost := w.balancer.lost() - before
		a.losses = append(a.losses, loss{at, inFlight + lost})
		flying, refused = flying+inFlight, refused+lost
		w.replicas[i] = w.startGateway()
		w.awaitReady(w.replicas[i])
		time.Sleep(time.Second)
	})
	a.did = fmt.Sprintf("%d times SIGKILL, %d calls in flight, %d connections to the dead replica", n, flying, refused)
}

// rollingUpdate replaces both replicas as the Deployment does: a new one is ready before an old one is told to end, and the old one drains
// while the next one is replaced. No call may fail.
func (w *world) rollingUpdate(a *attack, d time.Duration) {
	w.wechat.Inject(wechattest.Fault{Delay: slowness})
	defer w.wechat.ClearFaults()
	n := until(d, func() {
		drained := make(chan error, len(w.replicas))
		for i, old := range w.replicas {
			w.replicas[i] = w.startGateway()
			w.awaitReady(w.replicas[i])
			go func() { drained <- old.terminate(drain) }()
		}
		for range w.replicas {
			if err := <-drained; err != nil {
				w.Errorf("a gateway that was replaced: %v", err)
			}
		}
	})
	a.did = fmt.Sprintf("%d times both replicas, by SIGTERM", n)
}

// hostsRefuse takes one of WeChat's hosts away after the other: connections are refused, and those that there are end when no answer is
// awaited on them.
//
// No call may fail. A request that the gateway has written to a connection which ends at the same moment cannot be repeated, unless it is a
// GET that carries no code. So no other calls are made while the host goes down, but again as soon as it is down.
func (w *world) hostsRefuse(a *attack, d time.Duration) {
	n := until(d, func() {
		for i, host := range w.hosts {
			w.up.Store(int32(1 - i))
			w.load.repeatable.Store(true)
			time.Sleep(time.Second) // for the calls under way, and the control's
			host.refuse()
			host.drain()
			w.load.repeatable.Store(false)
			time.Sleep(2 * time.Second)
			w.must(host.open())
			time.Sleep(time.Second)
		}
	})
	a.did = fmt.Sprintf("%d times each host for 2 s", n)
}

// hostsCutOrHang cuts all connections of one host at any moment, and lets it answer nothing. Only calls are made that the gateway may
// repeat: a POST or a login that was written and not answered may have done its work, and fails.
func (w *world) hostsCutOrHang(a *attack, d time.Duration) {
	w.load.repeatable.Store(true)
	defer w.load.repeatable.Store(false)
	time.Sleep(pause) // for images and logins under way
	n := until(d, func() {
		for i, host := range w.hosts {
			w.up.Store(int32(1 - i))
			time.Sleep(200 * time.Millisecond)
			host.refuse()
			host.cut()
			time.Sleep(time.Second)
			w.must(host.open())
			time.Sleep(500 * time.Millisecond)
			host.hang()
			host.cut()
			time.Sleep(wechatTimeout + time.Second)
			w.must(host.open())
			time.Sleep(500 * time.Millisecond)
		}
	})
	a.did = fmt.Sprintf("%d times each host cut, and silent for %s", n, wechatTimeout+time.Second)
}

// tokenKilled has a rival force two tokens in a row, so that WeChat refuses the one in the Secret from then on. The gateway tells the
// operator, and repeats the calls with the token that the operator fetches. No call may fail, although the control's do.
func (w *world) tokenKilled(a *attack, d time.Duration) {
	var slowest time.Duration
	var last time.Time
	n := until(d, func() {
		time.Sleep(time.Until(last.Add(hintPause)))
		last = time.Now()
		dead, _ := w.token()
		w.wechat.RivalForceRefresh(appID)
		w.wechat.RivalForceRefresh(appID)
		if w.wechat.Valid(dead.Reveal()) {
			w.Error("the token is not dead, so this proves nothing")
		}
		w.await("a token in place of the dead one", func() bool { t, _ := w.token(); return t != dead })
		slowest = max(slowest, time.Since(last))
	})
	a.did = fmt.Sprintf("%d tokens killed, %s until the next one at most", n, slowest.Round(time.Millisecond))
}

// apiServerDown kills the API server, which is the only one that operator and gateways know.
func (w *world) apiServerDown(a *attack, d time.Duration) {
	w.setLife(longLife)
	w.await("a token that outlives the outage", func() bool { return w.left() > d+2*time.Minute })
	w.must(w.server.Kill())
	time.Sleep(d)
	begun := time.Now()
	w.must(w.server.Start(w.Context()))
	a.did = fmt.Sprintf("away for %s, and %s to start", d, time.Since(begun).Round(time.Second))
}

// keyRotated asks for a new key and restarts the SDKs' programs with it, as a Deployment does within the overlap.
func (w *world) keyRotated(a *attack, d time.Duration) {
	before := string(w.key()[v1alpha1.AppSecretKey])
	begun := time.Now()
	wc := &v1alpha1.WeChatAppClient{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: clientName}}
	w.must(w.Patch(w.Context(), wc, client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.AnnotationRotateKeyRequestedAt, begun.Format(time.RFC3339)))))
	w.await("a new key", func() bool { now := w.key()[v1alpha1.AppSecretKey]; return now != nil && string(now) != before })
	took := time.Since(begun)
	time.Sleep(d) // programs with the key before go on
	for i, p := range w.programs {
		old := p.replace(w.startSDK(w.sdks[i]))
		old.kill()
	}
	time.Sleep(d)
	a.did = fmt.Sprintf("a new key after %s, programs restarted %s later", took.Round(time.Millisecond), d)
}
