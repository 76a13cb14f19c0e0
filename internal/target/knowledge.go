// SPDX-License-Identifier: Apache-2.0

package target

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// Knowledge is what a process has found out about a target. It is a value: its methods return the next state. The zero value knows
// nothing, and losing it costs a GET and a check.
type Knowledge struct {
	// Token is the one that this process wrote last, or that WeChat confirmed to it; nil for none.
	Token *Token
	// Verdict is what the data of the Secret was found to be.
	Verdict Verdict
	// Tickets are those that the Secret holds; nil while this process relies on what the status says.
	Tickets []Ticket
	// Repairs paces the repair of a target that somebody keeps rewriting.
	Repairs Repairs
}

// Met returns the state after the Secret, nil for none, was seen. One that somebody deleted, or replaced by one that has to be adopted
// again, is repaired.
func (k Knowledge) Met(secret *metav1.PartialObjectMetadata, claim Claim, now time.Time) Knowledge {
	v := k.Verdict
	if v.UID != "" && v.Refused == "" && (secret == nil || secret.UID != v.UID || claim == Adopt) {
		return Knowledge{Token: k.Token, Tickets: []Ticket{}, Repairs: k.Repairs.Noted(now)}
	}
	return k
}

// Judged returns the state after the Secret was read, of which r is the record. The status, nil for none, is proof of a token; the
// Secret is not. now is zero while WeChat's time is not known.
func (k Knowledge) Judged(s Snapshot, r Record, key string, status *v1alpha1.TokenStatus, now time.Time) Knowledge {
	var known []Token
	if k.Token != nil {
		known = append(known, *k.Token)
	}
	if status != nil && status.Fingerprint != "" {
		known = append(known, Attested(status, r))
	}
	last := k.Verdict
	v, match := Judge(s, r, key, known, now)
	if match > 0 {
		k.Token = &known[match] // another process of this operator wrote it
	}
	v.Fingerprint = r.TokenFingerprint
	if last.Holding == v.Holding && last.Fingerprint == v.Fingerprint {
		v.At = last.At
	}
	k.Verdict = v
	return k
}

// AttestedBy returns the state after the status was seen. It may have come to name the token since the Secret was read, because another
// process of this operator wrote both.
func (k Knowledge) AttestedBy(s *v1alpha1.TokenStatus, r Record) Knowledge {
	if k.Verdict.Holding != HoldsUnattested || s == nil || s.Fingerprint == "" || s.Fingerprint != k.Verdict.Fingerprint ||
		FormatTime(r.ExpiresAt) != FormatTime(s.ExpirationTime.Time) {
		return k
	}
	t := Attested(s, r)
	return k.Holds(&t)
}

// Dated returns the state with the time from which the Secret is known to hold what it does.
func (k Knowledge) Dated(now time.Time) Knowledge {
	if k.Verdict.At.IsZero() || refresh.IsInFuture(k.Verdict.At, now) {
		k.Verdict.At = now
	}
	return k
}

// Wrote returns the state after this process wrote the Secret. dataKept reports that its data was left alone.
func (k Knowledge) Wrote(secret metav1.Object, dataKept bool) Knowledge {
	if !dataKept {
		k.Verdict = Verdict{UID: secret.GetUID(), Holding: HoldsKnown}
	}
	k.Verdict.ResourceVersion = secret.GetResourceVersion()
	return k
}

// Reverted returns the state after the metadata of a write was changed back at once. It is repaired like somebody else's change.
func (k Knowledge) Reverted(now time.Time) Knowledge {
	k.Repairs = k.Repairs.Noted(now)
	return k
}

// Holds returns the state after the Secret was found to hold a token that WeChat issued.
func (k Knowledge) Holds(t *Token) Knowledge {
	k.Token, k.Verdict.Holding = t, HoldsKnown
	return k
}

// Stored returns the token that the Secret holds, or ought to hold; the zero value for none. The status may be nil.
func (k Knowledge) Stored(status *v1alpha1.TokenStatus, r Record) Token {
	switch {
	case k.Verdict.Holding == HoldsUnattested:
		return Recorded(r)
	case k.Token != nil:
		return *k.Token
	case status != nil:
		return Attested(status, r)
	}
	return Token{}
}

// IssuedBy returns when the stored token was issued, by what can be known of it: whoever edits the Secret can write any time, but WeChat
// had issued an unattested token when it was first seen.
func (k Knowledge) IssuedBy(stored Token) time.Time {
	if at := k.Verdict.At; k.Verdict.Holding == HoldsUnattested && !at.IsZero() {
		return refresh.Earlier(stored.IssuedAt, at)
	}
	return stored.IssuedAt
}

// ForeignTokenWritten reports whether somebody replaced the token of this process by another consistent one, such as a restored backup.
func (k Knowledge) ForeignTokenWritten() bool {
	return k.Verdict.Holding == HoldsUnattested && k.Token != nil && k.Token.Fingerprint != k.Verdict.Fingerprint
}

// Contradicted reports whether the operator knows of another token than the one in the Secret. The status may be nil.
func (k Knowledge) Contradicted(status *v1alpha1.TokenStatus) bool {
	return k.ForeignTokenWritten() || status != nil && status.Fingerprint != "" && status.Fingerprint != k.Verdict.Fingerprint
}
