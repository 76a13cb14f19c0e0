// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// rivals lets somebody else force a refresh of each Stable token, once in its life, and mint a Legacy token twice. It also lets somebody
// else change a ticket twice, and asks for a check half a minute later, at which the operator must find that out. The rules of the
// scenario end the old ticket at once.
func (w *world) rivals() {
	w.operate(1, false, plan{})
	slow := func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = 2 * time.Minute }
	for i := range 12 {
		w.addToken(w.namespaces[0], i, fmt.Sprintf("t%03d", i), v1alpha1.ModeStable, slow)
	}
	for range 12 {
		w.addLegacy(legacyLife)
	}
	var tickets []*targetRef // the first of each mode meets a rival
	for range 3 {
		tickets = append(tickets, w.addStable(someTickets(1)), w.addLegacy(legacyLife, someTickets(1)))
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token")
		return
	}
	w.sleep(ticketShared) // from now on a check polls the tickets
	for i := 0; w.sleep(w.between(20*time.Second, 40*time.Second)) && i < 12; i++ {
		w.wechat.RivalForceRefresh(w.targets[i].appID)
		switch i {
		case 2, 7:
			w.wechat.RivalMint(w.targets[12+i].appID)
		case 0, 3:
			w.rivalTicket(tickets[i%2], v1alpha1.TicketJSAPI)
		case 1, 4:
			ref := tickets[(i-1)%2]
			w.request(ref, v1alpha1.AnnotationCheckRequestedAt)
			if !w.until(20*time.Second, func() bool { return w.holdsTickets(ref) }) && w.ctx.Err() == nil {
				w.Errorf("%s: a check did not find the ticket that somebody else's call made", ref.name)
			}
		}
	}
}

// clocks runs two leaders whose clocks are 20 minutes apart, jump, and are an hour off after a restart.
func (w *world) clocks() {
	w.operate(2, true, plan{})
	w.must(w.replicas[0].setPlan(func(p *plan) { p.Offset = 10 * time.Minute }))
	w.must(w.replicas[1].setPlan(func(p *plan) { p.Offset = -10 * time.Minute }))
	w.mixed(8, 8)
	offsets := []time.Duration{-time.Hour, -10 * time.Minute, -time.Minute, 0, time.Minute, 10 * time.Minute, time.Hour}
	for w.sleep(w.between(10*time.Second, 40*time.Second)) {
		r := w.replicas[w.rng.IntN(2)]
		w.must(r.setPlan(func(p *plan) { p.Offset = offsets[w.rng.IntN(len(offsets))] }))
		if w.rng.IntN(3) == 0 {
			r.kill()
		}
	}
}

// requests asks for refresh and revoke, and kills the operator while it is about them.
func (w *world) requests() {
	w.operate(1, false, plan{})
	w.mixed(12, 6)
	for i := 0; w.sleep(w.between(40*time.Second, 70*time.Second)); i++ {
		ref := w.targets[i%len(w.targets)]
		key := []string{v1alpha1.AnnotationRefreshRequestedAt, v1alpha1.AnnotationRevokeRequestedAt}[w.rng.IntN(2)]
		w.asked(ref.name)
		w.request(ref, key)
		if w.rng.IntN(2) == 0 {
			w.sleep(w.between(0, 500*time.Millisecond))
			w.replicas[0].kill()
		}
	}
}

func (w *world) request(ref *targetRef, key string) { w.must(w.annotate(ref, key)) }

// annotate asks for something by an annotation of the resource.
func (w *world) annotate(ref *targetRef, key string) error {
	return w.mergeInto(ref.token(), object{"metadata": object{"annotations": object{key: time.Now().Format(time.RFC3339Nano)}}})
}

// writeRefused refuses the first two writes of the next token to each Secret. The back-offs after them take 3 s at most. These tokens
// live for so short a time that a write may not be later than 10 s, if a volume that follows 90 s later is to be in time.
func (w *world) writeRefused(first plan, life time.Duration) {
	w.operate(1, false, first)
	for range 8 {
		w.addLegacy(life)
	}
	w.ready(w.targets...)
	w.replicas[0].api.refuseEach.Store(2)
}

// sharedAccount lets four resources share one Legacy account.
func (w *world) sharedAccount(first plan, life time.Duration) {
	w.operate(1, false, first)
	w.wechat.SetApp(wechattest.App{ID: w.appID(0), Life: life})
	for i := range 4 {
		w.addToken(w.namespaces[0], 0, fmt.Sprintf("t%03d", i), v1alpha1.ModeLegacy)
	}
}

// planted writes what is no token, or no ticket, and tells nobody: the samples must find it.
func (w *world) planted() {
	w.operate(1, false, plan{})
	w.mixed(3, 0)
	for i := 0; w.sleep(5 * time.Second); i++ {
		ref, key := w.targets[w.rng.IntN(3)], tokenKey
		if i%2 == 1 {
			ref, key = w.targets[0], ticketKey(v1alpha1.TicketJSAPI)
		}
		w.must(w.merge(ref.name, object{"stringData": object{key: "planted"}}))
	}
}
