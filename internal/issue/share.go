// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// maxCopySources bounds the Secrets that one search for a copy reads: those of other namespaces may hold anything.
const maxCopySources = 8

// withoutMint gets a token in a way that costs no mint: it came between the decision and this member's turn, another member has it, the
// stored one works again, a resource that may have it has yet to join the account, or the account's fetcher is asked for it. While the
// account may not mint, nobody is asked. done reports that no mint is to be made.
func (i legacy) withoutMint(ctx context.Context, s Step) (e report.Effect, done bool, err error) {
	if s.HasPending() {
		return e, true, nil
	}
	now := i.WeChat.Now()
	e.Times.CopySought = now
	if failpoint.Off(failpoint.SingleFetcher) {
		return e, false, nil
	}
	if e.Issued, err = i.copyFrom(ctx, s); e.Issued != nil || err != nil {
		if e.Issued != nil {
			e.Outcomes = s.Checked()
		}
		return e, true, err
	}
	if now.Before(s.Inputs.Account.MintAllowedAt) {
		return e, true, nil
	}
	if e.FailureOver, err = i.worksAgain(ctx, s); e.FailureOver || err != nil {
		return e, true, err
	}
	if waits, err := i.wakeStrangers(ctx, s); waits || err != nil {
		e.Times.Asked = now
		return e, true, err
	}
	fetcher, another := s.Account.Fetcher(s.uid(), now)
	if !another {
		return e, false, nil
	}
	s.Account.Want(now)
	e.Times.Asked = now
	e.Outcomes = s.Checked() // of a check that was asked for without a token to check
	i.Wake(ctx, fetcher)
	return e, true, nil
}

// wakeStrangers wakes the resources of the appid that are no members of the account and whose statuses name a token that serves, and
// reports whether there are any. After a restart a member may not have joined yet, and joins now. They are waited for once: another
// AppSecret may keep them from joining.
func (i legacy) wakeStrangers(ctx context.Context, s Step) (waits bool, err error) {
	if s.Inputs.Account.FetcherAsked {
		return false, nil
	}
	resources, err := i.resources(ctx, s)
	members := s.Account.Others(s.uid())
	for n := range resources {
		r := &resources[n]
		if r.UID == s.uid() || r.Spec.Suspend || r.DeletionTimestamp != nil || !i.serves(s, r.Status.Token) {
			continue
		}
		if !slices.ContainsFunc(members, func(m account.Member) bool { return m.UID == r.UID }) {
			i.Wake(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
			waits = true
		}
	}
	return waits, err
}

// copyFrom takes over a token that another member of the account holds, if it serves as well as a new one; nil if there is none. Its
// worth is proven by the other's status, which only the operator may write; the data is its namespace's to edit.
func (i legacy) copyFrom(ctx context.Context, s Step) (*report.Pending, error) {
	sources, err := i.copySources(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, source := range sources {
		snapshot, err := i.Store.Read(ctx, types.NamespacedName{Namespace: source.Namespace, Name: source.TargetName()})
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
		t := s.pending(token.Token{Value: value, IssuedAt: status.IssueTime.UTC(), ExpiresAt: status.ExpirationTime.UTC()})
		t.Copied = true
		return &t, nil
	}
	return nil, nil
}

// copySources returns the members whose token serves: the newest token first, and of those that hold the same one the members of this
// namespace, which no neighbour can edit.
func (i legacy) copySources(ctx context.Context, s Step) ([]*v1alpha1.WeChatAppToken, error) {
	var sources []*v1alpha1.WeChatAppToken
	for _, m := range s.Account.Others(s.uid()) {
		source := &v1alpha1.WeChatAppToken{}
		err := i.Cache.Get(ctx, m.Name, source, client.UnsafeDisableDeepCopy)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("reading WeChatAppToken %s: %w", m.Name, err)
		}
		if err == nil && source.UID == m.UID && m.Receives && i.serves(s, source.Status.Token) {
			sources = append(sources, source)
		}
	}
	foreign := func(r *v1alpha1.WeChatAppToken) int {
		if r.Namespace == s.Resource.Namespace {
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
func (i legacy) serves(s Step, t *v1alpha1.TokenStatus) bool {
	if !i.usable(s, t) {
		return false
	}
	stored := s.Stored
	newer := t.Fingerprint != stored.Fingerprint && s.Token.IssuedAt.Truncate(time.Second).Before(t.IssueTime.Time)
	_, dead := s.Account.DeadSince(stored.Fingerprint)
	if s.Holding == target.HoldsUnattested && !dead {
		return newer // an older one would give way to the Secret's
	}
	return newer || dead || s.Target.Tampered || s.Target.AppIDChanged || s.Target.ModeChanged || s.Inputs.Credentials.Changed
}

// usable reports whether another member's token is valid, and not older than a mint whose answer was lost.
func (i legacy) usable(s Step, t *v1alpha1.TokenStatus) bool {
	if t == nil || t.Fingerprint == "" || t.Mode != v1alpha1.ModeLegacy || s.Intent.MintAgain() {
		return false
	}
	if _, dead := s.Account.DeadSince(t.Fingerprint); dead || t.IssueTime.Time.Before(s.Unanswered.StartedAt.Truncate(time.Second)) {
		return false
	}
	// While the time is not known, whoever takes an expired token asks WeChat about it. A mint would end one that is not expired.
	now, synced := i.WeChat.Clock()
	return !synced || now.Before(t.ExpirationTime.Time)
}

// handOut gives a minted token to the other members that can take it, and wakes every Legacy resource of the appid, so that one that
// has not joined the account yet does so before it decides. before are the members as they were before the mint.
func (i legacy) handOut(ctx context.Context, s Step, t report.Pending, before []account.Member) {
	if failpoint.Off(failpoint.SingleFetcher) {
		return
	}
	for _, m := range s.Account.Others(s.uid()) {
		if !m.Receives {
			continue
		}
		given := t
		given.Replaces = ""
		if n := slices.IndexFunc(before, func(b account.Member) bool { return b.UID == m.UID }); n >= 0 {
			given.Refresh = before[n].Refresh
		}
		i.Give(m.Name, m.UID, &given)
	}
	resources, err := i.resources(ctx, s)
	if err != nil {
		log.FromContext(ctx).Error(err, "resources that have not joined the account find the new token only when their own is due")
	}
	for n := range resources {
		if r := &resources[n]; r.UID != s.uid() && !r.Spec.Suspend {
			i.Wake(ctx, types.NamespacedName{Namespace: r.Namespace, Name: r.Name})
		}
	}
}

// Superseded reports whether the Secret already holds another token that was issued later than a pending one, perhaps by a leader that was
// thought to be gone, or by the one that came when this process was stopped. In Stable mode WeChat can be asked which one is right, and is,
// when the answer at hand is older than the last read of the Secret. In Legacy mode the later mint is the one that lives.
//
// A token that was minted before there was a Secret to mark may be of the same moment as the other one, and the times do not tell which
// mint was the later one. Then both give way to a new one, before a volume can have either.
//
// What the annotations say counts only where the data agrees with them. Anybody who may edit the Secret can write a later time there, and
// would otherwise keep it from every token.
//
// readSince reports that the Secret was read after WeChat issued the pending token, so no times need to be compared.
func Superseded(o report.Observation, t *report.Pending, readSince bool, acct *account.Account) bool {
	held := o.Stored
	if o.Secret == nil || held.Fingerprint == t.Value.Fingerprint() {
		return false
	}
	unattested, replaced := o.Holding == target.HoldsUnattested, held.Fingerprint != t.Replaces
	if !o.Traits.EndsOlder {
		return !t.Forced && readSince && (unattested || replaced)
	}
	if !unattested && !t.Unmarked && (!replaced || notedAhead(o, t)) {
		return false
	}
	dead := false
	if acct != nil {
		_, dead = acct.DeadSince(held.Fingerprint)
	}
	if o.Intent.Own(o.Record.Mint) || dead {
		return false // nobody wrote a token since this mint began, or WeChat refuses what was written
	}
	return t.Unmarked || o.Token.IssuedAt.After(t.IssuedAt)
}

// notedAhead reports whether the Secret holds a token whose time was noted by a clock that ran ahead. One that another member's mint has
// handed out does not give way to that.
func notedAhead(o report.Observation, t *report.Pending) bool {
	return t.Replaces == "" && refresh.IsInFuture(o.Token.IssuedAt, o.Now)
}

// rehearse tries the first write of this resource without its effects, so that a Secret that cannot be written costs no mint. A write
// that cannot be rehearsed, because a webhook supports no dry run, is made without.
func (i legacy) rehearse(ctx context.Context, s Step) error {
	if s.Secret != nil && s.Ownership.Claim == target.Own {
		return nil
	}
	now := i.WeChat.Now()
	probe := s.pending(token.Token{Value: token.NewValue("rehearsal"), IssuedAt: now, ExpiresAt: now})
	_, want := target.Want(s.Resource, s.Ownership.Claim, s.WantedRecord(&probe))
	var err error
	if s.Secret == nil {
		_, err = i.Store.Create(ctx, s.Resource, want, *s.Content(&probe), client.DryRunAll)
	} else {
		_, err = i.Store.Update(ctx, s.Secret, want, s.Content(&probe), client.DryRunAll)
	}
	if apierrors.IsBadRequest(err) {
		return nil
	}
	if kept, changed := s.KeepingMetadata(); err != nil && changed { // a token does not wait for labels that are refused
		s.Observation = kept
		return i.rehearse(ctx, s)
	}
	return err
}
