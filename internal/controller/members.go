// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// askAgainAfter is how long a member waits for the account's fetcher before it asks again.
	askAgainAfter = 5 * time.Second
	// seekCopyAfter is how often a member looks for the others' token while the account may not mint.
	seekCopyAfter = 10 * time.Second
	// maxCopySources bounds the Secrets that one search for a copy reads: those of other namespaces may hold anything.
	maxCopySources = 8
)

// member describes this resource to the other members of its account.
func (p *pass) member(o *report.Observation) account.Member {
	m := account.Member{
		UID: p.resource.UID, Name: nameOf(p.resource), Created: p.resource.CreationTimestamp.Time,
		Receives: !o.Suspended && !o.Deleting && !o.Target.Conflict && !o.Target.Terminating && !o.Credentials.Missing,
	}
	m.Fetches = m.Receives
	if f := o.Failure; f != nil && f.Binds {
		unable := f.OfWrite || f.Reason == v1alpha1.ReasonAppSecretInvalid || f.Reason == v1alpha1.ReasonAppIDInvalid
		m.Fetches = m.Fetches && !unable
	}
	if o.Requests.Refresh {
		m.Refresh = requested(p.resource, refresh.RequestRefresh)
	}
	return m
}

// noteOutcome tells the other members of a Legacy account whether the API server failed this pass: they may wait for this resource.
func (p *pass) noteOutcome(err error) {
	if acct := p.state.membership.account; acct != nil && p.resource.Spec.Mode == v1alpha1.ModeLegacy && acct.Shared() {
		acct.NoteOutcome(p.resource.UID, err != nil, p.WeChat.Now())
	}
}

// withoutMint gets a token in a way that costs no mint: it came between the decision and this member's turn, another member has it, or
// the account's fetcher is asked for it. While the account may not mint, there is no other way.
func (l legacy) withoutMint(
	ctx context.Context, o report.Observation, d refresh.Decision, credentials token.Credentials,
) (e effect, done bool, err error) {
	if l.state.pendingNow() != nil {
		return e, true, nil
	}
	now := l.WeChat.Now()
	e.soughtAt = now
	acct := l.state.membership.account
	if failpoint.Off(failpoint.SingleFetcher) {
		return e, false, nil
	}
	if e.issued, err = l.copyFrom(ctx, o, d, credentials); e.issued != nil || err != nil {
		if e.issued != nil {
			e.outcomes = l.checked()
		}
		return e, true, err
	}
	if now.Before(l.mintAllowedAt(&o)) {
		return e, true, nil
	}
	fetcher, another := acct.Fetcher(l.resource.UID, now)
	if !another {
		return e, false, nil
	}
	acct.Want(now)
	e.askedAt = now
	if d.Reason == refresh.RequestExecutable {
		e.outcomes = []outcome{{kind: d.Request, value: requested(l.resource, d.Request)}}
	}
	l.wake.send(ctx, fetcher)
	return e, true, nil
}

// copyFrom takes over a token that another member of the account holds, if it serves as well as a new one; nil if there is none. Its
// worth is proven by the other's status, which only the operator may write; the data is its namespace's to edit.
func (l legacy) copyFrom(
	ctx context.Context, o report.Observation, d refresh.Decision, credentials token.Credentials,
) (*pendingToken, error) {
	sources, err := l.copySources(ctx, o)
	if err != nil {
		return nil, err
	}
	for _, source := range sources {
		name := client.ObjectKey{Namespace: source.Namespace, Name: source.TargetName()}
		snapshot, err := l.store.Read(ctx, name)
		if apierrors.IsForbidden(err) {
			continue // its namespace is not the operator's any more
		}
		if client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		status := source.Status.Token
		value := snapshot.Token(source.Spec.Target.AccessTokenKey)
		if value.Fingerprint() != status.Fingerprint {
			continue // gone, or not what the operator wrote
		}
		t := l.pending(o, d, token.Token{Value: value, IssuedAt: status.IssueTime.UTC(), ExpiresAt: status.ExpirationTime.UTC()}, credentials)
		t.copied = true
		return t, nil
	}
	return nil, nil
}

// copySources returns the members whose token serves: the newest token first, and of those that hold the same one the members of this
// namespace, which no neighbour can edit.
func (l legacy) copySources(ctx context.Context, o report.Observation) ([]*v1alpha1.WeChatAppToken, error) {
	var sources []*v1alpha1.WeChatAppToken
	for _, m := range l.state.membership.account.Others(l.resource.UID) {
		source := &v1alpha1.WeChatAppToken{}
		err := l.Client.Get(ctx, m.Name, source, client.UnsafeDisableDeepCopy)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading WeChatAppToken %s: %w", m.Name, err)
		}
		if err == nil && source.UID == m.UID && m.Receives && l.serves(o, source.Status.Token) {
			sources = append(sources, source)
		}
	}
	foreign := func(r *v1alpha1.WeChatAppToken) int {
		if r.Namespace == l.resource.Namespace {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(sources, func(a, b *v1alpha1.WeChatAppToken) int {
		return cmp.Or(b.Status.Token.IssueTime.Compare(a.Status.Token.IssueTime.Time), foreign(a)-foreign(b))
	})
	return sources[:min(len(sources), maxCopySources)], nil
}

// serves reports whether another member's token is valid, and newer than the stored one and than a mint whose answer was lost. Any valid
// one will do when the stored one was overwritten, is refused by WeChat, or is not of this account.
func (l legacy) serves(o report.Observation, t *v1alpha1.TokenStatus) bool {
	acct := l.state.membership.account
	if t == nil || t.Fingerprint == "" || t.Mode != v1alpha1.ModeLegacy || l.state.intent.MintAgain() {
		return false
	}
	if _, dead := acct.DeadSince(t.Fingerprint); dead {
		return false
	}
	mark := l.state.intent.Unanswered(o.Record.Mint)
	if t.IssueTime.Time.Before(mark.StartedAt.Truncate(time.Second)) {
		return false
	}
	// While the time is not known, whoever takes an expired token asks WeChat about it. A mint would end one that is not expired.
	if now, synced := l.WeChat.Clock(); synced && !now.Before(t.ExpirationTime.Time) {
		return false
	}
	s := o.Stored
	newer := t.Fingerprint != s.Fingerprint && s.IssuedAt.Truncate(time.Second).Before(t.IssueTime.Time)
	_, dead := acct.DeadSince(s.Fingerprint)
	if o.Holding == target.HoldsUnattested && !dead {
		return newer // an older one would give way to the Secret's
	}
	return newer || dead || o.Target.Tampered || o.Target.AppIDChanged || o.Target.ModeChanged || o.Credentials.Changed
}

// handOut gives a minted token to the other members that can take it, and wakes every Legacy resource of the appid, so that one that
// has not joined the account yet does so before it decides. before are the members as they were before the mint.
func (l legacy) handOut(ctx context.Context, t pendingToken, before []account.Member) {
	if failpoint.Off(failpoint.SingleFetcher) {
		return
	}
	for _, m := range l.state.membership.account.Others(l.resource.UID) {
		state := l.states.find(m.Name)
		if state == nil || state.uid != m.UID || !m.Receives {
			continue
		}
		given := t
		given.replaces = ""
		if i := slices.IndexFunc(before, func(b account.Member) bool { return b.UID == m.UID }); i >= 0 {
			given.refresh = before[i].Refresh
		}
		state.give(&given)
	}
	list := &v1alpha1.WeChatAppTokenList{}
	err := l.Client.List(ctx, list, client.MatchingFields{legacyAppIDIndex: l.resource.Spec.AppID}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return // a cache that is filled does not fail; the members find out when their own token is due
	}
	for i := range list.Items {
		if item := &list.Items[i]; item.UID != l.resource.UID && !item.Spec.Suspend {
			l.wake.send(ctx, nameOf(item))
		}
	}
}

// issueNotBefore returns when this resource may look for a Legacy token that nobody asked for. One that another member holds costs no
// mint, so it is looked for now and then while the account may not mint: a neighbour that uses up the account's pace must not keep
// others from a token that is there.
func (p *pass) issueNotBefore(o *report.Observation) time.Time {
	at := p.mintAllowedAt(o)
	if p.state.membership.account.Shared() {
		return refresh.Earlier(at, refresh.EarliestNext(p.state.attempts.copySought, seekCopyAfter, o.Now))
	}
	return at
}

// mintAllowedAt returns when this resource may cause a mint that nobody asked for: after the account's pace, the fetcher's answer, and a
// mint that another process may be making.
func (p *pass) mintAllowedAt(o *report.Observation) time.Time {
	acct := p.state.membership.account
	// What somebody else wrote into the Secret must not be a way to quick mints.
	var expiresAt time.Time
	if o.Stored.Fingerprint != "" && o.Holding == target.HoldsKnown && !o.Target.Tampered {
		expiresAt = o.Token.ExpiresAt
	}
	at := refresh.Later(acct.MintNotBefore(expiresAt, o.Now), refresh.EarliestNext(p.state.attempts.asked, askAgainAfter, o.Now))
	if mark := p.state.intent.Unanswered(o.Record.Mint); !mark.IsZero() {
		at = refresh.Later(at, refresh.Later(acct.MarkedMintNotBefore(o.Now), p.state.intent.NotBefore(mark)))
	}
	return at
}
