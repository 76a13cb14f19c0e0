// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// legacy issues tokens by GET /cgi-bin/token. Each call is a mint that ends the token before the last one, so its result must not get
// lost: the Secret is marked, the token minted, and then written with the mark removed in one update. The token stays in memory until
// it is written.
type legacy struct{ Env }

func (legacy) Traits() refresh.Traits { return refresh.Legacy() }

// Issue gets a token in a way that costs no mint, if there is one, or else mints.
func (i legacy) Issue(ctx context.Context, s Step) (report.Effect, error) {
	return i.mint(ctx, s, true)
}

func (i legacy) Refresh(ctx context.Context, s Step) (report.Effect, error) {
	return i.mint(ctx, s, false)
}

func (i legacy) Force(ctx context.Context, s Step) (report.Effect, error) {
	return i.mint(ctx, s, false)
}

// mint takes the account's turn, marks the Secret and mints. An unrequested mint is made only if no other way leads to a token, and passes
// the account's bucket.
func (i legacy) mint(ctx context.Context, s Step, unrequested bool) (report.Effect, error) {
	if !s.Account.BeginMint() {
		return report.Effect{}, nil // the next decision waits for its end
	}
	defer func() { i.wakeAll(ctx, s.Account.EndMint()) }()
	var e report.Effect
	if unrequested {
		var done bool
		var err error
		if e, done, err = i.withoutMint(ctx, s); done || err != nil {
			return e, err
		}
	}
	if err := i.rehearse(ctx, s); err != nil {
		return e, &WriteError{err}
	}
	// A mint has to start soon after its mark, which leaves no time to find out how the host can be reached.
	if err := i.WeChat.TryHosts(ctx); err != nil {
		return failed(ctx, e, err)
	}
	failpoint.Hit("before-mark")
	m := mint{intent: s.Intent, mark: s.Record.Mint, unrequested: unrequested, unmarked: s.Secret == nil}
	if s.Secret != nil && !failpoint.Off(failpoint.Mark) {
		next := account.Mark{StartedAt: i.WeChat.Now(), ID: rand.Text()[:8]}
		marked, err := i.Store.Mark(ctx, s.Secret, next)
		if err != nil {
			return e, &WriteError{err}
		}
		m.intent, m.mark = m.intent.Marked(m.mark, next), next
		e.Wrote, e.DataKept, e.Target.Secret = marked, true, marked
	}
	failpoint.Hit("mark-written")
	e.Intent = &m.intent
	return i.call(ctx, s, e, m)
}

// mint is one call that issues a Legacy token.
type mint struct {
	intent account.Intent
	// mark is what the Secret says about the mint; unmarked reports that there is no Secret to say it.
	mark                  account.Mark
	unmarked, unrequested bool
}

// call mints and hands the token to the members of the account.
func (i legacy) call(ctx context.Context, s Step, e report.Effect, m mint) (report.Effect, error) {
	now := i.WeChat.Now()
	e.Times.Called = now
	undo := s.Account.CountMint(now, !m.unrequested)
	if !m.unrequested {
		e.Times.Forced = now
	}
	waiting := s.Account.Others(s.uid()) // requests that were seen before the mint are handled by it
	failpoint.Hit("before-wechat")
	minted, err := i.WeChat.LegacyToken(ctx, s.Credentials, m.intent.StartBy(m.mark, now))
	failpoint.Hit("after-wechat")
	if err != nil {
		refused, answered := errors.AsType[*token.Error](err)
		if !answered || !refused.MaybeSent {
			undo()
			e.Times.Forced = time.Time{}
			intent := m.intent.NotMinted(m.mark)
			e.Intent = &intent
		}
		if errors.Is(err, wechat.ErrStartedTooLate) && !answered {
			e.Failed = &report.Failure{
				Failure: refresh.Failure{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable},
				Message: "The mint could not be started in time: writing its mark or waiting for other calls took too long.",
			}
			return e, nil
		}
		return failed(ctx, e, err)
	}
	own := s.pending(minted)
	log.FromContext(ctx).Info("minted a Legacy token", "reason", s.Decision.Reason, "fingerprint", minted.Value.Fingerprint())
	s.Account.NoteMinted(account.Confirmation{Fingerprint: minted.Value.Fingerprint(), At: minted.IssuedAt, ExpiresAt: minted.ExpiresAt})
	i.confirm(ctx, s, minted)
	i.handOut(ctx, s, own, waiting)
	e.Accepted, e.Outcomes = true, s.Checked()
	own.Unmarked, own.Forced = m.unmarked, !m.unrequested
	if !m.unrequested {
		s.Account.Tickets.Doubt()
	}
	if s.Requests.Refresh { // seen before the mint, whatever it was made for
		own.Refresh = s.Requested(refresh.RequestRefresh)
	}
	e.Issued = &own
	return e, nil
}

// Check asks WeChat about the stored token, after making sure that it is the one that was written.
func (i legacy) Check(ctx context.Context, s Step) (report.Effect, error) {
	if !i.beginCheck(s) {
		return report.Effect{}, nil
	}
	value, found, err := i.stored(ctx, s)
	if err != nil || !found {
		return report.LookAgain(), err
	}
	e := report.Effect{Times: report.Times{Called: i.WeChat.Now()}}
	failpoint.Hit("before-probe")
	err = i.WeChat.ProbeToken(ctx, value)
	failpoint.Hit("after-probe")
	if err == nil {
		i.fetchTickets(ctx, s, value, &e)
	}
	return i.probed(ctx, s, e, err)
}

// Tickets fetches tickets with the stored token. A call that returned a new token would end it.
func (i legacy) Tickets(ctx context.Context, s Step) (report.Effect, error) {
	value, found, err := i.stored(ctx, s)
	if err != nil || !found {
		return report.LookAgain(), err
	}
	var e report.Effect
	i.fetchTickets(ctx, s, value, &e)
	return e, ctx.Err()
}

// stored reads the token in the Secret, and reports whether it is the one that was observed.
func (i legacy) stored(ctx context.Context, s Step) (token.Value, bool, error) {
	name := types.NamespacedName{Namespace: s.Resource.Namespace, Name: s.Resource.TargetName()}
	snapshot, err := i.Store.Read(ctx, name)
	if err != nil {
		return token.Value{}, false, client.IgnoreNotFound(err)
	}
	value := snapshot.Token(s.Resource.Spec.Target.AccessTokenKey)
	return value, snapshot.Meta.ResourceVersion == s.Secret.ResourceVersion && value.Fingerprint() == s.Stored.Fingerprint, nil
}

// probed adds to the effect what WeChat said about the stored token.
func (i legacy) probed(ctx context.Context, s Step, e report.Effect, err error) (report.Effect, error) {
	beforeMint, askedTheTime := askedBeforeMint(s), askedTheTime(s)
	_, synced := i.WeChat.Clock()
	refused, isRefused := errors.AsType[*token.Error](err)
	switch {
	case isRefused && refused.Reason == token.ReasonTokenRejected:
		if err := i.noteRejected(ctx, s, &e); err != nil || beforeMint {
			return e, err
		}
	case beforeMint && synced:
		return e, nil // the request waits for the mint, now that the time is known
	case err == nil:
		// A good answer about the token says nothing about the credentials: what needs somebody to act on stays.
		e.FailureOver = !askedTheTime && s.Failed != nil && s.Failed.PassesBy(s.Now)
		i.sight(s)
	case s.Token.Doubtful && s.Stored.Unattested || askedTheTime && !synced:
		return failed(ctx, e, err) // the answer was needed; it was not where a call for a ticket raised the doubt
	case ctx.Err() != nil:
		return e, ctx.Err()
	default:
		i.sightInVain(s)
	}
	e.Outcomes = s.Checked()
	return e, nil
}

// askedTheTime reports whether only the time was asked for, because a mint is due: it is the mint that has to work.
func askedTheTime(s Step) bool {
	due := []refresh.Reason{refresh.MintUnfinished, refresh.Expired, refresh.RefreshDue}
	return askedBeforeMint(s) || slices.Contains(due, s.Decision.Reason)
}

// askedBeforeMint reports whether a check on request comes before a mint that has failed and is due, because the time is not known. The
// mint handles the request.
func askedBeforeMint(s Step) bool {
	return s.Decision.Request == refresh.RequestCheck && s.Failed != nil && !s.ClockSynced && !s.Now.Before(s.Decision.DueAt)
}

// sight records that the stored token was asked about.
func (i legacy) sight(s Step) {
	now := i.WeChat.Now()
	if !s.Stored.Believable(now) {
		return // the next observation finds the Secret tampered with
	}
	s.Account.Confirm(account.Confirmation{Fingerprint: s.Stored.Fingerprint, At: now, ExpiresAt: s.Stored.ExpiresAt}, s.uid(), now)
}

// replaced reports whether this operator has issued a later token for the appid, by what it remembers or by the status of a resource.
func (i legacy) replaced(ctx context.Context, s Step) (bool, error) {
	if s.Account.Minted().Replaces(s.Stored.Fingerprint, s.Stored.IssuedAt) {
		return true, nil
	}
	list, err := i.resources(ctx, s)
	return slices.ContainsFunc(list, func(r v1alpha1.WeChatAppToken) bool {
		t := r.Status.Token
		return t != nil && t.Mode == v1alpha1.ModeLegacy && t.Fingerprint != "" && t.Fingerprint != s.Stored.Fingerprint &&
			t.IssueTime.After(s.Stored.IssuedAt)
	}), err
}

// resources returns the Legacy resources of the appid, whatever their AppSecrets. Nobody may change them.
func (i legacy) resources(ctx context.Context, s Step) ([]v1alpha1.WeChatAppToken, error) {
	list := &v1alpha1.WeChatAppTokenList{}
	err := i.Cache.List(ctx, list, client.MatchingFields{LegacyAppIDIndex: s.Resource.Spec.AppID}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("listing Legacy WeChatAppTokens: %w", err)
	}
	return list.Items, nil
}
