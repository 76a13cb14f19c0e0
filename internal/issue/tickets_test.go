// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const jsapi = v1alpha1.TicketJSAPI

// wantsTicket lets the step fetch a jsapi ticket that the Secret does not hold.
func wantsTicket(s *Step) {
	s.Decision.Tickets = []v1alpha1.TicketType{jsapi}
	s.Tickets = []refresh.Ticket{{Type: jsapi}}
}

func (s *stage) ticketCalls() int {
	return s.server.Count(wechattest.Filter{Endpoint: wechattest.EndpointTicket})
}

// A ticket comes with the token. One that the Secret holds already is no news, and one that failed before does not hold up a new token.
func TestTicketsOfAToken(t *testing.T) {
	s := newStage(t, interceptor.Funcs{})
	r, other := resourceAt("shop", "shop", v1alpha1.ModeStable), resourceAt("other", "other", v1alpha1.ModeStable)
	step := stepOf(r, wantsTicket, func(s *Step) { s.Account.Update(member(other, 0)) })
	e, err := s.For(v1alpha1.ModeStable).Issue(t.Context(), step)
	issued := s.server.Tickets(appID, jsapi)
	if err != nil || e.Issued == nil || len(e.Tickets.Fetched) != 1 || len(issued) != 1 {
		t.Fatalf("%v, %+v, %d tickets", err, e, len(issued))
	}
	got := e.Tickets.Fetched[0]
	if got.Value.Reveal() != issued[0].Ticket || got.Type != jsapi || got.AppID != appID || !got.FirstAt.Equal(now.Truncate(time.Second)) ||
		!got.ExpiresAt.Equal(after(token.TicketLife).Truncate(time.Second)) || e.Tickets.Failed {
		t.Errorf("fetched %+v", got)
	}
	if !slices.Equal(s.woken, []string{"other/other", "other/other"}) { // for the token and for the ticket
		t.Errorf("%v are woken", s.woken)
	}

	held := refresh.Ticket{Type: jsapi, Fingerprint: got.Fingerprint, FirstAt: got.FirstAt, ExpiresAt: got.ExpiresAt}
	tokenHeld := target.Token{Fingerprint: e.Issued.Value.Fingerprint(), IssuedAt: e.Issued.IssuedAt, ExpiresAt: e.Issued.ExpiresAt}
	for name, test := range map[string]struct {
		edit           func(*Step)
		fetched, calls int
	}{
		"the Secret holds it, and WeChat returned it a moment ago": {func(*Step) {}, 0, 0},
		"its expiry was extended for another member":               {func(s *Step) { s.Tickets[0].ExpiresAt = after(time.Hour) }, 1, 0},
		"doubted":                  {func(s *Step) { s.Account.Tickets.Doubt() }, 0, 1},
		"the Secret lost it":       {func(s *Step) { s.Tickets[0] = refresh.Ticket{Type: jsapi} }, 1, 1},
		"the Secret holds another": {func(s *Step) { s.Tickets[0].Fingerprint = "f" }, 1, 1},
		"it failed before, and no token waits for it": {func(s *Step) {
			s.Tickets[0] = refresh.Ticket{Type: jsapi, Failure: &refresh.Failure{}}
		}, 1, 1},
		"it failed before, and a token waits": {func(s *Step) {
			s.Tickets[0], s.Stored = refresh.Ticket{Type: jsapi, Failure: &refresh.Failure{}}, target.Token{}
		}, 0, 0},
	} {
		again := step
		again.Tickets, again.Stored = []refresh.Ticket{held}, tokenHeld
		test.edit(&again)
		calls := s.ticketCalls()
		e, err := s.For(v1alpha1.ModeStable).Tickets(t.Context(), again)
		if err != nil || len(e.Tickets.Fetched) != test.fetched || s.ticketCalls()-calls != test.calls {
			t.Errorf("%s: %v, %+v, %d calls", name, err, e.Tickets, s.ticketCalls()-calls)
		}
		if name == "its expiry was extended for another member" && !e.Tickets.Fetched[0].Value.IsZero() {
			t.Errorf("%s: a value although no call was made", name)
		}
	}
}

// What WeChat refuses is the account's, and the token comes all the same.
func TestTicketRefused(t *testing.T) {
	for name, test := range map[string]struct {
		fault   wechattest.Fault
		class   token.Class
		reason  token.Reason
		doubted bool
	}{
		"no such tickets":       {wechattest.Fault{Errcode: 48001}, token.Action, v1alpha1.ReasonUnsupportedAccount, false},
		"another refusal":       {wechattest.Fault{Errcode: 61007}, token.Action, v1alpha1.ReasonUnsupportedAccount, false},
		"a wrong type":          {wechattest.Fault{Errcode: 40097}, token.Transient, v1alpha1.ReasonRequestRejected, false},
		"no code that is known": {wechattest.Fault{Errcode: 99999}, token.Transient, v1alpha1.ReasonRequestRejected, false},
		"its address":           {wechattest.Fault{Errcode: 40164}, token.Action, v1alpha1.ReasonIPNotAllowed, false},
		"quota":                 {wechattest.Fault{Errcode: 45009}, token.Limited, v1alpha1.ReasonDailyQuotaExhausted, false},
		"busy":                  {wechattest.Fault{Errcode: -1}, token.Transient, v1alpha1.ReasonSystemBusy, false},
		"no answer":             {wechattest.Fault{Cut: wechattest.CutBefore}, token.Transient, v1alpha1.ReasonUnreachable, false},
		"the token was refused": {wechattest.Fault{Errcode: 40001}, token.Transient, token.ReasonTokenRejected, true},
	} {
		s := newStage(t, interceptor.Funcs{})
		test.fault.Endpoint = wechattest.EndpointTicket
		s.server.Inject(test.fault)
		step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeStable), wantsTicket)
		e, err := s.For(v1alpha1.ModeStable).Issue(t.Context(), step)
		if err != nil || e.Issued == nil || e.Failed != nil || !e.Accepted || !e.Tickets.Failed || len(e.Tickets.Fetched) > 0 {
			t.Errorf("%s: %v, %+v", name, err, e)
		}
		f := step.Account.Tickets.Get(jsapi).FailureFor("shop", 1, time.Now())
		if f == nil || f.Class != test.class || f.Reason != test.reason || f.UID != "shop" || f.Generation != 1 || f.Message == "" {
			t.Errorf("%s: %+v", name, f)
		}
		if got := step.Account.Confirmed().Doubted; got != test.doubted {
			t.Errorf("%s: the token is doubted: %t", name, got)
		}
	}
}

// A new token does not wait for a ticket that does not come.
func TestTicketHangsBesideAToken(t *testing.T) {
	s := newStage(t, interceptor.Funcs{})
	s.server.Inject(wechattest.Fault{Endpoint: wechattest.EndpointTicket, Hang: true})
	start := time.Now()
	e, err := s.For(v1alpha1.ModeStable).Issue(t.Context(), stepOf(resourceAt("shop", "shop", v1alpha1.ModeStable), wantsTicket))
	if took := time.Since(start); err != nil || e.Issued == nil || !e.Tickets.Failed || took > 2*ticketsTake {
		t.Errorf("%v, %+v, after %s", err, e, took)
	}
}

// Members that wait for one answer count one failure, or an outage would look like many attempts in a row.
func TestMergedTicketFailsOnce(t *testing.T) {
	s := newStage(t, interceptor.Funcs{})
	s.server.Inject(wechattest.Fault{Endpoint: wechattest.EndpointTicket, Delay: 500 * time.Millisecond, Errcode: 48001})
	step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeStable), wantsTicket)
	var members sync.WaitGroup
	for range 5 {
		members.Go(func() {
			if e, err := s.For(v1alpha1.ModeStable).Issue(t.Context(), step); err != nil || !e.Tickets.Failed {
				t.Errorf("%v, %+v", err, e.Tickets)
			}
		})
	}
	members.Wait()
	if f := step.Account.Tickets.Get(jsapi).FailureFor("shop", 1, time.Now()); f == nil || f.Attempts != 1 || s.ticketCalls() != 1 {
		t.Errorf("%+v after %d calls", f, s.ticketCalls())
	}
}

// In Legacy mode the ticket is fetched with the token that the Secret holds, and never between a mint and its write.
func TestLegacyTickets(t *testing.T) {
	r := resourceAt("shop", "shop", v1alpha1.ModeLegacy)
	minting := newStage(t, interceptor.Funcs{})
	e, err := minting.For(v1alpha1.ModeLegacy).Issue(t.Context(), stepOf(r, wantsTicket))
	if err != nil || e.Issued == nil || len(e.Tickets.Fetched) > 0 || minting.ticketCalls() > 0 {
		t.Fatalf("a mint: %v, %+v", err, e.Tickets)
	}
	value := e.Issued.Value.Reveal()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", ResourceVersion: "5"}, Data: map[string][]byte{"access_token": []byte(value)},
	}
	s := newStage(t, interceptor.Funcs{}, secret)
	s.server.Close()
	s.server, s.WeChat = minting.server, minting.WeChat
	for name, test := range map[string]struct {
		edit    func(*Step)
		fetched int
		look    bool
	}{
		"as observed":    {func(*Step) {}, 1, false},
		"another Secret": {func(s *Step) { s.Secret.ResourceVersion = "4" }, 0, true},
		"another token":  {func(s *Step) { s.Stored.Fingerprint = "f" }, 0, true},
		"no Secret":      {func(s *Step) { s.Resource.Spec.Target.Name = "gone" }, 0, true},
	} {
		step := stepOf(r.DeepCopy(), wantsTicket, func(s *Step) {
			s.Secret = &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", ResourceVersion: "5"}}
			s.Stored = target.Token{Fingerprint: e.Issued.Value.Fingerprint()}
		}, test.edit)
		got, err := s.For(v1alpha1.ModeLegacy).Tickets(t.Context(), step)
		if err != nil || len(got.Tickets.Fetched) != test.fetched || (got.Target == report.KnownTarget{LookAgain: true}) != test.look {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
	}
}

// A refusal of the token in a call for a ticket is looked into. If WeChat does not say whether the token is dead, that is no failure of a
// token that WeChat issued: its back-off would hold up the next mint.
func TestTicketDoubtsALegacyToken(t *testing.T) {
	value := token.NewValue("legacy-token")
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", ResourceVersion: "5"}, Data: map[string][]byte{"access_token": []byte(value.Reveal())},
	}
	for _, unattested := range []bool{false, true} {
		s := newStage(t, interceptor.Funcs{}, secret.DeepCopy())
		s.server.Inject(wechattest.Fault{Endpoint: wechattest.EndpointProbe, Errcode: 45009})
		step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeLegacy), func(s *Step) {
			s.Secret = &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", ResourceVersion: "5"}}
			s.Stored = target.Token{Fingerprint: value.Fingerprint(), IssuedAt: now, ExpiresAt: after(time.Hour), Unattested: unattested}
			s.Account.Doubt()
			s.Token.Doubtful = true
			s.Decision = refresh.Decision{Action: refresh.Check, Reason: refresh.CheckDue}
		})
		e, err := s.For(v1alpha1.ModeLegacy).Check(t.Context(), step)
		if err != nil || (e.Failed != nil) != unattested || step.Account.Confirmed().Doubted != unattested {
			t.Errorf("unattested %t: %v, failed %+v, %+v", unattested, err, e.Failed, step.Account.Confirmed())
		}
	}
}

// A token that was replaced on request may have taken its tickets with it.
func TestForcedTokensDoubtTickets(t *testing.T) {
	for _, mode := range v1alpha1.Modes() {
		s := newStage(t, interceptor.Funcs{})
		step := stepOf(resourceAt("shop", "shop", mode), func(s *Step) {
			s.Decision = refresh.Decision{Action: refresh.Force, Reason: refresh.RequestExecutable, Request: refresh.RequestRefresh}
			s.Account.Tickets.Saw(jsapi, token.Ticket{Value: token.NewValue("a"), ReturnedAt: now, ExpiresIn: token.TicketLife}, now)
		})
		e, err := s.For(mode).Refresh(t.Context(), step)
		if err != nil || e.Issued == nil || !step.Account.Tickets.Get(jsapi).Sight.Doubted {
			t.Errorf("%s: %v, %+v", mode, err, step.Account.Tickets.Get(jsapi))
		}
	}
	var none account.Tickets
	if none.Doubt(); none.Get(jsapi).Sight.Doubted {
		t.Error("a ticket is doubted that nobody asks for")
	}
}
