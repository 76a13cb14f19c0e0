// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"context"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// settlesWithin is how long after a mint WeChat may refuse the new token for a moment. One refusal then is no reason for another mint,
// which would end the token before it while volumes still hold that.
const settlesWithin = 2 * time.Minute

// settles reports whether WeChat may still refuse the stored token for a moment.
func (i legacy) settles(s Step) bool {
	m := s.Account.Minted()
	return m.Fingerprint == s.Stored.Fingerprint && i.WeChat.Now().Before(m.At.Add(settlesWithin))
}

// sightInVain updates the time of the check. An answer that tells nothing leaves the doubt about a token that was refused just after its
// mint.
func (i legacy) sightInVain(s Step) {
	i.sight(s)
	if s.Token.Doubtful && i.settles(s) {
		s.Account.Doubt()
	}
}

// noteRejected records that WeChat refuses the stored token. If the operator wrote it, did not replace it, and it should still live,
// something else fetches for this appid.
func (i legacy) noteRejected(ctx context.Context, s Step, e *report.Effect) error {
	now := i.WeChat.Now()
	if !s.Token.Doubtful && i.settles(s) {
		i.sight(s)
		s.Account.Doubt() // so the next check comes soon, and tells
		return nil
	}
	early := now.Before(s.Stored.ExpiresAt.Add(-time.Minute)) && !s.Stored.Unattested
	if early {
		replaced, err := i.replaced(ctx, s)
		if err != nil {
			return err
		}
		early = !replaced
	}
	deaths := s.Account.NoteDead(s.Stored.Fingerprint, early, now)
	log.FromContext(ctx).Info("WeChat refuses the stored Legacy token",
		"fingerprint", s.Stored.Fingerprint, "early", early, "deathsWithinTheHour", deaths)
	e.ForeignDeaths = deaths
	return nil
}

// worksAgain reports whether WeChat accepts the stored token again that it refused some time ago. For a while WeChat may have refused
// everything, mints included, and a mint for nothing would end the token that volumes may still hold. It does not ask while the last
// attempt got no answer or could not be written.
func (i legacy) worksAgain(ctx context.Context, s Step) (bool, error) {
	since, dead := s.Account.DeadSince(s.Stored.Fingerprint)
	f := s.Failed
	if !dead || s.Secret == nil || s.Holding != target.HoldsKnown || i.WeChat.Now().Sub(since) < time.Second ||
		f != nil && (f.Code == 0 || f.OfWrite) {
		return false, nil
	}
	value, found, err := i.stored(ctx, s)
	if err != nil || !found || i.WeChat.ProbeToken(ctx, value) != nil {
		return false, err
	}
	s.Account.NoteAlive(s.Stored.Fingerprint)
	s.Account.Want(time.Time{}) // whoever waits for another in its place has been served
	i.sight(s)
	log.FromContext(ctx).Info("WeChat accepts the stored Legacy token again", "fingerprint", s.Stored.Fingerprint)
	return true, nil
}
