// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// maxBearer bounds a Bearer token in bytes. Those of ServiceAccounts have about 1 KiB.
const maxBearer = 16 << 10

// accountClaims is what the token of a ServiceAccount says of itself. Nothing of it is proven until the API server reviewed the token.
type accountClaims struct {
	account types.NamespacedName
	expires time.Time
}

// readClaims returns what a token says, and false unless it claims to be for the audience. It verifies no signature: it only tells which
// tokens are worth a review.
func readClaims(bearer, audience string) (accountClaims, bool) {
	parts := strings.Split(bearer[:min(len(bearer), maxBearer+1)], ".")
	if len(bearer) > maxBearer || len(parts) != 3 {
		return accountClaims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return accountClaims{}, false
	}
	var said struct {
		Audience oneOrMore `json:"aud"`
		Subject  string    `json:"sub"`
		Expires  float64   `json:"exp"`
	}
	if err := json.Unmarshal(payload, &said); err != nil || !slices.Contains(said.Audience, audience) {
		return accountClaims{}, false
	}
	account, ok := accountOf(said.Subject)
	if !ok || said.Expires < 1 || said.Expires > 1<<40 {
		return accountClaims{}, false
	}
	return accountClaims{account: account, expires: time.Unix(int64(said.Expires), 0)}, true
}

// oneOrMore is a string or a list of strings.
type oneOrMore []string

// UnmarshalJSON implements json.Unmarshaler.
func (o *oneOrMore) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	var more []string
	err := json.Unmarshal(raw, &more)
	*o = more
	return err //nolint:wrapcheck // the caller drops it
}

// accountOf returns the ServiceAccount that a user name is of.
func accountOf(username string) (types.NamespacedName, bool) {
	rest, ok := strings.CutPrefix(username, "system:serviceaccount:")
	namespace, name, found := strings.Cut(rest, ":")
	if !ok || !found || namespace == "" || name == "" || strings.Contains(name, ":") {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, true
}
