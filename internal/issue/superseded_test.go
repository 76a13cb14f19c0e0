// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// A token is at hand, and the Secret holds another one that no pass of this process wrote: one of them has to give way.
func TestSuperseded(t *testing.T) {
	ours, theirs := token.NewValue("our-token"), token.NewValue("their-token")
	const stable, legacyMode = v1alpha1.ModeStable, v1alpha1.ModeLegacy
	type scene struct {
		o    report.Observation
		t    *report.Pending
		acct *account.Account
		read bool
	}
	earlier := func(s *scene) { s.t.IssuedAt = after(-time.Minute) }
	later := func(s *scene) { s.t.IssuedAt = after(time.Minute) }
	sameMoment := func(s *scene) { s.t.IssuedAt = now }
	read := func(s *scene) { s.read = true }
	ahead := func(s *scene) { s.o.Token.IssuedAt = after(time.Hour) }
	known := func(s *scene) { s.o.Holding = target.HoldsKnown }
	unmarked := func(s *scene) { s.t.Unmarked = true }
	forced := func(s *scene) { s.t.Forced = true }
	notReplaced := func(s *scene) { s.t.Replaces = theirs.Fingerprint() }
	handedOut := func(s *scene) { s.t.Replaces = "" }
	same := func(s *scene) { s.o.Stored.Fingerprint = ours.Fingerprint() }
	// What the data is not, the annotations may say all the same: that a later token of somebody else's is there.
	forgedRecord := func(s *scene) {
		s.o.Record = target.Record{TokenFingerprint: "forged", IssuedAt: after(time.Hour)}
		s.o.Stored.Fingerprint, s.t.Replaces = "older", "older"
	}
	overwritten := func(s *scene) { s.o.Holding = target.HoldsOther }
	none := func(s *scene) { s.o.Secret = nil }
	noAccount := func(s *scene) { s.acct = nil }
	marked := func(id string) func(*scene) {
		return func(s *scene) {
			s.o.Intent = s.o.Intent.Marked(account.Mark{}, account.Mark{StartedAt: now, ID: "m"})
			s.o.Record.Mint = account.Mark{StartedAt: now, ID: id}
		}
	}
	refused := func(fingerprint string) func(*scene) {
		return func(s *scene) { s.acct.NoteDead(fingerprint, false, now) }
	}
	type edits []func(*scene)
	for name, test := range map[string]struct {
		mode  v1alpha1.Mode
		edits edits
		want  bool
	}{
		"Stable, asked before the read of the Secret": {stable, edits{read}, true},
		"Stable, asked after it":                      {stable, nil, false},
		"Stable, a forced call":                       {stable, edits{read, forced}, false},
		"Stable, the same token":                      {stable, edits{read, same}, false},
		"Stable, no other Secret":                     {stable, edits{read, none}, false},
		"Stable, the status attests theirs":           {stable, edits{read, known}, true},
		"Stable, theirs is the one to replace":        {stable, edits{read, known, notReplaced}, false},
		"Stable, to replace, but nobody knows it":     {stable, edits{read, notReplaced}, true},
		"Stable, the data is something else":          {stable, edits{read, forgedRecord, overwritten}, false},
		"Stable, forged annotations":                  {stable, edits{read, forgedRecord, known}, false},

		"Legacy, the data is something else":    {legacyMode, edits{earlier, forgedRecord, overwritten}, false},
		"Legacy, forged annotations":            {legacyMode, edits{earlier, forgedRecord, known}, false},
		"Legacy, minted earlier":                {legacyMode, edits{earlier}, true},
		"Legacy, minted later":                  {legacyMode, edits{later}, false},
		"Legacy, minted at the same moment":     {legacyMode, edits{sameMoment}, false},
		"Legacy, minted unmarked":               {legacyMode, edits{later, unmarked}, true},
		"Legacy, unmarked, theirs is known":     {legacyMode, edits{later, unmarked, known, notReplaced}, true},
		"Legacy, the same token":                {legacyMode, edits{earlier, unmarked, same}, false},
		"Legacy, no other Secret":               {legacyMode, edits{unmarked, none}, false},
		"Legacy, theirs is the one to replace":  {legacyMode, edits{earlier, known, notReplaced}, false},
		"Legacy, another leader replaced it":    {legacyMode, edits{earlier, known}, true},
		"Legacy, minted after another leader's": {legacyMode, edits{later, known}, false},
		"Legacy, handed out, theirs is known":   {legacyMode, edits{earlier, known, handedOut}, true},
		"Legacy, handed out, theirs is older":   {legacyMode, edits{later, known, handedOut}, false},
		"Legacy, handed out, a clock was ahead": {legacyMode, edits{earlier, known, handedOut, ahead}, false},
		"Legacy, handed out, nobody knows it":   {legacyMode, edits{earlier, handedOut}, true},
		"Legacy, under this mark":               {legacyMode, edits{earlier, unmarked, marked("m")}, false},
		"Legacy, under another mark":            {legacyMode, edits{earlier, marked("n")}, true},
		"Legacy, refused theirs":                {legacyMode, edits{earlier, refused(theirs.Fingerprint())}, false},
		"Legacy, refused some one":              {legacyMode, edits{earlier, refused("another")}, true},
		"Legacy, its account was left":          {legacyMode, edits{earlier, noAccount}, true},
	} {
		s := &scene{
			o: report.Observation{
				Secret: &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: "s", ResourceVersion: "10"}},
				Now:    now, Holding: target.HoldsUnattested, Stored: target.Token{Fingerprint: theirs.Fingerprint(), IssuedAt: now},
			},
			t:    &report.Pending{Token: token.Token{Value: ours, IssuedAt: after(-time.Second)}, Replaces: "older"},
			acct: &account.Account{},
		}
		s.o.Traits, s.o.Token.IssuedAt = Traits(test.mode), now
		for _, e := range test.edits {
			e(s)
		}
		if got := Superseded(s.o, s.t, s.read, s.acct); got != test.want {
			t.Errorf("%s: superseded is %t", name, got)
		}
	}
}
