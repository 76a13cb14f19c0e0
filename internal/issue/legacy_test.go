// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// throughCarrier makes the stage reach WeChat by TLS through a network that loses large ClientHellos.
func (s *stage) throughCarrier(t *testing.T) *wechattest.Carrier {
	t.Helper()
	clock := func() time.Time { return now }
	var err error
	if s.server, err = wechattest.NewServer(wechattest.Options{Now: clock, TLS: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.server.Close)
	s.server.SetApp(wechattest.App{ID: appID, Secret: appSecret})
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, s.server.CACertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	carrier, err := wechattest.NewCarrier(strings.TrimPrefix(s.server.URL(), "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(carrier.Close)
	// As by default, there is a second host, so that a mint has one second for each.
	s.WeChat, err = wechat.New(wechat.Options{
		Endpoints: []string{"https://" + carrier.Addr(), "https://" + carrier.Addr()}, CAFile: ca, Wall: clock, Monotonic: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	return carrier
}

// A network that loses large ClientHellos does not keep a Legacy token from being minted. The host is tried before the mark, and the mint
// is sent once.
func TestLegacyMintOnALossyNetwork(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "s", ResourceVersion: "1"}, Type: corev1.SecretTypeOpaque}
	withSecret := func(s *Step) {
		s.Secret = &metav1.PartialObjectMetadata{ObjectMeta: secret.ObjectMeta}
		s.Ownership.Claim = target.Own
	}
	mint := func(i Issuer, s Step, t *testing.T) (report.Effect, error) { return i.Issue(t.Context(), s) }
	request := func(i Issuer, s Step, t *testing.T) (report.Effect, error) {
		s.Decision = refresh.Decision{Action: refresh.Force, Reason: refresh.RequestExecutable, Request: refresh.RequestRefresh}
		return i.Refresh(t.Context(), s)
	}
	for name, test := range map[string]struct {
		edits []func(*Step)
		do    func(Issuer, Step, *testing.T) (report.Effect, error)
		marks int
	}{
		"first issue":       {nil, mint, 0},
		"under a mark":      {[]func(*Step){withSecret}, mint, 1},
		"requested":         {[]func(*Step){withSecret}, request, 1},
		"requested, no one": {nil, request, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *stage
			var carrier *wechattest.Carrier
			marks := 0
			s = newStage(t, interceptor.Funcs{Patch: func(
				ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption,
			) error {
				marks++
				if s.calls() != 0 || carrier.Passed.Load() == 0 {
					t.Error("the Secret is marked before the host is known")
				}
				return c.Patch(ctx, o, p, opts...)
			}}, secret.DeepCopy())
			carrier = s.throughCarrier(t)
			step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeLegacy), test.edits...)
			if step.Secret == nil {
				if err := s.Store.Client.Delete(t.Context(), secret.DeepCopy()); err != nil {
					t.Fatal(err)
				}
			}
			e, err := test.do(s.For(v1alpha1.ModeLegacy), step, t)
			if err != nil || e.Failed != nil || e.Issued == nil || !s.server.Valid(e.Issued.Value.Reveal()) {
				t.Fatalf("%v, %+v", err, e.Failed)
			}
			if s.calls() != 1 || marks != test.marks || carrier.Dropped.Load() != 1 || carrier.Passed.Load() != 2 {
				t.Errorf("%d mints, %d marks, %d large ClientHellos, %d small ones",
					s.calls(), marks, carrier.Dropped.Load(), carrier.Passed.Load())
			}
		})
	}
}

// A network that is down costs no mark and none of the account's mints.
func TestLegacyMintWithoutANetwork(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "s"}, Type: corev1.SecretTypeOpaque}
	s := newStage(t, interceptor.Funcs{Patch: func(
		context.Context, client.WithWatch, client.Object, client.Patch, ...client.PatchOption,
	) error {
		t.Error("the Secret is marked")
		return nil
	}}, secret)
	s.throughCarrier(t).Close()
	step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeLegacy), func(s *Step) {
		s.Secret = &metav1.PartialObjectMetadata{ObjectMeta: secret.ObjectMeta}
		s.Ownership.Claim = target.Own
	})
	for range 5 { // more than the account may mint in a row
		e, err := s.For(v1alpha1.ModeLegacy).Refresh(t.Context(), step)
		if err != nil || e.Failed == nil || e.Failed.Reason != v1alpha1.ReasonUnreachable || e.Intent != nil || e.Wrote != nil || !e.Times.Forced.IsZero() {
			t.Fatalf("%v, %+v", err, e)
		}
	}
	if n := len(step.Account.Forced(now)); n != 0 || !step.Account.BeginMint() {
		t.Errorf("%d requested mints count, or the turn was not given back", n)
	}
}

// WeChat refused the stored token, and a mint after that. The token is asked about again, and no mint is made if WeChat accepts it.
func TestWorksAgain(t *testing.T) {
	failure := func(edit func(*report.Failure)) func(*Step) {
		return func(s *Step) {
			s.Failed = &report.Failure{Failure: refresh.Failure{Class: token.Action, Code: 40001, Time: now}}
			edit(s.Failed)
		}
	}
	refused := failure(func(*report.Failure) {})
	refusedAt := func(at time.Time) func(*Step) {
		return func(s *Step) {
			s.Account.NoteAlive(s.Stored.Fingerprint)
			s.Account.NoteDead(s.Stored.Fingerprint, true, at)
		}
	}
	for name, test := range map[string]struct {
		edits []func(*Step)
		asked bool
	}{
		"a mint was refused":          {[]func(*Step){refused}, true},
		"another member's mint was":   {nil, true},
		"it was refused just now":     {[]func(*Step){refusedAt(now)}, false},
		"it was refused a second ago": {[]func(*Step){refusedAt(after(-time.Second))}, true},
		"no errcode":                  {[]func(*Step){failure(func(f *report.Failure) { f.Code = 0 })}, false},
		"the write failed":            {[]func(*Step){failure(func(f *report.Failure) { f.OfWrite = true })}, false},
		"it was not refused":          {[]func(*Step){refused, func(s *Step) { s.Account.NoteAlive(s.Stored.Fingerprint) }}, false},
		"somebody else wrote it":      {[]func(*Step){refused, func(s *Step) { s.Holding = target.HoldsUnattested }}, false},
		"there is no Secret":          {[]func(*Step){refused, func(s *Step) { s.Secret = nil }}, false},
	} {
		for _, accepted := range []bool{true, false} {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "s"}, Type: corev1.SecretTypeOpaque}
			s := newStage(t, interceptor.Funcs{}, secret)
			held := s.server.RivalMint(appID)
			secret.Data = map[string][]byte{v1alpha1.DefaultAccessTokenKey: []byte(held.Token)}
			if err := s.Store.Client.Update(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
			if !accepted {
				s.server.Inject(wechattest.Fault{Endpoint: wechattest.EndpointProbe, Errcode: 40001})
			}
			step := stepOf(resourceAt("shop", "shop", v1alpha1.ModeLegacy), func(s *Step) {
				s.Secret, s.Holding = &metav1.PartialObjectMetadata{ObjectMeta: secret.ObjectMeta}, target.HoldsKnown
				s.Stored = target.Token{Fingerprint: token.NewValue(held.Token).Fingerprint(), IssuedAt: now, ExpiresAt: held.ExpiresAt}
				s.Account.NoteDead(s.Stored.Fingerprint, true, after(-time.Minute))
			})
			for _, edit := range test.edits {
				edit(&step)
			}
			works, err := legacy{s.Env}.worksAgain(t.Context(), step)
			if err != nil || works != (test.asked && accepted) {
				t.Errorf("%s, accepted %t: works again: %t, %v", name, accepted, works, err)
			}
			if n := s.server.Count(wechattest.Filter{Endpoint: wechattest.EndpointProbe}); (n > 0) != test.asked {
				t.Errorf("%s: asked %d times", name, n)
			}
			if _, dead := step.Account.DeadSince(step.Stored.Fingerprint); test.asked && dead == works {
				t.Errorf("%s, accepted %t: dead: %t", name, accepted, dead)
			}
		}
	}
}
