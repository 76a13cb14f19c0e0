// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	jsapiTicket = "jsapi-ticket-of-the-test"
	noSuch      = "ticket wx_card: WeChat says that this account has no such ticket"
)

func set(t *v1alpha1.WeChatAppToken, kind string, status metav1.ConditionStatus, reason, message string) {
	apimeta.SetStatusCondition(&t.Status.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(time.Unix(0, 0)),
	})
}

// withTickets returns a healthy resource that asks for a jsapi and a wx_card ticket. The Secret holds the first one, which is valid for two
// hours from issued.
func withTickets(issued time.Time) v1alpha1.WeChatAppToken {
	t := tokenAt("shop", "aa", issued)
	t.Spec.Tickets = []v1alpha1.TicketSpec{{Type: v1alpha1.TicketJSAPI}, {Type: v1alpha1.TicketWXCard, Key: "card"}}
	t.Status.Tickets = []v1alpha1.TicketStatus{{
		Type: v1alpha1.TicketJSAPI, Fingerprint: token.NewValue(jsapiTicket).Fingerprint(), IssueTime: metav1.NewTime(issued),
		ExpirationTime: metav1.NewTime(issued.Add(2 * time.Hour)),
	}}
	return t
}

// TestStateWithTickets checks that a ticket that is not valid is not taken for a dead token, and that a dead token is still one.
func TestStateWithTickets(t *testing.T) {
	issued := time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)
	const dead, silent = "The token works, and what needs only the token works on.", "no answer from WeChat"
	for name, test := range map[string]struct {
		mutate func(*v1alpha1.WeChatAppToken)
		at     time.Duration
		state  state
		reason string
		// advice holds the beginnings of what the status command advises.
		advice []string
	}{
		"not issued yet": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				set(w, "Ready", metav1.ConditionFalse, v1alpha1.ReasonTicketNotIssued, "ticket wx_card: it was not issued yet")
				set(w, "Reconciling", metav1.ConditionTrue, v1alpha1.ReasonTicketNotIssued, "ticket wx_card: it was not issued yet")
			},
			state: stateReconciling, reason: v1alpha1.ReasonTicketNotIssued,
			advice: []string{dead + " Ticket wx_card: it was not issued yet.", "The operator goes on trying by itself."},
		},
		"expired, WeChat does not answer": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				set(w, "Ready", metav1.ConditionFalse, v1alpha1.ReasonTicketExpired, "ticket wx_card: it expired")
				set(w, "RefreshFailing", metav1.ConditionTrue, v1alpha1.ReasonUnreachable, "ticket wx_card: "+silent)
			},
			state: stateReconciling, reason: v1alpha1.ReasonTicketExpired,
			advice: []string{dead + " Ticket wx_card: " + silent, "The operator goes on trying by itself."},
		},
		"expired, and the token cannot be refreshed": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				set(w, "Ready", metav1.ConditionFalse, v1alpha1.ReasonTicketExpired, "ticket wx_card: it expired")
				set(w, "RefreshFailing", metav1.ConditionTrue, v1alpha1.ReasonIPNotAllowed, "WeChat does not allow calls from here")
			},
			state: stateReconciling, reason: v1alpha1.ReasonTicketExpired, // in Legacy mode, where the call for a ticket needs no other
			advice: []string{
				dead + " Ticket wx_card: it expired.", "The operator goes on trying by itself.",
				"The token works for another 2h00m00s, but cannot be replaced: WeChat does not allow calls from here.", "Once that is done",
			},
		},
		"an account without such tickets": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				for kind, status := range map[string]metav1.ConditionStatus{"Ready": "False", "Stalled": "True", "RefreshFailing": "True"} {
					set(w, kind, status, v1alpha1.ReasonUnsupportedAccount, noSuch)
				}
			},
			state: stateStalled, reason: v1alpha1.ReasonUnsupportedAccount,
			advice: []string{dead + " Ticket wx_card: WeChat says", "Take wx_card out of spec.tickets if this account has no such ticket"},
		},
		"all valid, but one cannot be fetched": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				set(w, "RefreshFailing", metav1.ConditionTrue, v1alpha1.ReasonDailyQuotaExhausted, "ticket jsapi: no calls are left today")
			},
			at: time.Hour, state: stateRefreshFailing, reason: v1alpha1.ReasonDailyQuotaExhausted,
			advice: []string{"The token works, and the jsapi ticket for another 1h00m00s, but cannot be replaced: Ticket jsapi: no calls", "Once that is done"},
		},
		"a dead token that nobody tells of": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				set(w, "Ready", metav1.ConditionFalse, v1alpha1.ReasonTicketExpired, "ticket jsapi: it expired")
			},
			at: 3 * time.Hour, state: stateExpired, reason: "NobodyRefreshes", advice: []string{"Find out why no operator runs"},
		},
		"a dead token, and a ticket that cannot be fetched": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				set(w, "Ready", metav1.ConditionFalse, v1alpha1.ReasonTokenExpired, "the token expired")
				set(w, "RefreshFailing", metav1.ConditionTrue, v1alpha1.ReasonUnreachable, "ticket jsapi: "+silent)
			},
			at: 3 * time.Hour, state: stateReconciling, reason: v1alpha1.ReasonTokenExpired,
			advice: []string{"The token expired.", "The operator goes on trying by itself."},
		},
		"suspended, with an expired ticket": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				w.Spec.Suspend = true
				set(w, "Ready", metav1.ConditionFalse, v1alpha1.ReasonTicketExpired, "ticket jsapi: it expired; suspended")
			},
			at: time.Hour, state: stateSuspended, reason: v1alpha1.ReasonTicketExpired, advice: []string{"Nobody replaces the token, and it expires in 1h"},
		},
		"a refresh that nobody makes": {
			mutate: func(w *v1alpha1.WeChatAppToken) {
				set(w, "RefreshFailing", metav1.ConditionTrue, v1alpha1.ReasonUnreachable, "ticket jsapi: "+silent)
			},
			at: 118 * time.Minute, state: stateRefreshFailing, reason: v1alpha1.ReasonUnreachable,
			advice: []string{"The token works, and the jsapi ticket for another 2m00s, but cannot be replaced: Ticket jsapi: no answer", "The operator goes on", "The refresh is overdue"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := withTickets(issued)
			test.mutate(&w)
			s := story{look: lookAt(&w, issued.Add(test.at))}
			if s.state() != test.state || s.reason() != test.reason {
				t.Errorf("%s: %s, want %s: %s", s.state(), s.reason(), test.state, test.reason)
			}
			got := s.advice()
			if !slices.EqualFunc(got, test.advice, strings.HasPrefix) {
				t.Errorf("the advice is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.advice, "\n"))
			}
		})
	}
}

// TestRequestsWithoutTicket checks that a request for the token neither fails nor seems to wait for want of a ticket.
func TestRequestsWithoutTicket(t *testing.T) {
	issued := time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)
	w := withTickets(issued)
	for kind, status := range map[string]metav1.ConditionStatus{"Ready": "False", "Stalled": "True", "RefreshFailing": "True"} {
		set(&w, kind, status, v1alpha1.ReasonUnsupportedAccount, noSuch)
	}
	l := lookAt(&w, issued)
	if got := l.whyNot(refresh.RequestCheck); !strings.HasPrefix(got, "the operator has not carried it out") {
		t.Errorf("a check waits: %s", got)
	}
	p := &pending{kind: refresh.RequestCheck, before: &w}
	if got, err := l.silently(p, l.success(p)); err != nil || !strings.HasPrefix(got, "the token in Secret shop is the right one (aa)") {
		t.Errorf("the outcome of a check is %q: %v", got, err)
	}
	if err := revocable(l); err != nil {
		t.Error(err)
	}
}

// TestScreenTellsOfTickets checks that list -w tells of a new ticket and of one that is missing.
func TestScreenTellsOfTickets(t *testing.T) {
	issued := time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)
	before := withTickets(issued)
	after := *before.DeepCopy()
	after.Status.Tickets[0].Fingerprint = "0000000000000000"
	after.Status.Tickets = append(after.Status.Tickets, v1alpha1.TicketStatus{Type: v1alpha1.TicketWXCard})
	set(&after, "Ready", metav1.ConditionFalse, v1alpha1.ReasonTicketExpired, "ticket wx_card: it expired")
	var got []string
	for _, h := range changes(lookAt(&before, issued), lookAt(&after, issued)) {
		got = append(got, h.text)
	}
	want := []string{"jsapi ticket replaced", "wx_card ticket issued", "Reconciling, was Ready: ticket wx_card: it expired"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// newTicketWorld returns a world without an operator, with the resource shop of withTickets and its Secret. The resource lacks a ticket that
// its account does not have.
func newTicketWorld(t *testing.T, name string) (w *world, issued time.Time) {
	t.Helper()
	w = newBareWorld(t, name)
	w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Tickets = withTickets(time.Time{}).Spec.Tickets })
	issued = w.token("shop").CreationTimestamp.Time
	w.now = func() time.Time { return issued.Add(later) }
	w.createSecret("shop-token", map[string]string{"access_token": "the-token", "jsapi_ticket": jsapiTicket})
	w.report(func(r *v1alpha1.WeChatAppToken) {
		r.Status = withTickets(issued).Status
		r.Status.Token.Mode, r.Status.ObservedGeneration = v1alpha1.ModeStable, r.Generation
		for kind, status := range map[string]metav1.ConditionStatus{"Ready": "False", "Stalled": "True", "RefreshFailing": "True"} {
			set(r, kind, status, v1alpha1.ReasonUnsupportedAccount, noSuch)
		}
	})
	return w, issued
}

// report writes the status of the resource shop, in the place of an operator.
func (w *world) report(mutate func(*v1alpha1.WeChatAppToken)) {
	w.Helper()
	r := w.token("shop")
	base := r.DeepCopy()
	mutate(r)
	w.must(w.Client.Status().Patch(w.Context(), r, client.MergeFrom(base)))
}

func TestTickets(t *testing.T) {
	w, issued := newTicketWorld(t, "tickets")
	w.golden("status-tickets.txt", w.ok("status", "shop"), w.refreshIn("shop", w.now())...)
	w.Expect(w.ok("list")).To(gomega.ContainSubstring("Stalled"))
	w.Expect(w.ok("list", "-o", "wide")).To(gomega.ContainSubstring("   jsapi 1h47m30s, wx_card -   "))
	w.wants(w.wxtoken("wait", "shop"), exitBad, "shop: UnsupportedAccount: "+noSuch)
	// The exit code of doctor is not checked, because it depends on the Deployments of other tests.
	w.wants(result{out: w.wxtoken("doctor").out}, exitOK, "✗ "+w.namespace+"/shop: the token is valid, but a ticket is not: UnsupportedAccount")
	w.wants(w.answer("n\n", "revoke", "shop"), exitUsage, "tickets        jsapi, wx_card: fetched anew, but one that leaked works until it expires")

	w.report(func(r *v1alpha1.WeChatAppToken) {
		r.Status.Conditions = nil
		set(r, "Ready", metav1.ConditionFalse, v1alpha1.ReasonTicketExpired, "ticket jsapi: WeChat has not returned it for too long")
	})
	w.wants(w.wxtoken("wait", "shop", "--timeout=1s"), exitTimeout, "no valid jsapi ticket within 1s: ticket jsapi: WeChat has not returned it")

	w.report(func(r *v1alpha1.WeChatAppToken) {
		set(r, "Ready", metav1.ConditionTrue, v1alpha1.ReasonTokenValid, "all is well")
		set(r, "RefreshFailing", metav1.ConditionTrue, v1alpha1.ReasonRateLimited, "ticket jsapi: too many calls")
	})
	w.wants(w.wxtoken("wait", "shop"), exitOK, "a token that is valid for 1h47m30s, and valid tickets: jsapi, wx_card")
	w.wants(result{out: w.wxtoken("doctor").out}, exitOK, "! "+w.namespace+"/shop: the token is valid, but RateLimited: ticket jsapi")
	at := issued.Add(2*time.Hour + 10*time.Second)
	w.now = func() time.Time { return at }
	w.wants(w.wxtoken("status", "shop"), exitOK, "key jsapi_ticket   expired 10s ago", "cannot be fetched: RateLimited", "the jsapi ticket expired")
	w.Expect(w.ok("list", "-o", "wide")).To(gomega.ContainSubstring("   jsapi expired, wx_card -   "))
}

func TestRevealTicket(t *testing.T) {
	w, issued := newTicketWorld(t, "reveal-ticket")
	r := w.wxtoken("reveal", "shop", "--ticket=jsapi")
	w.wants(r, exitUsage, "the jsapi ticket of shop was not printed", "add --yes")
	if strings.Contains(r.out+r.err, jsapiTicket) {
		t.Error("the ticket was printed without --yes")
	}
	if r := w.wxtoken("reveal", "shop", "--ticket", "jsapi", "--yes"); r.code != exitOK || r.out != jsapiTicket+"\n" || r.err != "" {
		t.Errorf("exit code %d, standard error %q", r.code, r.err)
	}
	w.wants(w.wxtoken("reveal", "shop", "--ticket=wx_card", "--yes"), exitFailed, `there is no wx_card ticket: Secret "shop-token" has no key "card"`)
	w.wants(w.wxtoken("reveal", "shop", "--ticket=sdk", "--yes"), exitFailed, "shop asks for no sdk ticket")
	w.wants(w.wxtoken("reveal", "shop", "--ticket=JSAPI", "--yes"), exitUsage, `there is no type "JSAPI"`)

	at := issued.Add(3 * time.Hour)
	w.now = func() time.Time { return at }
	w.wants(w.wxtoken("reveal", "shop", "--ticket=jsapi", "--yes"), exitOK, "warning: this jsapi ticket expired 60m ago")
	secret := []byte(`{"stringData":{"jsapi_ticket":"planted"}}`)
	target := w.token("shop").TargetName()
	w.must(w.patchSecret(target, secret))
	w.wants(w.wxtoken("reveal", "shop", "--ticket=jsapi", "--yes"), exitOK, "warning: this is not the jsapi ticket that the operator wrote")
	w.must(w.patchSecret(target, []byte(`{"stringData":{"jsapi_ticket":"a\u001b[2Jb"}}`)))
	w.wants(w.wxtoken("reveal", "shop", "--ticket=jsapi", "--yes"), exitFailed, "characters that no jsapi ticket has")
}

func (w *world) patchSecret(name string, patch []byte) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
	return w.Patch(w.Context(), secret, client.RawPatch(types.MergePatchType, patch))
}
