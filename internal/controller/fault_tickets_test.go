// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// Who keeps rewriting a ticket is answered ever more slowly, so that nobody can spend the account's calls by editing a Secret.
func TestContestedTicket(t *testing.T) {
	patch := []byte(`{"data":{"jsapi_ticket":"bWluZQ=="}}`)
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w, _ := readyWorld(t, mode, withTickets(jsapi))
			o := w.operators.last
			const duration = 12 * time.Second
			w.throughout(duration, func() {
				w.must(w.Patch(w.Context(), w.secret("shop"), client.RawPatch(types.MergePatchType, patch)))
			})
			// At once, then after 1, 2, 4 and 8 s.
			if n := w.calls(wechattest.EndpointTicket); n > 7 {
				t.Errorf("%d calls for tickets in %s", n, duration)
			}
			if n := w.requests(o)["patch secrets"]; n > 8 {
				t.Errorf("%d repairs in %s", n, duration)
			}
			if n := w.requests(o)["patch wechatapptokens/status"]; n > 15 {
				t.Errorf("%d status writes in %s", n, duration)
			}
			w.lapse(2*time.Minute, func() bool { return w.intact("shop", jsapi) })
			w.eventuallyReady("shop")
		})
	}
}

// If WeChat answers with another ticket at each call, members that tell each other of a change must not call in turn for ever.
func TestTicketChangesAtEachCall(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.setTickets(wechattest.TicketRules{Age: time.Nanosecond})
			o := w.startOperator()
			w.createCredentials(appSecret)
			for _, name := range []string{"a", "b", "c"} {
				w.createToken(name, withTickets(jsapi), hourly, func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
				w.eventuallyReady(name)
			}
			w.advance(30 * time.Minute)
			// Each member holds a ticket for three minutes at least, whatever the others see.
			if n := w.calls(wechattest.EndpointTicket); n > 3*11 {
				t.Errorf("%d calls for tickets in half an hour", n)
			}
			if n := w.requests(o)["patch secrets"]; n > 3*11+6 {
				t.Errorf("%d writes in half an hour", n)
			}
		})
	}
}

// After a start, a member asks for its tickets although other members, which have none, check the token more often.
func TestTicketOfAMemberThatNeverChecks(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			o := w.startOperator()
			w.createCredentials(appSecret)
			for i := range 4 {
				w.createToken(fmt.Sprint("plain-", i), func(t *v1alpha1.WeChatAppToken) {
					t.Spec.Mode, t.Spec.CheckInterval.Duration = mode, 30*time.Second
				})
				w.eventuallyReady(fmt.Sprint("plain-", i))
			}
			w.createToken("shop", withTickets(jsapi), hourly, func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.eventuallyReady("shop")
			w.settle()
			o.stop()
			calls := w.calls(wechattest.EndpointTicket)
			w.startOperator()
			w.advance(2 * time.Minute)
			if n := w.calls(wechattest.EndpointTicket) - calls; n != 1 {
				t.Errorf("%d calls for a ticket in two minutes after a start", n)
			}
		})
	}
}

// A ticket that the API server does not take, here because the Secret is full, must not keep the token from being written.
func TestTicketThatDoesNotFit(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w, first, failing := fullWorld(t, mode)
			if !strings.HasPrefix(failing.Message, "ticket jsapi: ") || w.token("shop").Status.LastError != nil {
				t.Errorf("Ready: %+v, last error %+v", failing, w.token("shop").Status.LastError)
			}
			if mode == v1alpha1.ModeStable { // the checks go on
				w.settle()
				w.wechat.RivalForceRefresh(appID)
				w.advance(150 * time.Second)
				if now := w.value("shop"); now == first || !w.wechat.Valid(now) {
					t.Error("a forced refresh by somebody else was not noticed")
				}
				first = w.value("shop")
			}
			w.advance(2*time.Hour - time.Minute)
			if next := w.value("shop"); next == first || !w.wechat.Valid(next) {
				t.Errorf("the token was not rotated: %+v", w.token("shop").Status.Conditions)
			}
			if n := w.calls(wechattest.EndpointTicket); n > 6 {
				t.Errorf("%d calls for tickets that cannot be written", n)
			}
			w.updateSecret("shop", func(s *corev1.Secret) { delete(s.Data, "full") })
			w.lapse(time.Hour, func() bool { return w.intact("shop", jsapi) })
			w.eventuallyReady("shop")
		})
	}
}

// fullWorld returns a world with a resource whose Secret has a token, and no room for the ticket that is asked for. It also returns the
// token, and what Ready says.
func fullWorld(t *testing.T, mode v1alpha1.Mode) (w *world, first string, failing metav1.Condition) {
	t.Helper()
	w, first = readyWorld(t, mode)
	w.settle()
	w.fill("shop")
	w.settle()
	w.update("shop", withTickets(jsapi))
	return w, first, w.eventuallyReason("shop", v1alpha1.ReasonTargetWriteFailed)
}

// fill leaves no room for a ticket in a Secret.
func (w *world) fill(secret string) {
	w.Helper()
	w.updateSecret(secret, func(s *corev1.Secret) {
		size := 0
		for _, v := range s.Data {
			size += len(v)
		}
		s.Data["full"] = []byte(strings.Repeat("x", corev1.MaxSecretSize-size-50))
	})
}

// Members whose Secrets refuse a ticket back off each by itself, and end no back-off of each other.
func TestTicketsThatDoNotFit(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w, _ := readyWorld(t, mode)
			names := []string{"shop", "other"}
			w.createToken("other", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.eventuallyReady("other")
			for _, name := range names {
				w.settle()
				w.fill(name)
			}
			w.settle()
			for _, name := range names {
				w.update(name, withTickets(jsapi))
			}
			for _, name := range names {
				w.eventuallyReason(name, v1alpha1.ReasonTargetWriteFailed)
			}
			w.advance(100 * time.Minute)
			if n := w.calls(wechattest.EndpointTicket); n > 16 {
				t.Errorf("%d calls for tickets that cannot be written", n)
			}
			// Room in one Secret is none in the other.
			w.updateSecret("shop", func(s *corev1.Secret) { delete(s.Data, "full") })
			w.lapse(time.Hour, func() bool { return w.intact("shop", jsapi) })
			w.eventuallyReady("shop")
			if ready := w.condition("other", v1alpha1.ConditionReady); ready.Reason != v1alpha1.ReasonTargetWriteFailed {
				t.Errorf("the other one: %+v", ready)
			}
		})
	}
}

// A refusal of the Secret that a change of the spec has made void does not hide the back-off of calls that fail.
func TestRefusedTicketAndFailingCalls(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w, _, _ := fullWorld(t, mode)
			w.advance(time.Minute) // the third refusal waits for ten minutes
			w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointTicket, Errcode: -1})
			calls := w.calls(wechattest.EndpointTicket)
			w.update("shop", hourly)
			w.advance(3 * time.Minute)
			if n := w.calls(wechattest.EndpointTicket) - calls; n == 0 || n > 20 {
				t.Errorf("%d calls for a ticket in three minutes", n)
			}
		})
	}
}

// A check that another member's answer settles asks for the resource's own tickets all the same.
func TestCheckAsksForOwnTickets(t *testing.T) {
	w := newWorld(t)
	w.setTickets(wechattest.TicketRules{Without: []v1alpha1.TicketType{jsapi}})
	w.startOperator()
	w.createCredentials(appSecret)
	names := []string{"a", "b", "shop", "c"}
	for _, name := range [...]string{"a", "b", "c"} {
		w.createToken(name, hourly)
		w.eventuallyReady(name)
	}
	w.createToken("shop", hourly, withTickets(jsapi))
	w.eventuallyReason("shop", v1alpha1.ReasonUnsupportedAccount)
	w.advance(20 * time.Minute) // its back-off is ten minutes and more by now
	w.setTickets(wechattest.TicketRules{})
	for _, name := range names {
		w.ask(name, v1alpha1.AnnotationCheckRequestedAt, "1")
	}
	w.advance(time.Minute)
	for _, name := range names {
		if got := w.handled(name).Check; got != "1" {
			t.Errorf("the check of %s is at %q", name, got)
		}
	}
	if w.ticket("shop", jsapi) == "" || w.ticket("shop", jsapi) != w.newest(jsapi) {
		t.Error("the check is done, and the Secret does not hold the ticket")
	}
}

// A restart while a ticket cannot be renewed leaves the status as it is.
func TestRestartWhileTicketsFail(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			o := w.startOperator()
			w.createCredentials(appSecret)
			w.createToken("shop", withTickets(jsapi), func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.eventuallyReady("shop")
			w.settle()
			w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointTicket, Errcode: -1})
			w.advance(20 * time.Minute)
			failing := w.condition("shop", v1alpha1.ConditionRefreshFailing)
			if failing.Reason != v1alpha1.ReasonSystemBusy {
				t.Fatalf("RefreshFailing: %+v", failing)
			}
			before := w.requests(o)
			w.advance(20 * time.Minute)
			if got := ofTargets(minus(w.requests(o), before)); len(got) > 1 || len(got) == 1 && got["get secrets"] == 0 {
				t.Errorf("requests while it fails: %v", got)
			}
			w.settle()
			status := w.token("shop")
			o.stop()
			o = w.startOperator()
			w.advance(10 * time.Minute)
			if now := w.token("shop"); now.ResourceVersion != status.ResourceVersion {
				t.Errorf("the restart changed the status: %v, %v\n%+v\n%+v", w.requests(o), w.events("shop"), status, now)
			}
		})
	}
}

// A ticket of which WeChat says that it lives for a shorter time than that between two polls is asked for when it ends.
func TestTicketOfAShortLife(t *testing.T) {
	w := newWorld(t)
	w.setTickets(wechattest.TicketRules{Age: 5 * time.Minute, RemainingLife: true, Overlap: wechattest.NoOverlap})
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("shop", withTickets(jsapi), hourly)
	w.eventuallyReady("shop")
	w.settle()
	invalid := 0
	for range 60 {
		w.advance(time.Minute)
		if w.condition("shop", v1alpha1.ConditionReady).Status != metav1.ConditionTrue {
			invalid++
		}
	}
	// A sample may fall into the two seconds between the end of a ticket and the poll after it.
	if n := w.calls(wechattest.EndpointTicket); invalid > n || n > 15 {
		t.Errorf("not Ready for %d of 60 minutes, %d calls", invalid, n)
	}
}

// Tickets that hang must not keep the resources of others from getting a first token.
func TestHangingTicketsOfOthers(t *testing.T) {
	w := newWorld(t)
	w.workers = 4
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointTicket, Hang: true})
	w.startOperator()
	for i := range 40 {
		id := fmt.Sprintf("wx%016d", i)
		w.wechat.SetApp(wechattest.App{ID: id, Secret: appSecret})
		w.createToken(fmt.Sprint("t", i), withTickets(v1alpha1.TicketTypes()...), func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = id })
	}
	w.createCredentials(appSecret)
	w.Eventually(func() int { return w.calls(wechattest.EndpointTicket) }).Should(gomega.BeNumerically(">=", 3))
	w.createToken("plain")
	w.eventuallyAnotherWithin(15*time.Second, "plain", "") // the first calls take 3 s, and without a bound it takes minutes
}

// A Secret with more labels and annotations than the cache keeps costs one more read for each write of a ticket, and none otherwise.
func TestTicketsOfAnIncompleteTarget(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w, _ := readyWorld(t, mode, withTickets(jsapi), hourly)
			o := w.operators.last
			w.updateSecret("shop", func(s *corev1.Secret) {
				s.Annotations["example.com/long"] = strings.Repeat("x", 600)
			})
			w.settle()
			w.advance(time.Minute)
			before := w.requests(o)
			w.advance(10 * time.Minute)
			if got := ofTargets(minus(w.requests(o), before)); len(got) > 0 {
				t.Errorf("requests while nothing happens: %v", got)
			}
			w.wechat.RivalTicket(appID, jsapi, 2*time.Hour)
			w.advance(6 * time.Minute)
			reads := map[v1alpha1.Mode]int{v1alpha1.ModeStable: 1, v1alpha1.ModeLegacy: 2}[mode] // Legacy needs the token for the call
			want := map[string]int{"get secrets": reads, "patch secrets": 1, "patch wechatapptokens/status": 1}
			if got := ofTargets(minus(w.requests(o), before)); !maps.Equal(got, want) {
				t.Errorf("requests of the ticket's renewal: %v, want %v", got, want)
			}
			w.update("shop", withTickets("wx_card"))
			w.Eventually(func() []string { return slices.Sorted(maps.Keys(w.secret("shop").Data)) }).Should(gomega.Equal(
				[]string{"access_token", "app_id", "expires_at", "wx_card_ticket", "wx_card_ticket_expires_at"}))
		})
	}
}

// WeChat's refusal of a token in a call for a ticket is looked into, but if that cannot be settled, the token is replaced in time.
func TestTicketRefusalDelaysNoMint(t *testing.T) {
	w, first := readyWorld(t, v1alpha1.ModeLegacy, withTickets(jsapi))
	w.settle()
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointTicket, Errcode: 40001})
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointProbe, Errcode: 45009})
	w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, "1")
	for range 4 {
		w.advance(30 * time.Minute)
		if c := w.condition("shop", v1alpha1.ConditionRefreshFailing); c.Reason == v1alpha1.ReasonDailyQuotaExhausted {
			t.Errorf("the token is said to fail: %s", c.Message)
		}
		if !w.wechat.Valid(w.value("shop")) {
			t.Error("the token is dead")
		}
	}
	if n := w.calls(wechattest.EndpointLegacy); w.value("shop") == first || n != 2 {
		t.Errorf("%d mints in two hours", n)
	}
}
