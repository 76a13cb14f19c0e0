// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"strings"
	"time"
	"unique"
)

const (
	redacted = "[redacted]"
	// fingerprintLen is the length of a fingerprint in hex digits: 64 bits tell tokens apart, and say
	// nothing about a value that cannot be guessed.
	fingerprintLen = 16
)

// Secret is an AppSecret or an access token. It prints as [redacted] with every verb of fmt, in JSON,
// in text, and in the logs of slog and logr. Two secrets are equal (==) when their values are. The zero
// value holds nothing.
type Secret struct {
	// A handle, not a string: fmt cannot call our methods on an unexported field of somebody else's
	// struct and prints what it finds by reflection, which now is an address.
	value unique.Handle[string]
}

// NewSecret wraps v.
func NewSecret(v string) Secret {
	if v == "" {
		return Secret{}
	}
	return Secret{value: unique.Make(v)}
}

// Reveal returns the value, "" for the zero value.
func (s Secret) Reveal() string {
	if s.IsZero() {
		return ""
	}
	return s.value.Value()
}

// IsZero reports whether s holds nothing.
func (s Secret) IsZero() bool { return s == Secret{} }

// Fingerprint is the first 16 hex digits of SHA-256 of the value, "" for the zero value. It may be
// shown: it identifies a token without giving it away.
func (s Secret) Fingerprint() string {
	if s.IsZero() {
		return ""
	}
	sum := sha256.Sum256([]byte(s.Reveal()))
	return hex.EncodeToString(sum[:])[:fingerprintLen]
}

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return redacted }

// Format implements fmt.Formatter: verbs such as %x and %d would not ask String.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalLog implements logr.Marshaler.
func (Secret) MarshalLog() any { return redacted }

// appSecretPattern is deliberately wider than the 32 hex digits seen so far: WeChat documents no form.
var appSecretPattern = regexp.MustCompile(`^[0-9A-Za-z]{16,128}$`)

// ParseAppSecret takes what a person stored as AppSecret, with white space around it. false: it is none.
func ParseAppSecret(stored []byte) (Secret, bool) {
	value := strings.TrimSpace(string(stored))
	if !appSecretPattern.MatchString(value) {
		return Secret{}, false
	}
	return NewSecret(value), true
}

// Credentials name a WeChat account and prove that it is ours.
type Credentials struct {
	// AppID is not secret: "wx" and 16 characters.
	AppID     string
	AppSecret Secret
}

// Fingerprint is the first 16 hex digits of HMAC-SHA256 over the appid, keyed by the AppSecret. It may
// be shown; equal fingerprints mean that both values are equal.
func (c Credentials) Fingerprint() string {
	mac := hmac.New(sha256.New, []byte(c.AppSecret.Reveal()))
	mac.Write([]byte(c.AppID))
	return hex.EncodeToString(mac.Sum(nil))[:fingerprintLen]
}

// Token is an access token as WeChat answered it. Its times are WeChat's clock, UTC, without a
// monotonic reading.
type Token struct {
	Value Secret
	// IssuedAt is when the request was started, so ExpiresAt is never late. For a Stable token that
	// WeChat already had, it is not when WeChat made it.
	IssuedAt time.Time
	// ExpiresAt is IssuedAt plus the answer's expires_in, of which at most 14,400 s count.
	ExpiresAt time.Time
}
