// SPDX-License-Identifier: Apache-2.0

// Package gateway answers the token endpoints of WeChat's API with tokens of its own, exchanges these for real ones when it passes a call
// on, and swaps a client's key for the AppSecret on the login paths. It never fetches a token; the operator does.
package gateway

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// TokenLife is how long a token of the gateway is accepted after its issue. SDKs are told 7200 s, and some keep a token for longer.
	TokenLife = 4 * time.Hour
	// ToldLife is the expires_in that the token endpoints answer. SDKs subtract up to 1500 s from it, and some fail if nothing is left.
	ToldLife = 2 * time.Hour
	// maxAhead is how far in the future the time of issue may lie, because the clocks of two replicas differ.
	maxAhead = time.Minute

	tokenVersion = 1
	macLen       = sha256.Size
	// headLen is the length of the version byte, the time of issue and the length of the appid.
	headLen = 1 + 8 + 1
	// maxTokenLen bounds what is looked at. WeChat's own tokens have at most 512 characters, and SDKs make room for that.
	maxTokenLen = 512
)

// tokenEncoding refuses encodings with spare bits set, so that each token has one spelling.
var tokenEncoding = base64.RawURLEncoding.Strict()

// ErrTokenExpired means that a token is the gateway's own and older than TokenLife. ErrTokenInvalid means that it is anything else than a
// token of this gateway for a client that exists.
var (
	ErrTokenExpired = errors.New("the gateway's token has expired")
	ErrTokenInvalid = errors.New("not a token of this gateway")
)

// Claims is what a token of the gateway says. Nothing of it is stored anywhere.
type Claims struct {
	// Client is the UID of the WeChatAppClient, and AppID the account that it calls WeChat as.
	Client types.UID
	AppID  string
	// Key is the fingerprint of the client's key with which the token was bought. The token ends when that key is revoked.
	Key string
	// IssuedAt has whole seconds.
	IssuedAt time.Time
}

// NewToken returns a token for a client that presented this key. It is more than 32 and less than 512 characters of [A-Za-z0-9_-]. It is no
// token.Value, because it goes straight into an answer and nothing keeps it.
func NewToken(c Claims, key Key) string {
	body := encode(c)
	return tokenEncoding.EncodeToString(key.signer.sign(body, body))
}

// encode returns the version, the time of issue, the appid, the UID and the fingerprint of the key.
func encode(c Claims) []byte {
	body := make([]byte, headLen, headLen+len(c.AppID)+len(c.Client)+len(c.Key)+1+macLen)
	body[0] = tokenVersion
	binary.BigEndian.PutUint64(body[1:], uint64(c.IssuedAt.Unix())) //nolint:gosec // no time before 1970 is issued
	body[9] = byte(len(c.AppID))
	body = append(body, c.AppID...)
	body = append(body, byte(len(c.Key)))
	body = append(body, c.Key...)
	return append(body, c.Client...)
}

// decode returns the claims of a token and what its MAC covers. They are not proven until the MAC is.
func decode(value string) (c Claims, body, sum []byte, err error) {
	if len(value) > maxTokenLen || strings.ContainsAny(value, "\r\n") { // which the decoder skips
		return Claims{}, nil, nil, ErrTokenInvalid
	}
	raw, err := tokenEncoding.DecodeString(value)
	if err != nil || len(raw) < headLen+macLen || raw[0] != tokenVersion {
		return Claims{}, nil, nil, ErrTokenInvalid
	}
	body, sum = raw[:len(raw)-macLen], raw[len(raw)-macLen:]
	seconds := binary.BigEndian.Uint64(body[1:])
	appID, rest, ok := prefixed(body[9:])
	key, client, ok2 := prefixed(rest)
	if !ok || !ok2 || len(client) == 0 || seconds > 1<<40 {
		return Claims{}, nil, nil, ErrTokenInvalid
	}
	return Claims{
		Client: types.UID(client), AppID: string(appID), Key: string(key), IssuedAt: time.Unix(int64(seconds), 0).UTC(), //nolint:gosec // bounded
	}, body, sum, nil
}

// prefixed splits what follows its own length.
func prefixed(b []byte) (value, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	return b[1 : 1+int(b[0])], b[1+int(b[0]):], true
}

// VerifyToken returns the claims of a token of this gateway. keys returns the keys that a client may have bought it with; it is asked with
// claims that are not proven yet, and returns none for a client that does not exist or for another appid. A token that claims to be bought
// with a key after that one stopped to buy is none: whoever has a key can make such tokens without the gateway. The error is
// ErrTokenExpired or ErrTokenInvalid.
func VerifyToken(value string, now time.Time, keys func(Claims) []Key) (Claims, error) {
	c, body, sum, err := decode(value)
	if err != nil {
		return Claims{}, err
	}
	for _, key := range keys(c) {
		if key.Fingerprint != c.Key || !key.Buys(c.IssuedAt) {
			continue
		}
		var buffer [macLen]byte
		if !hmac.Equal(sum, key.signer.sign(buffer[:0], body)) {
			continue
		}
		switch {
		case c.IssuedAt.After(now.Add(maxAhead)):
			return Claims{}, ErrTokenInvalid
		case !now.Before(c.IssuedAt.Add(TokenLife)):
			return Claims{}, ErrTokenExpired
		}
		return c, nil
	}
	return Claims{}, ErrTokenInvalid
}

// signer authenticates tokens with a key that is derived from the client's, so that nothing which is signed with the client's key for
// another purpose can pass for a token. It derives the key when it is first used, and is safe for concurrent use.
type signer struct {
	key token.Value
	// idle has hashes that are keyed already, because keying one takes longer than to use it.
	idle sync.Pool
}

func newSigner(key token.Value) *signer { return &signer{key: key} }

// sign appends the MAC of a body.
func (s *signer) sign(to, body []byte) []byte {
	h, ok := s.idle.Get().(hash.Hash)
	if !ok {
		derived, err := hkdf.Key(sha256.New, []byte(s.key.Reveal()), nil, "wechat-token-operator gateway token v1", macLen)
		if err != nil {
			panic(fmt.Sprintf("deriving a key of %d bytes: %v", macLen, err)) // only for lengths that SHA-256 cannot give
		}
		h = hmac.New(sha256.New, derived)
	}
	h.Reset()
	h.Write(body)
	out := h.Sum(to)
	s.idle.Put(h)
	return out
}
