// SPDX-License-Identifier: Apache-2.0

// Package target is about the Secret that receives the token: who owns it, what its annotations say, what it holds, and how it is
// written without reading a token back.
package target

import (
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
)

// Record is what the annotations of a target Secret say, so that a fresh process can schedule without reading the data. It is a hint
// and never proof, because whoever may edit the Secret may edit it. docs/threat-model.md lists what a forged one can do.
type Record struct {
	OwnerUID               types.UID
	OwnerName              string
	DeletionPolicy         v1alpha1.DeletionPolicy
	AppID                  string
	Mode                   v1alpha1.Mode
	IssuedAt, ExpiresAt    time.Time
	TokenFingerprint       string
	CredentialsFingerprint string
	Applied                Applied
	Mint                   account.Mark
}

// Applied lists the keys that spec.target set on the Secret, the keys of its data that hold tickets, and whether the Secret was somebody
// else's before.
type Applied struct {
	Labels      []string                       `json:"labels,omitempty"`
	Annotations []string                       `json:"annotations,omitempty"`
	Tickets     map[v1alpha1.TicketType]string `json:"tickets,omitempty"`
	Adopted     bool                           `json:"adopted,omitempty"`

	// former are tickets whose keys are to be removed, unless others use them.
	former map[v1alpha1.TicketType]string
}

// WithoutTickets returns the list without tickets, which the next write removes: they were of another appid.
func (a Applied) WithoutTickets() Applied {
	a.former, a.Tickets = a.Tickets, nil
	return a
}

// maxName is the longest name of a Kubernetes object.
const maxName = 253

// longest returns the length of the longest value that the operator or a consenting owner writes for a label or annotation that decisions
// read, and -1 for any other. Whoever may edit a Secret can write longer ones; they count as absent, so that nobody can make the operator
// keep them.
func longest(key string) int {
	switch key {
	case v1alpha1.LabelManagedBy:
		return 63
	case v1alpha1.AnnotationAdopt:
		return maxName + 20 // <name>/<appid>
	case v1alpha1.AnnotationOwnerUID:
		return 36
	case v1alpha1.AnnotationOwnerName:
		return maxName
	case v1alpha1.AnnotationAppID:
		return 20
	case v1alpha1.LabelCredentials:
		return 4 // true
	case v1alpha1.AnnotationDeletionPolicy, v1alpha1.AnnotationMode, v1alpha1.AnnotationOwnerKind,
		v1alpha1.AnnotationTokenFingerprint, v1alpha1.AnnotationCredentialsFingerprint:
		return 16
	case v1alpha1.AnnotationIssuedAt, v1alpha1.AnnotationExpiresAt:
		return 35
	case v1alpha1.AnnotationAppliedMetadata:
		return 32 << 10 // 32 labels and 32 annotations with the longest keys
	case v1alpha1.AnnotationMintStarted:
		return 35 + 1 + 16
	}
	return -1
}

// valueOf returns the value of an annotation that decisions read; "" for one that is absent or too long.
func valueOf(annotations map[string]string, key string) string {
	if v := annotations[key]; len(v) <= longest(key) {
		return v
	}
	return ""
}

// DecodeRecord returns what annotations say. What is missing or malformed stays zero: an edited Secret must not stop its repair.
func DecodeRecord(annotations map[string]string) Record {
	value := func(key string) string { return valueOf(annotations, key) }
	r := Record{
		OwnerUID:               types.UID(value(v1alpha1.AnnotationOwnerUID)),
		OwnerName:              value(v1alpha1.AnnotationOwnerName),
		DeletionPolicy:         v1alpha1.DeletionPolicy(value(v1alpha1.AnnotationDeletionPolicy)),
		AppID:                  value(v1alpha1.AnnotationAppID),
		Mode:                   v1alpha1.Mode(value(v1alpha1.AnnotationMode)),
		IssuedAt:               parseTime(value(v1alpha1.AnnotationIssuedAt)),
		ExpiresAt:              parseTime(value(v1alpha1.AnnotationExpiresAt)),
		TokenFingerprint:       value(v1alpha1.AnnotationTokenFingerprint),
		CredentialsFingerprint: value(v1alpha1.AnnotationCredentialsFingerprint),
	}
	if applied := value(v1alpha1.AnnotationAppliedMetadata); applied != "" {
		if err := json.Unmarshal([]byte(applied), &r.Applied); err != nil {
			r.Applied = Applied{}
		}
	}
	minted, id, _ := strings.Cut(value(v1alpha1.AnnotationMintStarted), "/")
	if at := parseTime(minted); !at.IsZero() {
		r.Mint = account.Mark{StartedAt: at, ID: id}
	}
	return r
}

// Complete reports whether the record describes a token with all that a status needs: its times and its mode.
func (r Record) Complete() bool {
	return !r.IssuedAt.IsZero() && !r.ExpiresAt.IsZero() && slices.Contains(v1alpha1.Modes(), r.Mode)
}

// Encode returns the annotations of the record, the inverse of DecodeRecord. A key whose value is empty is to be absent.
func (r Record) Encode() iter.Seq2[string, string] {
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
		{v1alpha1.AnnotationAppliedMetadata, r.Applied.encode()},
		{v1alpha1.AnnotationMintStarted, encodeMark(r.Mint)},
	}
	return func(yield func(key, value string) bool) {
		for _, a := range annotations {
			if !yield(a.key, a.value) {
				return
			}
		}
	}
}

// encodeMark returns the value of the annotation mint-started; "" for no mark.
func encodeMark(m account.Mark) string {
	if m.IsZero() {
		return ""
	}
	return m.StartedAt.UTC().Format(time.RFC3339Nano) + "/" + m.ID
}

func (a Applied) encode() string {
	if len(a.Labels) == 0 && len(a.Annotations) == 0 && len(a.Tickets) == 0 && !a.Adopted {
		return ""
	}
	out, err := json.Marshal(a)
	if err != nil {
		return "" // strings and a bool always encode
	}
	return string(out)
}

// FormatTime returns a time as RFC 3339 in UTC with whole seconds; "" for the zero time.
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
