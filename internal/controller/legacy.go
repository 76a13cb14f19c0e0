// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// legacy issues tokens by GET /cgi-bin/token. Each call is a mint that ends the token before the last one, so its result must not get
// lost: the Secret is marked, the token minted, and then written with the mark removed in one update. The token stays in memory until
// it is written.
type legacy struct{ *pass }

// issue gets a token in a way that costs no mint, if there is one, or else mints.
func (l legacy) issue(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	return l.mint(ctx, o, d, true)
}

func (l legacy) refresh(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	return l.mint(ctx, o, d, false)
}

func (l legacy) force(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	return l.mint(ctx, o, d, false)
}

// mint takes the account's turn, marks the Secret and mints. unrequested mints first look for a way that costs none, and pass the
// account's bucket.
func (l legacy) mint(ctx context.Context, o report.Observation, d refresh.Decision, unrequested bool) (effect, error) {
	credentials, ok, err := l.appSecret(ctx)
	if err != nil || !ok {
		return effect{}, err
	}
	acct := l.state.membership.account
	if !acct.BeginMint() {
		return effect{}, nil // the next decision waits for its end
	}
	defer func() { l.wakeAll(ctx, acct.EndMint()) }()
	var e effect
	if unrequested {
		done := false
		if e, done, err = l.withoutMint(ctx, o, d, credentials); done || err != nil {
			return e, err
		}
	}
	if err := l.rehearse(ctx, o, d, credentials); err != nil {
		return l.refused(o, e, err)
	}
	failpoint.Hit("before-mark")
	intent, mark := l.state.intent, o.Record.Mint
	if o.Secret != nil && !failpoint.Off(failpoint.Mark) {
		next := account.Mark{StartedAt: l.WeChat.Now(), ID: rand.Text()[:8]}
		marked, err := l.store.Mark(ctx, o.Secret, next)
		if err != nil {
			return l.refused(o, e, err)
		}
		intent, mark = intent.Marked(mark, next), next
		e.wrote, e.dataKept, e.target.secret = marked, true, marked
	}
	failpoint.Hit("mark-written")
	e.intent = &intent
	return l.call(ctx, o, d, e, mint{credentials: credentials, mark: mark, unrequested: unrequested, unmarked: o.Secret == nil})
}

// mint is one call that issues a Legacy token.
type mint struct {
	credentials token.Credentials
	// mark is what the Secret says about the mint; unmarked reports that there is no Secret to say it.
	mark                  account.Mark
	unmarked, unrequested bool
}

// call mints and hands the token to the members of the account.
func (l legacy) call(ctx context.Context, o report.Observation, d refresh.Decision, e effect, m mint) (effect, error) {
	acct, now := l.state.membership.account, l.WeChat.Now()
	undo := func() {}
	if m.unrequested {
		undo = acct.BeginUnrequestedMint(now)
	} else {
		undo = acct.BeginRequestedMint(now)
		e.forcedAt = now
	}
	e.calledAt = now
	waiting := acct.Others(l.resource.UID) // requests that were seen before the mint are handled by it
	failpoint.Hit("before-wechat")
	minted, err := l.WeChat.LegacyToken(ctx, m.credentials, e.intent.StartBy(m.mark, now))
	failpoint.Hit("after-wechat")
	if err != nil {
		refused, answered := errors.AsType[*token.Error](err)
		if !answered || !refused.MaybeSent {
			undo()
			e.forcedAt = time.Time{}
			intent := e.intent.NotMinted(m.mark)
			e.intent = &intent
		}
		if errors.Is(err, wechat.ErrStartedTooLate) && !answered {
			e.failure = &failure{
				Failure: refresh.Failure{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable},
				message: "The mint could not be started in time, because too many other calls are in flight.",
			}
			return e, nil
		}
		return failed(ctx, e, err)
	}
	own := l.pending(o, d, minted, m.credentials)
	log.FromContext(ctx).Info("minted a Legacy token", "reason", d.Reason, "fingerprint", minted.Value.Fingerprint())
	acct.NoteMinted(account.Confirmation{Fingerprint: minted.Value.Fingerprint(), At: minted.IssuedAt, ExpiresAt: minted.ExpiresAt})
	l.confirm(ctx, minted)
	l.handOut(ctx, *own, waiting)
	e.accepted, e.outcomes = true, l.checked()
	own.unmarked = m.unmarked
	if l.wants(refresh.RequestRefresh) { // seen before the mint, whatever it was made for
		own.refresh = requested(l.resource, refresh.RequestRefresh)
	}
	own.forced = !m.unrequested
	e.issued = own
	return e, nil
}

// rehearse tries the first write of this resource without its effects, so that a Secret that cannot be written costs no mint. A write
// that cannot be rehearsed, because a webhook supports no dry run, is made without.
func (l legacy) rehearse(ctx context.Context, o report.Observation, d refresh.Decision, credentials token.Credentials) error {
	if o.Secret != nil && o.Ownership.Claim == target.Own {
		return nil
	}
	now := l.WeChat.Now()
	probe := l.pending(o, d, token.Token{Value: token.NewValue("rehearsal"), IssuedAt: now, ExpiresAt: now}, credentials)
	_, want := target.Want(l.resource, o.Ownership.Claim, l.wantedRecord(&o, probe))
	content := l.content(probe)
	var err error
	if o.Secret == nil {
		_, err = l.store.Create(ctx, l.resource, want, *content, client.DryRunAll)
	} else {
		_, err = l.store.Update(ctx, o.Secret, want, content, client.DryRunAll)
	}
	if apierrors.IsBadRequest(err) {
		return nil
	}
	return err
}

// check asks WeChat about the stored token, after making sure that it is the one that was written.
func (l legacy) check(ctx context.Context, o report.Observation, d refresh.Decision) (effect, error) {
	if _, ok, err := l.appSecret(ctx); err != nil || !ok {
		return effect{}, err
	}
	snapshot, err := l.store.Read(ctx, l.targetName())
	if client.IgnoreNotFound(err) != nil {
		return effect{}, err
	}
	value := snapshot.Token(l.resource.Spec.Target.AccessTokenKey)
	if err != nil || snapshot.Meta.ResourceVersion != o.Secret.ResourceVersion || value.Fingerprint() != o.Stored.Fingerprint {
		return lookAgain(), nil
	}
	acct := l.state.membership.account
	e := effect{calledAt: l.WeChat.Now()}
	if d.Request == refresh.RequestCheck {
		acct.NoteCheck(e.calledAt)
	}
	failpoint.Hit("before-probe")
	err = l.WeChat.ProbeToken(ctx, value)
	failpoint.Hit("after-probe")
	// While a mint is due, only the time was asked for: it is the mint that has to work.
	askedTheTime := slices.Contains([]refresh.Reason{refresh.MintUnfinished, refresh.Expired, refresh.RefreshDue}, d.Reason)
	_, synced := l.WeChat.Clock()
	refused, isRefused := errors.AsType[*token.Error](err)
	switch {
	case err == nil:
		// A good answer about the token says nothing about the credentials: what needs somebody to act on stays.
		f := o.Failed
		e.failureOver = !askedTheTime && f != nil && !f.OfWrite &&
			(f.Class == token.Transient || f.Class == token.Limited && !o.Now.Before(f.RetryAt))
		l.sight(o)
	case isRefused && refused.Reason == token.ReasonTokenRejected:
		if err := l.noteRejected(ctx, o); err != nil {
			return e, err
		}
	case o.Token.Doubtful || askedTheTime && !synced:
		return failed(ctx, e, err) // the answer was needed
	case ctx.Err() != nil:
		return e, ctx.Err()
	default:
		l.sight(o) // an inconclusive probe only updates the time of the check
	}
	e.outcomes = l.checked()
	return e, nil
}

// sight records that the stored token was asked about.
func (l legacy) sight(o report.Observation) {
	now := l.WeChat.Now()
	if !o.Stored.Believable(now) {
		return // the next observation finds the Secret tampered with
	}
	c := account.Confirmation{Fingerprint: o.Stored.Fingerprint, At: now, ExpiresAt: o.Stored.ExpiresAt}
	l.state.membership.account.Confirm(c, l.resource.UID, now)
}

// noteRejected records that WeChat refuses the stored token. If the operator wrote it, did not replace it, and it should still live,
// something else fetches for this appid.
func (l legacy) noteRejected(ctx context.Context, o report.Observation) error {
	acct, now := l.state.membership.account, l.WeChat.Now()
	early := now.Before(o.Stored.ExpiresAt.Add(-time.Minute)) && !o.Stored.Unattested
	if early {
		replaced, err := l.replaced(ctx, o)
		if err != nil {
			return err
		}
		early = !replaced
	}
	deaths := acct.NoteDead(o.Stored.Fingerprint, early, now)
	log.FromContext(ctx).Info("WeChat refuses the stored Legacy token",
		"fingerprint", o.Stored.Fingerprint, "early", early, "deathsWithinTheHour", deaths)
	if deaths > 0 {
		l.Recorder.ForeignFetch(l.resource.UID)
	}
	if deaths >= 2 {
		l.event(report.ForeignFetcher(l.resource.Spec.AppID, deaths))
	}
	return nil
}

// replaced reports whether this operator has issued a later token for the appid, by what it remembers or by the status of a resource.
func (l legacy) replaced(ctx context.Context, o report.Observation) (bool, error) {
	if m := l.state.membership.account.Minted(); m.Fingerprint != o.Stored.Fingerprint && m.At.After(o.Stored.IssuedAt) {
		return true, nil
	}
	list := &v1alpha1.WeChatAppTokenList{}
	err := l.Client.List(ctx, list, client.MatchingFields{legacyAppIDIndex: l.resource.Spec.AppID}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return false, fmt.Errorf("listing Legacy WeChatAppTokens: %w", err)
	}
	return slices.ContainsFunc(list.Items, func(r v1alpha1.WeChatAppToken) bool {
		t := r.Status.Token
		return t != nil && t.Mode == v1alpha1.ModeLegacy && t.Fingerprint != "" && t.Fingerprint != o.Stored.Fingerprint &&
			t.IssueTime.After(o.Stored.IssuedAt)
	}), nil
}
