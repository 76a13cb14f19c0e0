// SPDX-License-Identifier: Apache-2.0

package report

import (
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestLaterTimes(t *testing.T) {
	early, late := after(-time.Minute), after(time.Minute)
	earlier := Times{Asked: early, CopySought: early, Called: early, Forced: early}
	later := Times{Asked: late, CopySought: late, Called: late, Forced: late}
	want := Times{Asked: late, CopySought: late, Called: late}
	for name, test := range map[string]struct{ a, b, want Times }{
		"nothing":         {Times{}, Times{}, Times{}},
		"the first ones":  {Times{}, later, want},
		"later ones":      {earlier, later, want},
		"earlier ones":    {later, earlier, want},
		"none this time":  {later, Times{}, want},
		"some this time":  {Times{Called: early, Asked: late}, Times{Called: late, CopySought: early}, Times{Asked: late, CopySought: early, Called: late}},
		"a forced call":   {Times{}, Times{Called: late, Forced: late}, Times{Called: late}},
		"the same moment": {later, later, want},
	} {
		if got := test.a.Later(test.b); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

func TestOutcomeEvent(t *testing.T) {
	for name, test := range map[string]struct {
		o    Outcome
		want Event
	}{
		"a check":            {Outcome{Kind: refresh.RequestCheck, Value: "1"}, requestDone(refresh.RequestCheck)},
		"a refresh":          {Outcome{Kind: refresh.RequestRefresh, Value: "1"}, requestDone(refresh.RequestRefresh)},
		"the same token":     {Outcome{Kind: refresh.RequestRefresh, Value: "1", Same: true}, refreshedNothing()},
		"a revoke":           {Outcome{Kind: refresh.RequestRevoke, Value: "1"}, requestDone(refresh.RequestRevoke)},
		"a revoke failed":    {Outcome{Kind: refresh.RequestRevoke, Value: "1", Failed: "why"}, requestFailed(refresh.RequestRevoke, "why")},
		"the failure counts": {Outcome{Kind: refresh.RequestRefresh, Value: "1", Failed: "why", Same: true}, requestFailed(refresh.RequestRefresh, "why")},
	} {
		got := test.o.Event()
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
		if worked := test.o.Failed == "" && !test.o.Same; worked != (got.Type == corev1.EventTypeNormal) {
			t.Errorf("%s: a %s event", name, got.Type)
		}
	}
}

func TestChecked(t *testing.T) {
	o := observation()
	requesting(o.Resource)
	if got := o.Checked(); got != nil {
		t.Errorf("%+v ended, and no check was asked for", got)
	}
	o.Requests.Check = true
	if got := o.Checked(); !reflect.DeepEqual(got, []Outcome{{Kind: refresh.RequestCheck, Value: "c"}}) {
		t.Errorf("%+v", got)
	}
}

func TestWantedRecord(t *testing.T) {
	o := observation()
	holding(&o)
	o.Stored.Credentials = "credentials-1"
	mark := account.Mark{StartedAt: after(-time.Minute), ID: "m"}
	o.Record = target.Record{
		OwnerUID: "3f8a1c1e", OwnerName: "shop", AppID: "wxfedcba9876543210", Mode: v1alpha1.ModeLegacy, IssuedAt: after(-time.Hour),
		TokenFingerprint: "another", CredentialsFingerprint: "credentials-0", Applied: target.Applied{Labels: []string{"team"}}, Mint: mark,
	}
	stored := o.Record
	stored.AppID, stored.Mode, stored.CredentialsFingerprint = o.Stored.AppID, o.Stored.Mode, "credentials-1"
	stored.IssuedAt, stored.ExpiresAt, stored.TokenFingerprint = o.Stored.IssuedAt, o.Stored.ExpiresAt, o.Stored.Fingerprint
	with := func(m account.Mark) target.Record { r := stored; r.Mint = m; return r }
	failing := func(o *Observation) { fail(o, token.Transient, v1alpha1.ReasonUnreachable, "what happened") }
	for name, test := range map[string]struct {
		edit func(*Observation)
		want target.Record
	}{
		"a mark that is answered":      {func(*Observation) {}, with(account.Mark{})},
		"a mark without an answer":     {func(o *Observation) { o.Unanswered = mark }, with(mark)},
		"attempts that have no end":    {failing, with(mark)},
		"the same, without an answer":  {func(o *Observation) { failing(o); o.Unanswered = mark }, with(mark)},
		"nobody saw WeChat issue it":   {func(o *Observation) { o.Stored.Unattested = true }, with(account.Mark{})},
		"no token is stored, nor ours": {func(o *Observation) { o.Stored = target.Token{} }, target.Record{OwnerUID: "3f8a1c1e", OwnerName: "shop", Applied: stored.Applied}},
	} {
		given := o
		test.edit(&given)
		if got := given.WantedRecord(nil); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}

	secret, _ := token.ParseAppSecret([]byte("0123456789abcdef0123456789abcdef"))
	credentials := token.Credentials{AppID: o.Resource.Spec.AppID, AppSecret: secret}
	issued := token.Token{Value: token.NewValue("a-token"), IssuedAt: now, ExpiresAt: after(2 * time.Hour)}
	failing(&o)
	o.Unanswered = mark
	p := NewPending(o, refresh.Decision{Reason: refresh.RefreshDue}, issued, credentials)
	if p.Reason != refresh.RefreshDue || p.Replaces != o.Stored.Fingerprint || p.Credentials != credentials.Fingerprint() || p.Token != issued {
		t.Errorf("%+v", p)
	}
	want := o.Record
	want.AppID, want.Mode, want.CredentialsFingerprint = o.Resource.Spec.AppID, v1alpha1.ModeStable, credentials.Fingerprint()
	want.IssuedAt, want.ExpiresAt, want.TokenFingerprint, want.Mint = now, after(2*time.Hour), issued.Value.Fingerprint(), account.Mark{}
	if got := o.WantedRecord(&p); !reflect.DeepEqual(got, want) {
		t.Errorf("with a token: %+v, want %+v", got, want)
	}
	o.Resource.Spec.Target.AccessTokenKey = "token"
	content := o.Content(&p)
	if o.Content(nil) != nil || !reflect.DeepEqual(*content, target.Content{AccessTokenKey: "token", Token: issued.Value, ExpiresAt: p.ExpiresAt, AppID: p.AppID}) {
		t.Errorf("content %+v", content)
	}
}
