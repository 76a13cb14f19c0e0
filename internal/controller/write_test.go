// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// A token at hand and another one in the Secret, which nobody of this process wrote: one of them has to give way.
func TestSupersededBySecret(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ours, theirs := vocab.NewValue("our-token"), vocab.NewValue("their-token")
	type state struct {
		pass  pass
		token issued
	}
	for name, tt := range map[string]struct {
		mode v1alpha1.Mode
		edit func(*state)
		want bool
	}{
		"Stable, asked before the look at the Secret": {v1alpha1.ModeStable, func(s *state) { s.token.beforeLook = true }, true},
		"Stable, asked after it":                      {v1alpha1.ModeStable, func(*state) {}, false},
		"Stable, a refresh that somebody asked for": {v1alpha1.ModeStable, func(s *state) {
			s.token.beforeLook, s.token.handledRefresh = true, "1"
		}, false},
		"Stable, a revoke": {v1alpha1.ModeStable, func(s *state) {
			s.token.beforeLook, s.token.revoke = true, &target.Revoke{}
		}, false},
		"Stable, the same token": {v1alpha1.ModeStable, func(s *state) {
			s.token.beforeLook, s.pass.record.TokenFingerprint = true, ours.Fingerprint()
		}, false},
		"Legacy, minted earlier":   {v1alpha1.ModeLegacy, func(s *state) { s.token.IssuedAt = now.Add(-time.Minute) }, true},
		"Legacy, minted later":     {v1alpha1.ModeLegacy, func(s *state) { s.token.IssuedAt = now.Add(time.Minute) }, false},
		"Legacy, minted unmarked":  {v1alpha1.ModeLegacy, func(s *state) { s.token.IssuedAt, s.token.unmarked = now.Add(time.Minute), true }, true},
		"Legacy, no other token":   {v1alpha1.ModeLegacy, func(s *state) { s.token.unmarked, s.pass.mem.verified.doubtful = true, false }, false},
		"Legacy, no other Secret":  {v1alpha1.ModeLegacy, func(s *state) { s.token.unmarked, s.pass.existing = true, nil }, false},
		"Legacy, under this mark":  {v1alpha1.ModeLegacy, func(s *state) { s.pass.mem.ownMark, s.pass.record.Mint.ID = "m", "m" }, false},
		"Legacy, under another":    {v1alpha1.ModeLegacy, func(s *state) { s.pass.mem.ownMark, s.pass.record.Mint.ID = "m", "n" }, true},
		"Legacy, refused theirs":   {v1alpha1.ModeLegacy, func(s *state) { s.pass.mem.account.noteDead(theirs.Fingerprint(), now, false) }, false},
		"Legacy, refused some one": {v1alpha1.ModeLegacy, func(s *state) { s.pass.mem.account.noteDead("another", now, false) }, true},
	} {
		s := &state{
			pass: pass{
				token:    &v1alpha1.WeChatAppToken{Spec: v1alpha1.WeChatAppTokenSpec{Mode: tt.mode}},
				existing: &metav1.PartialObjectMetadata{},
				record:   target.Record{TokenFingerprint: theirs.Fingerprint(), IssuedAt: now},
				mem:      &memory{account: newAccounts().join(accountID{}, "u", types.NamespacedName{}), verified: verification{doubtful: true}},
			},
			token: issued{Token: vocab.Token{Value: ours, IssuedAt: now.Add(-time.Second)}},
		}
		tt.edit(s)
		if got := s.pass.supersededBySecret(&s.token); got != tt.want {
			t.Errorf("%s: superseded is %t", name, got)
		}
	}
}
