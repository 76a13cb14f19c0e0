// SPDX-License-Identifier: Apache-2.0

package refresh

import "time"

// Action is what the reconciler does now.
type Action string

const (
	// Wait does nothing until Decision.At.
	Wait Action = "Wait"
	// Issue gets a token the ordinary way: a normal Stable call, or a Legacy mint.
	Issue Action = "Issue"
	// Check asks WeChat about the stored token: a normal Stable call, or a Legacy probe.
	Check Action = "Check"
	// Write stores what is known without calling WeChat.
	Write Action = "Write"
	// Force replaces the token on request.
	Force Action = "Force"
	// Revoke makes the next of a revoke's two forced calls.
	Revoke Action = "Revoke"
)

// Reason names the rule that matched.
type Reason string

// The rules, in the order in which they are tried. The first that matches, and may be carried
// out now, decides.
const (
	Deleting           Reason = "Deleting"
	Suspended          Reason = "Suspended"
	CredentialsMissing Reason = "CredentialsMissing"
	NotOwner           Reason = "NotOwner"
	TokenUnwritten     Reason = "TokenUnwritten"
	RequestExecutable  Reason = "RequestExecutable"
	TargetMissing      Reason = "TargetMissing"
	AppIDChanged       Reason = "AppIDChanged"
	CredentialsChanged Reason = "CredentialsChanged"
	ModeChanged        Reason = "ModeChanged"
	MemberWaiting      Reason = "MemberWaiting"
	MintUnfinished     Reason = "MintUnfinished"
	TargetTampered     Reason = "TargetTampered"
	TargetOutdated     Reason = "TargetOutdated"
	Expired            Reason = "Expired"
	RefreshDue         Reason = "RefreshDue"
	BackingOff         Reason = "BackingOff"
	CheckDue           Reason = "CheckDue"
	UpToDate           Reason = "UpToDate"
)

// FetchReasons are the rules that may call WeChat.
func FetchReasons() []Reason {
	return []Reason{
		RequestExecutable, TargetMissing, AppIDChanged, CredentialsChanged, ModeChanged, MemberWaiting, MintUnfinished,
		TargetTampered, Expired, RefreshDue, CheckDue,
	}
}

// Inputs is everything that a decision depends on. Times are on WeChat's clock.
type Inputs struct {
	// UID of the resource; it seeds every jitter.
	UID string
	// Legacy tells the mode: GET /cgi-bin/token instead of stable_token.
	Legacy bool
	// CheckInterval between two checks of a stored token.
	CheckInterval time.Duration
	// StartedAt is when this process made its first pass. It spreads the first checks, and the beats of later ones count from it.
	StartedAt time.Time
	// ClockSynced: WeChat has answered, and the local clock was not seen to jump ahead since.
	ClockSynced bool

	Deleting           bool
	Suspended          bool
	CredentialsMissing bool
	// CredentialsChanged: the AppSecret is another one than the token was issued with.
	CredentialsChanged bool

	Target   Target
	Token    Token
	Requests Requests

	// Unwritten: a token was issued and is kept until the Secret holds it.
	Unwritten bool
	// Failure is the last attempt's; nil when it worked.
	Failure *Failure
	// MemberWaiting: another resource of the Legacy account waits for a token that only a mint can give.
	MemberWaiting bool
	// MintNotBefore paces the Legacy mints that nobody asked for.
	MintNotBefore time.Time
	// MintEndsBy is when a Legacy mint that another member of the account makes is over; zero for none. Its end is an event.
	MintEndsBy time.Time
}

// Target describes the target Secret.
type Target struct {
	// Denied: the Secret is not ours to write, or waits to be collected.
	Denied bool
	// Exists: there is a Secret, and it holds a token that was written for this resource.
	Exists bool
	// AppIDChanged and ModeChanged: its token is for another appid or from the other endpoint.
	AppIDChanged bool
	ModeChanged  bool
	// Tampered: its data is not what was written last.
	Tampered bool
	// Outdated: labels, annotations or owner references differ from what is wanted.
	Outdated bool
	// RepairNotBefore paces repairs of a Secret that somebody keeps rewriting or deleting.
	RepairNotBefore time.Time
	// MintStarted is the time of a Legacy mint whose result was never written; zero for none.
	MintStarted time.Time
}

// Token describes the stored token, without its value.
type Token struct {
	// Fingerprint of the token; empty when no token is stored.
	Fingerprint string
	IssuedAt    time.Time
	ExpiresAt   time.Time
	// CheckedAt is when WeChat last confirmed this token to this process.
	CheckedAt time.Time
	// Doubtful: WeChat was seen to have another token, or nobody saw it issue this one.
	Doubtful bool
}

// Decision is what to do, why, and when to look again.
type Decision struct {
	Action Action
	Reason Reason
	// Request that is carried out, with Reason RequestExecutable.
	Request RequestKind
	// At is when the next decision is due; zero means that only an event can change anything.
	// It is set for Wait alone: any other action is followed by a new decision.
	At time.Time
	// DueAt is when the stored token is to be replaced; zero without one.
	DueAt time.Time
}

// Decide gives the answer for this moment. At is never later than the next check, and without one than CheckInterval from now, except
// while suspended, and never later than the expiry of a token that is still valid.
func Decide(now time.Time, in Inputs) Decision {
	p := newPlan(now, in)
	request, executable := p.executableRequest()
	rules := [...]struct {
		reason  Reason
		action  Action
		matches bool
	}{
		{Deleting, Wait, in.Deleting},
		{Suspended, Wait, in.Suspended},
		{CredentialsMissing, Wait, in.CredentialsMissing},
		{NotOwner, Wait, in.Target.Denied},
		{TokenUnwritten, Write, in.Unwritten},
		{RequestExecutable, p.actionFor(request), executable},
		{TargetMissing, Issue, !in.Target.Exists},
		{AppIDChanged, Issue, in.Target.AppIDChanged},
		{CredentialsChanged, Issue, in.CredentialsChanged},
		{ModeChanged, Issue, in.Target.ModeChanged},
		{MemberWaiting, Issue, in.MemberWaiting},
		{MintUnfinished, p.issueOrAsk(), p.mintUnfinished()},
		{TargetTampered, Issue, in.Target.Tampered},
		{TargetOutdated, Write, in.Target.Outdated},
		{Expired, p.issueOrAsk(), p.expired()},
		{RefreshDue, p.issueOrAsk(), p.refreshDue()},
		{CheckDue, Check, p.checkDue()},
	}
	for _, rule := range rules {
		if !rule.matches {
			continue
		}
		// A rule that is held back lets later rules speak that need no call, but no check.
		if rule.reason == CheckDue && !p.heldUntil.IsZero() {
			break
		}
		if !p.allows(rule.reason, rule.action) {
			continue
		}
		d := Decision{Action: rule.action, Reason: rule.reason, DueAt: p.dueAt}
		if rule.reason == RequestExecutable {
			d.Request = request
		}
		if rule.action == Wait {
			d.At = p.wakeFor(rule.reason)
		}
		return d
	}
	reason := UpToDate
	if !p.heldUntil.IsZero() || p.backingOff() {
		reason = BackingOff
	}
	return Decision{Action: Wait, Reason: reason, At: p.wakeFor(reason), DueAt: p.dueAt}
}

// plan holds what several rules share.
type plan struct {
	now     time.Time
	in      Inputs
	dueAt   time.Time
	checkAt time.Time
	retryAt time.Time
	// heldUntil is the earliest time at which a rule that matched may be carried out.
	heldUntil time.Time
}

func newPlan(now time.Time, in Inputs) *plan {
	p := &plan{now: now, in: in, dueAt: DueAt(in), checkAt: CheckAt(in)}
	if in.Failure != nil && in.Failure.Binds && !NotedAhead(in.Failure.Time, now) {
		p.retryAt = in.Failure.retryAt(p.dueAt, in.Token.ExpiresAt)
	}
	return p
}

func (p *plan) hasToken() bool { return p.in.Token.Fingerprint != "" }

// stored: there is a Secret of ours with a token in it that can be judged by its times.
func (p *plan) stored() bool { return p.in.Target.Exists && p.hasToken() }

func (p *plan) expired() bool    { return p.stored() && !p.now.Before(p.in.Token.ExpiresAt) }
func (p *plan) refreshDue() bool { return p.stored() && !p.now.Before(p.dueAt) }
func (p *plan) backingOff() bool { return p.now.Before(p.retryAt) }

// checkDue must not match while a call backs off: a check is the least of all calls.
func (p *plan) checkDue() bool {
	return p.stored() && !p.backingOff() && (p.in.Token.Doubtful || p.causeChanged() || !p.now.Before(p.checkAt))
}

// causeChanged: spec or credentials are others than those that failed, so it is worth a call to find out whether the
// failure is over.
func (p *plan) causeChanged() bool {
	return p.in.Failure != nil && !p.in.Failure.Binds
}

// mintUnfinished: a mark was left by a mint whose answer was lost. An errcode that arrived at or
// after the mark is an answer: nothing was minted, and the ordinary rules go on.
func (p *plan) mintUnfinished() bool {
	mark := p.in.Target.MintStarted
	if !p.in.Legacy || mark.IsZero() {
		return false
	}
	return !p.in.Failure.Answered(mark)
}

// askAtMost is how long an answer about the time is waited for before a mint, which tells it too. By then every volume has
// followed the last token.
const askAtMost = 2 * time.Minute

// issueOrAsk keeps a wrong local clock from minting: until WeChat has told the time, a Legacy token that looks
// expired or due, or a mint that looks long over, is asked about first. What somebody else wrote cannot be asked about.
func (p *plan) issueOrAsk() Action {
	f := p.in.Failure
	inVain := f != nil && f.Code == 0 && !f.OfWrite && p.now.Sub(Later(f.First, p.in.StartedAt)) >= askAtMost
	if p.in.Legacy && !p.in.ClockSynced && p.stored() && !p.in.Target.Tampered && !inVain {
		return Check
	}
	return Issue
}

// allows tells whether a rule may be carried out now, and notes until when it is held back.
func (p *plan) allows(reason Reason, action Action) bool {
	if reason == RequestExecutable {
		return true // one attempt, through any back-off
	}
	var notBefore time.Time
	switch action {
	case Wait:
		return true
	case Write:
		if p.in.Failure != nil && p.in.Failure.OfWrite {
			notBefore = p.retryAt
		}
	case Issue, Check, Force, Revoke:
		notBefore = p.retryAt
		if action == Issue && p.in.Legacy {
			notBefore = Later(notBefore, Later(p.in.MintNotBefore, p.in.MintEndsBy))
		}
	}
	if reason == TargetMissing || reason == TargetTampered || reason == TargetOutdated || reason == CheckDue && p.in.Token.Doubtful {
		notBefore = Later(notBefore, p.in.Target.RepairNotBefore)
	}
	if !p.now.Before(notBefore) {
		return true
	}
	p.heldUntil = earliest(p.heldUntil, notBefore)
	return false
}

// wakeFor is the next moment at which the answer can change by time alone.
func (p *plan) wakeFor(reason Reason) time.Time {
	var wake time.Time
	if p.hasToken() && p.now.Before(p.in.Token.ExpiresAt) {
		wake = p.in.Token.ExpiresAt // Ready must turn False then, in every state
	}
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
	if at := p.requestAt(); !at.IsZero() && p.now.Before(at) {
		wake = earliest(wake, at)
	}
	if reason == UpToDate && p.now.Before(p.checkAt) {
		return wake // the check looks again, and to look before it would only cost
	}
	return earliest(wake, p.now.Add(p.in.CheckInterval))
}

// earliest ignores zero times.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// Later is the later of two times; a zero time is earlier than any other.
func Later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
