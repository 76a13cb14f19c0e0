// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"crypto/rand"
	"encoding/base64"
	"time"
)

// Mode is a kind of token. Tokens of one kind do not affect those of the other.
type Mode string

// The kinds of tokens.
const (
	Stable Mode = "Stable"
	Legacy Mode = "Legacy"
)

// Values of IssuedToken.By.
const (
	byCall  = "call"
	byRival = "rival"
)

// IssuedToken is an entry of the ledger. Its times are those of the server's clock.
type IssuedToken struct {
	Token     string    `json:"token"`
	AppID     string    `json:"appID"`
	Mode      Mode      `json:"mode"`
	IssuedAt  time.Time `json:"issuedAt"`
	ExpiresAt time.Time `json:"expiresAt"`
	// DiedAt is when a replaced token stopped or will stop being valid. It is zero if the token was not replaced.
	DiedAt time.Time `json:"diedAt,omitzero"`
	// By is "call", or "rival" for RivalForceRefresh and RivalMint.
	By string `json:"by"`
	// Forced reports whether a forced refresh issued the token.
	Forced bool `json:"forced,omitempty"`
}

func (t *IssuedToken) validAt(at time.Time) bool {
	return !at.Before(t.IssuedAt) && at.Before(t.end())
}

// end returns when the token stops being valid.
func (t *IssuedToken) end() time.Time {
	if !t.DiedAt.IsZero() && t.DiedAt.Before(t.ExpiresAt) {
		return t.DiedAt
	}
	return t.ExpiresAt
}

// endBy invalidates the token at the given time unless it ends before.
func (t *IssuedToken) endBy(at time.Time) {
	if at.Before(t.end()) {
		t.DiedAt = at
	}
}

// window returns the token's rotation window. See the package comment.
func (t *IssuedToken) window() time.Duration { return windowOf(t.ExpiresAt.Sub(t.IssuedAt)) }

func windowOf(life time.Duration) time.Duration {
	if life > maxWindow {
		return maxWindow
	}
	return wholeSeconds(life * 3 / 5)
}

// wholeSeconds rounds d up to whole seconds.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}

// ledger holds all tokens that were ever issued.
type ledger struct {
	byValue map[string]*IssuedToken
	order   []*IssuedToken
}

func newLedger() ledger { return ledger{byValue: make(map[string]*IssuedToken)} }

func (l *ledger) add(t IssuedToken) *IssuedToken {
	t.Token = newTokenValue()
	l.byValue[t.Token] = &t
	l.order = append(l.order, &t)
	return &t
}

// newTokenValue returns a random token in the format of WeChat's. It consists of a number, an underscore and URL-safe characters, 136 to
// 150 characters in all.
func newTokenValue() string {
	raw := make([]byte, 112)
	_, _ = rand.Read(raw) // never fails
	length := 133 + int(raw[0])%15
	return "92_" + base64.RawURLEncoding.EncodeToString(raw[1:])[:length]
}

// Valid reports whether WeChat would accept the token now.
func (s *Server) Valid(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.platform.validAt(token, s.platform.now())
}

// ValidAt reports whether the token was valid, or will be valid unless it is replaced, at time t of the server's clock. A token is valid
// from IssuedAt until before the earlier of ExpiresAt and DiedAt.
func (s *Server) ValidAt(token string, t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.platform.validAt(token, t)
}

func (p *platform) validAt(token string, t time.Time) bool {
	issued, ok := p.ledger.byValue[token]
	return ok && issued.validAt(t)
}

// Tokens returns the tokens of an appid in the order in which they were issued. If appID is empty it returns those of all.
func (s *Server) Tokens(appID string) []IssuedToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	issued := s.platform.ledger.order
	if appID != "" {
		a, ok := s.platform.apps[appID]
		if !ok {
			return nil
		}
		issued = a.issued
	}
	list := make([]IssuedToken, len(issued))
	for i, t := range issued {
		list[i] = *t
	}
	return list
}

// Current returns the newest token of an appid, whether it is valid or not, and false if there is none.
func (s *Server) Current(appID string, mode Mode) (IssuedToken, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.platform.apps[appID]
	if !ok {
		return IssuedToken{}, false
	}
	newest := a.stable
	if mode == Legacy {
		newest = a.legacy
	}
	if newest == nil {
		return IssuedToken{}, false
	}
	return *newest, true
}
