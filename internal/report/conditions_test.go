// SPDX-License-Identifier: Apache-2.0

package report

import (
	"slices"
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

// decided returns the status of an observation and the decision that belongs to it.
func decided(o Observation) v1alpha1.WeChatAppTokenStatus {
	return Status(o, refresh.Decide(o.Now, o.Inputs))
}

// condition returns a condition of the status; the zero value if it is absent.
func condition(s v1alpha1.WeChatAppTokenStatus, kind string) metav1.Condition {
	if c := apimeta.FindStatusCondition(s.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// What people should know beside the state of the token stands at the end of Ready's message.
func TestNotes(t *testing.T) {
	refused := func(o *Observation) { o.Metadata.RefusedReferences = o.Resource.Generation }
	long := func(o *Observation) {
		metav1.SetMetaDataAnnotation(&o.Resource.ObjectMeta, v1alpha1.AnnotationRefreshRequestedAt, strings.Repeat("1", v1alpha1.RequestValueMaxLength+1))
	}
	for name, test := range map[string]struct {
		edits []func(*Observation)
		says  string // the end of the message
	}{
		"nothing":            {nil, "T03:04:05Z"},
		"refused references": {[]func(*Observation){refused}, "; spec.target.deletionPolicy has no effect"},
		"a long request":     {[]func(*Observation){long}, "; a request was ignored"},
		"both":               {[]func(*Observation){long, refused}, "; spec.target.deletionPolicy has no effect"},
	} {
		for state, edit := range map[string]func(*Observation){"valid": holding, "no token": func(*Observation) {}} {
			o := observation()
			edit(&o)
			for _, e := range test.edits {
				e(&o)
			}
			ready := condition(decided(o), v1alpha1.ConditionReady)
			says := test.says
			if state == "no token" && test.edits == nil {
				says = "no valid token yet"
			}
			if !strings.Contains(ready.Message, says) || strings.Count(ready.Message, "; ") != len(test.edits[:min(len(test.edits), 1)]) {
				t.Errorf("%s, %s: %q", name, state, ready.Message)
			}
		}
	}
	// A suspended resource says so before the note.
	o := observation()
	holding(&o)
	o.Suspended = true
	long(&o)
	if m := condition(decided(o), v1alpha1.ConditionReady).Message; !strings.Contains(m, "; suspended: ") || !strings.Contains(m, "false; a request") {
		t.Errorf("suspended: %q", m)
	}
}

// A message is no longer than the API allows, whatever it quotes.
func TestLongMessages(t *testing.T) {
	o := observation()
	o.Ownership.Claim, o.Target.Conflict = "Conflict", true
	o.Ownership.Message = strings.Repeat("a", 2000)
	ready := condition(decided(o), v1alpha1.ConditionReady)
	if len(ready.Message) != 1024 || !strings.HasSuffix(ready.Message, "a...") {
		t.Errorf("%d bytes, ending in %q", len(ready.Message), ready.Message[len(ready.Message)-5:])
	}
	for _, n := range []int{1023, 1024} {
		if got := truncate(strings.Repeat("a", n), 1024); len(got) != n || strings.Contains(got, ".") {
			t.Errorf("%d bytes became %d", n, len(got))
		}
	}
}

// Times of transitions move when the status of a condition does, and the order is always the same.
func TestTransitionTimes(t *testing.T) {
	o := observation()
	first := decided(o)
	if got := condition(first, v1alpha1.ConditionReady).LastTransitionTime; !got.Time.Equal(now.Truncate(time.Second)) {
		t.Errorf("the first transition is at %s", got)
	}
	o.Resource.Status, o.Now = first, after(time.Minute)
	o.Token.Had = true
	second := decided(o)
	ready := condition(second, v1alpha1.ConditionReady)
	if ready.Reason != v1alpha1.ReasonTokenExpired || !ready.LastTransitionTime.Time.Equal(now.Truncate(time.Second)) {
		t.Errorf("another reason: %+v", ready)
	}
	o.Resource.Status, o.Now = second, after(2*time.Minute)
	holding(&o)
	third := decided(o)
	ready = condition(third, v1alpha1.ConditionReady)
	if ready.Status != metav1.ConditionTrue || !ready.LastTransitionTime.Time.Equal(after(2*time.Minute).Truncate(time.Second)) {
		t.Errorf("Ready: %+v", ready)
	}
	o.Resource.Generation++
	fail(&o, "Limited", v1alpha1.ReasonRateLimited, "what WeChat said")
	o.Delivery = Delivery{Wanted: true, Disabled: true}
	o.Resource.Status = third
	kinds := make([]string, 0, 3)
	for _, c := range decided(o).Conditions {
		kinds = append(kinds, c.Type)
		if c.ObservedGeneration != o.Resource.Generation {
			t.Errorf("%s is about generation %d", c.Type, c.ObservedGeneration)
		}
	}
	if want := []string{"DeliveryDegraded", "Ready", "RefreshFailing"}; !slices.Equal(kinds, want) {
		t.Errorf("conditions %v, want %v", kinds, want)
	}
	if len(third.Conditions) != 1 {
		t.Error("the last status was changed")
	}
}

func TestDeliveryDegraded(t *testing.T) {
	const fingerprint = "1f0c3a5b7d9e2468"
	degraded := func(reason string) []metav1.Condition {
		return []metav1.Condition{{
			Type: v1alpha1.ConditionDeliveryDegraded, Status: metav1.ConditionTrue, Reason: reason, Message: "of the last time",
		}}
	}
	told := &v1alpha1.DeliveryStatus{Fingerprint: fingerprint, Pods: 3, Reached: 3}
	half := &v1alpha1.DeliveryStatus{Fingerprint: fingerprint, Pods: 3, Reached: 2}
	older := &v1alpha1.DeliveryStatus{Fingerprint: "older", Pods: 3, Reached: 3}
	forbidden := Delivery{Wanted: true, Known: true, Reason: v1alpha1.ReasonPodsForbidden, Message: "it may not list pods"}
	for name, test := range map[string]struct {
		d            Delivery
		last         []metav1.Condition
		status       *v1alpha1.DeliveryStatus
		reason, says string
	}{
		"not asked for":                        {Delivery{Disabled: true}, nil, nil, "", ""},
		"not asked for any more":               {Delivery{}, degraded(v1alpha1.ReasonPodsForbidden), half, "", ""},
		"disabled":                             {Delivery{Wanted: true, Disabled: true}, nil, nil, v1alpha1.ReasonPromptDeliveryDisabled, "within about 90 s"},
		"it failed":                            {forbidden, nil, nil, v1alpha1.ReasonPodsForbidden, "it may not list pods; until then"},
		"it works":                             {Delivery{Wanted: true, Known: true}, degraded(v1alpha1.ReasonPodsForbidden), nil, "", ""},
		"not known yet, nothing told":          {Delivery{Wanted: true}, nil, nil, "", ""},
		"not known yet, it had failed":         {Delivery{Wanted: true}, degraded(v1alpha1.ReasonPodsNotReached), half, v1alpha1.ReasonPodsNotReached, "of the last time"},
		"not known yet, it had worked":         {Delivery{Wanted: true}, degraded(v1alpha1.ReasonPodsNotReached), told, "", ""},
		"not known yet, a token before worked": {Delivery{Wanted: true}, degraded(v1alpha1.ReasonPodsNotReached), older, v1alpha1.ReasonPodsNotReached, "of the last time"},
		"not known yet, it had been disabled":  {Delivery{Wanted: true}, degraded(v1alpha1.ReasonPromptDeliveryDisabled), nil, "", ""},
	} {
		o := observation()
		holding(&o)
		o.Delivery, o.Resource.Status.Conditions, o.Resource.Status.Delivery = test.d, test.last, test.status
		c := condition(decided(o), v1alpha1.ConditionDeliveryDegraded)
		if c.Reason != test.reason || !strings.Contains(c.Message, test.says) {
			t.Errorf("%s: %q %q", name, c.Reason, c.Message)
		}
	}
}

func TestDelivered(t *testing.T) {
	for name, test := range map[string]struct {
		status *v1alpha1.DeliveryStatus
		want   bool
	}{
		"no status":            {nil, false},
		"another token":        {&v1alpha1.DeliveryStatus{Fingerprint: "other", Pods: 1, Reached: 1}, false},
		"some of them":         {&v1alpha1.DeliveryStatus{Fingerprint: "f", Pods: 2, Reached: 1}, false},
		"all of them":          {&v1alpha1.DeliveryStatus{Fingerprint: "f", Pods: 2, Reached: 2}, true},
		"there are none":       {&v1alpha1.DeliveryStatus{Fingerprint: "f"}, true},
		"one went away by now": {&v1alpha1.DeliveryStatus{Fingerprint: "f", Pods: 1, Reached: 2}, true},
	} {
		if got := Delivered(test.status, "f"); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Labels that the API server refuses are told, and are no reason why a token could not be refreshed, or why there is none.
func TestRefusedMetadata(t *testing.T) {
	const says = "the API server refuses to set labels"
	o := observation()
	holding(&o)
	fail(&o, token.Action, v1alpha1.ReasonTargetWriteFailed, says)
	labels := o.Failed
	o.Failed, o.Failure = nil, nil
	o.NoteMetadata(Metadata{}.WithFailure(labels))
	s := decided(o)
	ready, failing := condition(s, v1alpha1.ConditionReady), condition(s, v1alpha1.ConditionRefreshFailing)
	if ready.Status != metav1.ConditionTrue || strings.Contains(ready.Message, "cannot be refreshed") || failing.Message != says || s.LastError.Message != says {
		t.Errorf("with a token: %q, %q, %+v", ready.Message, failing.Message, s.LastError)
	}
	fail(&o, token.Action, v1alpha1.ReasonIPNotAllowed, "the address")
	if s := decided(o); s.LastError.Message != "the address" || !strings.HasSuffix(condition(s, v1alpha1.ConditionReady).Message, "cannot be refreshed: the address") {
		t.Errorf("with a failed call: %+v", s)
	}
	o = observation()
	o.NoteMetadata(Metadata{}.WithFailure(labels))
	if c := condition(decided(o), v1alpha1.ConditionReady); c.Reason == v1alpha1.ReasonTargetWriteFailed {
		t.Errorf("without a token: %+v", c)
	}
}

// A token that WeChat has replaced ends before its expiry, and Ready says when.
func TestReplacedTokenIsValidUntil(t *testing.T) {
	o := observation()
	holding(&o)
	o.Token.Unwritten, o.Token.ExpiresAt = true, after(3*time.Minute)
	if m := condition(decided(o), v1alpha1.ConditionReady).Message; !strings.HasSuffix(m, target.FormatTime(after(3*time.Minute))) {
		t.Errorf("Ready says %q", m)
	}
}
