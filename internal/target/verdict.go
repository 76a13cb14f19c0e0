// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// longestLife is the longest life that a token found in a Secret may claim: WeChat's longest, and some slack for clocks.
const longestLife = 4*time.Hour + 5*time.Minute

// Token describes a token that a target Secret holds or ought to hold, without its value.
type Token struct {
	Fingerprint         string
	Mode                v1alpha1.Mode
	AppID               string
	IssuedAt, ExpiresAt time.Time
	// Credentials is the fingerprint of the credentials that it was issued with.
	Credentials string
	// Unattested reports that neither this process nor the status says that WeChat issued it, so it is not handed to others.
	Unattested bool
}

// Recorded returns the token that a record speaks of. It is unattested, because others can write the record.
func Recorded(r Record) Token {
	return Token{
		Fingerprint: r.TokenFingerprint, Mode: r.Mode, AppID: r.AppID, IssuedAt: r.IssuedAt, ExpiresAt: r.ExpiresAt,
		Credentials: r.CredentialsFingerprint, Unattested: true,
	}
}

// Attested returns the token that a status speaks of. The record adds what the status does not say.
func Attested(s *v1alpha1.TokenStatus, r Record) Token {
	t := Recorded(r)
	t.Mode, t.IssuedAt, t.ExpiresAt = s.Mode, s.IssueTime.UTC(), s.ExpirationTime.UTC()
	if s.Fingerprint != "" {
		t.Fingerprint, t.Unattested = s.Fingerprint, false
	}
	return t
}

// Plausible reports whether WeChat may have given a token this expiry. Whoever edits a Secret can write any.
func Plausible(expiresAt, now time.Time) bool { return expiresAt.Before(now.Add(longestLife)) }

// Believable reports whether the times of the token are the operator's own, or plausible.
func (t Token) Believable(now time.Time) bool { return !t.Unattested || Plausible(t.ExpiresAt, now) }

// Holding says what the data of a target is, compared with its annotations and with what the operator knows.
type Holding string

const (
	// HoldsKnown: the data is a token that the operator wrote.
	HoldsKnown Holding = "Known"
	// HoldsUnattested: the data agrees with the annotations, but the operator does not know the token.
	HoldsUnattested Holding = "Unattested"
	// HoldsOther: the data is something else, or the annotations cannot be true.
	HoldsOther Holding = "Other"
)

// Verdict is what a read of the Secret's data showed.
type Verdict struct {
	// UID and ResourceVersion of the Secret that the verdict is about; empty for no verdict.
	UID             types.UID
	ResourceVersion string
	Holding         Holding
	// Fingerprint is that of the token that the record names, and At when the Secret was first seen to hold it so; zero while
	// WeChat's time is not known.
	Fingerprint string
	At          time.Time
	// Refused tells why the Secret cannot receive a token at all; empty if it can.
	Refused string
	// Generation is that of the spec whose labels and annotations the Secret has; zero if they were not compared.
	Generation int64
}

// Judge compares the data of a Secret with its record and with the tokens that the operator knows, the likeliest first, and returns the
// index of the one that it is, or -1. now is zero while WeChat's time is not known; then every expiry is plausible.
func Judge(s Snapshot, r Record, key string, known []Token, now time.Time) (v Verdict, match int) {
	v = Verdict{UID: s.Meta.UID, ResourceVersion: s.Meta.ResourceVersion, Holding: HoldsOther, Refused: s.Refusal()}
	for i, t := range known {
		appID := t.AppID
		if appID == "" {
			appID = r.AppID
		}
		if s.Holds(key, t.Fingerprint, appID, t.ExpiresAt) {
			v.Holding = HoldsKnown
			return v, i
		}
	}
	if s.Holds(key, r.TokenFingerprint, r.AppID, r.ExpiresAt) && r.Complete() && (now.IsZero() || Plausible(r.ExpiresAt, now)) {
		v.Holding = HoldsUnattested
	}
	return v, -1
}

// Refusal returns why the Secret cannot receive a token and what to do; "" if it can.
func (s Snapshot) Refusal() string {
	switch {
	case s.Type != corev1.SecretTypeOpaque:
		return fmt.Sprintf("Secret %q is of type %q and cannot receive the token: choose another spec.target.name, or delete the Secret",
			s.Meta.Name, s.Type)
	case s.Immutable:
		return fmt.Sprintf("Secret %q is immutable and cannot receive a new token: delete it, and it is made anew", s.Meta.Name)
	}
	return ""
}
