// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	appID     = "wx0123456789abcdef"
	appSecret = "0123456789abcdef0123456789abcdef"
)

// now is WeChat's time, and after a time so much after it; before, if d is negative.
var now = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

func after(d time.Duration) time.Time { return now.Add(d) }

// resourceAt returns a resource whose UID is its name.
func resourceAt(namespace, name string, mode v1alpha1.Mode) *v1alpha1.WeChatAppToken {
	return &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name), Generation: 1},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID: appID, Mode: mode, Target: v1alpha1.TargetSpec{AccessTokenKey: "access_token", DeletionPolicy: v1alpha1.DeletionDelete},
		},
	}
}

// member returns how a resource is known to its account. The later ones are younger.
func member(r *v1alpha1.WeChatAppToken, created time.Duration) account.Member {
	return account.Member{
		UID: r.UID, Name: types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, Created: after(created), Fetches: true, Receives: true,
	}
}

// stage is what an issuer works with, and what it did.
type stage struct {
	Env

	server *wechattest.Server
	// woken are the names of resources, and given the tokens by the name of the resource.
	woken []string
	given map[string]*report.Pending
	// read are the Secrets that were read.
	read []string
}

func newStage(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) *stage {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	clock := func() time.Time { return now }
	s := &stage{given: map[string]*report.Pending{}}
	var err error
	if s.server, err = wechattest.NewServer(wechattest.Options{Now: clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.server.Close)
	s.server.SetApp(wechattest.App{ID: appID, Secret: appSecret})
	if s.WeChat, err = wechat.New(wechat.Options{Endpoints: []string{s.server.URL()}, Wall: clock, Monotonic: clock}); err != nil {
		t.Fatal(err)
	}
	if get := funcs.Get; get == nil {
		funcs.Get = func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, isSecret := o.(*corev1.Secret); isSecret {
				s.read = append(s.read, key.String())
			}
			return c.Get(ctx, key, o, opts...)
		}
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(funcs).WithObjects(objects...).
		WithIndex(&v1alpha1.WeChatAppToken{}, LegacyAppIDIndex, func(o client.Object) []string {
			if r, ok := o.(*v1alpha1.WeChatAppToken); ok && r.Spec.Mode == v1alpha1.ModeLegacy {
				return []string{r.Spec.AppID}
			}
			return nil
		}).Build()
	s.Store, s.Cache = target.Store{Client: c, Live: c}, c
	s.Wake = func(_ context.Context, name types.NamespacedName) { s.woken = append(s.woken, name.String()) }
	s.Give = func(name types.NamespacedName, _ types.UID, p *report.Pending) { s.given[name.String()] = p }
	return s
}

// calls counts the calls that issue a token.
func (s *stage) calls() int {
	return s.server.Count(wechattest.Filter{Endpoint: wechattest.EndpointStable}) + s.server.Count(wechattest.Filter{Endpoint: wechattest.EndpointLegacy})
}

// stepOf returns a step of a resource that is the only member of its account and has no Secret.
func stepOf(r *v1alpha1.WeChatAppToken, edits ...func(*Step)) Step {
	secret, _ := token.ParseAppSecret([]byte(appSecret))
	s := Step{
		Observation: report.Observation{
			Resource: r, Now: now, Inputs: refresh.Inputs{Traits: Traits(r.Spec.Mode), ClockSynced: true},
			Ownership: target.Ownership{Claim: target.Create},
		},
		Decision:    refresh.Decision{Action: refresh.Issue, Reason: refresh.TargetMissing},
		Credentials: token.Credentials{AppID: r.Spec.AppID, AppSecret: secret},
		Account:     &account.Account{}, HasPending: func() bool { return false },
	}
	s.Account.Update(member(r, -time.Hour))
	for _, e := range edits {
		e(&s)
	}
	return s
}

func TestFailed(t *testing.T) {
	cause := &token.Error{
		Code: 89506, Reason: v1alpha1.ReasonIPBlocked, Class: token.Limited, RequestID: "rid", Message: "what to do", RetryAfter: time.Hour,
	}
	other := errors.New("the API server does not answer")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx    context.Context //nolint:containedctx // a row of a table
		err    error
		failed *report.Failure
		want   error
	}{
		"WeChat refused": {t.Context(), fmt.Errorf("calling: %w", cause), &report.Failure{
			Failure: refresh.Failure{Class: token.Limited, Reason: v1alpha1.ReasonIPBlocked, Code: 89506, Named: time.Hour},
			Message: "what to do", RequestID: "rid",
		}, nil},
		"another error":    {t.Context(), other, nil, other},
		"the process ends": {ended, cause, nil, context.Canceled},
	} {
		e, err := failed(test.ctx, report.Effect{Times: report.Times{Called: now}}, test.err)
		if !errors.Is(err, test.want) || !reflect.DeepEqual(e, report.Effect{Times: report.Times{Called: now}, Failed: test.failed}) {
			t.Errorf("%s: %v, %+v", name, err, e)
		}
	}
}

// A check on request, or because of a hint, that comes too soon after another member's is not made; one that is due is never held back.
func TestRequestedChecksArePaced(t *testing.T) {
	s := newStage(t, interceptor.Funcs{})
	step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeStable))
	asked := step
	asked.Decision = refresh.Decision{Action: refresh.Check, Reason: refresh.RequestExecutable, Request: refresh.RequestCheck}
	step.Decision = refresh.Decision{Action: refresh.Check, Reason: refresh.CheckDue}
	// hinted is a check that only a gateway's hint asks for, and late one that is due as well.
	hinted := step
	hinted.CheckInterval, hinted.Token = time.Hour, refresh.Token{Fingerprint: "f", CheckedAt: hinted.Now, Refused: true}
	late := hinted
	late.Token.CheckedAt = late.Now.Add(-2 * time.Hour)
	for i, test := range []struct {
		step  Step
		calls int
	}{{asked, 1}, {asked, 1}, {step, 2}, {step, 3}, {asked, 3}, {hinted, 3}, {late, 4}} {
		e, err := s.For(v1alpha1.ModeStable).Check(t.Context(), test.step)
		if err != nil || s.calls() != test.calls {
			t.Errorf("check %d: %d calls, %v", i+1, s.calls(), err)
		}
		if i == 1 && !reflect.DeepEqual(e, report.Effect{}) {
			t.Errorf("check %d: %+v", i+1, e)
		}
	}
}

func TestMustWrite(t *testing.T) {
	value := token.NewValue("a-token")
	for name, test := range map[string]struct {
		edit func(*Step, *report.Pending)
		want bool
	}{
		"nothing is new":     {func(*Step, *report.Pending) {}, false},
		"another token":      {func(_ *Step, p *report.Pending) { p.Value = token.NewValue("another") }, true},
		"other data":         {func(s *Step, _ *report.Pending) { s.Target.Tampered = true }, true},
		"another appid":      {func(s *Step, _ *report.Pending) { s.Target.AppIDChanged = true }, true},
		"another mode":       {func(s *Step, _ *report.Pending) { s.Target.ModeChanged = true }, true},
		"other credentials":  {func(s *Step, _ *report.Pending) { s.Inputs.Credentials.Changed = true }, true},
		"metadata alone":     {func(s *Step, _ *report.Pending) { s.Target.Outdated = true }, false},
		"a little later":     {func(_ *Step, p *report.Pending) { p.ExpiresAt = after(time.Hour + refresh.ExpirySlack) }, false},
		"a little earlier":   {func(_ *Step, p *report.Pending) { p.ExpiresAt = after(time.Hour - refresh.ExpirySlack) }, false},
		"the expiry moved":   {func(_ *Step, p *report.Pending) { p.ExpiresAt = after(time.Hour + refresh.ExpirySlack + 1) }, true},
		"an earlier expiry":  {func(_ *Step, p *report.Pending) { p.ExpiresAt = after(time.Hour - refresh.ExpirySlack - 1) }, true},
		"nothing was stored": {func(s *Step, _ *report.Pending) { s.Stored = target.Token{} }, true},
	} {
		s := stepOf(resourceAt("shop", "shop", v1alpha1.ModeStable))
		s.Stored = target.Token{Fingerprint: value.Fingerprint(), ExpiresAt: after(time.Hour)}
		p := &report.Pending{Token: token.Token{Value: value, ExpiresAt: after(time.Hour)}}
		test.edit(&s, p)
		if got := mustWrite(s, *p); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A normal call is answered with the token that is valid now. It is written only if the Secret needs it.
func TestStableIssue(t *testing.T) {
	s := newStage(t, interceptor.Funcs{})
	r, other := resourceAt("shop", "shop", v1alpha1.ModeStable), resourceAt("other", "other", v1alpha1.ModeStable)
	step := stepOf(r, func(s *Step) { s.Account.Update(member(other, 0)) })
	e, err := s.For(v1alpha1.ModeStable).Issue(t.Context(), step)
	if err != nil || e.Issued == nil || e.Stored != nil || !e.Accepted || e.Failed != nil || !e.Times.Called.Equal(now) || !e.Times.Forced.IsZero() {
		t.Fatalf("%v, %+v", err, e)
	}
	if p := e.Issued; p.Forced || p.Reason != refresh.TargetMissing || p.AppID != appID || p.Credentials != step.Credentials.Fingerprint() || !s.server.Valid(p.Value.Reveal()) {
		t.Errorf("issued %+v", p)
	}
	if !slices.Equal(s.woken, []string{"other/other"}) {
		t.Errorf("%v are woken", s.woken)
	}
	// The other members know it by now, and the Secret holds it, but nobody saw WeChat issue it.
	s.woken = nil
	step.Stored = target.Token{Fingerprint: e.Issued.Value.Fingerprint(), IssuedAt: e.Issued.IssuedAt, ExpiresAt: e.Issued.ExpiresAt, Unattested: true}
	e, err = s.For(v1alpha1.ModeStable).Check(t.Context(), step)
	if err != nil || e.Issued != nil || !e.Accepted || e.Stored == nil || e.Stored.Unattested || e.Stored.Credentials != step.Credentials.Fingerprint() {
		t.Errorf("the same token: %v, %+v", err, e)
	}
	if s.woken != nil {
		t.Errorf("%v are woken again", s.woken)
	}
	// A clock that was ahead may have noted when it was issued.
	step.Target.Tampered, step.Stored.IssuedAt = true, after(time.Hour)
	if e, err = s.For(v1alpha1.ModeStable).Issue(t.Context(), step); err != nil || e.Issued == nil || e.Issued.IssuedAt.After(now) {
		t.Errorf("other data: %v, %+v", err, e)
	}
}

// A refresh forces a token only if WeChat still names the one that the status does.
func TestStableRefresh(t *testing.T) {
	s := newStage(t, interceptor.Funcs{})
	r := resourceAt("shop", "shop", v1alpha1.ModeStable)
	r.Annotations = map[string]string{v1alpha1.AnnotationRefreshRequestedAt: "r"}
	step := stepOf(r, func(s *Step) {
		s.Decision = refresh.Decision{Action: refresh.Force, Reason: refresh.RequestExecutable, Request: refresh.RequestRefresh}
	})
	// The answer to an earlier forced call was lost.
	r.Status.Token = &v1alpha1.TokenStatus{Fingerprint: "older"}
	e, err := s.For(v1alpha1.ModeStable).Refresh(t.Context(), step)
	if err != nil || e.Issued == nil || !e.Issued.Forced || e.Issued.Refresh != "r" || !e.Times.Forced.IsZero() || s.calls() != 1 {
		t.Fatalf("%d calls, %v, %+v", s.calls(), err, e)
	}
	first := e.Issued.Value.Fingerprint()
	r.Status.Token = &v1alpha1.TokenStatus{Fingerprint: first}
	e, err = s.For(v1alpha1.ModeStable).Refresh(t.Context(), step)
	if err != nil || e.Issued == nil || !e.Issued.Forced || e.Issued.Refresh != "r" || !e.Times.Forced.Equal(now) || s.calls() != 3 || e.Issued.Value.Fingerprint() == first {
		t.Errorf("%d calls, %v, %+v", s.calls(), err, e)
	}
	if n := len(step.Account.Forced(now)); n != 1 {
		t.Errorf("%d forced calls count", n)
	}
	// A forced call that WeChat refused does not count.
	step.Account = &account.Account{}
	s.server.Inject(wechattest.Fault{Endpoint: wechattest.EndpointStable, Errcode: 40164, Times: 1})
	e, err = s.For(v1alpha1.ModeStable).Force(t.Context(), step)
	if err != nil || e.Issued != nil || e.Accepted || e.Failed == nil || e.Failed.Code != 40164 || !e.Times.Forced.IsZero() || len(step.Account.Forced(now)) != 0 {
		t.Errorf("refused: %v, %+v, %v", err, e, step.Account.Forced(now))
	}
	if step.Account.Confirmed().Doubted {
		t.Error("an errcode leaves a doubt")
	}
}
