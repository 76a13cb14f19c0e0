// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// observeAccount describes what the members of the account share, and tells the account about this member.
func (p *observer) observeAccount(ctx context.Context, o *report.Observation) {
	if o.Traits.EndsOlder {
		o.Account.LastMint = refresh.Later(o.Account.LastMint, o.Stored.IssuedAt)
	}
	acct := p.state.membership.account
	if acct == nil {
		return
	}
	o.Account.CheckNotBefore = acct.CheckNotBefore(o.Now)
	if !o.Traits.EndsOlder {
		return
	}
	p.noteIssued(ctx, o)
	o.Account.MemberWaiting = acct.Wanted(o.Now)
	o.Account.FetcherAsked = o.Now.Before(refresh.EarliestNext(p.state.last.Asked, 2*askAgainAfter, o.Now))
	o.Account.MintAllowedAt = p.mintAllowedAt(o)
	if o.Account.MintNotBefore = o.Account.MintAllowedAt; acct.Shared() {
		// A neighbour that uses up the account's pace must not keep this resource from a token that is there.
		seek := refresh.EarliestNext(p.state.last.CopySought, acct.Minted().SeekAfter(o.Now), o.Now)
		o.Account.MintNotBefore = refresh.Earlier(o.Account.MintNotBefore, seek)
	}
	o.Account.LastMint = refresh.Later(o.Account.LastMint, acct.LastMint())
	if acct.AwaitMint(nameOf(p.resource)) {
		o.Account.MintEndsBy = o.Now.Add(account.MintTakes)
	}
	acct.Update(o.Member())
}

// mintAllowedAt returns when this resource may cause a mint that nobody asked for: after the account's pace, the fetcher's answer, and a
// mint that another process may be making.
func (p *observer) mintAllowedAt(o *report.Observation) time.Time {
	acct := p.state.membership.account
	// What somebody else wrote into the Secret must not be a way to quick mints.
	var expiresAt time.Time
	if o.Stored.Fingerprint != "" && o.Holding == target.HoldsKnown && !o.Target.Tampered {
		expiresAt = o.Token.ExpiresAt
	}
	at := refresh.Later(acct.MintNotBefore(expiresAt, o.Now), refresh.EarliestNext(p.state.last.Asked, askAgainAfter, o.Now))
	minted := acct.Minted()
	if acct.HasNewer(o.Token.Fingerprint, o.Token.IssuedAt) && !o.Intent.MintAgain() {
		at = refresh.Later(at, refresh.EarliestNext(minted.At, account.CopyWithin, o.Now)) // another member has the newer token, or will soon
	}
	if mark := o.Unanswered; !mark.IsZero() {
		at = refresh.Later(at, refresh.Later(minted.MarkedMintNotBefore(o.Now), o.Intent.NotBefore(mark)))
	}
	return at
}

// noteIssued tells the account of the token in this Secret if a process before this one minted it, which the status proves. The other
// members may hold one that it ends. Its expiry is left out, because only mints of this process have a bearing on the pace of mints.
func (p *observer) noteIssued(ctx context.Context, o *report.Observation) {
	acct, t := p.state.membership.account, o.Stored
	proven := o.Target.Exists && o.Holding == target.HoldsKnown && !o.Target.AppIDChanged && !o.Target.ModeChanged && !o.Credentials.Changed
	if m := acct.Minted(); !proven || m.Fingerprint == t.Fingerprint || !t.IssuedAt.After(m.At) || refresh.IsInFuture(t.IssuedAt, o.Now) {
		return
	}
	acct.NoteMinted(account.Confirmation{Fingerprint: t.Fingerprint, At: t.IssuedAt})
	for _, m := range acct.Others(p.resource.UID) {
		p.wake.send(ctx, m.Name)
	}
}

// noteOutcome tells the other members of a Legacy account whether the API server failed this pass: they may wait for this resource.
func (p *pass) noteOutcome(err error) {
	if acct := p.state.membership.account; acct != nil && p.resource.Spec.Mode == v1alpha1.ModeLegacy && acct.Shared() {
		acct.NoteOutcome(p.resource.UID, err != nil, p.WeChat.Now())
	}
}
