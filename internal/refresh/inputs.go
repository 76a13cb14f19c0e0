// SPDX-License-Identifier: Apache-2.0

package refresh

import "time"

// Inputs is everything that a decision depends on. Times are on WeChat's clock.
type Inputs struct {
	// UID of the resource. It seeds every jitter.
	UID string
	// Traits of the tokens that the resource asks for.
	Traits Traits
	// CheckInterval is the time between two checks of a stored token.
	CheckInterval time.Duration
	// StartedAt is when this process made its first pass. It spreads the first checks, and the beats of later ones count from it.
	StartedAt time.Time
	// ClockSynced reports that WeChat has answered, and that the local clock was not seen to jump ahead since.
	ClockSynced bool

	Deleting  bool
	Suspended bool

	Credentials Credentials
	Target      Target
	Token       Token
	Account     Account
	Requests    Requests
	// Tickets are those that the spec asks for.
	Tickets []Ticket
	// TicketUnwritten reports that a ticket was fetched and is kept until the Secret holds it.
	TicketUnwritten bool

	// Failure is what the last attempt ended with; nil when it worked. MetadataFailure is the same for writes of labels, annotations and
	// owner reference alone, which hold up nothing else.
	Failure, MetadataFailure *Failure
	// Told is the failure that the status speaks of; the zero value for none.
	Told Told
}

// failureToTell returns the failure that the status tells; nil for none. One of metadata costs no token, so it comes last.
func (in Inputs) failureToTell() *Failure {
	if in.Failure != nil {
		return in.Failure
	}
	return in.MetadataFailure
}

// Credentials describes the credentials Secret.
type Credentials struct {
	// Missing reports that there is no AppSecret to use. Malformed says that this is because the value is no AppSecret.
	Missing, Malformed bool
	// Changed reports that the AppSecret is another one than the token was issued with.
	Changed bool
}

// Target describes the target Secret.
type Target struct {
	// Conflict reports that the Secret is not ours to write, Terminating that it waits to be collected.
	Conflict, Terminating bool
	// Exists reports that there is a Secret, and that it holds a token that was written for this resource.
	Exists bool
	// AppIDChanged and ModeChanged report that its token is for another appid or from the other endpoint.
	AppIDChanged, ModeChanged bool
	// Tampered reports that its data is not what was written last.
	Tampered bool
	// Outdated reports that labels, annotations or owner references differ from what is wanted.
	Outdated bool
	// RepairNotBefore paces repairs of a Secret that somebody keeps rewriting or deleting. Contested reports that this goes on.
	RepairNotBefore time.Time
	Contested       bool
	// MintStarted is the time of a mint whose result was never written; zero for none.
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
	// ReplaceBy is when the token has to be replaced although it is valid, because the account has a newer one, or because nobody saw
	// WeChat issue it and a check cannot tell which appid it belongs to; zero for never.
	ReplaceBy time.Time
	// Doubtful reports that WeChat was seen to have another token, or that nobody saw it issue this one.
	Doubtful bool
	// CheckNotBefore paces the checks of a doubtful token.
	CheckNotBefore time.Time
	// Refused reports that a gateway saw WeChat refuse the token since it was checked last.
	Refused bool
	// Unbelievable reports that the token must not be called valid: somebody else wrote it in place of the operator's, or gave it an
	// expiry that WeChat grants to none.
	Unbelievable bool
	// Unwritten reports that a token was issued and is kept until the Secret holds it.
	Unwritten bool
	// RefusedUntil is when a token that WeChat was seen to refuse would have expired; zero for others. Their ExpiresAt is in the past.
	RefusedUntil time.Time
	// Had reports that the resource has or had a token, so that a missing one expired.
	Had bool
}

// known reports whether there is a token.
func (t Token) known() bool { return t.Fingerprint != "" }

// Account describes what the members of the resource's account share.
type Account struct {
	// MemberWaiting reports that another member waits for a token that only a mint can give.
	MemberWaiting bool
	// FetcherAsked reports that this resource waits for another member's mint.
	FetcherAsked bool
	// MintNotBefore is when a token may be got that nobody asked for, and MintAllowedAt when that may be by a mint: a token that another
	// member holds is looked for now and then while the account may not mint.
	MintNotBefore, MintAllowedAt time.Time
	// MintEndsBy is when a mint that another member makes is over; zero for none. Its end is an event.
	MintEndsBy time.Time
	// LastMint is when the account's last mint was begun, as far as this process knows.
	LastMint time.Time
	// CheckNotBefore paces the checks that are made on request, or because a gateway saw WeChat refuse a token.
	CheckNotBefore time.Time
}
