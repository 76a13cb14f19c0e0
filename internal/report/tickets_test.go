// SPDX-License-Identifier: Apache-2.0

package report

import (
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const jsapi = v1alpha1.TicketJSAPI

// withTicket lets a resource with a valid token ask for a jsapi ticket.
func withTicket(edits ...func(*Observation, *refresh.Ticket)) Observation {
	o := observation()
	holding(&o)
	t := refresh.Ticket{Type: jsapi, Fingerprint: "f", FirstAt: o.Now.Add(-time.Minute), ExpiresAt: o.Now.Add(119 * time.Minute)}
	for _, e := range edits {
		e(&o, &t)
	}
	o.Tickets = []refresh.Ticket{t}
	return o
}

func absent(_ *Observation, t *refresh.Ticket) {
	t.Fingerprint, t.FirstAt, t.ExpiresAt = "", time.Time{}, time.Time{}
}

func ticketFails(class token.Class, reason token.Reason, since time.Duration) func(*Observation, *refresh.Ticket) {
	return func(o *Observation, t *refresh.Ticket) {
		t.Failure, t.Message = &refresh.Failure{Class: class, Reason: reason, First: o.Now.Add(-since)}, "what to do"
	}
}

// toldBefore is a status that tells of a problem of the ticket, which this process has not found out about.
func toldBefore(o *Observation, t *refresh.Ticket) {
	absent(o, t)
	t.Told = true
	o.Resource.Status.Conditions = []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonUnsupportedAccount, Message: "ticket jsapi: no tickets"},
		{Type: v1alpha1.ConditionRefreshFailing, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonUnsupportedAccount, Message: "ticket jsapi: no tickets"},
		{Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonUnsupportedAccount, Message: "ticket jsapi: no tickets"},
	}
}

// Ready is about all that the spec asks for, and each message about a ticket names its type.
func TestTicketConditions(t *testing.T) {
	const reconciling, stalled = v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled
	expired := func(o *Observation, t *refresh.Ticket) { t.ExpiresAt = o.Now }
	old := func(o *Observation, t *refresh.Ticket) { t.FirstAt = o.Now.Add(-3 * time.Hour) }
	suspend := func(o *Observation, _ *refresh.Ticket) { o.Suspended = true }
	conflict := func(o *Observation, _ *refresh.Ticket) {
		o.Ownership.Claim, o.Target.Conflict, o.Ownership.Message = target.Conflict, true, "somebody else's"
	}
	contestedSecret := func(o *Observation, _ *refresh.Ticket) { o.Target.Contested = true }
	tokenFails := func(o *Observation, _ *refresh.Ticket) {
		o.Failure = &refresh.Failure{Class: token.Action, Reason: v1alpha1.ReasonIPNotAllowed, Binds: true}
		o.Failed = &Failure{Failure: *o.Failure, Message: "the token's failure"}
	}
	lacksCredentials := func(problem string, malformed bool) func(*Observation, *refresh.Ticket) {
		return func(o *Observation, _ *refresh.Ticket) {
			o.CredentialsSecret.Problem, o.CredentialsSecret.Message = problem, "what to do"
			o.Credentials.Missing, o.Credentials.Malformed = true, malformed
		}
	}
	legacy := func(o *Observation, _ *refresh.Ticket) { o.Traits.EndsOlder = true }
	labelsFail := func(o *Observation, _ *refresh.Ticket) {
		o.MetadataFailure = &refresh.Failure{Class: token.Action, Reason: v1alpha1.ReasonTargetWriteFailed, Binds: true}
		o.Metadata.Failed = &Failure{Failure: *o.MetadataFailure, Message: "labels are refused"}
	}
	type edits []func(*Observation, *refresh.Ticket)
	for name, test := range map[string]struct {
		edits    edits
		reason   string
		says     string
		progress string
		failing  string
	}{
		"valid":                         {nil, v1alpha1.ReasonTokenValid, ", and a jsapi ticket that is valid until ", "", ""},
		"returned beyond its life":      {edits{old}, v1alpha1.ReasonTokenValid, "(WeChat has returned the same one since ", "", ""},
		"not there yet":                 {edits{absent}, v1alpha1.ReasonTicketNotIssued, "ticket jsapi: ", reconciling, ""},
		"expired":                       {edits{expired}, v1alpha1.ReasonTicketExpired, "ticket jsapi: ", reconciling, ""},
		"an outage of a second":         {edits{absent, ticketFails(token.Transient, v1alpha1.ReasonUnreachable, time.Second)}, v1alpha1.ReasonTicketNotIssued, "ticket jsapi: ", reconciling, ""},
		"an outage of a minute":         {edits{absent, ticketFails(token.Transient, v1alpha1.ReasonUnreachable, time.Minute)}, v1alpha1.ReasonUnreachable, "ticket jsapi: what to do; the token is valid until ", reconciling, "Unreachable: ticket jsapi: what to do"},
		"the token was refused":         {edits{absent, ticketFails(token.Transient, token.ReasonTokenRejected, time.Minute)}, v1alpha1.ReasonTicketNotIssued, "ticket jsapi: what to do", reconciling, "TicketNotIssued: ticket jsapi: what to do"},
		"no tickets":                    {edits{absent, ticketFails(token.Action, v1alpha1.ReasonUnsupportedAccount, 0)}, v1alpha1.ReasonUnsupportedAccount, "ticket jsapi: what to do", stalled, "UnsupportedAccount: ticket jsapi: what to do"},
		"valid, but not renewed":        {edits{ticketFails(token.Limited, v1alpha1.ReasonDailyQuotaExhausted, 0)}, v1alpha1.ReasonTokenValid, "a jsapi ticket that is valid until", "", "DailyQuotaExhausted: ticket jsapi: what to do"},
		"the token fails too":           {edits{absent, ticketFails(token.Action, v1alpha1.ReasonUnsupportedAccount, 0), tokenFails}, v1alpha1.ReasonUnsupportedAccount, "ticket jsapi: ", stalled, "IPNotAllowed: the token's failure"},
		"the token alone fails":         {edits{expired, tokenFails}, v1alpha1.ReasonIPNotAllowed, "ticket jsapi: it is asked for after the token: the token's failure; the token is valid", stalled, "IPNotAllowed: the token's failure"},
		"the token alone fails, Legacy": {edits{expired, tokenFails, legacy}, v1alpha1.ReasonTicketExpired, "ticket jsapi: ", reconciling, "IPNotAllowed: the token's failure"},
		"labels are refused alone":      {edits{expired, labelsFail}, v1alpha1.ReasonTicketExpired, "ticket jsapi: ", reconciling, "TargetWriteFailed: labels are refused"},
		"no credentials":                {edits{absent, lacksCredentials(v1alpha1.ReasonCredentialsNotFound, false), legacy}, v1alpha1.ReasonCredentialsNotFound, "ticket jsapi: it is asked for after the token: what to do", reconciling, "CredentialsNotFound: what to do"},
		"credentials that are none":     {edits{absent, lacksCredentials(v1alpha1.ReasonCredentialsMalformed, true)}, v1alpha1.ReasonCredentialsMalformed, "ticket jsapi: it is asked for after the token: what to do", stalled, "CredentialsMalformed: what to do"},
		"suspended":                     {edits{expired, suspend}, v1alpha1.ReasonTicketExpired, "; suspended: ", "", ""},
		"the Secret is somebody else's": {edits{absent, conflict}, v1alpha1.ReasonTargetConflict, "somebody else's", stalled, ""},
		"told before, fails since":      {edits{toldBefore, ticketFails(token.Transient, v1alpha1.ReasonUnreachable, time.Second)}, v1alpha1.ReasonUnsupportedAccount, "ticket jsapi: no tickets", stalled, "UnsupportedAccount: ticket jsapi: no tickets"},
		"told before, fails for long":   {edits{toldBefore, ticketFails(token.Transient, v1alpha1.ReasonUnreachable, time.Minute)}, v1alpha1.ReasonUnreachable, "ticket jsapi: what to do", reconciling, "Unreachable: ticket jsapi: what to do"},
		"somebody keeps removing it":    {edits{absent, contestedSecret}, v1alpha1.ReasonTargetContested, "ticket jsapi: somebody or an admission policy keeps changing Secret", reconciling, ""},
		"told before a restart":         {edits{toldBefore}, v1alpha1.ReasonUnsupportedAccount, "ticket jsapi: no tickets", stalled, "UnsupportedAccount: ticket jsapi: no tickets"},
	} {
		s := decided(withTicket(test.edits...))
		ready := condition(s, v1alpha1.ConditionReady)
		if (ready.Status == metav1.ConditionTrue) != (test.reason == v1alpha1.ReasonTokenValid) || ready.Reason != test.reason || !strings.Contains(ready.Message, test.says) {
			t.Errorf("%s: Ready %s, %s: %q", name, ready.Status, ready.Reason, ready.Message)
		}
		for _, kind := range [...]string{reconciling, stalled} {
			if got := condition(s, kind).Status == metav1.ConditionTrue; got != (kind == test.progress) {
				t.Errorf("%s: %s is %t", name, kind, got)
			}
		}
		failing := condition(s, v1alpha1.ConditionRefreshFailing)
		if got := failing.Reason + ": " + failing.Message; got != test.failing && (failing.Type != "" || test.failing != "") {
			t.Errorf("%s: RefreshFailing %s", name, got)
		}
	}
}

func TestTicketStatus(t *testing.T) {
	o := withTicket()
	held := o.Tickets[0]
	o.Tickets = append(o.Tickets, refresh.Ticket{Type: "sdk"})
	want := []v1alpha1.TicketStatus{{
		Type: jsapi, Fingerprint: "f", IssueTime: wholeSeconds(held.FirstAt), ExpirationTime: wholeSeconds(held.ExpiresAt),
	}}
	if got := decided(o).Tickets; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A ticket that ends while the API server cannot be read ends Ready.
func TestTicketUnread(t *testing.T) {
	o := withTicket()
	o.Resource.Status = decided(o)
	at := o.Tickets[0].ExpiresAt
	o.Resource.Status.Token.ExpirationTime = wholeSeconds(at.Add(time.Hour))
	for _, test := range []struct {
		now  time.Time
		want metav1.ConditionStatus
	}{{at.Add(-time.Second), metav1.ConditionTrue}, {at, metav1.ConditionFalse}} {
		ready := condition(Unread(o.Resource, test.now, test.now, "no answer"), v1alpha1.ConditionReady)
		if ready.Status != test.want || (test.want == metav1.ConditionFalse) != (ready.Reason == v1alpha1.ReasonTicketExpired) {
			t.Errorf("at %s: %+v", test.now, ready)
		}
	}
}

// Pods are told of a changed ticket as they are of a changed token; without tickets the fingerprint is the token's.
func TestDeliveredFingerprint(t *testing.T) {
	o := withTicket()
	all := o.DeliveredFingerprint()
	other := withTicket(func(_ *Observation, t *refresh.Ticket) { t.Fingerprint = "g" }).DeliveredFingerprint()
	none := withTicket(absent)
	if all == other || all == o.Stored.Fingerprint || len(all) != 16 || none.DeliveredFingerprint() != none.Stored.Fingerprint {
		t.Errorf("%q, with another ticket %q, without %q of %q", all, other, none.DeliveredFingerprint(), none.Stored.Fingerprint)
	}
	if o.Stored.Fingerprint = ""; o.DeliveredFingerprint() != "" {
		t.Error("without a token there is nothing to tell")
	}
}

func TestTicketsAfterWrite(t *testing.T) {
	o := withTicket()
	o.Resource.Spec.Tickets = []v1alpha1.TicketSpec{{Type: jsapi}, {Type: "sdk", Key: "s"}, {Type: "wx_card"}}
	o.Tickets = append(o.Tickets, refresh.Ticket{Type: "sdk"}, refresh.Ticket{Type: "wx_card"})
	pending := []PendingTicket{{Ticket: target.Ticket{Type: "sdk", Fingerprint: "new"}, Value: token.NewValue("v")}}
	held := o.TicketsAfterWrite(pending)
	want := []target.Ticket{
		{Type: jsapi, Key: "jsapi_ticket", Fingerprint: "f", FirstAt: o.Tickets[0].FirstAt, ExpiresAt: o.Tickets[0].ExpiresAt},
		{Type: "sdk", Key: "s", Fingerprint: "new"},
	}
	if !reflect.DeepEqual(held, want) {
		t.Errorf("%+v", held)
	}
	content := o.Content(nil, pending...)
	if len(content.Tickets) != 1 || content.Tickets[0].Key != "s" || content.Tickets[0].ExpiresAtKey != "s_expires_at" || !content.Token.IsZero() {
		t.Errorf("content %+v", content)
	}
}
