// SPDX-License-Identifier: Apache-2.0

// Package target knows the Secret that receives the token: whose it is, what its annotations say, and how
// it is written without reading a token back.
package target

import (
	"encoding/json"
	"iter"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// Record is what the annotations of a target Secret say, so that a fresh process can schedule without
// reading the data. It is a hint and never proof: whoever may edit the Secret may edit it.
type Record struct {
	OwnerUID               types.UID
	OwnerName              string
	DeletionPolicy         v1alpha1.DeletionPolicy
	AppID                  string
	Mode                   v1alpha1.Mode
	IssuedAt, ExpiresAt    time.Time
	TokenFingerprint       string
	CredentialsFingerprint string
	HandledRefresh         string
	Applied                Applied
	Revoke                 Revoke
	Mint                   Mint
}

// Applied lists the keys that spec.target set on the Secret, and whether the Secret was somebody else's
// before.
type Applied struct {
	Labels      []string `json:"labels,omitempty"`
	Annotations []string `json:"annotations,omitempty"`
	Adopted     bool     `json:"adopted,omitempty"`
}

// Revoke is the last revoke: half done, when it has a time, or done.
type Revoke struct {
	// StartedAt is the time of its latest forced call, while another one has to follow.
	StartedAt time.Time
	// Victim is the fingerprint of the leaked token.
	Victim string
	// Value of the request.
	Value string
}

// revokeDone stands in the place of the time once no forced call has to follow.
const revokeDone = "done"

// InProgress tells whether a revoke is half done.
func (r Revoke) InProgress() bool { return !r.StartedAt.IsZero() }

// Mint marks a Legacy mint whose result was not written.
type Mint struct {
	StartedAt time.Time
	ID        string
}

// DecodeRecord reads annotations. What is missing or malformed is left zero: a Secret that somebody
// edited must not stop its repair.
func DecodeRecord(annotations map[string]string) Record {
	r := Record{
		OwnerUID:               types.UID(annotations[v1alpha1.AnnotationOwnerUID]),
		OwnerName:              annotations[v1alpha1.AnnotationOwnerName],
		DeletionPolicy:         v1alpha1.DeletionPolicy(annotations[v1alpha1.AnnotationDeletionPolicy]),
		AppID:                  annotations[v1alpha1.AnnotationAppID],
		Mode:                   v1alpha1.Mode(annotations[v1alpha1.AnnotationMode]),
		IssuedAt:               parseTime(annotations[v1alpha1.AnnotationIssuedAt]),
		ExpiresAt:              parseTime(annotations[v1alpha1.AnnotationExpiresAt]),
		TokenFingerprint:       annotations[v1alpha1.AnnotationTokenFingerprint],
		CredentialsFingerprint: annotations[v1alpha1.AnnotationCredentialsFingerprint],
		HandledRefresh:         annotations[v1alpha1.AnnotationHandledRefresh],
	}
	if applied := annotations[v1alpha1.AnnotationAppliedMetadata]; applied != "" {
		if err := json.Unmarshal([]byte(applied), &r.Applied); err != nil {
			r.Applied = Applied{}
		}
	}
	started, rest, _ := strings.Cut(annotations[v1alpha1.AnnotationRevoke], "/")
	if at := parseTime(started); !at.IsZero() || started == revokeDone {
		victim, value, _ := strings.Cut(rest, "/")
		r.Revoke = Revoke{StartedAt: at, Victim: victim, Value: value}
	}
	minted, id, _ := strings.Cut(annotations[v1alpha1.AnnotationMintStarted], "/")
	if at := parseTime(minted); !at.IsZero() {
		r.Mint = Mint{StartedAt: at, ID: id}
	}
	return r
}

// Complete tells whether the record describes a token as the status of a resource has to: with its times and a mode.
func (r Record) Complete() bool {
	return !r.IssuedAt.IsZero() && !r.ExpiresAt.IsZero() && (r.Mode == v1alpha1.ModeStable || r.Mode == v1alpha1.ModeLegacy)
}

// Encode is the inverse of DecodeRecord. A key with the value "" is to be absent.
func (r Record) Encode() iter.Seq2[string, string] {
	revoke := ""
	if r.Revoke != (Revoke{}) {
		started := revokeDone
		if r.Revoke.InProgress() {
			started = FormatTime(r.Revoke.StartedAt)
		}
		revoke = started + "/" + r.Revoke.Victim + "/" + r.Revoke.Value
	}
	annotations := [...]struct{ key, value string }{
		{v1alpha1.AnnotationOwnerUID, string(r.OwnerUID)},
		{v1alpha1.AnnotationOwnerName, r.OwnerName},
		{v1alpha1.AnnotationDeletionPolicy, string(r.DeletionPolicy)},
		{v1alpha1.AnnotationAppID, r.AppID},
		{v1alpha1.AnnotationMode, string(r.Mode)},
		{v1alpha1.AnnotationIssuedAt, FormatTime(r.IssuedAt)},
		{v1alpha1.AnnotationExpiresAt, FormatTime(r.ExpiresAt)},
		{v1alpha1.AnnotationTokenFingerprint, r.TokenFingerprint},
		{v1alpha1.AnnotationCredentialsFingerprint, r.CredentialsFingerprint},
		{v1alpha1.AnnotationHandledRefresh, r.HandledRefresh},
		{v1alpha1.AnnotationAppliedMetadata, r.Applied.encode()},
		{v1alpha1.AnnotationRevoke, revoke},
		{v1alpha1.AnnotationMintStarted, r.Mint.Encode()},
	}
	return func(yield func(key, value string) bool) {
		for _, a := range annotations {
			if !yield(a.key, a.value) {
				return
			}
		}
	}
}

// Encode is the value of the annotation mint-started; "" for no mint.
func (m Mint) Encode() string {
	if m.StartedAt.IsZero() {
		return ""
	}
	return m.StartedAt.UTC().Format(time.RFC3339Nano) + "/" + m.ID
}

func (a Applied) encode() string {
	if len(a.Labels) == 0 && len(a.Annotations) == 0 && !a.Adopted {
		return ""
	}
	out, err := json.Marshal(a)
	if err != nil {
		return "" // strings and a bool always encode
	}
	return string(out)
}

// FormatTime is RFC 3339 in UTC with whole seconds; "" for the zero time.
func FormatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Truncate(time.Second).Format(time.RFC3339)
}

func parseTime(s string) time.Time {
	if s == "" {
		return time.Time{} // the common case, and an error costs more
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{} // the offset moved it to where RFC 3339 has no way to write it, so no status could hold it
	}
	return t
}
