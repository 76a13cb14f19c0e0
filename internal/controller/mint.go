// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

const (
	// mintWithin is the time between the mark on the Secret and the start of the mint.
	mintWithin = 2 * time.Second
	// seekCopyAfter is how often a member looks for the others' token while the account may not mint.
	seekCopyAfter = 10 * time.Second
	// mintTakes is the longest time from the moment that a mark names to the end of its mint: until its start, and the call's deadline.
	mintTakes = startAfterMark + 10*time.Second
	// startAfterMark is the longest time from the moment that a mark names to the start of its mint. The write of the mark is in it, and a
	// process that was stopped meanwhile finds that it is too late.
	startAfterMark = mintWithin + 3*time.Second
	// waitAgainAfter is when another process's mark is waited for anew: not so soon that forged ones put a mint off for long, and
	// before another rotation of the shortest lives.
	waitAgainAfter = 3 * time.Minute
)

// mint gets a Legacy token: another member's, if that serves, or a new one from the account's fetcher, which mints for
// all. A refresh or revoke is carried out by the resource that was asked for it, whose Secret records how far it came.
//
// A mint kills the token before the last one, so its result must not get lost: the Secret is marked, the token minted,
// and then written with the mark removed in one update. The token stays in memory until it is written.
func (p *pass) mint(ctx context.Context) error {
	ok, err := p.needCredentials(ctx)
	if err != nil || !ok {
		return err
	}
	acct := p.mem.account
	if !acct.beginMint() {
		return nil // the next decision waits for its end
	}
	defer p.endMint(ctx, acct)
	members, err := p.accountMembers(ctx)
	if err != nil {
		return err
	}
	if p.decision.Action == refresh.Issue {
		if done, err := p.withoutMint(ctx, members); done || err != nil {
			return err
		}
	}
	if err := p.rehearse(ctx); err != nil {
		return p.refusedWrite(ctx, err)
	}
	failpoint.Hit("before-mark")
	if p.existing != nil && !failpoint.Off(failpoint.Mark) {
		mark := target.Mint{StartedAt: p.WeChat.Now(), ID: rand.Text()[:8]}
		marked, err := p.store.Mark(ctx, p.existing, mark)
		if err != nil {
			return p.refusedWrite(ctx, err)
		}
		if !p.unansweredMark().StartedAt.IsZero() {
			p.mem.mintAgain = true // a mint got lost, and an errcode for this one is no answer to it
		}
		p.mem.ownMark, p.mem.foreignMarkAt = mark.ID, time.Time{}
		p.rememberMark(marked.ResourceVersion)
		p.mem.rememberTarget(marked, p.WeChat.Now())
		p.setExisting(marked)
	}
	failpoint.Hit("mark-written")
	return p.fetchLegacy(ctx, acct, members)
}

// endMint lets the members that waited for this mint decide anew.
func (p *pass) endMint(ctx context.Context, acct *account) {
	for _, name := range acct.endMint() {
		p.wake.send(ctx, name)
	}
}

// withoutMint gets a token in a way that costs no mint: it came between the decision and this member's turn, another member has
// it, or the account's fetcher is asked for it. While the account may not mint, there is no other way.
func (p *pass) withoutMint(ctx context.Context, members []member) (done bool, err error) {
	if p.unwritten() != nil {
		return true, nil
	}
	now := p.WeChat.Now()
	p.mem.copySoughtAt = now
	if copied, err := p.copyFrom(ctx, members[1:]); copied || err != nil {
		return copied, err
	}
	if now.Before(p.mintAllowedAt(now)) {
		return true, nil
	}
	if fetcher := electFetcher(members); fetcher.token.UID != p.token.UID {
		p.ask(ctx, fetcher)
		return true, nil
	}
	return false, nil
}

// issueNotBefore is when this resource may look for a Legacy token that nobody asked for. One that another member of the account
// holds costs no mint, so it is looked for now and then while the account may not mint: a neighbour who uses up its pace must not
// keep others from a token that is there.
func (p *pass) issueNotBefore(now time.Time) time.Time {
	at := p.mintAllowedAt(now)
	if acct := p.mem.account; acct != nil && p.legacy() && acct.shared() {
		return earlier(at, pacedAt(p.mem.copySoughtAt, seekCopyAfter, now))
	}
	return at
}

// mintAllowedAt is when this resource may cause a mint that nobody asked for: after the account's pace, the fetcher's answer, and a
// mint that another process may be making.
func (p *pass) mintAllowedAt(now time.Time) time.Time {
	var at time.Time
	if p.mem.account != nil && p.legacy() {
		at = p.mintNotBefore(now)
	}
	at = refresh.Later(at, pacedAt(p.mem.askedAt, askAgainAfter, now))
	return refresh.Later(at, p.markedMintAt(now))
}

// pacedAt is so long after the last time; zero without one.
func pacedAt(last time.Time, wait time.Duration, now time.Time) time.Time {
	if last.IsZero() || refresh.NotedAhead(last, now) {
		return time.Time{}
	}
	return last.Add(wait)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// markedMintAt is when an unanswered mark on the Secret may cause a mint; zero without one.
//
// The mark may be that of a leader that does not know yet that it is none: a second mint before its own is over, for better or
// worse, would end the token that readers still hold. It may also be forged, so marks that follow each other are waited for once
// only, and cause no mint soon after one of this process.
func (p *pass) markedMintAt(now time.Time) time.Time {
	mark := p.unansweredMark()
	if mark.StartedAt.IsZero() || !p.legacy() || p.mem.account == nil {
		return time.Time{}
	}
	at := p.mem.account.markedMintNotBefore(now)
	if mark.ID == p.mem.ownMark {
		return at
	}
	if now.Sub(p.mem.foreignMarkAt) > waitAgainAfter || refresh.NotedAhead(p.mem.foreignMarkAt, now) {
		p.mem.foreignMarkAt = now
	}
	// The other process' clock, and this one, may be wrong by seconds: a mark from the future is waited for like one from now.
	return refresh.Later(at, earlier(mark.StartedAt, p.mem.foreignMarkAt).Add(mintTakes))
}

// rememberMark keeps what was known of the data: the mark did not touch it.
func (p *pass) rememberMark(resourceVersion string) {
	p.mem.verified.resourceVersion = resourceVersion
	p.mem.writtenVersion = resourceVersion
}

// rehearse tries the first write of this resource without its effects, so that a Secret that cannot be written costs no
// mint.
func (p *pass) rehearse(ctx context.Context) error {
	if p.existing != nil && p.ownership.Claim == target.Own {
		return nil
	}
	probe := p.issued(vocab.Token{Value: vocab.NewValue("rehearsal"), IssuedAt: p.WeChat.Now(), ExpiresAt: p.WeChat.Now()})
	_, want := target.Want(p.token, p.ownership.Claim, p.wantedRecord(&probe))
	content := p.content(&probe)
	if p.existing == nil {
		_, err := p.store.Create(ctx, p.token, want, *content, client.DryRunAll)
		return err
	}
	_, err := p.store.Update(ctx, p.existing, want, content, client.DryRunAll)
	return err
}

// fetchLegacy mints and hands the token to every member.
func (p *pass) fetchLegacy(ctx context.Context, acct *account, members []member) error {
	now := p.WeChat.Now()
	asked := p.decision.Action != refresh.Issue
	undo := func() {}
	if !asked {
		undo = acct.noteMint(now)
	}
	failpoint.Hit("before-wechat")
	token, err := p.WeChat.LegacyToken(ctx, p.credentials.value, p.mintStartBy(now))
	failpoint.Hit("after-wechat")
	if err != nil {
		refused, answered := errors.AsType[*vocab.Error](err)
		if !answered || !refused.MaybeSent {
			undo()
			p.mem.emptyMark = p.record.Mint
		}
		if !answered && errors.Is(err, wechat.ErrStartedTooLate) {
			return nil // too many other calls were under way: mark again
		}
		return p.failRequest(ctx, err)
	}
	if grown, err := p.accountMembers(ctx); err == nil {
		members = grown // who came during the call waits for its turn, and would mint again
	}
	log.FromContext(ctx).Info("minted a Legacy token",
		"reason", p.decision.Reason, "fingerprint", token.Value.Fingerprint(), "members", len(members))
	acct.want(false)
	acct.noteMinted(sighting{fingerprint: token.Value.Fingerprint(), at: token.IssuedAt, expiresAt: token.ExpiresAt})
	p.succeeded(ctx, acct, token)
	p.handleCheck()
	own := p.issued(token)
	for _, m := range members {
		if m.token.UID != p.token.UID {
			m.mem.put(own)
			p.wake.send(ctx, nameOf(m.token))
		}
	}
	own.unmarked = p.existing == nil
	switch p.decision.Action {
	case refresh.Force:
		own.handledRefresh = p.requested(refresh.RequestRefresh)
	case refresh.Revoke:
		own.revoke = p.revokeAfter(token.Value.Fingerprint())
	case refresh.Wait, refresh.Issue, refresh.Check, refresh.Write:
	}
	p.mem.put(own)
	return nil
}

// mintStartBy is when a mint that is begun now must be under way. Another process counts from the mark on the Secret.
func (p *pass) mintStartBy(now time.Time) time.Time {
	at := now.Add(mintWithin)
	if mark := p.record.Mint; mark.ID != "" && mark.ID == p.mem.ownMark {
		at = earlier(at, mark.StartedAt.Add(startAfterMark))
	}
	return at
}

// probe asks WeChat about the stored Legacy token, after making sure that it is the one that was written.
func (p *pass) probe(ctx context.Context) error {
	ok, err := p.needCredentials(ctx)
	if err != nil || !ok {
		return err
	}
	snapshot, err := p.store.Read(ctx, p.targetName())
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil || snapshot.Meta.ResourceVersion != p.existing.ResourceVersion {
		return p.lookAgain(ctx)
	}
	value := snapshot.Token(p.token.Spec.Target.AccessTokenKey)
	if value.Fingerprint() != p.stored.fingerprint || p.refusal(snapshot) != "" {
		p.judge(snapshot)
		return nil
	}
	failpoint.Hit("before-probe")
	err = p.WeChat.ProbeToken(ctx, value)
	failpoint.Hit("after-probe")
	_, synced := p.WeChat.Clock()
	var refused *vocab.Error
	switch {
	case err == nil:
		p.confirmed(ctx)
	case errors.As(err, &refused) && refused.Reason == vocab.ReasonTokenRejected:
		p.noteRejected(ctx)
	case p.mem.verified.doubtful || p.askedTheTime() && !synced:
		return p.failRequest(ctx, err) // the answer was needed
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		p.toldNothing()
	}
	p.handleCheck()
	return nil
}

// toldNothing: any other answer says nothing about the token, nor about a failure whose cause was changed.
func (p *pass) toldNothing() {
	p.sight()
	if p.failureIsOld() {
		p.clearFailure()
	}
}

// confirmed: WeChat accepts the stored token. While a mint is due only the time was asked for: it is the mint that has to work.
func (p *pass) confirmed(ctx context.Context) {
	if !p.askedTheTime() {
		p.recovered(ctx)
	}
	if !p.stored.believable(p.WeChat.Now()) {
		return // the next look at the Secret finds it tampered with
	}
	p.sight()
	if p.mem.verified.doubtful || p.mem.stored == nil {
		s := p.stored
		s.credentials = p.credentials.value.Fingerprint()
		p.mem.stored = &s
		p.mem.verified.doubtful = false
	}
}

// askedTheTime: the probe was made in place of a mint, because the clock could not be relied on.
func (p *pass) askedTheTime() bool {
	r := p.decision.Reason
	return r == refresh.MintUnfinished || r == refresh.Expired || r == refresh.RefreshDue
}

func (p *pass) sight() {
	p.mem.account.observe(sighting{fingerprint: p.stored.fingerprint, at: p.WeChat.Now(), expiresAt: p.stored.expiresAt})
}

// noteRejected: WeChat refuses the stored token. If nobody touched the Secret and it should still live, something else
// fetches for this appid.
func (p *pass) noteRejected(ctx context.Context) {
	now := p.WeChat.Now()
	early := now.Before(p.stored.expiresAt.Add(-time.Minute))
	count := p.mem.account.noteDead(p.stored.fingerprint, now, early)
	log.FromContext(ctx).Info("WeChat refuses the stored Legacy token",
		"fingerprint", p.stored.fingerprint, "early", early, "deathsWithinTheHour", count)
	if count > 0 {
		p.Recorder.ForeignFetch(p.token.UID)
	}
	if count >= 2 {
		p.eventForeignFetcher(count)
	}
}
