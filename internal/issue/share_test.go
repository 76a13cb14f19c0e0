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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// holder returns a Legacy resource whose status names a token, and the Secret that holds it.
func holder(namespace, name, value string, issued time.Duration) (*v1alpha1.WeChatAppToken, *corev1.Secret) {
	r := resourceAt(namespace, name, v1alpha1.ModeLegacy)
	r.Status.Token = &v1alpha1.TokenStatus{
		Mode: v1alpha1.ModeLegacy, Fingerprint: token.NewValue(value).Fingerprint(),
		IssueTime: metav1.NewTime(after(issued).Truncate(time.Second)), ExpirationTime: metav1.NewTime(after(issued + 2*time.Hour).Truncate(time.Second)),
	}
	return r, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string][]byte{"access_token": []byte(value)}}
}

// Whether another member's token is as good as a new one.
func TestServes(t *testing.T) {
	type edits []func(*Step, *v1alpha1.TokenStatus)
	older := func(_ *Step, t *v1alpha1.TokenStatus) { t.IssueTime = metav1.NewTime(after(-90 * time.Minute)) }
	same := func(s *Step, t *v1alpha1.TokenStatus) { t.Fingerprint = s.Stored.Fingerprint }
	tampered := func(s *Step, _ *v1alpha1.TokenStatus) { s.Target.Tampered = true }
	unattested := func(s *Step, _ *v1alpha1.TokenStatus) { s.Holding = target.HoldsUnattested }
	expired := func(_ *Step, t *v1alpha1.TokenStatus) { t.ExpirationTime = metav1.NewTime(now) }
	dead := func(s *Step, t *v1alpha1.TokenStatus) { s.Account.NoteDead(t.Fingerprint, false, now) }
	storedDead := func(s *Step, _ *v1alpha1.TokenStatus) { s.Account.NoteDead(s.Stored.Fingerprint, false, now) }
	lostMint := func(at time.Duration) func(*Step, *v1alpha1.TokenStatus) {
		return func(s *Step, _ *v1alpha1.TokenStatus) { s.Unanswered = account.Mark{StartedAt: after(at), ID: "m"} }
	}
	for name, test := range map[string]struct {
		edits  edits
		synced bool
		want   bool
	}{
		"a newer one":    {nil, true, true},
		"none is stored": {edits{func(s *Step, _ *v1alpha1.TokenStatus) { s.Stored, s.Token.IssuedAt = target.Token{}, time.Time{} }}, true, true},
		"an older one":   {edits{older}, true, false},
		"of the same second": {edits{func(s *Step, t *v1alpha1.TokenStatus) {
			t.IssueTime = metav1.NewTime(s.Stored.IssuedAt.Truncate(time.Second))
		}}, true, false},
		"the stored one itself":           {edits{same}, true, false},
		"of the other mode":               {edits{func(_ *Step, t *v1alpha1.TokenStatus) { t.Mode = v1alpha1.ModeStable }}, true, false},
		"nobody saw WeChat issue it":      {edits{func(_ *Step, t *v1alpha1.TokenStatus) { t.Fingerprint = "" }}, true, false},
		"WeChat refuses it":               {edits{dead, tampered}, true, false},
		"a mint has to follow":            {edits{func(s *Step, _ *v1alpha1.TokenStatus) { s.Intent = s.Intent.Settled(true) }, tampered}, true, false},
		"expired":                         {edits{expired}, true, false},
		"expired, by an unknown time":     {edits{expired}, false, true},
		"issued before a mint was lost":   {edits{lostMint(-time.Minute)}, true, false},
		"issued after it":                 {edits{lostMint(-30 * time.Minute)}, true, true},
		"issued in the second of the one": {edits{lostMint(-10 * time.Minute)}, true, true},
		"older, but the data is not ours": {edits{older, tampered}, true, true},
		"the same, but the data is not":   {edits{same, tampered}, true, true},
		"older, but for another appid":    {edits{older, func(s *Step, _ *v1alpha1.TokenStatus) { s.Target.AppIDChanged = true }}, true, true},
		"older, but from the other mode":  {edits{older, func(s *Step, _ *v1alpha1.TokenStatus) { s.Target.ModeChanged = true }}, true, true},
		"older, other credentials":        {edits{older, func(s *Step, _ *v1alpha1.TokenStatus) { s.Inputs.Credentials.Changed = true }}, true, true},
		"older, but ours is refused":      {edits{older, storedDead}, true, true},
		"the same, and it is refused":     {edits{same, storedDead}, true, false},
		"newer than a stranger's":         {edits{unattested}, true, true},
		"older than a stranger's":         {edits{unattested, older, tampered}, true, false},
		"older than a refused stranger's": {edits{unattested, older, storedDead}, true, true},
	} {
		stage := newStage(t, interceptor.Funcs{})
		s := stepOf(resourceAt("shop", "shop", v1alpha1.ModeLegacy))
		s.Stored, s.Holding = target.Token{Fingerprint: "stored", IssuedAt: after(-time.Hour)}, target.HoldsKnown
		s.Token.IssuedAt = s.Stored.IssuedAt
		if test.synced {
			if _, err := stage.WeChat.StableToken(t.Context(), s.Credentials, false); err != nil {
				t.Fatal(err)
			}
		}
		r, _ := holder("other", "other", "their-token", -10*time.Minute)
		for _, e := range test.edits {
			e(&s, r.Status.Token)
		}
		if got := (legacy{stage.Env}).serves(s, r.Status.Token); got != test.want {
			t.Errorf("%s: serves is %t", name, got)
		}
	}
	if (legacy{newStage(t, interceptor.Funcs{}).Env}).serves(stepOf(resourceAt("shop", "shop", v1alpha1.ModeLegacy)), nil) {
		t.Error("no token serves")
	}
}

// A token that another member holds is taken over: the newest one, and rather from the own namespace, which no neighbour can edit.
func TestCopy(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("secrets"), "a", errors.New("not yours"))
	for name, test := range map[string]struct {
		edit   func(s *Step, sources []*v1alpha1.WeChatAppToken, secrets []*corev1.Secret)
		answer error // to the read of the first Secret
		want   string
		read   []string
		err    bool
	}{
		"the newest of the own namespace": {nil, nil, "new", []string{"shop/b"}, false},
		"its data was edited": {func(_ *Step, _ []*v1alpha1.WeChatAppToken, secrets []*corev1.Secret) {
			secrets[1].Data["access_token"] = []byte("planted")
		}, nil, "new", []string{"shop/b", "a/a"}, false},
		"one is older": {func(_ *Step, sources []*v1alpha1.WeChatAppToken, _ []*corev1.Secret) {
			sources[1].Status.Token.IssueTime = metav1.NewTime(after(-11 * time.Minute))
		}, nil, "new", []string{"a/a"}, false},
		"all were edited": {func(_ *Step, _ []*v1alpha1.WeChatAppToken, secrets []*corev1.Secret) {
			for _, s := range secrets {
				s.Data = nil
			}
		}, nil, "", []string{"shop/b", "a/a", "c/c"}, false},
		"none may be handed out": {func(s *Step, sources []*v1alpha1.WeChatAppToken, _ []*corev1.Secret) {
			for _, r := range sources {
				m := member(r, 0)
				m.Receives = false
				s.Account.Update(m)
			}
		}, nil, "", nil, false},
		"they are others by now": {func(_ *Step, sources []*v1alpha1.WeChatAppToken, _ []*corev1.Secret) {
			for _, r := range sources {
				r.UID += "-successor"
			}
		}, nil, "", nil, false},
		"none serves": {func(_ *Step, sources []*v1alpha1.WeChatAppToken, _ []*corev1.Secret) {
			for _, r := range sources {
				r.Status.Token = nil
			}
		}, nil, "", nil, false},
		"its namespace is not the operator's": {nil, forbidden, "new", []string{"shop/b", "a/a"}, false},
		"the API server does not answer":      {nil, errors.New("no answer"), "", []string{"shop/b"}, true},
	} {
		a, secretA := holder("a", "a", "new", -10*time.Minute)
		b, secretB := holder("shop", "b", "new", -10*time.Minute)
		c, secretC := holder("c", "c", "old", -20*time.Minute)
		sources, secrets := []*v1alpha1.WeChatAppToken{a, b, c}, []*corev1.Secret{secretA, secretB, secretC}
		step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeLegacy), func(s *Step) { s.Requests.Check = true })
		var objects []client.Object
		for i, r := range sources {
			step.Account.Update(member(r, 0))
			objects = append(objects, r, secrets[i])
		}
		if test.edit != nil {
			test.edit(&step, sources, secrets)
		}
		var read []string
		stage := newStage(t, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if _, isSecret := o.(*corev1.Secret); isSecret {
				if read = append(read, key.String()); test.answer != nil && len(read) == 1 {
					return test.answer
				}
			}
			return c.Get(ctx, key, o, opts...)
		}}, objects...)
		got, err := (legacy{stage.Env}).copyFrom(t.Context(), step)
		value := ""
		if got != nil {
			value = got.Value.Reveal()
			if !got.Copied || got.Forced || got.AppID != appID || !got.IssuedAt.Equal(a.Status.Token.IssueTime.Time) || !got.ExpiresAt.Equal(a.Status.Token.ExpirationTime.Time) {
				t.Errorf("%s: %+v", name, got)
			}
		}
		if value != test.want || (err != nil) != test.err || !slices.Equal(read, test.read) {
			t.Errorf("%s: %q after reading %v, %v", name, value, read, err)
		}
	}
}

// A search for a copy reads a few Secrets, however many members there are.
func TestCopySourcesAreBounded(t *testing.T) {
	step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeLegacy))
	var objects []client.Object
	for i := range 3 * maxCopySources {
		r, _ := holder(fmt.Sprintf("n%d", i), "r", "planted", -time.Minute) // their Secrets are gone
		r.UID = types.UID(r.Namespace)
		step.Account.Update(member(r, 0))
		objects = append(objects, r)
	}
	stage := newStage(t, interceptor.Funcs{}, objects...)
	if got, err := (legacy{stage.Env}).copyFrom(t.Context(), step); got != nil || err != nil || len(stage.read) != maxCopySources {
		t.Errorf("%+v, %v, after %d reads", got, err, len(stage.read))
	}
}

// Before a mint that nobody asked for, there are cheaper ways.
func TestWithoutMint(t *testing.T) {
	other, secret := holder("other", "other", "their-token", -time.Minute)
	useless := other.DeepCopy()
	useless.Status.Token = nil
	asked := func(s *Step) { s.Requests.Check = true }
	paced := func(s *Step) { s.Inputs.Account.MintAllowedAt = after(time.Second) }
	younger := func(s *Step) { s.Account.Update(member(useless, 0)) }
	elder := func(s *Step) { s.Account.Update(member(useless, -2*time.Hour)) }
	checked := []report.Outcome{{Kind: refresh.RequestCheck, Value: "c"}}
	sought := report.Times{CopySought: now}
	for name, test := range map[string]struct {
		objects []client.Object
		edits   []func(*Step)
		done    bool
		copied  bool
		times   report.Times
		woken   []string
		ended   []report.Outcome
	}{
		"it came meanwhile":           {nil, []func(*Step){elder, asked, func(s *Step) { s.HasPending = func() bool { return true } }}, true, false, report.Times{}, nil, nil},
		"another member has it":       {[]client.Object{other, secret}, []func(*Step){elder, asked, paced}, true, true, sought, nil, checked},
		"the account may not mint":    {[]client.Object{useless}, []func(*Step){elder, asked, paced}, true, false, sought, nil, nil},
		"an older member mints":       {[]client.Object{useless}, []func(*Step){elder, asked}, true, false, report.Times{CopySought: now, Asked: now}, []string{"other/other"}, checked},
		"this one mints for all":      {[]client.Object{useless}, []func(*Step){younger, asked}, false, false, sought, nil, nil},
		"there is no other":           {nil, []func(*Step){asked}, false, false, sought, nil, nil},
		"there is none, and no token": {nil, []func(*Step){paced}, true, false, sought, nil, nil},
	} {
		r := resourceAt("shop", "shop", v1alpha1.ModeLegacy)
		r.Annotations = map[string]string{v1alpha1.AnnotationCheckRequestedAt: "c"}
		step := stepOf(r, test.edits...)
		stage := newStage(t, interceptor.Funcs{}, test.objects...)
		e, done, err := (legacy{stage.Env}).withoutMint(t.Context(), step)
		if err != nil || done != test.done || (e.Issued != nil) != test.copied || e.Times != test.times || !reflect.DeepEqual(e.Outcomes, test.ended) {
			t.Errorf("%s: done %t, %v, %+v", name, done, err, e)
		}
		if !slices.Equal(stage.woken, test.woken) || step.Account.Wanted(now) != (test.woken != nil) || stage.calls() != 0 {
			t.Errorf("%s: %v are woken, a mint is wanted: %t", name, stage.woken, step.Account.Wanted(now))
		}
	}
}

// A minted token goes to every member that can take it, and nobody misses it who has not joined the account yet.
func TestHandOut(t *testing.T) {
	named := func(name string) *v1alpha1.WeChatAppToken { return resourceAt("shop", name, v1alpha1.ModeLegacy) }
	suspended, stable := named("suspended"), resourceAt("shop", "stable", v1alpha1.ModeStable)
	suspended.Spec.Suspend = true
	foreign := named("another-app")
	foreign.Spec.AppID = "wxfedcba9876543210"
	stage := newStage(t, interceptor.Funcs{}, named("shop"), named("waits"), named("came"), named("closed"), named("stranger"), suspended, stable, foreign)
	step := stepOf(named("shop"))
	waits, came, closed := member(named("waits"), 0), member(named("came"), 0), member(named("closed"), 0)
	waits.Refresh, came.Refresh, closed.Receives = "later", "later", false
	for _, m := range []account.Member{waits, came, closed} {
		step.Account.Update(m)
	}
	waits.Refresh = "before"
	own := report.Pending{Token: token.Token{Value: token.NewValue("a-token"), IssuedAt: now}, Replaces: "older", AppID: appID}
	(legacy{stage.Env}).handOut(t.Context(), step, own, []account.Member{waits, closed})
	want := map[string]*report.Pending{}
	for name, refreshed := range map[string]string{"shop/waits": "before", "shop/came": ""} { // a request that came later needs another mint
		given := own
		given.Replaces, given.Refresh = "", refreshed
		want[name] = &given
	}
	if !reflect.DeepEqual(stage.given, want) {
		t.Errorf("given: %+v, want %+v", stage.given, want)
	}
	slices.Sort(stage.woken)
	if !slices.Equal(stage.woken, []string{"shop/came", "shop/closed", "shop/stranger", "shop/waits"}) {
		t.Errorf("%v are woken", stage.woken)
	}
}
