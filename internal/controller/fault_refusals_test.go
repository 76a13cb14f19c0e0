// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	reviewv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// refusal is a way in which the API server keeps a Secret from being written.
type refusal struct {
	name  string
	begin func(*world) (lift func())
	// creations is true if only the creation of a Secret is refused.
	creations bool
	// names is what the conditions must name after a minute, or empty.
	names string
}

func refusals() []refusal {
	return []refusal{
		{name: "admission/403", begin: func(w *world) func() {
			return w.refuseByPolicy(metav1.StatusReasonForbidden, http.StatusForbidden)
		}},
		{name: "quota/403", begin: (*world).refuseByQuota, creations: true},
		{name: "policy/422", begin: func(w *world) func() {
			return w.refuseByPolicy(metav1.StatusReasonInvalid, http.StatusUnprocessableEntity)
		}},
		{name: "dead webhook/500", begin: (*world).refuseByDeadWebhook, names: "secrets.example.com"},
		{name: "endless conflicts/409", begin: func(w *world) func() {
			return w.refuseByWebhook(http.StatusConflict, func(*reviewv1.AdmissionRequest) *metav1.Status {
				return &metav1.Status{Code: http.StatusConflict, Reason: metav1.StatusReasonConflict, Message: "the object has been modified"}
			})
		}},
	}
}

// refusedAction is something that the operator does and that ends with the write of a Secret.
type refusedAction struct {
	name string
	mode v1alpha1.Mode
	// first is true if the resource is suspended until the refusal has begun, so that it has no Secret.
	first bool
	// life of the token, if not WeChat's usual one.
	life time.Duration
	// begin starts the action.
	begin func(w *world, name string)
	// calls is the greatest number of calls to WeChat, checks included, and forced that of forced calls.
	calls, forced int
	// request is the annotation of the request, if it is one, and event the reason of its event.
	request, event string
	// pending is true for a request whose token waits for its write: it is handled when that lands.
	pending bool
	// lifted waits for the outcome after the refusal, given the token that the Secret held before. There is none to wait for if it
	// is nil: the request has been handled, and the token stays.
	lifted func(w *world, name, before string)
}

const requestValue = "1"

func requested(annotation string) func(*world, string) {
	return func(w *world, name string) { w.update(name, annotated(annotation, requestValue)) }
}

// decided is the beginning of an action for which the operator only has to look.
func decided(w *world, name string) { w.touch(name) }

func refusedActions() []refusedAction {
	replaced := func(w *world, name, before string) { w.eventuallyAnother(name, before) }
	return []refusedAction{
		{name: "legacy-refresh", mode: v1alpha1.ModeLegacy, begin: requested(v1alpha1.AnnotationRefreshRequestedAt), calls: 1,
			request: v1alpha1.AnnotationRefreshRequestedAt, event: v1alpha1.EventRequestedRefresh},
		{name: "legacy-revoke", mode: v1alpha1.ModeLegacy, begin: requested(v1alpha1.AnnotationRevokeRequestedAt), calls: 1,
			request: v1alpha1.AnnotationRevokeRequestedAt, event: v1alpha1.EventRequestedRevoke},
		{name: "legacy-check", mode: v1alpha1.ModeLegacy, first: true, begin: requested(v1alpha1.AnnotationCheckRequestedAt),
			request: v1alpha1.AnnotationCheckRequestedAt, event: v1alpha1.EventRequestedCheck, lifted: replaced},
		{name: "legacy-first", mode: v1alpha1.ModeLegacy, first: true, lifted: replaced},
		{name: "legacy-rotation", mode: v1alpha1.ModeLegacy, life: 30 * time.Minute, begin: decided, lifted: replaced},
		// Stable: an ordinary call comes before the forced one.
		{name: "stable-refresh", mode: v1alpha1.ModeStable, begin: requested(v1alpha1.AnnotationRefreshRequestedAt), calls: 2, forced: 1,
			request: v1alpha1.AnnotationRefreshRequestedAt, event: v1alpha1.EventRequestedRefresh, pending: true,
			lifted: func(w *world, name, before string) {
				w.Helper()
				w.eventuallyAnother(name, before)
				w.Eventually(func() string { return w.handled(name).Refresh }).Should(gomega.Equal(requestValue))
			}},
		{name: "stable-first", mode: v1alpha1.ModeStable, first: true, calls: 1, lifted: replaced},
		{name: "stable-rotation", mode: v1alpha1.ModeStable, life: 30 * time.Minute, begin: decided, calls: 1, lifted: replaced},
		{name: "stable-metadata", mode: v1alpha1.ModeStable,
			begin: func(w *world, name string) {
				w.update(name, func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "a"} })
			},
			lifted: func(w *world, name, _ string) {
				w.Helper()
				w.Eventually(func() string { return w.secret(name).Labels["team"] }).Should(gomega.Equal("a"))
			}},
		// The last one, because it moves the clock.
		{name: "stable-revoke", mode: v1alpha1.ModeStable, begin: requested(v1alpha1.AnnotationRevokeRequestedAt), calls: 2, forced: 1,
			request: v1alpha1.AnnotationRevokeRequestedAt, event: v1alpha1.EventRequestedRevoke, pending: true,
			lifted: func(w *world, name, before string) {
				w.Helper()
				w.eventuallyAnother(name, before)
				w.jump(40 * time.Second) // for the second call, which may have been made
				w.touch(name)
				w.Eventually(func() string { return w.handled(name).Revoke }).Should(gomega.Equal(requestValue))
				if w.wechat.Valid(before) {
					w.Errorf("%s: the leaked token lives", name)
				}
			}},
	}
}

const (
	// refusedFor is how long the API server refuses in these tests.
	refusedFor = 4 * time.Second
	// writesAtMost is how often a Secret may be tried within that time: by the first attempt, or by a back-off that begins with a
	// second or more, with a few looks at what has changed. A loop comes to five in a second.
	writesAtMost = 8
)

// Whatever the operator does, and however the API server keeps the Secret from being written: it follows a back-off, and a request
// for which WeChat was not called has had its one attempt. A token that a forced call returned waits for its write.
func TestRefusedWrites(t *testing.T) {
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) {
			w := newWorld(t)
			w.expectRefusal("create secrets")
			w.expectRefusal("patch secrets")
			w.createCredentials(appSecret)
			o := w.startOperator()
			trial := &refusalTrial{world: w, operator: o, apps: map[string]string{}, before: map[string]string{}}
			for _, a := range refusedActions() {
				if a.first || !r.creations {
					trial.actions = append(trial.actions, a)
				}
			}
			trial.prepare()
			lift := r.begin(w)
			trial.begin()
			time.Sleep(refusedFor)
			trial.judge()
			if r.names != "" {
				trial.told(r.names)
			}
			lift()
			trial.conclude()
		})
	}
}

// refusalTrial is all actions under one refusal, in one namespace. Each has an account of its own.
type refusalTrial struct {
	*world

	operator *operator
	actions  []refusedAction
	apps     map[string]string
	// before has the tokens of the Secrets, and writes and calls are the numbers so far, when the refusal began.
	before map[string]string
	writes map[string]int
	calls  map[string]int
}

// prepare gives the resources that need one a token.
func (r *refusalTrial) prepare() {
	r.Helper()
	for i, a := range r.actions {
		r.apps[a.name] = fmt.Sprintf("wx%016d", i)
		r.wechat.SetApp(wechattest.App{ID: r.apps[a.name], Secret: appSecret, Life: a.life})
		r.createToken(a.name, func(t *v1alpha1.WeChatAppToken) {
			t.Spec.AppID, t.Spec.Mode, t.Spec.CheckInterval.Duration = r.apps[a.name], a.mode, 50*time.Minute
			t.Spec.Suspend = a.first
		})
	}
	for _, a := range r.actions {
		if a.first {
			// A request that the operator finds when it first sees the resource is a replay.
			r.Eventually(func() int64 { return r.token(a.name).Status.ObservedGeneration }).Should(gomega.Equal(int64(1)))
			continue
		}
		r.before[a.name] = r.eventuallyReady(a.name)
	}
}

// begin lets time pass until the short-lived tokens are due, and starts all other actions.
func (r *refusalTrial) begin() {
	r.Helper()
	r.writes, r.calls = r.secretRequests(r.operator, "create", "patch"), map[string]int{}
	for _, a := range r.actions {
		r.calls[a.name] = r.wechat.Count(wechattest.Filter{AppID: r.apps[a.name]})
	}
	r.clock.advance(30*time.Minute - 250*time.Second)
	for _, a := range r.actions {
		if a.first {
			r.update(a.name, func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = false })
			// A request that comes later goes through the back-off of the first attempt.
			r.Eventually(func() int { return r.secretRequests(r.operator, "create")[a.name] }).Should(gomega.BeNumerically(">", 0))
		}
		if a.begin != nil {
			a.begin(r.world, a.name)
		}
	}
}

// told lets a minute pass by the operator's own timers. Then the conditions of all that still want to write say what refuses it.
func (r *refusalTrial) told(name string) {
	r.Helper()
	r.advance(61 * time.Second)
	for _, a := range r.actions {
		if a.lifted == nil {
			continue
		}
		failing := r.condition(a.name, v1alpha1.ConditionRefreshFailing)
		if failing.Reason != v1alpha1.ReasonTargetWriteFailed || !strings.Contains(failing.Message, name) {
			r.Errorf("%s: a minute later the condition is %+v", a.name, failing)
		}
	}
}

// conclude waits for the outcomes after the refusal.
func (r *refusalTrial) conclude() {
	r.Helper()
	for _, a := range r.actions {
		r.touch(a.name)
		if a.lifted != nil {
			a.lifted(r.world, a.name, r.before[a.name])
		}
	}
	for _, a := range r.actions {
		want := 1
		switch {
		case a.mode != v1alpha1.ModeLegacy:
			continue
		case a.life != 0:
			want = 2 // the first one, and the rotation
		}
		if n := r.wechat.Count(wechattest.Filter{AppID: r.apps[a.name], Endpoint: wechattest.EndpointLegacy}); n != want {
			r.Errorf("%s: %d mints in all, want %d", a.name, n, want)
		}
	}
}

// judge judges what was tried while the API server refused.
func (r *refusalTrial) judge() {
	r.Helper()
	writes := minus(r.secretRequests(r.operator, "create", "patch"), r.writes)
	for _, a := range r.actions {
		if n := writes[a.name]; n == 0 || n > writesAtMost {
			r.Errorf("%s: %d writes of the Secret were tried within about %s, want 1 to %d", a.name, n, refusedFor, writesAtMost)
		}
		of := wechattest.Filter{AppID: r.apps[a.name]}
		if n := r.wechat.Count(of) - r.calls[a.name]; n > a.calls {
			r.Errorf("%s: %d calls to WeChat, want at most %d", a.name, n, a.calls)
		}
		forced := 0
		for _, c := range r.wechat.Calls(of) {
			if c.Forced {
				forced++
			}
		}
		if forced != a.forced {
			r.Errorf("%s: %d forced calls, want %d", a.name, forced, a.forced)
		}
		if got := r.value(a.name); got != r.before[a.name] {
			r.Errorf("%s: the Secret was written", a.name)
		}
		if a.request != "" {
			r.judgeRequest(a)
		}
	}
}

func (r *refusalTrial) judgeRequest(a refusedAction) {
	r.Helper()
	handled := r.handled(a.name)
	got := map[string]string{
		v1alpha1.AnnotationCheckRequestedAt:   handled.Check,
		v1alpha1.AnnotationRefreshRequestedAt: handled.Refresh,
		v1alpha1.AnnotationRevokeRequestedAt:  handled.Revoke,
	}[a.request]
	switch {
	case a.pending && got != "":
		r.Errorf("%s: the request is said to be handled, but its token was not written", a.name)
	case !a.pending && got != requestValue:
		r.Errorf("%s: the request was refused, but status.handledRequests does not have it", a.name)
	case !a.pending:
		r.Eventually(func() []string { return r.notes(a.name, a.event) }).
			Should(gomega.ContainElement(gomega.HavePrefix("Warning: ")), a.name)
	}
}
