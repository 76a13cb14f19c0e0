// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"time"
)

// Token is an access token as WeChat returned it. Its times are in UTC by WeChat's clock, without a monotonic reading.
type Token struct {
	Value Value
	// IssuedAt is when the request was sent, so that ExpiresAt is never too late. For a Stable token that already
	// existed, WeChat issued it earlier than this.
	IssuedAt time.Time
	// ExpiresAt is IssuedAt plus the expires_in of the answer, of which at most 14,400 s count.
	ExpiresAt time.Time
}

// Credentials identify a WeChat account and authenticate the operator to it.
type Credentials struct {
	// AppID consists of "wx" and 16 more characters. It is not secret.
	AppID     string
	AppSecret Value
}

// Account returns the HMAC-SHA256 of the appid, keyed by the AppSecret, as 64 hex digits. Two results are equal only if both
// the appid and the AppSecret are. Use it for comparisons in memory and Fingerprint for everything that is shown or stored.
func (c Credentials) Account() string {
	mac := hmac.New(sha256.New, []byte(c.AppSecret.Reveal()))
	mac.Write([]byte(c.AppID))
	return hex.EncodeToString(mac.Sum(nil))
}

// Fingerprint returns the first 16 digits of Account. It may be shown. It is short enough for somebody to construct two credentials
// with the same fingerprint, so it does not prove that two accounts are the same.
func (c Credentials) Fingerprint() string { return c.Account()[:fingerprintLen] }

// appSecretPattern is deliberately wider than the 32 hex digits seen so far, because WeChat does not document the format.
var appSecretPattern = regexp.MustCompile(`^[0-9A-Za-z]{16,128}$`)

// ParseAppSecret returns the AppSecret that a user stored, without the white space around it. It returns false if stored
// does not have the format of an AppSecret.
func ParseAppSecret(stored []byte) (Value, bool) {
	value := strings.TrimSpace(string(stored))
	if !appSecretPattern.MatchString(value) {
		return Value{}, false
	}
	return NewValue(value), true
}

// TicketLife is how long WeChat says that a ticket lives. It says so of an old one too, so a life counts from when the ticket was first
// seen.
const TicketLife = 2 * time.Hour

// Ticket is a ticket as WeChat returned it.
type Ticket struct {
	Value Value
	// ReturnedAt is when the request was sent, in UTC by WeChat's clock and without a monotonic reading.
	ReturnedAt time.Time
	// ExpiresIn is the expires_in of the answer, of which at most TicketLife counts. WeChat's answers have been seen to say 7200 s
	// whatever the age of the ticket.
	ExpiresIn time.Duration
}
