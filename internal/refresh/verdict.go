// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Verdict is the state of a resource at the moment of a decision: whether its token is valid, and if not, which of its problems is
// told first.
type Verdict struct {
	// Valid reports that the target holds a token for this spec that WeChat accepts now.
	Valid bool
	// Problem is the first of the problems that keep the resource from having a valid token, told when Valid is false.
	Problem Problem
	// Ticket is the first of the problems that keep a ticket from being valid, told when the token is valid. TicketFailing is the
	// first failure to get one that is to be told.
	Ticket, TicketFailing TicketProblem
	// Failing reports which failure the condition RefreshFailing tells.
	Failing Failing
	// Tell says what becomes of the failure in the status, and Class is the class of the one that the status tells then.
	Tell  Tell
	Class token.Class
	// Suspended and Had repeat the inputs, for the words of the condition.
	Suspended, Had bool
}

// Problem is what keeps a resource from having a valid token.
type Problem string

// The problems, in the order in which they are told. There is always one: a token may just not be there yet.
const (
	ProblemConflict             Problem = "Conflict"
	ProblemTerminating          Problem = "Terminating"
	ProblemSuspended            Problem = "Suspended"
	ProblemCredentialsMissing   Problem = "CredentialsMissing"
	ProblemCredentialsMalformed Problem = "CredentialsMalformed"
	ProblemFailure              Problem = "Failure"
	ProblemContested            Problem = "Contested"
	ProblemFetcherAsked         Problem = "FetcherAsked"
	ProblemNoToken              Problem = "NoToken"
)

// Failing is what the condition RefreshFailing tells.
type Failing string

const (
	FailingNothing     Failing = ""
	FailingCredentials Failing = "Credentials"
	FailingAttempt     Failing = "Attempt"
)

// Tell says what a status does with the failure of the last attempt.
type Tell string

const (
	// TellNothing removes the failure that the status speaks of.
	TellNothing Tell = "Nothing"
	// TellLast leaves what the status says, because the last failure may pass by itself, or is the same story.
	TellLast Tell = "Last"
	// TellCurrent tells the last failure.
	TellCurrent Tell = "Current"
)

// Told describes the failure that the status speaks of. The zero value is for none.
type Told struct {
	Class token.Class
	// SameCause reports that spec and credentials were then those of the last failure.
	SameCause bool
}

func (p *plan) verdict() Verdict {
	v := Verdict{Suspended: p.in.Suspended, Had: p.in.Token.known() || p.in.Token.Had}
	v.Tell, v.Class = p.tell()
	switch {
	case p.in.Credentials.Missing:
		v.Failing = FailingCredentials
	case v.Class != "":
		v.Failing = FailingAttempt
	}
	v.Problem = p.problem(v.Class)
	v.Valid = p.valid()
	v.Ticket, v.TicketFailing = p.ticketVerdict()
	return v
}

// valid reports whether the target holds a token for this spec that WeChat accepts now.
func (p *plan) valid() bool {
	t, s := p.in.Token, p.in.Target
	return t.Fingerprint != "" && p.now.Before(t.ExpiresAt) && !t.Unbelievable && !s.Tampered && !s.AppIDChanged &&
		!s.Conflict && !s.Terminating
}

// problem returns the first problem that keeps the resource from having a valid token. class is that of the failure that is told.
func (p *plan) problem(class token.Class) Problem {
	switch in := p.in; {
	case in.Target.Conflict:
		return ProblemConflict
	case in.Target.Terminating:
		return ProblemTerminating
	case in.Suspended:
		return ProblemSuspended
	case in.Credentials.Malformed:
		return ProblemCredentialsMalformed
	case in.Credentials.Missing:
		return ProblemCredentialsMissing
	case class != "" && in.Failure != nil:
		return ProblemFailure
	case in.Target.Contested:
		return ProblemContested
	case in.Account.FetcherAsked:
		return ProblemFetcherAsked
	}
	return ProblemNoToken
}

// tell decides which failure the status tells. A transient one is told late, and its first reason stands, so that an outage costs
// one write of a status, and its end another.
func (p *plan) tell() (Tell, token.Class) {
	f, told := p.in.failureToTell(), p.in.Told
	switch {
	case f == nil:
		return TellNothing, ""
	case !f.reportable(p.now, p.dueAt):
		return TellLast, told.Class
	case f.Class == token.Transient && told.Class == token.Transient && told.SameCause:
		return TellLast, told.Class
	}
	return TellCurrent, f.Class
}

// tellAt returns when the first failure is to be told that passes by itself and was not told yet; zero for none. Its next attempt may be
// up to a minute later.
func (p *plan) tellAt() time.Time {
	var at time.Time
	if f := p.in.failureToTell(); f != nil && !f.reportable(p.now, p.dueAt) {
		at = f.First.Add(ReportAfter)
	}
	for _, t := range p.in.Tickets {
		if f := t.Failure; f != nil && !ticketReportable(f, p.now) {
			at = earliest(at, f.First.Add(ReportAfter))
		}
	}
	return at
}

// earliest returns the earlier of two times; a zero time is later than any other.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
