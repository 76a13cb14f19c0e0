// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// valid fails the test unless the target holds a token and a ticket that WeChat accepts, at each half minute of a span.
func (s *simulation) valid(span time.Duration, what string) {
	s.Helper()
	for passed := time.Duration(0); passed < span; passed += 30 * time.Second {
		s.run(30 * time.Second)
		data := s.target()
		if !s.wechat.Valid(string(data["access_token"])) || !s.wechat.TicketValid(string(data["jsapi_ticket"])) {
			s.Fatalf("%s: after %s the target holds a token or a ticket that WeChat refuses: %+v", what, passed, s.resource().Status)
		}
	}
}

// restart starts another process.
func (s *simulation) restart() {
	s.reconciler = New(Options{Client: s, Live: s, WeChat: s.reconciler.WeChat, Events: s.events, MaxConcurrentReconciles: 1})
	s.wake("shop")
}

// A label that a policy of the cluster refuses is told, and costs no token: it is checked, replaced when it is due, and followed when
// somebody else replaces it. So are tickets.
func TestRefusedLabelCostsNoToken(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		for _, name := range []string{"forbidden", "server error"} {
			s := newSimulation(t, mode)
			s.edit(func(r *v1alpha1.WeChatAppToken) { r.Spec.Tickets = []v1alpha1.TicketSpec{{Type: v1alpha1.TicketJSAPI}} })
			s.run(10 * time.Minute)
			s.refusal = refusals()[name]
			s.refuses = func(patch string) bool { return strings.Contains(patch, `"team"`) }
			label := func(labels map[string]v1alpha1.LabelValue) {
				s.edit(func(r *v1alpha1.WeChatAppToken) { r.Spec.Target.Labels = labels })
			}
			writes := s.writes
			label(map[string]v1alpha1.LabelValue{"team": "shop"})
			what := string(mode) + ", " + name
			s.valid(3*time.Minute, what)
			if e := s.resource().Status.LastError; e == nil || e.Reason != v1alpha1.ReasonTargetWriteFailed {
				t.Errorf("%s: the status tells %+v", what, e)
			}
			if mode == v1alpha1.ModeStable {
				s.wechat.RivalForceRefresh(unitAppID)
				s.valid(7*time.Minute, what+", after somebody else's refresh")
			}
			s.valid(4*time.Hour, what+", over two rotations")
			s.wechat.Inject(wechattest.Fault{Errcode: -1, Times: 1})
			s.valid(4*time.Hour, what+", after a failed call")
			s.restart()
			s.valid(5*time.Minute, what+", after a restart")
			if mode == v1alpha1.ModeStable {
				s.wechat.RivalForceRefresh(unitAppID)
				s.valid(7*time.Minute, what+", after somebody else's refresh after a restart")
			}
			if failing := apimeta.FindStatusCondition(s.resource().Status.Conditions, v1alpha1.ConditionRefreshFailing); !s.isReady() || failing == nil {
				t.Errorf("%s: the status says %+v", what, s.resource().Status)
			}
			if n := s.writes - writes; name == "forbidden" && n > 60 {
				t.Errorf("%s: %d writes in eight hours", what, n)
			}
			label(nil)
			s.run(3 * time.Minute)
			if e := s.resource().Status.LastError; e != nil {
				t.Errorf("%s: without the label the status tells %+v", what, e)
			}
		}
	}
}

// A token that WeChat has replaced ends within five minutes, whatever its expiry was: while the next one cannot be written, Ready does
// not call it valid for longer, and the write is tried each ten seconds.
func TestTokenThatWasReplacedAndCannotBeWritten(t *testing.T) {
	for _, held := range []time.Duration{3 * time.Minute, 8 * time.Minute} {
		s := newSimulation(t, v1alpha1.ModeStable)
		s.run(20 * time.Minute)
		s.wechat.RivalForceRefresh(unitAppID)
		s.refusal = refusals()["forbidden"]
		s.run(held)
		token := string(s.target()["access_token"])
		if ready := apimeta.IsStatusConditionTrue(s.resource().Status.Conditions, v1alpha1.ConditionReady); ready != s.wechat.Valid(token) {
			t.Errorf("after %s Ready is %t, and that WeChat accepts the token %t", held, ready, s.wechat.Valid(token))
		}
		s.refusal = nil
		if held > previousLives {
			s.run(10 * time.Minute)
		} else {
			s.run(15 * time.Second)
		}
		if !s.isReady() {
			t.Errorf("after %s and the end of the refusal: %+v", held, s.resource().Status)
		}
	}
}

// WeChat refuses for a few minutes around the rotation. The attempts of the handover window are no reason to wait for an hour after it.
func TestShortRefusalAroundTheRotation(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeStable)
	s.run(10 * time.Minute)
	expiry := s.resource().Status.Token.ExpirationTime.Time
	s.run(expiry.Sub(s.now()) - 6*time.Minute)
	s.wechat.Inject(wechattest.Fault{Errcode: 40243})
	s.run(6*time.Minute + 20*time.Second)
	if s.isReady() {
		t.Fatal("WeChat did not refuse")
	}
	s.wechat.ClearFaults()
	if s.run(12 * time.Minute); !s.isReady() {
		t.Errorf("twelve minutes after WeChat's refusal: %+v", s.resource().Status)
	}
}

// Two Stable resources of one account meet an outage. What WeChat answers to one of them when it is over ends the failure of the other
// one too, whose own next call may be as far away as its rotation.
func TestFailureEndsWithTheAccount(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeStable)
	for _, name := range []string{"other", "third"} {
		if err := s.Create(s.Context(), resourceNamed(name, v1alpha1.ModeStable)); err != nil {
			t.Fatal(err)
		}
		s.wake(name)
	}
	s.run(10 * time.Minute)
	s.wechat.Inject(wechattest.Fault{Errcode: 40164})
	s.run(8 * time.Minute)
	lastError := func(name string) *v1alpha1.RefreshError {
		r := &v1alpha1.WeChatAppToken{}
		if err := s.Get(s.Context(), named(name), r); err != nil {
			t.Fatal(err)
		}
		return r.Status.LastError
	}
	names := []string{"shop", "other", "third"}
	for _, name := range names {
		if lastError(name) == nil {
			t.Fatalf("%s has no failure", name)
		}
	}
	s.wechat.ClearFaults()
	s.run(12 * time.Minute) // one retry of each
	for _, name := range names {
		if e := lastError(name); e != nil {
			t.Errorf("%s still tells %+v", name, e)
		}
	}
}

// The AppSecret of a healthy resource cannot be read any more. Only its checks need it, and the status tells after a minute.
func TestCredentialsThatCannotBeReadForAStep(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeStable)
	s.run(10 * time.Minute)
	s.reconciler = New(Options{
		Client: s, Live: unreadable{s}, WeChat: s.reconciler.WeChat, Events: s.events, MaxConcurrentReconciles: 1,
	})
	s.wake("shop")
	s.run(5 * time.Minute)
	failing := apimeta.FindStatusCondition(s.resource().Status.Conditions, v1alpha1.ConditionRefreshFailing)
	if failing == nil || failing.Reason != v1alpha1.ReasonKubernetesAPIError || !s.isReady() {
		t.Errorf("the status says %+v", s.resource().Status.Conditions)
	}
}

// unreadable is a client that may not read credentials.
type unreadable struct{ client.Reader }

func (u unreadable) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if key.Name == "credentials" {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, key.Name, errors.New("the role was cut"))
	}
	return u.Reader.Get(ctx, key, o, opts...) //nolint:wrapcheck // a client
}

// WeChat named a wait for an account. After a restart that still binds the account alone, and no other one.
func TestNamedWaitBindsOneAccount(t *testing.T) {
	const other = "wxfedcba9876543210"
	for name, before := range map[string]time.Duration{"without a token": 0, "with a token": 10 * time.Minute} {
		s := newSimulation(t, v1alpha1.ModeStable)
		s.wechat.SetApp(wechattest.App{ID: other, Secret: unitAppSecret})
		if before > 0 {
			s.run(before)
		}
		s.wechat.Inject(wechattest.Fault{AppID: unitAppID, Errcode: 89506})
		s.run(3 * time.Minute)
		if e := s.resource().Status.LastError; e == nil || e.Reason != v1alpha1.ReasonIPBlocked {
			t.Fatalf("%s: the status tells %+v", name, e)
		}
		calls := s.calls()
		s.restart()
		if s.run(time.Minute); s.calls() != calls {
			t.Errorf("%s: %d calls in the wait", name, s.calls()-calls)
		}
		s.edit(func(r *v1alpha1.WeChatAppToken) { r.Spec.AppID, r.Generation = other, r.Generation+1 })
		if s.run(time.Minute); !s.isReady() {
			t.Errorf("%s, with another appid: %+v", name, s.resource().Status)
		}
	}
}

// A write of a label whose answer was lost has been made all the same: there is nothing left to tell.
func TestLabelThatIsThereAfterAll(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeStable)
	s.run(10 * time.Minute)
	s.refusal = refusals()["no answer"]
	s.edit(func(r *v1alpha1.WeChatAppToken) {
		r.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
	})
	if s.run(3 * time.Minute); s.resource().Status.LastError == nil {
		t.Fatal("nothing failed")
	}
	secret := &corev1.Secret{}
	if err := s.Get(s.Context(), named("shop"), secret); err != nil {
		t.Fatal(err)
	}
	secret.Labels["team"], secret.Annotations[v1alpha1.AnnotationAppliedMetadata] = "shop", `{"labels":["team"]}`
	if err := s.Update(s.Context(), secret); err != nil {
		t.Fatal(err)
	}
	s.wake("shop")
	if s.run(time.Minute); s.resource().Status.LastError != nil {
		t.Errorf("the status tells %+v", s.resource().Status.LastError)
	}
}

// All writes are refused, labels and marks of mints alike, until long after the token has expired. Each follows its own back-off.
func TestLabelAndEverythingRefused(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		s := newSimulation(t, mode)
		s.run(10 * time.Minute)
		expiry := s.resource().Status.Token.ExpirationTime.Time
		s.refusal = refusals()["forbidden"]
		s.edit(func(r *v1alpha1.WeChatAppToken) {
			r.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
		})
		s.run(expiry.Sub(s.now()) + time.Minute)
		writes, calls := s.writes, s.wechat.Count(wechattest.Filter{})
		s.run(time.Hour)
		if w, c := s.writes-writes, s.wechat.Count(wechattest.Filter{})-calls; w > 20 || c > 20 {
			t.Errorf("%s: %d writes and %d calls in the hour after the expiry", mode, w, c)
		}
		s.refusal = nil
		if s.run(65 * time.Minute); !s.isReady() {
			t.Errorf("%s: the writes are taken again, but %+v", mode, s.resource().Status)
		}
	}
}

// A policy refuses the label, and a webhook is down that all Secrets with a ticket need.
func TestLabelRefusedWhileTicketsFail(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeStable)
	s.edit(func(r *v1alpha1.WeChatAppToken) { r.Spec.Tickets = []v1alpha1.TicketSpec{{Type: v1alpha1.TicketJSAPI}} })
	s.run(10 * time.Minute)
	s.refusal = refusals()["server error"]
	s.edit(func(r *v1alpha1.WeChatAppToken) {
		r.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
	})
	s.wechat.RivalTicket(unitAppID, v1alpha1.TicketJSAPI, 0)
	s.run(20 * time.Minute)
	writes := s.writes
	if s.run(10 * time.Minute); s.writes-writes > 80 {
		t.Errorf("%d writes in ten minutes", s.writes-writes)
	}
}

// The older of two Legacy resources of an account wants a label that is refused, and its mint fails once. The younger one depends on it.
func TestRefusedLabelOfTheFetcher(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeLegacy)
	younger := resourceNamed("younger", v1alpha1.ModeLegacy)
	younger.CreationTimestamp.Time = younger.CreationTimestamp.Add(time.Minute)
	if err := s.Create(s.Context(), younger); err != nil {
		t.Fatal(err)
	}
	s.wake("younger")
	s.run(10 * time.Minute)
	s.refusal = refusals()["forbidden"]
	s.refuses = func(patch string) bool { return strings.Contains(patch, `"team"`) }
	s.edit(func(r *v1alpha1.WeChatAppToken) {
		r.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
	})
	due := s.resource().Status.NextRefreshTime.Time
	s.run(due.Sub(s.now()) - time.Minute)
	s.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Errcode: -1, Times: 1})
	for range 8 * 60 {
		s.run(30 * time.Second)
		secret := &corev1.Secret{}
		if err := s.Get(s.Context(), named("younger"), secret); err != nil {
			t.Fatal(err)
		}
		if !s.wechat.Valid(string(secret.Data["access_token"])) {
			t.Fatalf("%s: the younger one holds a token that WeChat refuses", s.now())
		}
	}
}

// A resource is made anew with a label that is refused, and takes the Secret of the one before it.
func TestTakeOverWithARefusedLabel(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		s := newSimulation(t, mode)
		s.edit(func(r *v1alpha1.WeChatAppToken) { r.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain })
		s.run(10 * time.Minute)
		if err := s.Delete(s.Context(), s.resource()); err != nil {
			t.Fatal(err)
		}
		s.wake("shop")
		s.run(time.Minute)
		again := resourceNamed("shop", mode)
		again.UID, again.Spec.Target.DeletionPolicy = "again", v1alpha1.DeletionRetain
		again.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
		s.refusal = refusals()["forbidden"]
		s.refuses = func(patch string) bool { return strings.Contains(patch, `"team"`) }
		if err := s.Create(s.Context(), again); err != nil {
			t.Fatal(err)
		}
		s.wake("shop")
		for range 8 * 60 {
			if s.run(30 * time.Second); !s.wechat.Valid(string(s.target()["access_token"])) {
				t.Fatalf("%s: %s: the target holds a token that WeChat refuses: %+v", mode, s.now(), s.resource().Status)
			}
		}
	}
}

// The second forced call of a revoke fails. What another member's check says does not end its back-off.
func TestFailedRevokeBesideAMember(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeStable)
	if err := s.Create(s.Context(), resourceNamed("other", v1alpha1.ModeStable)); err != nil {
		t.Fatal(err)
	}
	s.wake("other")
	s.run(10 * time.Minute)
	s.ask(refresh.RequestRevoke)
	s.run(20 * time.Second)
	forced := func() int {
		return len(slices.DeleteFunc(s.wechat.Calls(wechattest.Filter{Endpoint: wechattest.EndpointStable}), func(c wechattest.Call) bool { return !c.Forced }))
	}
	if n := forced(); n != 1 {
		t.Fatalf("%d forced calls at first", n)
	}
	s.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointStable, Errcode: 45009, Times: 1})
	s.run(25 * time.Minute)
	if n := forced(); n > 2 {
		t.Errorf("%d forced calls within 25 minutes of a quota that is used up", n)
	}
}
