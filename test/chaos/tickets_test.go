// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// What is unavoidable for tickets, and what the scenarios expect.
//
// The life of a ticket is not compressed: the operator takes it to be two hours, and polls it each eighth of that. So within minutes a
// ticket changes only because WeChat's stand-in changes it, with the first call after quickTickets.Age. That call is the operator's own:
// pollTickets asks for a check of each resource every 20 to 30 s, which polls what was not polled within a minute, and the first check
// after a start polls too. The old ticket lives for 300 s more, which is enough for a restart, a back-off and the lag of a volume. So no
// sample may be invalid, whatever is done to the operator, but in these windows:
//
//   - (c) there were no 90 s of reachability between the change and 90 s before the old ticket's end;
//   - (e) somebody else wrote or deleted the Secret, until its repair;
//   - (f) somebody else's call changed the ticket, and the old one ended before the next poll. Nobody tells the operator. This lasts until
//     the next poll, 15 min in the worst case. Only the scenario rivals does that.
//
// A request for a refresh or a revoke, and a Legacy mint whose answer was lost, end tokens and no ticket.

const (
	// ticketPoll is the operator's time between two polls of a ticket.
	ticketPoll = 15 * time.Minute
	// ticketReachableFor is how long WeChat and the API server must be reachable without a break for a ticket to be replaced: the longest
	// back-off is 60 s, and the first check after a start comes within 45 s.
	ticketReachableFor = 90 * time.Second
	// firstCheckWithin is when all resources have been checked after a start.
	firstCheckWithin = 45 * time.Second
	// ticketShared is how long an answer about a ticket serves later checks.
	ticketShared = time.Minute
	// ticketAskedEvery is the longest time between two requests for a check of a resource with tickets.
	ticketAskedEvery = 30 * time.Second
)

// quickTickets makes tickets change with each call, but not more often than every 20 s.
func quickTickets() wechattest.TicketRules {
	return wechattest.TicketRules{Change: wechattest.ChangeByCall, Age: 20 * time.Second}
}

func (sc *scenario) ticketRules() wechattest.TicketRules {
	rules := sc.tickets
	if rules.Age == 0 {
		rules.Age = quickTickets().Age
	}
	return rules
}

func withTickets(kinds ...v1alpha1.TicketType) func(*v1alpha1.WeChatAppToken) {
	return func(t *v1alpha1.WeChatAppToken) {
		for _, kind := range kinds {
			t.Spec.Tickets = append(t.Spec.Tickets, v1alpha1.TicketSpec{Type: kind})
		}
	}
}

// someTickets gives the first resource of a group a ticket, and the second one tickets of all types.
func someTickets(i int) func(*v1alpha1.WeChatAppToken) {
	switch i {
	case 0:
		return withTickets(v1alpha1.TicketJSAPI)
	case 1:
		return withTickets(v1alpha1.TicketTypes()...)
	}
	return withTickets()
}

// pollTickets asks for a check of each of the resources that have tickets, in turn, until the scenario ends. A check polls the tickets
// too, except those that WeChat returned within ticketShared.
func (w *world) pollTickets(refs ...*targetRef) {
	refs = slices.DeleteFunc(slices.Clone(refs), func(r *targetRef) bool { return len(r.tickets) == 0 })
	if len(refs) == 0 {
		return
	}
	rng := rand.New(rand.NewPCG(w.seed, 3)) // that of the scenario is for one goroutine only
	every := ticketAskedEvery / time.Duration(len(refs))
	go func() {
		for i := 0; w.sleep(every - time.Duration(rng.Int64N(int64(every/3)))); i++ {
			err := w.annotate(refs[i%len(refs)], v1alpha1.AnnotationCheckRequestedAt)
			if client.IgnoreNotFound(err) != nil && w.ctx.Err() == nil {
				w.Errorf("asking for a check: %v", err)
			}
		}
	}()
}

// holdsTickets tells whether the target holds the tickets that its resource asks for, and WeChat accepts them.
func (w *world) holdsTickets(ref *targetRef) bool {
	return !slices.ContainsFunc(ref.tickets, func(kind v1alpha1.TicketType) bool {
		h := watching.historyOf(ref.name, ticketKey(kind))
		return len(h) == 0 || h[len(h)-1].gone || !w.wechat.TicketValid(h[len(h)-1].token) ||
			!slices.ContainsFunc(w.wechat.Tickets(ref.appID, kind), func(t wechattest.IssuedTicket) bool { return t.Ticket == h[len(h)-1].token })
	})
}

// holdsNewest tells whether the target holds the last ticket that WeChat issued, of each type that its resource asks for.
func (w *world) holdsNewest(ref *targetRef) bool {
	return !slices.ContainsFunc(ref.tickets, func(kind v1alpha1.TicketType) bool {
		h, issued := watching.historyOf(ref.name, ticketKey(kind)), w.wechat.Tickets(ref.appID, kind)
		return len(h) == 0 || len(issued) == 0 || h[len(h)-1].gone || h[len(h)-1].token != issued[len(issued)-1].Ticket
	})
}

// rivalTicket changes a ticket by somebody else's call.
func (w *world) rivalTicket(ref *targetRef, kind v1alpha1.TicketType) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// The first call makes the present ticket old, unless it is already, and the second one changes it.
	for _, age := range []time.Duration{w.scenario.ticketRules().Age, 0} {
		known := len(w.wechat.Tickets(ref.appID, kind))
		if t := w.wechat.RivalTicket(ref.appID, kind, age); len(w.wechat.Tickets(ref.appID, kind)) > known {
			w.rivalTickets[t.Ticket] = true
		}
	}
}

// vandaliseTicket does one of the things to a ticket that people do to Secrets: they edit it, remove it, or put an older copy back.
func (w *world) vandaliseTicket(ref *targetRef) {
	kind := ref.tickets[w.rng.IntN(len(ref.tickets))]
	old := w.wechat.Tickets(ref.appID, kind)[0].Ticket
	value := []any{encoded("edited by hand"), nil, encoded(old)}[w.rng.IntN(3)]
	w.edit(ref.name, func() error { return w.merge(ref.name, object{"data": object{ticketKey(kind): value}}) })
}

// ticketFaults lets the interface for tickets alone fail in each way, while tokens rotate. Nothing of that is an outage for a token: no
// sample of one may be invalid, or excluded because of it. The operator has few workers, so that calls that hang are felt. An answer that
// was lost is found between two faults, when each resource is asked for a check, whatever back-off the next fault would bring. So no
// sample of a ticket is excluded either.
func (w *world) ticketFaults() {
	w.operate(1, false, plan{}, "--max-concurrent-reconciles=8")
	var refs []*targetRef
	for i := range 16 {
		tickets := someTickets(i % 2)
		refs = append(refs, w.addStable(tickets), w.addLegacy(legacyLife, tickets))
	}
	if !w.ready(refs...) {
		w.Error("not all targets got a token and tickets")
		return
	}
	w.pollTickets(refs...)
	faults := []wechattest.Fault{
		{Hang: true}, {Errcode: 48001}, {Garbage: true}, {Errcode: -1}, {Status: 502}, {Cut: wechattest.CutAfter}, {Cut: wechattest.CutBefore},
		{Cut: wechattest.CutBody}, {DelayAnswer: 7 * time.Second}, {Errcode: 45009}, {Errcode: 40001}, {Errcode: 99999},
		{Status: 200, Body: "<html>hello</html>", ContentType: "text/html"},
	}
	for i, order := 0, w.rng.Perm(len(faults)); w.sleep(w.between(31*time.Second, 36*time.Second)); i++ {
		fault := faults[order[i%len(order)]]
		fault.Endpoint = wechattest.EndpointTicket
		w.wechat.Inject(fault)
		w.sleep(w.between(15*time.Second, 25*time.Second))
		w.wechat.ClearFaults()
	}
	failed := 0
	for _, c := range w.wechat.Calls(wechattest.Filter{Endpoint: wechattest.EndpointTicket}) {
		if c.Fault {
			failed++
		}
	}
	w.Logf("%d calls for tickets failed", failed)
	if failed == 0 {
		w.Error("no call for a ticket failed")
	}
}

// ticketHang lets no call for a ticket be answered, from two minutes after all targets have theirs. There are 16 resources for each worker
// of the operator, as many as there are for each of the 64 that it has by default in a cluster with 1,024. They must not be kept so busy by
// tickets that tokens come late.
func (w *world) ticketHang() {
	w.operate(1, false, plan{}, "--max-concurrent-reconciles=2")
	all := withTickets(v1alpha1.TicketTypes()...)
	for range 16 {
		w.addStable(all)
		w.addLegacy(legacyLife, all)
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token and tickets")
		return
	}
	w.pollTickets(w.targets...)
	w.sleep(2 * ticketShared) // tickets change
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointTicket, Hang: true})
}

// lostTickets kills the operator when WeChat has answered with a new ticket, again and again, and takes the request back that led to the
// call: the first check after the start must find the ticket that was lost.
func (w *world) lostTickets() {
	w.operate(1, false, plan{})
	for range 3 {
		w.addStable(withTickets(v1alpha1.TicketJSAPI))
		w.addLegacy(legacyLife, withTickets(v1alpha1.TicketJSAPI))
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token and a ticket")
		return
	}
	o := w.replicas[0]
	o.setRestart(2 * time.Second)
	for i := 0; w.sleep(ticketShared + w.between(time.Second, 10*time.Second)); i++ {
		ref, id := w.targets[i%len(w.targets)], fmt.Sprintf("lost-%d", i)
		w.must(o.setPlan(func(p *plan) { p.Rules = []rule{{ID: id, Step: "after-ticket"}} }))
		w.request(ref, v1alpha1.AnnotationCheckRequestedAt)
		if !w.until(time.Minute, func() bool { return o.fired(id) }) {
			if w.ctx.Err() == nil {
				w.Error("the operator never came to the step after-ticket")
			}
			return
		}
		withdrawn := object{"metadata": object{"annotations": object{v1alpha1.AnnotationCheckRequestedAt: nil}}}
		w.must(w.mergeInto(ref.token(), withdrawn))
		if !w.until(75*time.Second, func() bool { return w.holdsNewest(ref) }) && w.ctx.Err() == nil {
			w.Errorf("%s: the first check after a start did not find the ticket that a crash lost", ref.name)
		}
		w.sleep(firstCheckWithin) // the others are checked too
	}
}

// sharedTickets lets four resources of each mode share an account, of which only one is polled. The others come to nobody's mind for an
// hour: they have a new ticket in time because the operator gives it to all members.
func (w *world) sharedTickets(first plan) {
	w.operate(1, false, first)
	var polled []*targetRef
	for account, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: 2 * time.Hour, Tickets: w.scenario.ticketRules()}) // no rotation is due
		for i := range 4 {
			rarely := func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour }
			name := string(rune('a'+account)) + string(rune('0'+i))
			ref := w.addToken(w.namespaces[0], account, name, mode, rarely, withTickets(v1alpha1.TicketJSAPI))
			if i == 0 {
				polled = append(polled, ref)
			}
		}
	}
	w.addStable() // whose token rotates: a run without rotations proves nothing about tokens
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token and a ticket")
		return
	}
	w.sleep(50 * time.Second) // the first checks are over
	w.pollTickets(polled...)
}

// ticketSubject is what is known of a ticket in the target of a subject.
func ticketSubject(of *subject, kind v1alpha1.TicketType, held history, issued []wechattest.IssuedTicket) *subject {
	s := *of
	s.ticket, s.history, s.tokens, s.replaced = kind, held, nil, map[string]time.Time{}
	for _, t := range issued {
		// It has no end but by being replaced.
		known := wechattest.IssuedToken{Token: t.Ticket, AppID: t.AppID, Mode: s.mode, IssuedAt: t.IssuedAt, ExpiresAt: t.IssuedAt.AddDate(1, 0, 0)}
		if !t.ReplacedAt.IsZero() {
			known.DiedAt, s.replaced[t.Ticket] = t.DeadAt, t.ReplacedAt
		}
		if s.facts.rivalTickets[t.Ticket] {
			known.By = byRival
		}
		s.tokens = append(s.tokens, known)
	}
	return &s
}

// ticketWindows lists all times in which the promise does not hold for a ticket.
func (s *subject) ticketWindows() []window {
	return slices.Concat(s.ticketRivals(), s.ticketUnreachable(), s.edited())
}

// ticketRivals are window (f): somebody else's call changed the ticket.
func (s *subject) ticketRivals() []window {
	return s.earlyDeaths('f', ticketPoll+noticeWithin, func(x wechattest.IssuedToken) bool {
		next, ok := s.after(x)
		return ok && next.By == byRival
	})
}

// ticketUnreachable is window (c): nobody could get the new ticket, or store it, from the change until it was too late for a volume.
func (s *subject) ticketUnreachable() (out []window) {
	for i, v := range s.history {
		at, ok := s.replaced[v.token]
		t, _ := s.find(v.token)
		closed := endOf(t).Add(-s.lag)
		// An old ticket that ends at once leaves no time that an outage could have taken.
		if ok && !v.gone && closed.After(at) && !s.reachable(at, closed, ticketReachableFor) {
			out = append(out, s.unreachableFrom(endOf(t), closed, s.nextWrite(i))...)
		}
	}
	return out
}
