// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// previousLives is how long WeChat accepts the token before the newest one of a Legacy account.
	previousLives = 5 * time.Minute
	// replaceUnattestedAfter is how long a Legacy token may stay that nobody saw WeChat issue. A check cannot tell which appid it
	// belongs to. Two minutes are enough for every volume to have it, so that its replacement ends no token that a pod may hold.
	replaceUnattestedAfter = 2 * time.Minute
	// disputedCheckAfter is the least time between two checks of a resource whose token another member's answer contradicts.
	disputedCheckAfter = 10 * time.Second
)

// observeStored describes the stored token and the target, with what WeChat said about them since.
func (p *pass) observeStored(o *report.Observation) {
	o.WrittenVersion = p.state.targetWritten()
	o.Target.Conflict = o.Ownership.Claim == target.Conflict
	o.Target.Terminating = o.Ownership.Claim == target.Terminating
	o.Target.RepairNotBefore, o.Target.Contested = p.state.repairs.notBefore(o.Now), p.state.repairs.contested(o.Now)
	o.ReferencesRefused = p.state.refusedReferences == p.resource.Generation
	o.Token.Had = p.resource.Status.Token != nil
	p.observePending(o)
	if o.Secret == nil || !o.Ownership.Writable() || o.Ownership.Claim == target.Adopt {
		return
	}
	s := p.storedToken(o)
	o.Stored = s
	o.Target.Exists = s.Fingerprint != ""
	believable := s.Believable(o.Now)
	o.Target.Tampered = o.Holding == target.HoldsOther || o.ClockSynced && !believable
	if s.Fingerprint == "" {
		return
	}
	o.Target.AppIDChanged, o.Target.ModeChanged = s.AppID != p.resource.Spec.AppID, s.Mode != p.resource.Spec.Mode
	o.Target.Outdated = p.outdated(o)
	o.Token.Fingerprint, o.Token.IssuedAt, o.Token.ExpiresAt = s.Fingerprint, s.IssuedAt, s.ExpiresAt
	o.Token.CheckNotBefore = refresh.EarliestNext(p.state.attempts.called, disputedCheckAfter, o.Now)
	unattested := o.Holding == target.HoldsUnattested
	if unattested {
		o.Token.CheckNotBefore = time.Time{} // RepairNotBefore paces what somebody else wrote
	}
	confirmed := p.confirmation()
	accepted := confirmed.Fingerprint == s.Fingerprint
	o.Token.Unbelievable = !believable || p.foreignTokenWritten(o) && !accepted
	o.Token.Doubtful = unattested && !accepted || confirmed.Doubted
	disputed := !o.Traits.EndsOlder && !accepted && confirmed.Fingerprint != "" // another member was given another token
	switch {
	case accepted && !refresh.IsInFuture(confirmed.At, o.Now):
		o.Token.CheckedAt = confirmed.At
	case disputed && p.state.failure == nil && !refresh.IsInFuture(p.state.attempts.called, o.Now):
		o.Token.CheckedAt = p.state.attempts.called
	}
	o.Token.Doubtful = o.Token.Doubtful || disputed
	if !o.Traits.EndsOlder && accepted {
		o.Token.ExpiresAt = confirmed.ExpiresAt // a probe tells no expiry
	}
	if o.Traits.EndsOlder {
		p.observeEnd(o, unattested)
	}
	o.Credentials.Changed = p.credentialsChanged(o)
	if !p.state.intent.Unanswered(o.Record.Mint).IsZero() {
		p.state.intent = p.state.intent.Seen(o.Record.Mint, o.Now)
		o.Target.MintStarted = o.Record.Mint.StartedAt
	}
	if p.state.intent.MintAgain() {
		o.Target.MintStarted = o.Now.Add(time.Second) // no failure so far is its answer, and marks are compared by whole seconds
	}
}

// credentialsChanged reports whether the AppSecret is another one than the stored token was issued with. That is known from the own
// write, or else taken from the annotation, unless the credentials are still those that WeChat accepted last.
func (p *pass) credentialsChanged(o *report.Observation) bool {
	c := &p.state.credentials
	return c.version != "" && c.problem == "" && c.version != c.accepted && !p.resource.Spec.Suspend &&
		o.Stored.Credentials != c.secret.Fingerprint()
}

// observeEnd corrects when a Legacy token ends or has to be replaced: a later mint of this process or WeChat's refusal ended it, or
// nobody saw WeChat issue it.
func (p *pass) observeEnd(o *report.Observation, unattested bool) {
	t := &o.Token
	if acct := p.state.membership.account; acct != nil {
		if since, dead := acct.DeadSince(t.Fingerprint); dead {
			t.ExpiresAt = refresh.Earlier(since, t.IssuedAt) // whoever edits the Secret can write any time
			return
		}
		if m := acct.Minted(); m.Fingerprint != "" && m.Fingerprint != t.Fingerprint && m.At.After(t.IssuedAt) && !refresh.IsInFuture(m.At, o.Now) {
			t.ExpiresAt = refresh.Earlier(t.ExpiresAt, m.At.Add(previousLives))
		}
	}
	if at := &p.state.verdict.At; unattested && o.ClockSynced {
		if at.IsZero() || refresh.IsInFuture(*at, o.Now) {
			*at = o.Now
		}
		t.ReplaceBy = at.Add(replaceUnattestedAfter)
	}
}

// confirmation returns WeChat's latest answer about the account's token; the zero value for none.
func (p *pass) confirmation() account.Confirmation {
	if acct := p.state.membership.account; acct != nil {
		return acct.Confirmed()
	}
	return account.Confirmation{}
}

// observePending finds a token that waits to be written. One that has ended, or that is for an appid or mode that the spec has left, is
// dropped: a request that waited for it has had its attempt.
func (p *pass) observePending(o *report.Observation) {
	t := p.state.pendingNow()
	if t == nil {
		return
	}
	useless := t.appID != p.resource.Spec.AppID || t.mode != p.resource.Spec.Mode || o.ClockSynced && !o.Now.Before(t.ExpiresAt)
	if acct := p.state.membership.account; acct != nil && o.Traits.EndsOlder {
		m := acct.Minted()
		useless = useless || m.Fingerprint != t.Value.Fingerprint() && m.At.After(t.IssuedAt.Add(previousLives))
	}
	if !useless {
		o.Token.Unwritten = true
		return
	}
	p.state.take(t)
	for _, e := range [...]outcome{{kind: refresh.RequestRefresh, value: t.refresh}, {kind: refresh.RequestRevoke, value: t.revoke}} {
		if e.value != "" {
			e.failed = "the new token could not be written before it ended"
			p.endRequest(e)
		}
	}
}

// outdated reports whether labels, annotations or owner reference of the target differ from what is wanted.
func (p *pass) outdated(o *report.Observation) bool {
	_, want := target.Want(p.resource, o.Ownership.Claim, p.wantedRecord(o, nil))
	return want.Outdated(o.Secret) || want.ReferenceOutdated(o.Secret) && p.state.refusedReferences != p.resource.Generation
}

// observeFailure describes the last failure, and whether its back-off holds for the present spec and credentials.
func (p *pass) observeFailure(o *report.Observation) {
	f := p.state.failure
	restored := o.CredentialsVersion != "" && o.CredentialsVersion == o.AcceptedCredentials
	if f != nil && f.Class == token.Action && !f.OfWrite && restored && f.CredentialsVersion != o.CredentialsVersion {
		p.state.failure, f = nil, nil // the credentials that failed were replaced by those that the token was issued with
	}
	if f != nil {
		inputs := f.Failure
		inputs.Binds = p.failureBinds(o)
		o.Failed, o.Failure = f, &inputs
	}
	if told := p.resource.Status.LastError; told != nil {
		if o.Told.Class = p.state.told; o.Told.Class == "" {
			o.Told.Class = classOf(told) // another process wrote it
		}
		o.Told.SameCause = f != nil && told.Generation == f.Generation && told.CredentialsVersion == f.CredentialsVersion
	}
}

// failureBinds reports whether the back-off of the last failure holds. A change of spec or credentials ends it, except for a wait that
// WeChat named: that is the account's, however often the credentials Secret is touched.
func (p *pass) failureBinds(o *report.Observation) bool {
	f := p.state.failure
	if f == nil {
		return false
	}
	if f.Named > 0 && (f.Account == "" || f.Account == p.state.credentials.secret.Account()) {
		return true
	}
	return f.Generation == p.resource.Generation && f.CredentialsVersion == o.CredentialsVersion
}

// requested returns the value of a request annotation; "" for none.
func requested(resource *v1alpha1.WeChatAppToken, kind refresh.RequestKind) string {
	return resource.Annotations[request.Annotation(kind)]
}

// wants reports whether a request was made and not handled yet.
func (p *pass) wants(kind refresh.RequestKind) bool {
	value := requested(p.resource, kind)
	return value != "" && value != *request.Handled(&p.state.progress.Handled, kind) && len(value) <= v1alpha1.RequestValueMaxLength
}

// observeRequests finds the requests that are to be carried out.
func (p *pass) observeRequests(ctx context.Context, o *report.Observation) error {
	for _, kind := range refresh.RequestKinds() {
		o.LongRequest = o.LongRequest || len(requested(p.resource, kind)) > v1alpha1.RequestValueMaxLength
	}
	progress := &p.state.progress
	if r := progress.Revocation; r != nil && (!p.wants(refresh.RequestRevoke) || r.Value != requested(p.resource, refresh.RequestRevoke)) {
		progress.Revocation = nil // it is not asked for any more
	}
	progress.Forced = slices.DeleteFunc(slices.Clone(progress.Forced), func(t time.Time) bool { return o.Now.Sub(t) >= 24*time.Hour })
	p.observeCheck(o)
	o.Requests = refresh.Requests{
		Check: p.wants(refresh.RequestCheck), Refresh: p.wants(refresh.RequestRefresh), Revoke: p.wants(refresh.RequestRevoke),
		Forced: progress.Forced,
	}
	if r := progress.Revocation; r != nil && r.FirstForcedTime != nil {
		o.Requests.RevokeStarted = r.FirstForcedTime.UTC()
	}
	if acct := p.state.membership.account; acct != nil {
		o.Requests.Forced = slices.Concat(o.Requests.Forced, acct.Forced(o.Now))
	}
	if o.Requests.Refresh || o.Requests.Revoke {
		if err := p.observeBudget(ctx, o); err != nil {
			return err
		}
	}
	o.Requests.Forced = distinct(o.Requests.Forced)
	o.Progress = *progress
	return nil
}

// observeBudget adds what the other resources of the appid and mode have used of the account's budget, and when the last of them was
// given a token. Only the operator writes a status, and WeChat answered only to the right AppSecret, so it does not matter whether they
// have joined the account since this process started.
func (p *pass) observeBudget(ctx context.Context, o *report.Observation) error {
	var opts []client.ListOption
	if o.Traits.EndsOlder {
		opts = append(opts, client.MatchingFields{legacyAppIDIndex: p.resource.Spec.AppID})
	}
	list := &v1alpha1.WeChatAppTokenList{}
	if err := p.Client.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		return fmt.Errorf("listing WeChatAppTokens: %w", err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID == p.resource.UID || other.Spec.AppID != p.resource.Spec.AppID || other.Spec.Mode != p.resource.Spec.Mode {
			continue
		}
		for _, t := range other.Status.ForcedRefreshes {
			o.Requests.Forced = append(o.Requests.Forced, t.UTC())
		}
		if t := other.Status.Token; t != nil && t.Mode == other.Spec.Mode {
			o.Account.LastMint = refresh.Later(o.Account.LastMint, t.IssueTime.UTC())
		}
	}
	return nil
}

// distinct returns the times in their order. A status has whole seconds, so times within a second of each other are the same call.
func distinct(times []time.Time) []time.Time {
	slices.SortFunc(times, time.Time.Compare)
	return slices.CompactFunc(times, func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Second })
}

// observeCheck ends a check request that was answered already: WeChat confirmed the stored token to a member of the account after the
// request was first seen.
func (p *pass) observeCheck(o *report.Observation) {
	a := &p.state.attempts
	value := requested(p.resource, refresh.RequestCheck)
	switch {
	case !p.wants(refresh.RequestCheck):
	case a.check != value || refresh.IsInFuture(a.checkSeen, o.Now):
		a.check, a.checkSeen = value, o.Now
	case o.Target.Exists && !o.Token.Doubtful && o.Token.CheckedAt.After(a.checkSeen):
		p.endRequest(outcome{kind: refresh.RequestCheck, value: value})
	}
}

// observeAccount describes what the members of the account share, and tells the account about this member.
func (p *pass) observeAccount(o *report.Observation) {
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
	o.Account.MemberWaiting = acct.Wanted(o.Now)
	o.Account.FetcherAsked = o.Now.Before(refresh.EarliestNext(p.state.attempts.asked, 2*askAgainAfter, o.Now))
	o.Account.MintNotBefore = p.issueNotBefore(o)
	o.Account.LastMint = refresh.Later(o.Account.LastMint, acct.LastMint())
	if acct.AwaitMint(nameOf(p.resource)) {
		o.Account.MintEndsBy = o.Now.Add(account.MintTakes)
	}
	acct.Update(p.member(o))
}
