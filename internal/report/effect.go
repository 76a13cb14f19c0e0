// SPDX-License-Identifier: Apache-2.0

package report

import (
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Effect is what a step came to. The step itself leaves the state of the resource alone.
type Effect struct {
	// Target is what the step left of the target Secret.
	Target KnownTarget
	// Wrote is the version of the target that the step wrote; nil for none. DataKept reports that its data was left alone.
	Wrote    *metav1.PartialObjectMetadata
	DataKept bool
	// Issued is a token that has to be written; nil for none.
	Issued *Pending
	// Stored is the token that the target is known to hold from now on; nil if that is not news.
	Stored *target.Token
	// Landed and Dropped are the pending token that was written, and the one that turned out useless; nil for none.
	Landed, Dropped *Pending
	Tickets         TicketsEffect
	// Intent is the next state of the marks; nil if it stays.
	Intent *account.Intent
	// Accepted reports that WeChat issued a token for these credentials. It ends every failure.
	Accepted bool
	// Failed is what failed, with its words; nil for nothing. FailureOver reports that the last failure is over.
	Failed      *Failure
	FailureOver bool
	// Outcomes are requests that had their attempt.
	Outcomes []Outcome
	// ForeignDeaths is how many tokens died early within the last hour, because something else fetches for the appid; zero if none was
	// found to have died.
	ForeignDeaths int
	// Revocation is the next state of the revoke; nil if it stays.
	Revocation *v1alpha1.RevocationStatus
	// StatusFirst asks for the status to be written before the next step.
	StatusFirst bool
	Times       Times
	// ReferencesRefused reports that the API server refused to change the owner references.
	ReferencesRefused bool
}

// KnownTarget is what the last step of a pass left of the target. The zero value says that the cache knows best.
type KnownTarget struct {
	// Secret is the target as a write left it; nil for none.
	Secret *metav1.PartialObjectMetadata
	// LookAgain asks for a live read, because what the step found contradicts the observation.
	LookAgain bool
	// Reverted reports that a write was taken and its metadata changed back at once, as an admission policy does.
	Reverted bool
}

// LookAgain returns the effect of a step that found something else than the observation says.
func LookAgain() Effect { return Effect{Target: KnownTarget{LookAgain: true}} }

// Times are those at which a step made attempts that have a pace of their own; zero for those it did not make.
type Times struct {
	// Asked is when the fetcher of the Legacy account was asked for a token.
	Asked time.Time
	// CopySought is when the token of another member was looked for.
	CopySought time.Time
	// Called is when WeChat was called.
	Called time.Time
	// Forced is when a forced call or a requested mint was begun that WeChat may have carried out.
	Forced time.Time
}

// Later returns the later time of each kind of attempt. Forced is left out: each forced call counts.
func (t Times) Later(than Times) Times {
	return Times{
		Asked: refresh.Later(t.Asked, than.Asked), CopySought: refresh.Later(t.CopySought, than.CopySought),
		Called: refresh.Later(t.Called, than.Called),
	}
}

// Past returns the times without those that lie ahead of now, because a clock that ran ahead noted them.
func (t Times) Past(now time.Time) Times {
	for _, at := range [...]*time.Time{&t.Asked, &t.CopySought, &t.Called} {
		if refresh.IsInFuture(*at, now) {
			*at = time.Time{}
		}
	}
	return t
}

// Pending is a token on its way to the Secret, with what is handled once it is there.
type Pending struct {
	token.Token

	AppID string
	Mode  v1alpha1.Mode
	// Credentials is the fingerprint of the credentials that it was issued with.
	Credentials string
	// Reason is why it was fetched.
	Reason refresh.Reason
	// Refresh and Revoke are the values of the requests that are handled once the Secret holds the token; empty for none.
	Refresh, Revoke string
	// Replaces is the fingerprint of the token that the Secret held when this one was issued; empty for none, or if another member
	// minted this one.
	Replaces string
	// Forced reports that a forced call returned it, so that no other answer may take its place.
	Forced bool
	// Copied reports that it comes from another member of the account.
	Copied bool
	// Unmarked reports that it was minted without a mark, because there was no Secret.
	Unmarked bool
}

// TicketsEffect is what a step came to for tickets.
type TicketsEffect struct {
	// Fetched have to be written.
	Fetched []PendingTicket
	// Failed reports that a ticket could not be fetched or written, and Refused that the API server does not take the pending ones.
	Failed, Refused bool
	// Held are those that the target holds after a write; nil if the step wrote nothing.
	Held []target.Ticket
}

// holds reports whether the target holds a ticket that was pending.
func (e TicketsEffect) holds(t PendingTicket) bool {
	return slices.ContainsFunc(e.Held, func(h target.Ticket) bool {
		return h.Type == t.Type && h.Fingerprint == t.Fingerprint && h.ExpiresAt.Equal(t.ExpiresAt)
	})
}

// Written returns the types of the tickets that were pending and that the target holds.
func (e TicketsEffect) Written(pending []PendingTicket) []v1alpha1.TicketType {
	var types []v1alpha1.TicketType
	for _, t := range pending {
		if e.holds(t) {
			types = append(types, t.Type)
		}
	}
	return types
}

// Pending returns the tickets that are pending after the step.
func (e TicketsEffect) Pending(before []PendingTicket) []PendingTicket {
	var out []PendingTicket
	for _, t := range before {
		again := slices.ContainsFunc(e.Fetched, func(f PendingTicket) bool { return f.Type == t.Type })
		if !e.Refused && !e.holds(t) && !again {
			out = append(out, t)
		}
	}
	return append(out, e.Fetched...)
}

// PendingTicket is a ticket on its way to the Secret.
type PendingTicket struct {
	target.Ticket

	// Value is zero if the Secret holds it already, with another expiry.
	Value token.Value
	AppID string
}

// NewPending returns a token of the account that the spec and the credentials name.
func NewPending(o Observation, d refresh.Decision, t token.Token, c token.Credentials) Pending {
	return Pending{
		Token: t, AppID: o.Resource.Spec.AppID, Mode: o.Resource.Spec.Mode, Credentials: c.Fingerprint(),
		Reason: d.Reason, Replaces: o.Stored.Fingerprint,
	}
}

// Succeeds reports whether WeChat has issued t after the stored token, for the same appid and in the same mode.
func (t *Pending) Succeeds(stored target.Token) bool {
	return t.AppID == stored.AppID && t.Mode == stored.Mode && t.Value.Fingerprint() != stored.Fingerprint && t.IssuedAt.After(stored.IssuedAt)
}

// Outcome is how a request ended.
type Outcome struct {
	Kind  refresh.RequestKind
	Value string
	// Failed says why the attempt failed; empty if it worked. Same reports that WeChat returned the token that there was.
	Failed string
	Same   bool
}

// Event returns the event that tells the outcome.
func (o Outcome) Event() Event {
	switch {
	case o.Failed != "":
		return requestFailed(o.Kind, o.Failed)
	case o.Same:
		return refreshedNothing()
	}
	return requestDone(o.Kind)
}

// Checked returns the outcome of the check that an answer of WeChat was, for a request that waits for one.
func (o Observation) Checked() []Outcome {
	if !o.Requests.Check {
		return nil
	}
	return []Outcome{{Kind: refresh.RequestCheck, Value: o.Requested(refresh.RequestCheck)}}
}

// WantedRecord returns what the annotations of the target ought to say, with this token or, if it is nil, with the stored one.
func (o Observation) WantedRecord(t *Pending) target.Record {
	record := o.Record
	if t == nil {
		if o.Failed == nil {
			record.Mint = o.Unanswered // not worth a write before the attempts have an end
		}
		s := o.Stored
		record.IssuedAt, record.ExpiresAt, record.TokenFingerprint = s.IssuedAt, s.ExpiresAt, s.Fingerprint
		record.Mode, record.AppID, record.CredentialsFingerprint = s.Mode, s.AppID, s.Credentials
		return record
	}
	record.AppID, record.Mode, record.CredentialsFingerprint = t.AppID, t.Mode, t.Credentials
	record.IssuedAt, record.ExpiresAt, record.TokenFingerprint = t.IssuedAt, t.ExpiresAt, t.Value.Fingerprint()
	record.Mint = account.Mark{}
	return record
}

// Wanted returns the record of the target, and what its metadata ought to be, once it holds this token, nil for the stored one, and
// these tickets.
func (o Observation) Wanted(t *Pending, tickets []PendingTicket) (target.Record, target.Desired) {
	record := o.WantedRecord(t)
	if record.AppID != o.Record.AppID {
		record.Applied = record.Applied.WithoutTickets()
	}
	return target.Want(o.Resource, o.Ownership.Claim, record, target.Types(o.TicketsAfterWrite(tickets))...)
}

// KeepingMetadata returns the observation of a resource that wants the labels and annotations that the operator has set on the Secret
// before in place of those that its spec names, and whether these are others.
func (o Observation) KeepingMetadata() (kept Observation, changed bool) {
	if o.Secret == nil {
		return o, false
	}
	kept = o
	kept.Resource = target.KeepMetadata(o.Resource, o.Secret, o.Record.Applied)
	is, was := kept.Resource.Spec.Target, o.Resource.Spec.Target
	return kept, !maps.Equal(is.Labels, was.Labels) || !maps.Equal(is.Annotations, was.Annotations)
}

// Content returns the data of the target for a token, nil for none, and for tickets. It returns nil if there is nothing to write.
func (o Observation) Content(t *Pending, tickets ...PendingTicket) *target.Content {
	if t == nil && len(tickets) == 0 {
		return nil
	}
	c := &target.Content{AccessTokenKey: o.Resource.Spec.Target.AccessTokenKey}
	if t != nil {
		c.Token, c.ExpiresAt, c.AppID = t.Value, t.ExpiresAt, t.AppID
	}
	for _, ticket := range tickets {
		i := slices.IndexFunc(o.Resource.Spec.Tickets, func(s v1alpha1.TicketSpec) bool { return s.Type == ticket.Type })
		if i < 0 {
			continue
		}
		keys := o.Resource.Spec.Tickets[i]
		c.Tickets = append(c.Tickets, target.TicketContent{
			Key: keys.KeyName(), ExpiresAtKey: keys.ExpiresAtKeyName(), Value: ticket.Value, ExpiresAt: ticket.ExpiresAt,
		})
	}
	return c
}
