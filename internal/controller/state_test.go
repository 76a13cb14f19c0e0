// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/credentials"
	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestStates(t *testing.T) {
	s := newStates()
	resource := resourceNamed("shop", v1alpha1.ModeStable)
	if s.find(named("shop")) != nil || s.drop(named("shop")) != nil {
		t.Error("a state before the first pass")
	}
	first, discarded := s.of(resource)
	if discarded != nil || first.uid != "shop" {
		t.Errorf("%+v, in place of %v", first, discarded)
	}
	if again, discarded := s.of(resource); again != first || discarded != nil || s.find(named("shop")) != first {
		t.Error("the same resource has another state")
	}
	if other, _ := s.of(resourceNamed("other", v1alpha1.ModeStable)); other == first {
		t.Error("two resources share a state")
	}
	// A resource that takes the name of another one does not get its state.
	successor := resource.DeepCopy()
	successor.UID = "successor"
	second, discarded := s.of(successor)
	if second == first || discarded != first || s.find(named("shop")) != second {
		t.Errorf("it replaces %v", discarded)
	}
	if s.drop(named("shop")) != second || s.find(named("shop")) != nil || s.drop(named("shop")) != nil {
		t.Error("a state that was dropped is there")
	}
	if len(s.byName) != 1 {
		t.Errorf("%d states are left", len(s.byName))
	}
}

// A resource that takes the name of another one ends the other's membership of its account.
func TestDiscardedStateLeavesItsAccount(t *testing.T) {
	p := unitPass(t, v1alpha1.ModeLegacy)
	if !p.accounts.Knows(v1alpha1.ModeLegacy, unitAppID) {
		t.Fatal("it has no account")
	}
	successor := p.resource.DeepCopy()
	successor.UID = "successor"
	_, discarded := p.states.of(successor)
	if p.leaveAccount(discarded); p.accounts.Knows(v1alpha1.ModeLegacy, unitAppID) || discarded.membership.account != nil {
		t.Error("it is still a member")
	}
	p.leaveAccount(discarded)
	p.leaveAccount(nil)
	q := unitPass(t, v1alpha1.ModeLegacy)
	if q.forget(named("shop")); q.accounts.Knows(v1alpha1.ModeLegacy, unitAppID) || q.states.find(named("shop")) != nil {
		t.Error("a resource that is gone is remembered")
	}
	q.forget(named("shop"))
}

// Of two tokens, the one that WeChat issued later is kept, whichever comes last.
func TestPending(t *testing.T) {
	issued := func(ago time.Duration) *report.Pending {
		return &report.Pending{Token: token.Token{IssuedAt: unitNow.Add(-ago)}}
	}
	older, first, same, second := issued(5*time.Second), issued(0), issued(0), issued(-time.Second)
	s := &shared{}
	expect := func(step string, want *report.Pending) {
		t.Helper()
		if got, _ := s.pendingNow(); got != want {
			t.Errorf("%s: %v is pending, want %v", step, got, want)
		}
	}
	expect("nothing", nil)
	s.drop(first)
	s.drop(nil)
	s.noteRead()
	expect("nothing to drop", nil)
	s.give(first)
	expect("the first", first)
	s.drop(nil)
	expect("still the first", first)
	s.give(older)
	expect("an older one", first)
	s.give(same)
	expect("one of the same moment", same)
	s.noteRead()
	writing, readSince := s.pendingNow()
	if !readSince {
		t.Error("the read of the Secret is not noted")
	}
	s.give(second)
	s.drop(writing)
	expect("one that came during the write", second)
	if _, readSince := s.pendingNow(); readSince {
		t.Error("a token that came after the read was read before")
	}
	s.drop(second)
	expect("all written", nil)
}

// A token that another member minted reaches the resource that it is for, and no namesake.
func TestGive(t *testing.T) {
	s := newStates()
	given := &report.Pending{Token: token.Token{IssuedAt: unitNow}}
	s.give(named("shop"), "shop", given) // it had no pass yet
	state, _ := s.of(resourceNamed("shop", v1alpha1.ModeLegacy))
	s.give(named("shop"), "successor", given)
	if got, _ := state.shared.pendingNow(); got != nil {
		t.Error("a namesake was given the token")
	}
	s.give(named("shop"), "shop", given)
	if got, _ := state.shared.pendingNow(); got != given {
		t.Error("the token was lost")
	}
}

// Only the token that an attempt told pods of was delivered.
func TestDelivered(t *testing.T) {
	s := &shared{}
	if _, known := s.deliveredOf(""); known {
		t.Error("no token was delivered")
	}
	s.setDelivered(delivery.Outcome{Fingerprint: "f", Pods: 3, Reached: 2})
	for fingerprint, want := range map[string]bool{"f": true, "g": false, "": false} {
		got, known := s.deliveredOf(fingerprint)
		if known != want || known && (got.Pods != 3 || got.Reached != 2) {
			t.Errorf("%q: known %t, %+v", fingerprint, known, got)
		}
	}
	s.setDelivered(delivery.Outcome{})
	if _, known := s.deliveredOf(""); known {
		t.Error("an attempt without a token counts")
	}
}

// What a status says of a resource is all that the next process knows.
func TestNewState(t *testing.T) {
	forced := metav1.NewTime(ago(time.Hour))
	resource := resourceNamed("shop", v1alpha1.ModeStable)
	resource.Annotations = map[string]string{v1alpha1.AnnotationCheckRequestedAt: "c"}
	if s := newState(resource); s.uid != "shop" || s.failure != nil || s.told != "" || s.progress.Handled.Check != "c" {
		t.Errorf("a new resource: %+v, %+v", s.failure, s.progress)
	}
	resource.Status = v1alpha1.WeChatAppTokenStatus{
		ObservedGeneration: 1, CredentialsVersion: "c/7", ForcedRefreshes: []metav1.Time{forced},
		Revocation: &v1alpha1.RevocationStatus{Value: "k", Victim: "f", FirstForcedTime: &forced},
		LastError:  &v1alpha1.RefreshError{Reason: v1alpha1.ReasonRateLimited},
	}
	s := newState(resource)
	if s.uid != "shop" || s.accepted != "c/7" || s.credentials.Version != "" || s.told != token.Limited ||
		!reflect.DeepEqual(s.failure, report.RecallFailure(resource.Status.LastError)) {
		t.Errorf("told %s, failure %+v, credentials %s", s.told, s.failure, s.accepted)
	}
	if !reflect.DeepEqual(s.progress, report.RecallProgress(resource)) || s.progress.Wants(resource, refresh.RequestRevoke) || !s.progress.Wants(resource, refresh.RequestCheck) {
		t.Errorf("progress: %+v", s.progress)
	}
	if pending, _ := s.shared.pendingNow(); !reflect.DeepEqual(s.target, target.Knowledge{}) || pending != nil {
		t.Error("a status is taken for proof of what the Secret holds")
	}
}

// A change of spec or credentials ends a back-off, except for a wait that WeChat named: that is the account's.
func TestFailureBinds(t *testing.T) {
	secret, _ := token.ParseAppSecret([]byte(unitAppSecret))
	other, _ := token.ParseAppSecret([]byte("fedcba9876543210fedcba9876543210"))
	account := func(appSecret token.Value) string {
		return token.Credentials{AppID: unitAppID, AppSecret: appSecret}.Account()
	}
	const generation, version = 3, "c/7"
	none := func(*report.Failure) {}
	for name, test := range map[string]struct {
		edit    func(*report.Failure)
		own     bool // binds although nothing named a wait
		waiting bool // binds when WeChat named a wait
	}{
		"the same":                       {none, true, true},
		"another spec":                   {func(f *report.Failure) { f.Generation-- }, false, true},
		"other credentials":              {func(f *report.Failure) { f.CredentialsVersion = "c/6" }, false, true},
		"another account":                {func(f *report.Failure) { f.Account, f.CredentialsVersion = account(other), "c/6" }, false, false},
		"the same from a status":         {func(f *report.Failure) { f.Account = "" }, true, true},
		"other credentials, of a status": {func(f *report.Failure) { f.Account, f.CredentialsVersion = "", "c/6" }, false, true},
	} {
		for named, want := range map[time.Duration]bool{0: test.own, time.Hour: test.waiting} {
			f := &report.Failure{Failure: refresh.Failure{Class: token.Limited, Named: named}, Generation: generation, CredentialsVersion: version, Account: account(secret)}
			test.edit(f)
			s := &resourceState{failure: f, credentials: credentials.Credentials{Secret: token.Credentials{AppID: unitAppID, AppSecret: secret}}}
			if got := s.failureBinds(generation, version); got != want {
				t.Errorf("%s, named %s: binds %t", name, named, got)
			}
		}
	}
	if (&resourceState{}).failureBinds(generation, version) {
		t.Error("a failure that was none binds")
	}
}
