// SPDX-License-Identifier: Apache-2.0

package account

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const jsapi = v1alpha1.TicketJSAPI

// returned is a ticket that WeChat returned so long after now.
func returned(value string, at time.Duration) token.Ticket {
	return token.Ticket{Value: token.NewValue(value), ReturnedAt: after(at), ExpiresIn: token.TicketLife}
}

func TestTicketsSeen(t *testing.T) {
	a, b := token.NewValue("a").Fingerprint(), token.NewValue("b").Fingerprint()
	const minute = time.Minute
	tickets, latest := &Tickets{}, time.Duration(0)
	for i, step := range []struct {
		value       string
		at          time.Duration
		fingerprint string
		first       time.Duration
		changed     bool
	}{
		{"a", 0, a, 0, true},
		{"a", 15 * minute, a, 0, false},
		{"b", 30 * minute, b, 30 * minute, true},
		{"a", 29 * minute, b, 30 * minute, false}, // an answer to an older call
		{"b", 45 * minute, b, 30 * minute, false},
	} {
		sight, changed := tickets.Saw(jsapi, returned(step.value, step.at), after(max(step.at, latest)))
		latest = max(step.at, latest)
		if sight.Fingerprint != step.fingerprint || !sight.FirstAt.Equal(after(step.first)) || changed != step.changed {
			t.Errorf("step %d: %+v, changed %t", i, sight, changed)
		}
		if got := tickets.Get(jsapi).Sight; got != sight {
			t.Errorf("step %d: %+v is kept", i, got)
		}
	}
	if other := tickets.Get("sdk"); other.Sight != (refresh.TicketSight{}) || other.FailureFor("shop", 1, after(10*time.Minute)) != nil {
		t.Errorf("of another type: %+v", other)
	}
	tickets.Doubt()
	if !tickets.Get(jsapi).Sight.Doubted || tickets.Get("sdk").Sight.Doubted {
		t.Errorf("doubted: %+v and %+v", tickets.Get(jsapi), tickets.Get("sdk"))
	}
	ahead := &Tickets{}
	ahead.Saw(jsapi, returned("a", time.Hour), now) // noted by a clock that ran ahead
	if sight, _ := ahead.Saw(jsapi, returned("b", 0), now); sight.Fingerprint != b {
		t.Errorf("after a clock that ran ahead: %+v", sight)
	}
	if sight, _ := tickets.Saw(jsapi, returned("b", 46*minute), after(46*minute)); sight.Doubted {
		t.Error("still doubted")
	}
}

func TestTicketsRecalled(t *testing.T) {
	tickets := &Tickets{}
	tickets.Recall(jsapi, "f", after(-time.Hour))
	tickets.Recall(jsapi, "g", now) // another member's status
	if got := tickets.Get(jsapi).Sight; got != (refresh.TicketSight{Fingerprint: "f", FirstAt: after(-time.Hour)}) {
		t.Errorf("recalled: %+v", got)
	}
	sight, changed := tickets.Saw(jsapi, returned("a", 0), now)
	if !changed || sight.ChangeSeen {
		t.Errorf("after a restart: %+v, changed %t", sight, changed)
	}
	tickets.Recall(jsapi, "f", now)
	if got := tickets.Get(jsapi).Sight; got != sight {
		t.Errorf("a status replaced what WeChat returned: %+v", got)
	}
}

// Failures of a ticket back off, and the first of those that pass by themselves gives the words.
func TestTicketFailures(t *testing.T) {
	tickets := &Tickets{}
	tickets.Saw(jsapi, returned("a", 0), now)
	fail := func(class token.Class, reason token.Reason, message string, at time.Duration) TicketFailure {
		return tickets.Failed(jsapi, TicketFailure{
			Failure: refresh.Failure{Class: class, Reason: reason}, Message: message, UID: "shop", Generation: 1,
		}, after(at))
	}
	first := fail(token.Transient, "Unreachable", "no answer", 0)
	second := fail(token.Transient, "BadResponse", "no JSON", time.Second)
	if first.Attempts != 1 || second.Attempts != 2 || second.Message != "no answer" || second.Reason != "Unreachable" || !second.First.Equal(now) {
		t.Errorf("%+v, then %+v", first, second)
	}
	third := fail(token.Action, "UnsupportedAccount", "no tickets", 2*time.Second)
	if third.Message != "no tickets" || third.Attempts != 1 || third.RetryAt.Sub(third.Time) != 5*time.Second {
		t.Errorf("then %+v", third)
	}
	if f := tickets.Get(jsapi).FailureFor("other", 1, after(10*time.Minute)); f == nil || *f != third || tickets.Get(jsapi).Sight.Fingerprint == "" {
		t.Errorf("kept: %+v", f)
	}
	tickets.Saw(jsapi, returned("a", time.Minute), after(time.Minute))
	if f := tickets.Get(jsapi).FailureFor("shop", 1, after(10*time.Minute)); f != nil {
		t.Errorf("after a good answer: %+v", f)
	}
	// A write that was refused backs off until a write works, whatever WeChat answers meanwhile.
	refused := func(by string) TicketFailure {
		return tickets.Failed(jsapi, TicketFailure{Failure: refresh.Failure{Class: token.Action, Reason: v1alpha1.ReasonTargetWriteFailed, OfWrite: true}, UID: types.UID(by), Generation: 1}, after(time.Minute))
	}
	refused("shop")
	tickets.Saw(jsapi, returned("a", 2*time.Minute), after(2*time.Minute))
	if f := refused("shop"); f.Attempts != 2 {
		t.Errorf("the second refusal is number %d", f.Attempts)
	}
	tickets.Written([]v1alpha1.TicketType{jsapi}, "other")
	if tickets.Get(jsapi).FailureFor("shop", 1, after(10*time.Minute)) == nil {
		t.Error("another resource's write ended it")
	}
	// Nor does that of another member, whose own refusals are counted by themselves, and a call that fails.
	if f := refused("other"); f.Attempts != 1 {
		t.Errorf("the first refusal of another member is number %d", f.Attempts)
	}
	tickets.Failed(jsapi, TicketFailure{
		Failure: refresh.Failure{Class: token.Action, Reason: "UnsupportedAccount"}, Message: "no tickets", UID: "other", Generation: 7,
	}, after(90*time.Second))
	if f := refused("shop"); f.Attempts != 3 || !f.RetryAt.After(after(5*time.Minute)) {
		t.Errorf("the third refusal is number %d, until %s", f.Attempts, f.RetryAt)
	}
	if f := tickets.Get(jsapi).FailureFor("shop", 1, after(10*time.Minute)); !f.OfWrite {
		t.Errorf("the shorter wait is told: %+v", f)
	}
	if f := tickets.Get(jsapi).FailureFor("third", 1, after(10*time.Minute)); f == nil || f.OfWrite {
		t.Errorf("a third member suffers from another's Secret: %+v", f)
	}
	// A change of the spec ends the wait after the refusal, but hides no wait of the account's calls.
	if f := tickets.Get(jsapi).FailureFor("shop", 2, after(2*time.Minute)); f.OfWrite {
		t.Errorf("what does not hold any more hides what does: %+v", f)
	}
	if f := tickets.Get(jsapi).FailureFor("shop", 1, after(-time.Hour)); f == nil { // a clock that was ahead
		t.Error("nothing is told")
	}
	tickets.Saw(jsapi, returned("a", 3*time.Minute), after(3*time.Minute))
	tickets.Written([]v1alpha1.TicketType{"sdk", jsapi}, "shop")
	if f := tickets.Get(jsapi).FailureFor("shop", 1, after(10*time.Minute)); f != nil {
		t.Errorf("after a write: %+v", f)
	}
	if tickets.Get(jsapi).FailureFor("other", 1, after(10*time.Minute)) == nil {
		t.Error("one member's write ended the refusal of another's Secret")
	}
	// An unknown errcode is not taken for the outage before it: from the third time it needs somebody.
	fail(token.Transient, "Unreachable", "no answer", time.Minute)
	for range 3 {
		third = fail(token.Transient, v1alpha1.ReasonRequestRejected, "unknown errcode", time.Minute)
	}
	if third.Class != token.Action || third.Message != "unknown errcode" {
		t.Errorf("an unknown errcode, the third time: %+v", third)
	}
}

func TestMergedTicket(t *testing.T) {
	acct := with("a", "b")
	started, finish := make(chan struct{}), make(chan struct{})
	answers := make(chan token.Ticket, 2)
	go func() {
		got, _ := acct.MergedTicket(jsapi, func() (token.Ticket, error) {
			close(started)
			<-finish
			return returned("a", 0), nil
		})
		answers <- got
	}()
	<-started
	if got, _ := acct.MergedTicket("sdk", func() (token.Ticket, error) { return returned("s", 0), nil }); got != returned("s", 0) {
		t.Error("calls for two types were merged")
	}
	go func() {
		got, _ := acct.MergedTicket(jsapi, func() (token.Ticket, error) { return returned("b", 0), nil })
		answers <- got
	}()
	time.Sleep(20 * time.Millisecond) // lets the second one find the first
	close(finish)
	for range 2 {
		if got := <-answers; got != returned("a", 0) {
			t.Error("the second member made a call of its own")
		}
	}
}
