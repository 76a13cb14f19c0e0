// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/base64"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const appID = "wx0123456789abcdef"

var (
	now    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	key    = token.NewValue("0123456789abcdef0123456789abcdef")
	other  = token.NewValue("fedcba9876543210fedcba9876543210")
	claims = Claims{Client: "3f8a1c1e-7f0e-4c0a-9a57-0d1c6a2b9e10", AppID: appID, Key: key.Fingerprint(), IssuedAt: now}
)

// keysOf returns the keys of one client.
func keysOf(keys ...token.Value) func(Claims) []Key {
	return func(c Claims) []Key {
		if c.Client != claims.Client || c.AppID != appID {
			return nil
		}
		var out []Key
		for _, k := range keys {
			out = append(out, NewKey(k, time.Time{}))
		}
		return out
	}
}

// signed returns a token that is signed with a key.
func signed(c Claims, with token.Value) string {
	return NewToken(c, NewKey(with, time.Time{}))
}

func TestToken(t *testing.T) {
	value := signed(claims, key)
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{33,511}$`).MatchString(value) {
		t.Errorf("%d characters: %s", len(value), value)
	}
	got, err := VerifyToken(value, now.Add(time.Hour), keysOf(key))
	if err != nil || got != claims {
		t.Errorf("%+v, %v", got, err)
	}
	if strings.Contains(value, key.Reveal()) {
		t.Error("the token shows the key")
	}
}

func TestTokenIsRefused(t *testing.T) {
	value := signed(claims, key)
	raw, _ := base64.RawURLEncoding.DecodeString(value)
	edited := func(edit func([]byte) []byte) string {
		return base64.RawURLEncoding.EncodeToString(edit([]byte(string(raw))))
	}
	flip := func(i int) string { return edited(func(b []byte) []byte { b[i] ^= 1; return b }) }
	claim := func(edit func(*Claims)) string {
		c := claims
		edit(&c)
		return signed(c, key)
	}
	// The last character of 4n+2 or 4n+3 has bits that say nothing.
	spare := value
	if last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", value[len(value)-1]); len(value)%4 != 0 {
		spare = value[:len(value)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1])
	}
	for name, test := range map[string]struct {
		value string
		at    time.Duration
		keys  []token.Value
		want  error
	}{
		"a moment before its end":   {value, TokenLife - 1, []token.Value{key}, nil},
		"at its end":                {value, TokenLife, []token.Value{key}, ErrTokenExpired},
		"with the key before":       {value, 0, []token.Value{other, key}, nil},
		"of a retired key":          {value, 0, []token.Value{other}, ErrTokenInvalid},
		"of a client that is gone":  {value, 0, nil, ErrTokenInvalid},
		"expired, of a retired key": {value, TokenLife, []token.Value{other}, ErrTokenInvalid},
		"a replica's clock ahead":   {value, -maxAhead, []token.Value{key}, nil},
		"from the future":           {value, -maxAhead - 1, []token.Value{key}, ErrTokenInvalid},
		"another client":            {claim(func(c *Claims) { c.Client = "another" }), 0, []token.Value{key}, ErrTokenInvalid},
		"another appid":             {claim(func(c *Claims) { c.AppID = "wxfedcba9876543210" }), 0, []token.Value{key}, ErrTokenInvalid},
		"another key's name":        {claim(func(c *Claims) { c.Key = other.Fingerprint() }), 0, []token.Value{key, other}, ErrTokenInvalid},
		"the version":               {flip(0), 0, []token.Value{key}, ErrTokenInvalid},
		"a bit of the time":         {flip(8), 0, []token.Value{key}, ErrTokenInvalid},
		"a bit of the MAC":          {flip(len(raw) - 1), 0, []token.Value{key}, ErrTokenInvalid},
		"a spare bit":               {spare, 0, []token.Value{key}, map[bool]error{true: nil, false: ErrTokenInvalid}[spare == value]},
		"cut":                       {value[:len(value)-1], 0, []token.Value{key}, ErrTokenInvalid},
		"longer":                    {value + "A", 0, []token.Value{key}, ErrTokenInvalid},
		"padded":                    {value + "=", 0, []token.Value{key}, ErrTokenInvalid},
		"a newline":                 {value + "\n", 0, []token.Value{key}, ErrTokenInvalid},
		"empty":                     {"", 0, []token.Value{key}, ErrTokenInvalid},
		"too long":                  {strings.Repeat("A", 513), 0, []token.Value{key}, ErrTokenInvalid},
		"one of WeChat's":           {"57_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789", 0, []token.Value{key}, ErrTokenInvalid},
		"a length beyond the end":   {edited(func(b []byte) []byte { b[9] = 255; return b }), 0, []token.Value{key}, ErrTokenInvalid},
		"no client":                 {claim(func(c *Claims) { c.Client = "" }), 0, []token.Value{key}, ErrTokenInvalid},
	} {
		if _, err := VerifyToken(test.value, now.Add(test.at), keysOf(test.keys...)); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func FuzzVerifyToken(f *testing.F) {
	f.Add(signed(claims, key))
	f.Add("")
	f.Add(strings.Repeat("_", 64))
	f.Fuzz(func(t *testing.T, value string) {
		c, err := VerifyToken(value, now, keysOf(key))
		if err == nil && signed(c, key) != value {
			t.Errorf("%q is a second spelling of the token of %+v", value, c)
		}
	})
}
