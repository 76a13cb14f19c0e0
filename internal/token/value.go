// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unique"
)

const (
	// Redacted is what a Value prints instead of what it holds.
	Redacted = "[redacted]"
	// fingerprintLen is the length of a fingerprint in hex digits. Its 64 bits tell tokens apart, and reveal
	// nothing about a value that cannot be guessed.
	fingerprintLen = 16
)

// Value holds an AppSecret or an access token. It prints as [redacted] with every verb of fmt, in JSON, in text, and in
// the logs of slog and logr. Two values are equal (==) if they hold the same string. The zero Value holds nothing.
type Value struct {
	// A handle is used instead of a string, because fmt cannot call methods on an unexported field of another package's
	// struct. It prints such a field by reflection, and a handle then shows only an address.
	value unique.Handle[string]
}

// NewValue returns a Value that holds v.
func NewValue(v string) Value {
	if v == "" {
		return Value{}
	}
	return Value{value: unique.Make(v)}
}

// Reveal returns the string that v holds, or "" for the zero Value.
func (v Value) Reveal() string {
	if v.IsZero() {
		return ""
	}
	return v.value.Value()
}

// IsZero reports whether v holds nothing.
func (v Value) IsZero() bool { return v == Value{} }

// Fingerprint returns the first 16 hex digits of the SHA-256 of the string that v holds, or "" for the zero Value. A fingerprint
// may be shown, because it identifies a token without revealing it.
func (v Value) Fingerprint() string {
	if v.IsZero() {
		return ""
	}
	sum := sha256.Sum256([]byte(v.Reveal()))
	return hex.EncodeToString(sum[:])[:fingerprintLen]
}

// CombinedFingerprint returns what identifies a token together with the tickets that are kept beside it, given their fingerprints. It is
// the token's own if there is no token, or no ticket that is not empty.
func CombinedFingerprint(token string, tickets []string) string {
	all := []string{token}
	for _, ticket := range tickets {
		if ticket != "" {
			all = append(all, ticket)
		}
	}
	if token == "" || len(all) == 1 {
		return token
	}
	return NewValue(strings.Join(all, "/")).Fingerprint()
}

// String implements fmt.Stringer.
func (Value) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (Value) GoString() string { return Redacted }

// Format implements fmt.Formatter, because verbs such as %x and %d do not call String.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// MarshalJSON implements json.Marshaler.
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue implements slog.LogValuer.
func (Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalLog implements logr.Marshaler.
func (Value) MarshalLog() any { return Redacted }
