// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

var (
	// expiry is that of the stored token, and now a time long before it.
	expiry = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now    = expiry.Add(-90*time.Minute + 250*time.Millisecond)
)

// after returns the time so much after now.
func after(d time.Duration) time.Time { return now.Add(d) }

// situation is one of those that testdata/verdicts.golden lists.
type situation struct {
	claim       target.Claim
	suspended   bool
	credentials string
	failure     token.Class
	contested   bool
	waiting     bool
	valid, had  bool
}

// situations are all of them, in the order of the file.
func situations() iter.Seq[situation] {
	booleans := [...]bool{false, true}
	return func(yield func(situation) bool) {
		for _, claim := range [...]target.Claim{target.Own, target.Conflict, target.Terminating} {
			for _, suspended := range booleans {
				for _, credentials := range [...]string{"", v1alpha1.ReasonCredentialsNotFound, v1alpha1.ReasonCredentialsMalformed} {
					for _, failure := range [...]token.Class{"", token.Transient, token.Limited, token.Action} {
						for bits := range 16 {
							bit := func(n int) bool { return bits>>n&1 == 1 }
							if !yield(situation{claim, suspended, credentials, failure, bit(3), bit(2), bit(1), bit(0)}) {
								return
							}
						}
					}
				}
			}
		}
	}
}

func (s situation) String() string {
	return fmt.Sprintf("claim=%s suspended=%t credentials=%s failure=%s contested=%t waiting=%t valid=%t had=%t",
		s.claim, s.suspended, s.credentials, s.failure, s.contested, s.waiting, s.valid, s.had)
}

// resource returns the resource shop, with a status that says nothing.
func resource() *v1alpha1.WeChatAppToken {
	return &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "3f8a1c1e", Generation: 3},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID: "wx0123456789abcdef", Mode: v1alpha1.ModeStable, Target: v1alpha1.TargetSpec{DeletionPolicy: v1alpha1.DeletionDelete},
		},
	}
}

// observation returns that of the resource shop, without a token.
func observation() Observation {
	r := resource()
	return Observation{
		Inputs: refresh.Inputs{
			UID: string(r.UID), Traits: refresh.Stable(), CheckInterval: 2 * time.Minute, StartedAt: after(-time.Hour), ClockSynced: true,
		},
		Now: now, Resource: r, Ownership: target.Ownership{Claim: target.Own},
	}
}

// holding lets the target hold a token that expires at expiry.
func holding(o *Observation) {
	o.Stored = target.Token{
		Fingerprint: "1f0c3a5b7d9e2468", Mode: o.Resource.Spec.Mode, AppID: o.Resource.Spec.AppID,
		IssuedAt: expiry.Add(-2 * time.Hour), ExpiresAt: expiry,
	}
	o.Target.Exists, o.Holding = true, target.HoldsKnown
	o.Token = refresh.Token{
		Fingerprint: o.Stored.Fingerprint, IssuedAt: o.Stored.IssuedAt, ExpiresAt: expiry, CheckedAt: after(-time.Second), Had: true,
	}
}

// fail lets the last attempt fail. The failure has lasted for an hour.
func fail(o *Observation, class token.Class, reason token.Reason, message string) {
	o.Failed = &Failure{
		Failure: refresh.Failure{
			Class: class, Reason: reason, Binds: true, First: after(-time.Hour), Time: after(-time.Second), Attempts: 4,
			RetryAt: after(time.Minute),
		},
		Message: message, Generation: o.Resource.Generation,
	}
	f := o.Failed.Failure
	o.Failure = &f
}

func (s situation) observation() Observation {
	o := observation()
	o.Suspended, o.Target.Contested, o.Account.FetcherAsked = s.suspended, s.contested, s.waiting
	o.Ownership = target.Ownership{Claim: s.claim, Message: "whose it is"}
	o.Target.Conflict, o.Target.Terminating = s.claim == target.Conflict, s.claim == target.Terminating
	if s.credentials != "" {
		o.Credentials = refresh.Credentials{Missing: true, Malformed: s.credentials == v1alpha1.ReasonCredentialsMalformed}
		o.CredentialsProblem, o.CredentialsMessage = s.credentials, "what is wrong with the credentials"
	}
	o.Token.Had = s.had
	if s.valid {
		holding(&o)
	}
	reasons := map[token.Class]token.Reason{
		token.Transient: v1alpha1.ReasonUnreachable, token.Limited: v1alpha1.ReasonRateLimited, token.Action: v1alpha1.ReasonIPNotAllowed,
	}
	if reason, failed := reasons[s.failure]; failed {
		fail(&o, s.failure, reason, "what WeChat said")
	}
	return o
}

// The file has what the operator said before the decision and the report became two packages. What users see must not change
// unnoticed, so the file is never written from the code.
func TestVerdicts(t *testing.T) {
	raw, err := os.ReadFile("testdata/verdicts.golden")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n")
	n := 0
	for s := range situations() {
		o := s.observation()
		d := refresh.Decide(o.Now, o.Inputs)
		told := lastError(o, d)
		got := summarize(o, d.Verdict, told)
		line := fmt.Sprintf("%s => ready=%t reason=%s progress=%s failing=%s %q %q",
			s, got.ready, got.reason, got.progress, got.failing, got.message, got.failingMessage)
		if n >= len(want) || line != want[n] {
			t.Errorf("line %d:\n%s\nwant\n%s", n+1, line, want[min(n, len(want)-1)])
		}
		n++
		agree(t, got, Status(o, d))
	}
	if n != len(want) {
		t.Errorf("%d situations, and %d lines", n, len(want))
	}
}

// agree fails unless the conditions of the status say what the summary does, and each status makes sense to kstatus.
func agree(t *testing.T, s summary, status v1alpha1.WeChatAppTokenStatus) {
	t.Helper()
	ready := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || (ready.Status == metav1.ConditionTrue) != s.ready || ready.Reason != s.reason || ready.Message != s.message {
		t.Errorf("Ready is %+v, want %+v", ready, s)
	}
	for _, kind := range [...]string{v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled} {
		c := apimeta.FindStatusCondition(status.Conditions, kind)
		if (c != nil) != (s.progress == kind) || c != nil && (c.Status != metav1.ConditionTrue || c.Reason != s.reason) {
			t.Errorf("%s is %+v, want %+v", kind, c, s)
		}
	}
	failing := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionRefreshFailing)
	if (failing != nil) != (s.failing != "") || failing != nil && (failing.Reason != s.failing || failing.Message != s.failingMessage) {
		t.Errorf("RefreshFailing is %+v, want %+v", failing, s)
	}
	if s.ready && s.progress != "" {
		t.Errorf("Ready, and %s", s.progress) // kstatus calls Stalled failed whatever Ready says
	}
}
