// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// simulation is one resource, its Secrets in a fake client, a stand-in for WeChat, and a clock that moves as the passes ask for it.
type simulation struct {
	*testing.T
	client.WithWatch

	reconciler *Reconciler
	wechat     *wechattest.Server
	events     *events.FakeRecorder
	offset     atomic.Int64
	// due is when the next pass over each resource begins, and retries are its passes in a row that returned an error.
	due     map[types.NamespacedName]time.Time
	retries map[types.NamespacedName]int

	// refusal is the answer to every write of the target, or to those that refuses selects by their patch; nil for none.
	refusal error
	refuses func(patch string) bool
	// slow is how long each write of the target takes.
	slow time.Duration
	// writes counts the attempts to write the target, rehearsals included. passes counts the passes.
	writes, passes int
}

func (s *simulation) now() time.Time { return unitNow.Add(time.Duration(s.offset.Load())) }

func newSimulation(t *testing.T, mode v1alpha1.Mode) *simulation {
	t.Helper()
	s := &simulation{T: t, due: map[types.NamespacedName]time.Time{}, retries: map[types.NamespacedName]int{}, events: events.NewFakeRecorder(1000)}
	var err error
	if s.wechat, err = wechattest.NewServer(wechattest.Options{Now: s.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.wechat.Close)
	s.wechat.SetApp(wechattest.App{ID: unitAppID, Secret: unitAppSecret})
	api, err := wechat.New(wechat.Options{Endpoints: []string{s.wechat.URL()}, Wall: s.now, Monotonic: s.now})
	if err != nil {
		t.Fatal(err)
	}
	s.WithWatch = unitClient(t, interceptor.Funcs{Create: s.create, Patch: s.patch},
		resourceNamed("shop", mode),
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "credentials", UID: "credentials"},
			Type:       corev1.SecretTypeOpaque, Data: map[string][]byte{"appSecret": []byte(unitAppSecret)},
		})
	s.reconciler = New(Options{Client: s, Live: s, WeChat: api, Events: s.events, MaxConcurrentReconciles: 1})
	s.wake("shop")
	return s
}

func (s *simulation) create(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
	if o.GetName() == "shop" && o.GetUID() == "" {
		s.writes++
		if s.refusal != nil {
			return s.refusal
		}
		o.SetUID(uuid.NewUUID())
	}
	return c.Create(ctx, o, opts...)
}

func (s *simulation) patch(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	if o.GetObjectKind().GroupVersionKind().Kind == "Secret" {
		s.writes++
		body, err := p.Data(o)
		if err != nil {
			return fmt.Errorf("reading a patch: %w", err)
		}
		s.offset.Add(int64(s.slow))
		if s.refusal != nil && (s.refuses == nil || s.refuses(string(body))) {
			return s.refusal
		}
	}
	return c.Patch(ctx, o, p, opts...)
}

// wake starts a pass over a resource, as an event does.
func (s *simulation) wake(name string) { s.due[named(name)] = s.now() }

// run lets this much time pass, and makes all passes that are due meanwhile.
func (s *simulation) run(span time.Duration) {
	s.Helper()
	end := s.now().Add(span)
	for {
		for len(s.reconciler.wake) > 0 {
			s.wake((<-s.reconciler.wake).Object.GetName())
		}
		names := slices.SortedFunc(maps.Keys(s.due), func(a, b types.NamespacedName) int { return s.due[a].Compare(s.due[b]) })
		if len(names) == 0 || s.due[names[0]].After(end) {
			break
		}
		if ahead := s.due[names[0]].Sub(s.now()); ahead > 0 {
			s.offset.Add(int64(ahead))
		}
		s.pass(names[0])
	}
	s.offset.Add(int64(end.Sub(s.now())))
}

func (s *simulation) pass(name types.NamespacedName) {
	s.Helper()
	if s.passes++; s.passes > 20_000 {
		s.Fatal("the passes do not end")
	}
	result, err := s.reconciler.Reconcile(log.IntoContext(s.Context(), logr.Discard()), ctrl.Request{NamespacedName: name})
	delete(s.due, name)
	switch {
	case err != nil:
		s.due[name] = s.now().Add(min(retryMax, retryBase<<min(s.retries[name], 10)))
		s.retries[name]++
		return
	case result.RequeueAfter > 0:
		s.due[name] = s.now().Add(result.RequeueAfter)
	}
	s.retries[name] = 0
}

func (s *simulation) resource() *v1alpha1.WeChatAppToken {
	s.Helper()
	r := &v1alpha1.WeChatAppToken{}
	if err := s.Get(s.Context(), named("shop"), r); err != nil {
		s.Fatal(err)
	}
	return r
}

// edit changes the resource, as a person does.
func (s *simulation) edit(change func(*v1alpha1.WeChatAppToken)) {
	s.Helper()
	r := s.resource()
	spec := r.Spec
	change(r)
	if spec.Target.DeletionPolicy != r.Spec.Target.DeletionPolicy || len(spec.Target.Labels) != len(r.Spec.Target.Labels) {
		r.Generation++
	}
	if err := s.Update(s.Context(), r); err != nil {
		s.Fatal(err)
	}
	s.wake("shop")
}

// ask makes a request. The value is its kind.
func (s *simulation) ask(kind refresh.RequestKind) {
	s.Helper()
	s.edit(func(r *v1alpha1.WeChatAppToken) {
		metav1.SetMetaDataAnnotation(&r.ObjectMeta, request.Annotation(kind), string(kind))
	})
}

// handled reports whether a request had its attempt.
func (s *simulation) handled(kind refresh.RequestKind) bool {
	s.Helper()
	h := s.resource().Status.HandledRequests
	return h != nil && *request.Handled(h, kind) == string(kind)
}

// target returns the data of the target; nil for none.
func (s *simulation) target() map[string][]byte {
	s.Helper()
	secret := &corev1.Secret{}
	if err := s.Get(s.Context(), named("shop"), secret); client.IgnoreNotFound(err) != nil {
		s.Fatal(err)
	}
	return secret.Data
}

// removeTarget deletes the target, as a person does.
func (s *simulation) removeTarget() {
	s.Helper()
	if err := s.Delete(s.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop"}}); err != nil {
		s.Fatal(err)
	}
	s.wake("shop")
}

// isReady reports whether the status says so, and the target holds a token that WeChat accepts.
func (s *simulation) isReady() bool {
	s.Helper()
	for _, c := range s.resource().Status.Conditions {
		if c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionTrue {
			return s.wechat.Valid(string(s.target()["access_token"]))
		}
	}
	return false
}

// calls counts the calls that issue a token.
func (s *simulation) calls() int {
	return s.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointStable}) + s.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointLegacy})
}

// A healthy resource gets its token, keeps it, and writes nothing in between.
func TestSimulation(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		s := newSimulation(t, mode)
		s.run(time.Minute)
		if !s.isReady() {
			t.Fatalf("%s: %+v", mode, s.resource().Status)
		}
		writes := s.writes
		if s.run(90 * time.Minute); s.writes != writes || !s.isReady() {
			t.Errorf("%s: %d writes without a reason", mode, s.writes-writes)
		}
		if s.run(12 * time.Hour); !s.isReady() || s.writes > writes+14 {
			t.Errorf("%s: %d writes in 12 hours, ready %t", mode, s.writes-writes, s.isReady())
		}
	}
}

// action is something that ends in a write of the target.
type action struct {
	// prepare is done while writes are taken; nil for nothing. begin is done when they are refused.
	prepare, begin func(*simulation)
	// request is the one that it carries out; empty for none.
	request refresh.RequestKind
	// writes and calls are how many there may be within ten minutes of a refusal that somebody has to end. The first attempts are 5 s and
	// 15 s apart.
	writes, calls int
}

// actions are all that write the target.
func actions() map[string]action {
	retain := func(r *v1alpha1.WeChatAppToken) { r.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain }
	label := func(r *v1alpha1.WeChatAppToken) {
		r.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
	}
	asking := func(kind refresh.RequestKind) func(*simulation) { return func(s *simulation) { s.ask(kind) } }
	without := func(kind refresh.RequestKind) func(*simulation) {
		return func(s *simulation) { s.removeTarget(); s.run(5 * time.Second); s.ask(kind) }
	}
	editing := func(change func(*v1alpha1.WeChatAppToken)) func(*simulation) {
		return func(s *simulation) { s.edit(change) }
	}
	untilDue := func(s *simulation) {
		status := s.resource().Status
		// A Stable token has a successor from the beginning of the overlap, which a check may find before the rotation is due.
		due := refresh.Earlier(status.NextRefreshTime.Time, status.Token.ExpirationTime.Add(-5*time.Minute))
		s.run(due.Sub(s.now()) - 2*time.Second)
	}
	halfDone := func(s *simulation) { s.ask(refresh.RequestRevoke); s.run(20 * time.Second) }
	idle := func(*simulation) {}
	return map[string]action{
		"issue":                    {nil, (*simulation).removeTarget, "", 6, 1},
		"rotation":                 {untilDue, idle, "", 150, 2},    // each 10 s in the handover window; a check may come just before the overlap
		"labels":                   {nil, editing(label), "", 4, 6}, // which keep no check waiting
		"owner reference":          {nil, editing(retain), "", 4, 6},
		"check without a target":   {nil, without(refresh.RequestCheck), refresh.RequestCheck, 6, 1},
		"refresh":                  {nil, asking(refresh.RequestRefresh), refresh.RequestRefresh, 6, 2},
		"refresh without a target": {nil, without(refresh.RequestRefresh), refresh.RequestRefresh, 6, 2},
		"revoke":                   {nil, asking(refresh.RequestRevoke), refresh.RequestRevoke, 6, 1},
		"revoke without a target":  {nil, without(refresh.RequestRevoke), refresh.RequestRevoke, 6, 2},
		"second call of a revoke":  {halfDone, idle, refresh.RequestRevoke, 6, 1},
		"a target with other data": {nil, (*simulation).tamper, "", 6, 1},
	}
}

// tamper replaces the token in the target, as somebody does who may edit it.
func (s *simulation) tamper() {
	s.Helper()
	secret := &corev1.Secret{}
	if err := s.Get(s.Context(), named("shop"), secret); err != nil {
		s.Fatal(err)
	}
	secret.Data["access_token"] = []byte("planted")
	if err := s.Update(s.Context(), secret); err != nil {
		s.Fatal(err)
	}
	s.wake("shop")
}

// Whatever a write is for, and however the API server refuses it: the attempts follow a back-off, a request has one attempt, and all is
// well once the writes are taken again.
func TestRefusedActions(t *testing.T) {
	// The value tells whether the refusal passes by itself. What TestRefused has besides is handled in the same way.
	kinds := map[string]bool{
		"conflict": true, "already exists": true, "not found": true, "server error": true, "no answer": true,
		"invalid": false, "forbidden": false, "webhook says no": false, "namespace ends": false,
	}
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		for name, action := range actions() {
			for kind, transient := range kinds {
				t.Run(fmt.Sprintf("%s/%s/%s", mode, name, kind), func(t *testing.T) {
					t.Parallel()
					a := action
					if mode == v1alpha1.ModeStable && (a.request == refresh.RequestRefresh || a.request == refresh.RequestRevoke) {
						a.writes += 30 // each 10 s while the token ends that WeChat has replaced
					}
					if transient {
						a.writes = max(a.writes, 80) // full jitter makes some 30 attempts, and after a conflict another one follows at once
					}
					refuseAction(t, mode, a, refusals()[kind])
				})
			}
		}
	}
}

func refuseAction(t *testing.T, mode v1alpha1.Mode, a action, refusal error) {
	t.Helper()
	s := newSimulation(t, mode)
	if s.run(10 * time.Minute); !s.isReady() {
		t.Fatalf("before all: %+v", s.resource().Status)
	}
	if a.prepare != nil {
		a.prepare(s)
	}
	writes, calls, passes := s.writes, s.calls(), s.passes
	s.refusal = refusal
	a.begin(s)
	s.run(10 * time.Minute)
	if w, c := s.writes-writes, s.calls()-calls; w > a.writes || c > a.calls {
		t.Errorf("%d writes and %d calls to WeChat in ten minutes, want at most %d and %d", w, c, a.writes, a.calls)
	}
	if n := s.passes - passes; n > 100 {
		t.Errorf("%d passes in ten minutes", n)
	}
	status := s.resource().Status
	told := status.LastError != nil && status.LastError.Reason == v1alpha1.ReasonTargetWriteFailed
	contested := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReady).Reason == v1alpha1.ReasonTargetContested
	if !told && (!contested || target.IsRefusal(refusal)) {
		t.Errorf("the status tells %+v, with %+v", status.LastError, status.Conditions)
	}
	s.refusal = nil
	s.run(65 * time.Minute)
	if !s.isReady() {
		t.Errorf("the writes are taken again, but %+v", s.resource().Status)
	}
	if a.request != "" && !s.handled(a.request) {
		t.Errorf("the request is not handled: %+v", s.resource().Status.HandledRequests)
	}
}

// WeChat refused the mint of a refresh, so no token was ended by it: the next request need not wait.
func TestRefreshAfterARefusedMint(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeLegacy)
	s.run(10 * time.Minute)
	before := string(s.target()["access_token"])
	s.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Errcode: 40164, Times: 1})
	s.ask(refresh.RequestRefresh)
	if s.run(time.Second); !s.handled(refresh.RequestRefresh) || s.resource().Status.LastError == nil {
		t.Fatalf("the first request: %+v", s.resource().Status)
	}
	s.edit(func(r *v1alpha1.WeChatAppToken) { r.Annotations[v1alpha1.AnnotationRefreshRequestedAt] = "again" })
	if s.run(30 * time.Second); string(s.target()["access_token"]) == before {
		t.Errorf("the second request waits: %+v", s.resource().Status)
	}
}

// The mark of a mint may take as long to write as the API server may take to answer. If it takes longer, or the process was stopped, the
// mint is not made, and the status says why.
func TestSlowMark(t *testing.T) {
	s := newSimulation(t, v1alpha1.ModeLegacy)
	s.run(10 * time.Minute)
	before := string(s.target()["access_token"])
	s.slow = kube.AnswerWithin
	s.ask(refresh.RequestRefresh)
	if s.run(time.Minute); string(s.target()["access_token"]) == before || s.resource().Status.LastError != nil {
		t.Errorf("no mint: %+v", s.resource().Status)
	}
	s.run(10 * time.Minute)
	before, s.slow = string(s.target()["access_token"]), kube.AnswerWithin+3*time.Second
	s.edit(func(r *v1alpha1.WeChatAppToken) { r.Annotations[v1alpha1.AnnotationRefreshRequestedAt] = "again" })
	s.run(time.Minute)
	if string(s.target()["access_token"]) != before {
		t.Error("a mint that was too late was made")
	}
	told := ""
	for len(s.events.Events) > 0 {
		told += <-s.events.Events + "\n"
	}
	if !strings.Contains(told, "writing its mark") {
		t.Errorf("the events do not say why: %s", told)
	}
}

// A check cannot ask about data that is not the stored token. Somebody who waits for one gets the repair.
func TestCheckOfATargetWithOtherData(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		s := newSimulation(t, mode)
		s.run(10 * time.Minute)
		s.edit(func(r *v1alpha1.WeChatAppToken) { r.Spec.Suspend = true })
		s.run(time.Minute)
		s.tamper()
		s.ask(refresh.RequestCheck)
		s.run(time.Minute)
		passes := s.passes
		s.edit(func(r *v1alpha1.WeChatAppToken) { r.Spec.Suspend = false })
		if s.run(5 * time.Minute); !s.isReady() || !s.handled(refresh.RequestCheck) || s.passes-passes > 20 {
			t.Errorf("%s: %d passes, and %+v", mode, s.passes-passes, s.resource().Status)
		}
	}
}

// WeChat refuses the new AppSecret, and the API server a change of the target: neither failure may end the back-off of the other.
func TestTwoFailures(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		for _, name := range []string{"server error", "forbidden"} {
			s := newSimulation(t, mode)
			s.run(10 * time.Minute)
			s.setAppSecret("ffffffffffffffffffffffffffffffff")
			s.refusal = refusals()[name]
			s.edit(func(r *v1alpha1.WeChatAppToken) {
				r.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
			})
			writes, calls := s.writes, s.calls()
			s.run(10 * time.Minute)
			if w, c := s.writes-writes, s.calls()-calls; w > 80 || c > 10 {
				t.Errorf("%s, %s: %d writes and %d calls to WeChat in ten minutes", mode, name, w, c)
			}
		}
	}
}

// A write that failed and is not wanted any more is over. A probe cannot tell.
func TestFailedWriteThatIsNotWantedAnyMore(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		s := newSimulation(t, mode)
		s.run(10 * time.Minute)
		s.refusal = refusals()["server error"]
		s.edit(func(r *v1alpha1.WeChatAppToken) {
			r.Spec.Target.Labels = map[string]v1alpha1.LabelValue{"team": "shop"}
		})
		if s.run(3 * time.Minute); s.resource().Status.LastError == nil {
			t.Fatalf("%s: the failure is not told", mode)
		}
		s.edit(func(r *v1alpha1.WeChatAppToken) { r.Spec.Target.Labels = nil })
		calls := s.wechat.Count(wechattest.Filter{})
		if s.run(10 * time.Minute); s.wechat.Count(wechattest.Filter{})-calls > 8 {
			t.Errorf("%s: %d calls to WeChat in ten minutes", mode, s.wechat.Count(wechattest.Filter{})-calls)
		}
		if e := s.resource().Status.LastError; e != nil {
			t.Errorf("%s: the status still tells %+v", mode, e)
		}
	}
}

// Times that were noted by a clock that ran ahead pace nothing, so those that are noted later must take their place.
func TestTimesByAClockThatRanAhead(t *testing.T) {
	ahead := unitNow.Add(44 * time.Minute)
	noted := report.Times{Asked: unitNow, CopySought: unitNow, Called: unitNow}
	if got := (report.Times{Asked: ahead, CopySought: ahead, Called: ahead}).Past(unitNow).Later(noted); got != noted {
		t.Errorf("%+v", got)
	}
}

// setAppSecret changes the credentials Secret, which all resources use.
func (s *simulation) setAppSecret(value string) {
	s.Helper()
	secret := &corev1.Secret{}
	if err := s.Get(s.Context(), named("credentials"), secret); err != nil {
		s.Fatal(err)
	}
	secret.Data["appSecret"] = []byte(value)
	if err := s.Update(s.Context(), secret); err != nil {
		s.Fatal(err)
	}
	for _, r := range s.reconciler.concernedBy(s.Context(), secret) {
		s.wake(r.Name)
	}
}
