// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Decision is what to do, why, when to look again, and what to tell.
type Decision struct {
	Action Action
	Reason Reason
	// Request is the request that is carried out; set with Reason RequestExecutable.
	Request RequestKind
	// Tickets are those to fetch with this step, once there is a token for it.
	Tickets []v1alpha1.TicketType
	// At is when the next decision is due; zero means that only an event can change anything. It is set for Wait alone, because any
	// other action is followed by a new decision.
	At time.Time
	// DueAt is when the stored token is to be replaced; zero without one.
	DueAt time.Time
	// RetryAt is when the attempt that failed is made again, as far as its back-off holds; zero without a failure.
	RetryAt time.Time
	// Verdict is the state of the resource at this moment.
	Verdict Verdict
}

// Decide returns the decision for this moment. At is never later than the next check, and without one than CheckInterval from now,
// except while suspended, and never later than the expiry of a token that is still valid.
func Decide(now time.Time, in Inputs) Decision {
	p := newPlan(now, in)
	d := p.decide()
	d.DueAt, d.Verdict, d.Tickets = p.dueAt, p.verdict(), p.ticketsFor(d)
	switch {
	case in.Failure != nil:
		d.RetryAt = retryAt(in)
	case in.MetadataFailure != nil:
		d.RetryAt = in.MetadataFailure.RetryAt
	}
	if d.Action == Wait {
		d.At = p.wakeFor(d.Reason)
	}
	return d
}

func (p *plan) decide() Decision {
	in := p.in
	request, executable := p.executableRequest()
	rules := [...]struct {
		reason  Reason
		action  Action
		matches bool
	}{
		{Deleting, Wait, in.Deleting},
		{Suspended, Wait, in.Suspended},
		{CredentialsMissing, Wait, in.Credentials.Missing},
		{NotOwner, Wait, in.Target.Conflict || in.Target.Terminating},
		{TokenUnwritten, Write, in.Token.Unwritten},
		{RequestExecutable, p.actionFor(request), executable},
		{TargetMissing, Issue, !in.Target.Exists},
		{AppIDChanged, Issue, in.Target.AppIDChanged},
		{CredentialsChanged, Issue, in.Credentials.Changed},
		{ModeChanged, Issue, in.Target.ModeChanged},
		{MemberWaiting, Issue, in.Account.MemberWaiting},
		{MintUnfinished, p.issueOrAsk(), p.mintUnfinished()},
		{TargetTampered, Issue, in.Target.Tampered},
		{TargetOutdated, Write, in.Target.Outdated},
		{Expired, p.issueOrAsk(), p.expired()},
		{RefreshDue, p.issueOrAsk(), p.refreshDue()},
		{TicketUnwritten, Write, in.TicketUnwritten && p.stored() && !in.Target.Tampered && !in.Target.AppIDChanged},
		{CheckDue, Check, p.checkDue()},
		{TicketDue, FetchTickets, p.ticketDue()},
	}
	for _, rule := range rules {
		if !rule.matches {
			continue
		}
		// A rule that is held back lets later rules speak that need no call, but no check.
		if rule.reason == CheckDue && !p.heldUntil.IsZero() {
			continue
		}
		if !p.allows(rule.reason, rule.action) {
			continue
		}
		d := Decision{Action: rule.action, Reason: rule.reason}
		if rule.reason == RequestExecutable {
			d.Request = request
		}
		return d
	}
	if !p.heldUntil.IsZero() || p.backingOff() {
		return Decision{Action: Wait, Reason: BackingOff}
	}
	return Decision{Action: Wait, Reason: UpToDate}
}

// plan holds what several rules share.
type plan struct {
	now     time.Time
	in      Inputs
	dueAt   time.Time
	checkAt time.Time
	// retryAt is the end of a back-off that binds; zero without one. metadataRetryAt is that of the back-off which holds the write of
	// labels, annotations and owner reference alone.
	retryAt, metadataRetryAt time.Time
	// heldUntil is the earliest time at which a rule that matched may be carried out, and that keeps the token from being checked.
	// besideHeldUntil is the same for rules that do not: what other members wait for, and labels, annotations and owner reference.
	heldUntil, besideHeldUntil time.Time
}

func newPlan(now time.Time, in Inputs) *plan {
	p := &plan{now: now, in: in, dueAt: DueAt(in), checkAt: CheckAt(in)}
	if in.Failure.binds(now) {
		p.retryAt = retryAt(in)
	}
	if in.MetadataFailure.binds(now) {
		p.metadataRetryAt = in.MetadataFailure.RetryAt
	}
	return p
}

// retryAt returns when the attempt that failed is made again. A refusal may have been WeChat's mistake, so a refused token keeps the
// handover window that it had before.
func retryAt(in Inputs) time.Time {
	if at := in.Token.RefusedUntil; !at.IsZero() {
		in.Token.ExpiresAt = at
	}
	return in.Failure.retryAt(DueAt(in), in.Token.ExpiresAt)
}

// stored reports whether there is a Secret of ours with a token in it that can be judged by its times.
func (p *plan) stored() bool { return p.in.Target.Exists && p.in.Token.known() }

func (p *plan) expired() bool    { return p.stored() && !p.now.Before(p.in.Token.ExpiresAt) }
func (p *plan) refreshDue() bool { return p.stored() && !p.now.Before(p.dueAt) }
func (p *plan) backingOff() bool { return p.now.Before(p.retryAt) }

// checkDue reports whether the stored token is to be checked. It does not match while a call backs off, because a check is the
// least important of all calls.
func (p *plan) checkDue() bool {
	if !p.stored() || p.backingOff() {
		return false
	}
	early := (p.in.Token.Doubtful || p.causeChanged()) && !p.now.Before(p.in.Token.CheckNotBefore)
	refused := p.in.Token.Refused && !p.now.Before(p.in.Account.CheckNotBefore)
	return early || refused || !p.now.Before(p.checkAt)
}

// causeChanged reports whether spec or credentials are others than those that failed, and a check can tell whether the failure is over.
// The check of a token that was issued by a mint says nothing about what the next mint will meet.
func (p *plan) causeChanged() bool {
	f := p.in.Failure
	return f != nil && !f.Binds && (!p.in.Traits.EndsOlder || f.Class != token.Action)
}

// mintUnfinished reports whether a mark was left by a mint whose answer was lost. An errcode that arrived at or after the mark is
// an answer: nothing was minted, and the ordinary rules go on.
func (p *plan) mintUnfinished() bool {
	mark := p.in.Target.MintStarted
	return p.in.Traits.EndsOlder && !mark.IsZero() && !p.in.Failure.Answered(mark)
}

// askAtMost is how long an answer about the time is waited for before a mint, which tells the time too. By then every volume has
// followed the last token.
const askAtMost = 2 * time.Minute

// issueOrAsk returns Issue, or Check where a wrong local clock could cause a mint. Until WeChat has told the time, a token that looks
// expired or due, or a mint that looks long over, is asked about first. What somebody else wrote cannot be asked about.
func (p *plan) issueOrAsk() Action {
	f := p.in.Failure
	inVain := f != nil && f.Code == 0 && !f.OfWrite && p.now.Sub(Later(f.First, p.in.StartedAt)) >= askAtMost
	if p.in.Traits.EndsOlder && !p.in.ClockSynced && p.stored() && !p.in.Target.Tampered && !inVain {
		return Check
	}
	return Issue
}

// allows reports whether a rule may be carried out now, and notes until when it is held back.
func (p *plan) allows(reason Reason, action Action) bool {
	if reason == RequestExecutable {
		return true // a request has one attempt, whatever back-off there is
	}
	var notBefore time.Time
	switch action {
	case Wait, Decline:
		return true
	case Write:
		if p.in.Failure != nil && p.in.Failure.OfWrite {
			notBefore = p.retryAt
		}
		if reason == TargetOutdated {
			notBefore = Later(notBefore, p.metadataRetryAt)
		}
	case FetchTickets:
		if !p.in.Traits.EndsOlder {
			notBefore = Later(p.retryAt, p.heldUntil)
		}
	case Issue, Check, Force, Revoke:
		notBefore = p.retryAt
		if action == Issue && p.in.Traits.EndsOlder {
			notBefore = Later(notBefore, Later(p.in.Account.MintNotBefore, p.in.Account.MintEndsBy))
		}
	}
	if p.repairs(reason) {
		notBefore = Later(notBefore, p.in.Target.RepairNotBefore)
	}
	switch {
	case !p.now.Before(notBefore):
		return true
	case reason == MemberWaiting, reason == TargetOutdated:
		p.besideHeldUntil = earliest(p.besideHeldUntil, notBefore)
	default:
		p.heldUntil = earliest(p.heldUntil, notBefore)
	}
	return false
}

// repairs reports whether a rule undoes, or asks about, what somebody else did to the target.
func (p *plan) repairs(reason Reason) bool {
	return reason == TargetMissing || reason == TargetTampered || reason == TargetOutdated || reason == CheckDue && p.in.Token.Doubtful
}

// wakeFor returns the next moment at which the decision can change by time alone.
func (p *plan) wakeFor(reason Reason) time.Time {
	var wake time.Time
	if p.in.Token.known() && p.now.Before(p.in.Token.ExpiresAt) {
		wake = p.in.Token.ExpiresAt // Ready turns False then, in every state
	}
	wake = earliest(wake, p.ticketsExpireAt())
	switch reason {
	case Deleting:
		return time.Time{}
	case Suspended:
		return wake
	case BackingOff:
		wake = earliest(wake, p.heldUntil)
		if p.backingOff() {
			wake = earliest(wake, p.retryAt)
		}
		if p.stored() && p.now.Before(p.dueAt) {
			wake = earliest(wake, p.dueAt) // what paces a repair does not pace the rotation
		}
	case UpToDate:
		wake = earliest(wake, p.checkAt)
		if p.stored() {
			wake = earliest(wake, p.dueAt)
		}
	default: // an event ends these, or the next look
	}
	ticketsAt, _ := p.ticketsAt()
	for _, at := range [...]time.Time{p.requestAt(), p.besideHeldUntil, p.earlyCheckAt(), ticketsAt, p.tellAt()} {
		if p.now.Before(at) {
			wake = earliest(wake, at)
		}
	}
	if reason == UpToDate && p.now.Before(p.checkAt) {
		return wake // the check looks again, and to look before it would only cost
	}
	return earliest(wake, p.now.Add(p.in.CheckInterval))
}

// earlyCheckAt returns when a token may be checked that is doubtful or was refused, or whose check tells whether a failure is over; zero
// for others.
func (p *plan) earlyCheckAt() time.Time {
	var at time.Time
	if !p.stored() {
		return at
	}
	if p.in.Token.Refused {
		at = p.in.Account.CheckNotBefore
	}
	if p.in.Token.Doubtful || p.causeChanged() {
		at = earliest(at, p.in.Token.CheckNotBefore)
	}
	return at
}
