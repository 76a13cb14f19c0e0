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

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	jsapi = v1alpha1.TicketJSAPI
	// ticketPoll is an eighth of the life of a ticket, the time between two polls.
	ticketPoll = 15 * time.Minute
)

func withTickets(types ...v1alpha1.TicketType) func(*v1alpha1.WeChatAppToken) {
	return func(t *v1alpha1.WeChatAppToken) {
		t.Spec.Tickets = nil
		for _, kind := range types {
			t.Spec.Tickets = append(t.Spec.Tickets, v1alpha1.TicketSpec{Type: kind})
		}
	}
}

// ticket returns the ticket of a type that a Secret holds under its default key.
func (w *world) ticket(secret string, kind v1alpha1.TicketType) string {
	w.Helper()
	return string(w.secret(secret).Data[string(kind)+"_ticket"])
}

// newest returns the ticket that WeChat issued last.
func (w *world) newest(kind v1alpha1.TicketType) string {
	w.Helper()
	tickets := w.wechat.Tickets(appID, kind)
	if len(tickets) == 0 {
		return ""
	}
	return tickets[len(tickets)-1].Ticket
}

// ofTargets leaves out reads of resources: a cache that is a moment behind when the clock is moved seems to have been behind for long.
func ofTargets(requests map[string]int) map[string]int {
	delete(requests, "get wechatapptokens")
	return requests
}

func (w *world) setTickets(rules wechattest.TicketRules) {
	w.wechat.SetApp(wechattest.App{ID: appID, Secret: appSecret, Tickets: rules})
}

// A token and its tickets come with one call each and are written together. A check that finds nothing new writes nothing, and a ticket's
// own renewal is a write of the Secret and one of the status.
func TestTicketCosts(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("shop", withTickets(jsapi))
	w.eventuallyReady("shop")
	w.settle()
	if got, want := w.requests(o), map[string]int{"get secrets": 1, "create secrets": 1, "patch wechatapptokens/status": 1}; !maps.Equal(got, want) {
		t.Errorf("requests of the first issue: %v, want %v", got, want)
	}
	if stable, tickets := w.calls(wechattest.EndpointStable), w.calls(wechattest.EndpointTicket); stable != 1 || tickets != 1 {
		t.Errorf("%d calls for a token and %d for a ticket", stable, tickets)
	}
	first := w.ticket("shop", jsapi)
	status := w.token("shop").Status.Tickets
	if first == "" || first != w.newest(jsapi) || len(status) != 1 || status[0].Type != jsapi ||
		status[0].ExpirationTime.Sub(status[0].IssueTime.Time) != 2*time.Hour ||
		string(w.secret("shop").Data["jsapi_ticket_expires_at"]) != status[0].ExpirationTime.UTC().Format(time.RFC3339) {
		t.Errorf("ticket %q of %q, status %+v", first, w.newest(jsapi), status)
	}
	if ready := w.condition("shop", v1alpha1.ConditionReady); !strings.Contains(ready.Message, "a jsapi ticket that is valid until ") {
		t.Errorf("Ready says %q", ready.Message)
	}

	before := w.requests(o)
	w.advance(10 * time.Minute)
	if n := w.calls(wechattest.EndpointStable); n < 5 {
		t.Errorf("%d calls in ten minutes", n)
	}
	if got := ofTargets(minus(w.requests(o), before)); len(got) > 0 || w.calls(wechattest.EndpointTicket) != 1 {
		t.Errorf("requests of the checks: %v; %d calls for a ticket", got, w.calls(wechattest.EndpointTicket))
	}
	w.wechat.RivalTicket(appID, jsapi, 2*time.Hour) // the next call gets another one
	w.advance(6 * time.Minute)
	got, want := ofTargets(minus(w.requests(o), before)), map[string]int{"patch secrets": 1, "patch wechatapptokens/status": 1}
	if !maps.Equal(got, want) {
		t.Errorf("requests of the ticket's renewal: %v, want %v", got, want)
	}
	if second := w.ticket("shop", jsapi); second == first || second != w.newest(jsapi) {
		t.Errorf("the ticket was not renewed: %q", second)
	}
}

// WeChat documents neither when a ticket changes nor what becomes of the one before. In each model that is possible, a day makes no more
// invalid samples than cannot be avoided: those between a change that nobody was told of and the next poll.
func TestTicketModels(t *testing.T) {
	const day = 24 * time.Hour
	const hours3 = 3 * time.Hour
	const sampling = 3 * time.Minute
	stable := []v1alpha1.Mode{v1alpha1.ModeStable}
	for _, model := range []struct {
		name  string
		modes []v1alpha1.Mode
		rules wechattest.TicketRules
		// age is that of a rival's ticket at the first sight; zero for none.
		age time.Duration
		// perChange bounds the time with an invalid ticket for each change, and first that for the first one.
		first, perChange time.Duration
	}{
		{"by call, dead at once", v1alpha1.Modes(), wechattest.TicketRules{Overlap: wechattest.NoOverlap}, 0, 0, 0},
		{"by call, 300 s", stable, wechattest.TicketRules{}, 0, 0, 0},
		{"by call, 3 h", stable, wechattest.TicketRules{Overlap: hours3}, 0, 0, 0},
		{"by time, dead at once", stable, wechattest.TicketRules{Change: wechattest.ChangeByTime, Overlap: wechattest.NoOverlap}, 0, ticketPoll, ticketPoll},
		{"by time, 300 s", v1alpha1.Modes(), wechattest.TicketRules{Change: wechattest.ChangeByTime}, 0, ticketPoll - 5*time.Minute, ticketPoll - 5*time.Minute},
		{"by time, 3 h", stable, wechattest.TicketRules{Change: wechattest.ChangeByTime, Overlap: hours3}, 0, 0, 0},
		{"a rival's, by time, dead at once", v1alpha1.Modes(), wechattest.TicketRules{Change: wechattest.ChangeByTime, Overlap: wechattest.NoOverlap}, 7100 * time.Second, 30 * time.Minute, ticketPoll},
		{"a rival's, by time, 3 h", stable, wechattest.TicketRules{Change: wechattest.ChangeByTime, Overlap: hours3}, 7100 * time.Second, 0, 0},
		{"a rival's, by call, dead at once", stable, wechattest.TicketRules{Overlap: wechattest.NoOverlap}, 7100 * time.Second, 0, 0},
		{"lives for 3 h", stable, wechattest.TicketRules{Age: hours3}, 0, 0, 0},
		{"with the remaining life", stable, wechattest.TicketRules{Change: wechattest.ChangeByTime, Overlap: wechattest.NoOverlap, RemainingLife: true}, 0, ticketPoll, ticketPoll},
	} {
		for _, mode := range model.modes {
			t.Run(model.name+"/"+string(mode), func(t *testing.T) {
				w := newWorld(t)
				w.setTickets(model.rules)
				w.startOperator()
				w.createCredentials(appSecret)
				if model.age > 0 {
					w.wechat.RivalTicket(appID, jsapi, model.age)
				}
				w.createToken("shop", withTickets(jsapi), hourly, func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
				w.eventuallyReady("shop")
				w.settle()
				calls := w.calls(wechattest.EndpointTicket)
				invalid, changes, last := []time.Duration{}, 0, w.ticket("shop", jsapi)
				var span time.Duration
				for range int(day / sampling) {
					w.advance(sampling)
					if ready := w.condition("shop", v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue {
						t.Fatalf("not Ready at %s: %s", w.clock.now(), ready.Message)
					}
					ticket := w.ticket("shop", jsapi)
					if !w.wechat.TicketValid(ticket) {
						span += sampling
					} else if span > 0 {
						invalid, span = append(invalid, span), 0
					}
					if ticket != last {
						changes, last = changes+1, ticket
					}
				}
				for i, span := range invalid {
					most := model.perChange
					if i == 0 {
						most = max(most, model.first)
					}
					if span > most+sampling || most == 0 {
						t.Errorf("invalid for %s, at most %s can be avoided by nothing", span, most)
					}
				}
				if span > 0 {
					t.Errorf("invalid at the end, for %s", span)
				}
				if least := int(day/max(model.rules.Age, 2*time.Hour)) - 1; changes < least || len(invalid) > changes {
					t.Errorf("%d changes, %d times invalid", changes, len(invalid))
				}
				if n := w.calls(wechattest.EndpointTicket) - calls; n > 110 {
					t.Errorf("%d calls for tickets in a day", n)
				}
				t.Logf("%d changes, invalid %v, %d calls", changes, invalid, w.calls(wechattest.EndpointTicket)-calls)
			})
		}
	}
}

// An account without tickets keeps its token, and the status says what to do.
func TestTicketDenied(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.setTickets(wechattest.TicketRules{Without: []v1alpha1.TicketType{jsapi}})
			o := w.startOperator()
			w.createCredentials(appSecret)
			w.createToken("shop", withTickets("sdk", jsapi), func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			ready := w.eventuallyReason("shop", v1alpha1.ReasonUnsupportedAccount)
			if ready.Status != metav1.ConditionFalse || !strings.HasPrefix(ready.Message, "ticket jsapi: ") || !strings.Contains(ready.Message, "the token is valid until") {
				t.Errorf("Ready: %+v", ready)
			}
			if stalled := w.condition("shop", v1alpha1.ConditionStalled); stalled.Status != metav1.ConditionTrue {
				t.Errorf("Stalled: %+v", stalled)
			}
			value := w.value("shop")
			if !w.wechat.Valid(value) || w.ticket("shop", "sdk") != w.newest("sdk") || w.ticket("shop", jsapi) != "" {
				t.Error("the token and the other ticket are not there")
			}
			w.settle()
			calls, status := w.calls(wechattest.EndpointTicket), w.token("shop").ResourceVersion
			o.stop()
			w.startOperator()
			w.advance(time.Minute)
			if now := w.token("shop").ResourceVersion; now != status {
				t.Errorf("a restart changed the status: %v", w.token("shop").Status.Conditions)
			}
			w.advance(2 * time.Hour) // over a rotation
			if next := w.value("shop"); next == value || !w.wechat.Valid(next) {
				t.Error("the token was not rotated")
			}
			if n := w.calls(wechattest.EndpointTicket) - calls; n > 20 {
				t.Errorf("%d calls for tickets in two hours", n)
			}
			// A check asks again at once, after somebody acted.
			w.setTickets(wechattest.TicketRules{})
			w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, "1")
			w.eventuallyReady("shop")
			if w.ticket("shop", jsapi) != w.newest(jsapi) {
				t.Error("the Secret does not hold the ticket")
			}
		})
	}
}

// A ticket that WeChat does not answer for holds up no token: neither the first one nor a rotation.
func TestTicketHangs(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointTicket, Delay: 30 * time.Second})
			w.startOperator()
			w.createCredentials(appSecret)
			w.createToken("shop", withTickets(jsapi), func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			start := time.Now()
			first := w.eventuallyAnother("shop", "")
			if took := time.Since(start); took > 6*time.Second {
				t.Errorf("the token took %s", took)
			}
			w.eventuallyReason("shop", v1alpha1.ReasonTicketNotIssued)
			w.jump(2*time.Hour - 4*time.Minute) // in the window in which both tokens are valid
			w.wakeTargets("shop")
			w.eventuallyAnotherWithin(10*time.Second, "shop", first)
		})
	}
}

// What somebody does to a ticket in the Secret is undone, and what the spec drops goes.
func TestTicketDrift(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w, value := readyWorld(t, mode, withTickets(jsapi, "wx_card"))
			for name, edit := range map[string]func(*corev1.Secret){
				"another value": func(s *corev1.Secret) { s.Data["jsapi_ticket"] = []byte("planted") },
				"removed":       func(s *corev1.Secret) { delete(s.Data, "jsapi_ticket") },
				"its expiry":    func(s *corev1.Secret) { s.Data["jsapi_ticket_expires_at"] = []byte("2099-01-01T00:00:00Z") },
			} {
				w.settle()
				want := w.ticket("shop", jsapi)
				w.updateSecret("shop", edit)
				w.Eventually(func() bool { return w.intact("shop", jsapi) }).Should(gomega.BeTrue(), name)
				if got := w.ticket("shop", jsapi); got != want {
					t.Errorf("%s: the ticket is %q, want %q", name, got, want)
				}
			}
			w.update("shop", withTickets(jsapi))
			w.Eventually(func() []string { return slices.Sorted(maps.Keys(w.secret("shop").Data)) }).Should(gomega.Equal(
				[]string{"access_token", "app_id", "expires_at", "jsapi_ticket", "jsapi_ticket_expires_at"}))
			w.Eventually(func() int { return len(w.token("shop").Status.Tickets) }).Should(gomega.Equal(1))
			w.update("shop", func(t *v1alpha1.WeChatAppToken) {
				t.Spec.Tickets = append(t.Spec.Tickets, v1alpha1.TicketSpec{Type: "wx_card", Key: "card"})
			})
			w.Eventually(func() string { return string(w.secret("shop").Data["card"]) }).Should(gomega.Equal(w.newest("wx_card")))
			w.eventuallyReady("shop")
			if w.value("shop") != value {
				t.Error("the token was replaced")
			}
		})
	}
}

// intact reports whether a Secret holds WeChat's newest ticket with the expiry that the status names.
func (w *world) intact(secret string, kind v1alpha1.TicketType) bool {
	w.Helper()
	status := w.token(secret).Status.Tickets
	i := slices.IndexFunc(status, func(t v1alpha1.TicketStatus) bool { return t.Type == kind })
	return i >= 0 && w.ticket(secret, kind) == w.newest(kind) &&
		string(w.secret(secret).Data[string(kind)+"_ticket_expires_at"]) == status[i].ExpirationTime.UTC().Format(time.RFC3339)
}

// A new process goes on where the last one ended: it asks with the first check, and writes nothing if nothing has changed.
func TestTicketRestart(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			o := w.startOperator()
			w.createCredentials(appSecret)
			w.createToken("shop", withTickets(jsapi), func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.eventuallyReady("shop")
			w.settle()
			before, calls := w.token("shop"), w.calls(wechattest.EndpointTicket)
			o.stop()
			o = w.startOperator()
			w.advance(time.Minute)
			if n := w.calls(wechattest.EndpointTicket) - calls; n != 1 {
				t.Errorf("%d calls after the start", n)
			}
			if now := w.token("shop"); now.ResourceVersion != before.ResourceVersion || w.requests(o)["patch secrets"] > 0 {
				t.Errorf("the start wrote: %v", w.requests(o))
			}
			// The first sight stays, also if the ticket changes while no operator runs.
			o.stop()
			w.wechat.RivalTicket(appID, jsapi, 2*time.Hour)
			w.startOperator()
			w.advance(time.Minute)
			w.Eventually(func() bool { return w.intact("shop", jsapi) }).Should(gomega.BeTrue())
			if first := w.token("shop").Status.Tickets[0].IssueTime; !first.After(before.Status.Tickets[0].IssueTime.Time) {
				t.Errorf("the new ticket is said to be seen first at %s", first)
			}
		})
	}
}

// Suspended, neither the token nor its tickets are renewed, and Ready turns False when the first of them ends.
func TestTicketSuspended(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable, withTickets(jsapi))
	w.settle()
	w.suspended("shop", true)
	w.settle()
	calls := w.calls(wechattest.EndpointTicket)
	w.advance(2*time.Hour + time.Minute)
	w.Eventually(func() metav1.ConditionStatus { return w.condition("shop", v1alpha1.ConditionReady).Status }).
		Should(gomega.Equal(metav1.ConditionFalse))
	if n := w.calls(wechattest.EndpointTicket) - calls; n != 0 {
		t.Errorf("%d calls while suspended", n)
	}
	w.suspended("shop", false)
	w.eventuallyReady("shop")
	w.Eventually(func() bool { return w.intact("shop", jsapi) && w.wechat.TicketValid(w.ticket("shop", jsapi)) }).Should(gomega.BeTrue())
}

// A new appid has tickets of its own, and a new AppSecret of the same appid changes none.
func TestTicketOfAnotherAccount(t *testing.T) {
	const otherApp, otherSecret = "wxfedcba9876543210", "fedcba9876543210fedcba9876543210"
	w, _ := readyWorld(t, v1alpha1.ModeStable, withTickets(jsapi))
	first := w.ticket("shop", jsapi)
	w.wechat.SetSecret(appID, otherSecret)
	w.updateSecret("credentials", func(s *corev1.Secret) { s.Data["appSecret"] = []byte(otherSecret) })
	w.settle()
	w.advance(3 * time.Minute)
	w.eventuallyReady("shop")
	if w.ticket("shop", jsapi) != first {
		t.Error("another AppSecret changed the ticket")
	}
	w.wechat.SetApp(wechattest.App{ID: otherApp, Secret: otherSecret})
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = otherApp })
	w.Eventually(func() string { return w.ticket("shop", jsapi) }).ShouldNot(gomega.Equal(first))
	tickets := w.wechat.Tickets(otherApp, jsapi)
	if len(tickets) == 0 || tickets[len(tickets)-1].Ticket != w.ticket("shop", jsapi) {
		t.Error("the ticket is not the other app's")
	}
	w.eventuallyReady("shop")

	// The next account has no tickets: that of the last one must not stay.
	const third = "wx00000000000000aa"
	w.wechat.SetApp(wechattest.App{ID: third, Secret: otherSecret, Tickets: wechattest.TicketRules{Without: v1alpha1.TicketTypes()}})
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = third })
	w.eventuallyReason("shop", v1alpha1.ReasonUnsupportedAccount)
	if got := slices.Sorted(maps.Keys(w.secret("shop").Data)); !slices.Equal(got, []string{"access_token", "app_id", "expires_at"}) {
		t.Errorf("the Secret holds %v", got)
	}
}

// A revoke and a refresh ask for the tickets again, because nobody knows whether they died with the token.
func TestTicketAfterForcedRefresh(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w, first := readyWorld(t, mode, withTickets(jsapi))
			w.advance(6 * time.Minute)
			w.wechat.RivalTicket(appID, jsapi, 2*time.Hour)
			w.ask("shop", v1alpha1.AnnotationRefreshRequestedAt, "1")
			w.eventuallyAnother("shop", first)
			w.Eventually(func() bool { return w.intact("shop", jsapi) }).Should(gomega.BeTrue())
			before := w.value("shop")
			w.wechat.RivalTicket(appID, jsapi, 2*time.Hour)
			w.ask("shop", v1alpha1.AnnotationRevokeRequestedAt, "1")
			w.lapse(2*time.Minute, func() bool { return w.handled("shop").Revoke == "1" })
			w.eventuallyAnother("shop", before)
			w.Eventually(func() bool { return w.intact("shop", jsapi) }).Should(gomega.BeTrue())
		})
	}
}

// The members of an account share their polls, and a change that one of them sees reaches all at once.
func TestTicketsOfMembers(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			w.createCredentials(appSecret)
			names := []string{"a", "b", "c"}
			for _, name := range names {
				w.createToken(name, withTickets(jsapi), hourly, func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
				w.eventuallyReady(name)
			}
			w.settle()
			calls := w.calls(wechattest.EndpointTicket)
			w.advance(95 * time.Minute)
			if n := w.calls(wechattest.EndpointTicket) - calls; n > 10 {
				t.Errorf("%d calls of three members in 95 minutes", n)
			}
			w.wechat.RivalTicket(appID, jsapi, 2*time.Hour)
			w.advance(ticketPoll + time.Minute)
			for _, name := range names {
				if !w.intact(name, jsapi) {
					t.Errorf("%s does not hold the newest ticket", name)
				}
			}
		})
	}
}

// The tickets that the tests plant must be in no log either.
func TestTicketIsNotLogged(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable, withTickets(v1alpha1.TicketTypes()...))
	w.Eventually(func() int { return len(w.token("shop").Status.Tickets) }).Should(gomega.Equal(3))
	for _, kind := range v1alpha1.TicketTypes() {
		ticket := w.ticket("shop", kind)
		w.logs.mustNotHold(t, ticket)
		if r := fmt.Sprintf("%+v %v", w.token("shop"), w.events("shop")); ticket == "" || strings.Contains(r, ticket) {
			t.Errorf("a %s ticket is shown, or there is none", kind)
		}
	}
}
