// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// previousLives is how long WeChat accepts the token before the newest one of an account.
	previousLives = 5 * time.Minute
	// replaceUnattestedAfter is how long a Legacy token may stay in the place of the operator's own that nobody saw WeChat issue. A
	// check cannot tell which appid it belongs to. After two minutes every volume has it, so that its replacement ends no token that a
	// pod may hold.
	replaceUnattestedAfter = 2 * time.Minute
	// disputedCheckAfter is the least time between two checks of a resource whose token another member's answer contradicts.
	disputedCheckAfter = 10 * time.Second
	// askAgainAfter is how long a member waits for the account's fetcher before it asks again.
	askAgainAfter = 5 * time.Second
)

// observeStored describes the stored token and the target, with what WeChat said about them since.
func (p *observer) observeStored(o *report.Observation) {
	o.WrittenVersion = p.state.gate.Written()
	o.Target.Conflict = o.Ownership.Claim == target.Conflict
	o.Target.Terminating = o.Ownership.Claim == target.Terminating
	repairs := p.state.target.Repairs
	o.Target.RepairNotBefore, o.Target.Contested = repairs.NotBefore(o.Now), repairs.Contested(o.Now)
	o.Token.Had = p.resource.Status.Token != nil
	p.observePending(o)
	if o.Secret == nil || !o.Ownership.Writable() || o.Ownership.Claim == target.Adopt {
		return
	}
	s := o.Stored
	o.Target.Exists = s.Fingerprint != ""
	believable := s.Believable(o.Now)
	o.Target.Tampered = o.Holding == target.HoldsOther || o.ClockSynced && !believable
	if s.Fingerprint == "" {
		return
	}
	o.Target.AppIDChanged, o.Target.ModeChanged = s.AppID != p.resource.Spec.AppID, s.Mode != p.resource.Spec.Mode
	o.Token.Fingerprint, o.Token.IssuedAt, o.Token.ExpiresAt = s.Fingerprint, p.state.target.IssuedBy(s), s.ExpiresAt
	unattested := o.Holding == target.HoldsUnattested
	p.observeAnswers(o, unattested, believable)
	o.Token.Refused = p.state.shared.isRefused(s.Fingerprint)
	if o.Traits.EndsOlder {
		p.observeEnd(o, unattested)
	} else if c := p.state.confirmation(); c.Fingerprint == s.Fingerprint {
		o.Token.ExpiresAt = c.ExpiresAt // a probe of a Legacy token tells no expiry
	} else if t, _ := p.state.shared.pendingNow(); t != nil && t.Succeeds(s) {
		o.Token.ExpiresAt = refresh.Earlier(s.ExpiresAt, t.IssuedAt.Add(previousLives))
	}
	o.Credentials.Changed = p.credentialsChanged(o)
	o.Target.MintStarted = o.Unanswered.StartedAt
	if p.state.intent.MintAgain() {
		o.Target.MintStarted = o.Now.Add(time.Second) // no failure so far is its answer, and marks are compared by whole seconds
	}
}

// observeAnswers describes what WeChat said about the stored token since it was written.
func (p *observer) observeAnswers(o *report.Observation, unattested, believable bool) {
	t, called, confirmed := &o.Token, p.state.last.Called, p.state.confirmation()
	accepted := confirmed.Fingerprint == t.Fingerprint
	disputed := !o.Traits.EndsOlder && !accepted && confirmed.Fingerprint != "" // another member was given another token
	t.Doubtful = unattested && !accepted || confirmed.Doubted || disputed
	t.Unbelievable = !believable || p.state.target.ForeignTokenWritten() && !accepted
	if !unattested { // RepairNotBefore paces what somebody else wrote
		t.CheckNotBefore = refresh.EarliestNext(called, disputedCheckAfter, o.Now)
	}
	switch {
	case accepted && !refresh.IsInFuture(confirmed.At, o.Now):
		t.CheckedAt = confirmed.At
	case disputed && p.state.failure == nil && !refresh.IsInFuture(called, o.Now):
		t.CheckedAt = called
	}
}

// credentialsChanged reports whether the AppSecret is another one than the stored token was issued with. That is known from the own
// write, or else taken from the annotation, unless the credentials are still those that WeChat accepted last.
func (p *observer) credentialsChanged(o *report.Observation) bool {
	c := p.state.credentials
	return c.Version != "" && c.Problem == "" && c.Version != p.state.accepted && !p.resource.Spec.Suspend &&
		o.Stored.Credentials != c.Secret.Fingerprint()
}

// observeEnd corrects when a Legacy token ends or has to be replaced: a later mint of this process or WeChat's refusal ended it, or
// nobody saw WeChat issue it.
func (p *observer) observeEnd(o *report.Observation, unattested bool) {
	t := &o.Token
	if acct := p.state.membership.account; acct != nil {
		if since, dead := acct.DeadSince(t.Fingerprint); dead {
			t.ExpiresAt, t.RefusedUntil = refresh.Earlier(since, t.IssuedAt), t.ExpiresAt // whoever edits the Secret can write any time
			return
		}
		if m := acct.Minted(); m.Replaces(t.Fingerprint, t.IssuedAt) && !refresh.IsInFuture(m.At, o.Now) {
			t.ExpiresAt, t.ReplaceBy = refresh.Earlier(t.ExpiresAt, m.At.Add(previousLives)), m.At
			return
		}
	}
	if at := p.state.target.Verdict.At; unattested && p.state.target.Contradicted(p.resource.Status.Token) && !at.IsZero() {
		t.ReplaceBy = at.Add(replaceUnattestedAfter)
	}
}

// observePending finds a token that waits to be written. One that has ended, or that is for an appid or mode that the spec has left, is
// dropped: a request that waited for it has had its attempt.
func (p *observer) observePending(o *report.Observation) {
	t, _ := p.state.shared.pendingNow()
	if t == nil {
		return
	}
	useless := t.AppID != p.resource.Spec.AppID || t.Mode != p.resource.Spec.Mode || o.ClockSynced && !o.Now.Before(t.ExpiresAt)
	if acct := p.state.membership.account; acct != nil && o.Traits.EndsOlder {
		m := acct.Minted()
		useless = useless || m.Fingerprint != t.Value.Fingerprint() && m.At.After(t.IssuedAt.Add(previousLives))
	}
	if !useless {
		o.Token.Unwritten = true
		return
	}
	p.state.shared.drop(t)
	for _, e := range [...]report.Outcome{{Kind: refresh.RequestRefresh, Value: t.Refresh}, {Kind: refresh.RequestRevoke, Value: t.Revoke}} {
		if e.Value != "" {
			e.Failed = "the new token could not be written before it ended"
			o.Ended = append(o.Ended, e)
		}
	}
}

// outdated reports whether labels, annotations or owner reference of the target differ from what is wanted.
func (p *observer) outdated(o *report.Observation, k target.Knowledge) bool {
	_, want := target.Want(p.resource, o.Ownership.Claim, o.WantedRecord(nil), target.Types(o.HeldTickets(k))...)
	return want.Outdated(o.Secret) || want.ReferenceOutdated(o.Secret) && p.state.metadata.RefusedReferences != p.resource.Generation
}

// accountAnsweredSince reports whether WeChat has given another member of a Stable account its token since the call that failed. This
// resource would get the same answer, and its own next call may be far away, because that answer counts as its check too.
func (p *observer) accountAnsweredSince(f *report.Failure) bool {
	c, id, revocation := p.state.confirmation(), p.state.membership.id, p.state.progress.Revocation
	if revocation != nil && revocation.FirstForcedTime != nil {
		return false // the call that failed has to be made again by this resource
	}
	return id.Mode == v1alpha1.ModeStable && !f.OfWrite && f.Account == id.Key && !c.Doubted && c.At.After(f.Time)
}

// observeFailure describes the last failure, and whether its back-off holds for the present spec and credentials.
func (p *observer) observeFailure(o *report.Observation) {
	p.state.nameAccount(p.resource.Generation, o.CredentialsSecret.Version)
	f := p.state.failure
	restored := o.CredentialsSecret.Version != "" && o.CredentialsSecret.Version == o.CredentialsSecret.Accepted
	if f != nil && f.Class == token.Action && !f.OfWrite && restored && f.CredentialsVersion != o.CredentialsSecret.Version {
		p.state.failureEnds() // the credentials that failed were replaced by those that the token was issued with
		f = nil
	}
	if f != nil && p.accountAnsweredSince(f) {
		p.state.failureEnds()
		f = nil
	}
	if f != nil {
		inputs := f.Failure
		inputs.Binds = p.state.failureBinds(p.resource.Generation, o.CredentialsSecret.Version)
		o.Failed, o.Failure = f, &inputs
	}
}
