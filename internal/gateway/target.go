// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// maxQuery and maxPairs bound the query of a request.
	maxQuery = 8 << 10
	maxPairs = 64
	// maxPath bounds its path. The longest that WeChat documents has less than 100 characters.
	maxPath = 512

	accessTokenKey = "access_token"
)

// Errors of ParseTarget. Their texts are shown to callers and quote nothing of the request.
var (
	errForm      = errors.New("the request target must be a path, such as /cgi-bin/user/info")
	errPath      = errors.New("the path may have letters, digits, '_', '.', '-' and '/' only, and no segment of dots")
	errQueryLong = errors.New("the query is longer than 8 KiB or has more than 64 parameters")
	errQuery     = errors.New("the query has a ';' or a bad escape")
	errTokenKey  = errors.New("access_token must be given once, by this name")
)

// Target is the parsed request target of a call. Everything that is decided, logged and sent comes from it, so that no other reading of
// the same bytes can differ.
type Target struct {
	// Path has no empty and no dot segments, and a slash at the end only if it is "/".
	Path string
	// pairs are the parameters in their order.
	pairs []pair
}

// Format prints the path alone, because parameters may be secrets.
func (t Target) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.Path) }

// pair is a parameter of a query as it came, and its decoded key and value.
type pair struct {
	raw, key, value string
}

// ParseTarget parses the request target of the first line of a request.
func ParseTarget(raw string) (Target, error) {
	path, query, _ := strings.Cut(raw, "?")
	if len(path) == 0 || path[0] != '/' {
		return Target{}, errForm // absolute-form, authority-form or '*'
	}
	t := Target{}
	var err error
	if t.Path, err = parsePath(path); err != nil {
		return Target{}, err
	}
	t.pairs, err = parseQuery(query)
	return t, err
}

// parsePath returns the path with repeated slashes collapsed and without one at the end, as WeChat reads it.
func parsePath(path string) (string, error) {
	if len(path) > maxPath {
		return "", errPath
	}
	var out strings.Builder
	out.Grow(len(path))
	for segment := range strings.SplitSeq(path, "/") {
		switch {
		case segment == "":
			continue
		case strings.Trim(segment, ".") == "":
			return "", errPath // ".", ".." and longer ones, which some servers take for these
		}
		for i := range len(segment) {
			if !isPathByte(segment[i]) {
				return "", errPath
			}
		}
		out.WriteByte('/')
		out.WriteString(segment)
	}
	if out.Len() == 0 {
		return "/", nil
	}
	return out.String(), nil
}

func isPathByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-'
}

func parseQuery(query string) ([]pair, error) {
	switch {
	case query == "":
		return nil, nil
	case len(query) > maxQuery:
		return nil, errQueryLong
	}
	pairs := make([]pair, 0, min(strings.Count(query, "&")+1, maxPairs))
	tokens := 0
	for raw := range strings.SplitSeq(query, "&") {
		if raw == "" {
			continue // some SDKs write ?&
		}
		if len(pairs) == maxPairs {
			return nil, errQueryLong
		}
		if !isQuery(raw) {
			return nil, errQuery
		}
		rawKey, rawValue, _ := strings.Cut(raw, "=")
		key, keyErr := url.QueryUnescape(rawKey)
		value, valueErr := url.QueryUnescape(rawValue)
		if keyErr != nil || valueErr != nil {
			return nil, errQuery
		}
		if strings.Contains(strings.ToLower(key), accessTokenKey) {
			if tokens++; rawKey != accessTokenKey || tokens > 1 {
				return nil, errTokenKey // another server may take it for the token
			}
		}
		pairs = append(pairs, pair{raw: raw, key: key, value: value})
	}
	return pairs, nil
}

// isQuery reports whether a parameter has only what may stand in a request target. A ';' separates parameters for some servers.
func isQuery(raw string) bool {
	for i := range len(raw) {
		switch c := raw[i]; c {
		case ';', '#', '"', '<', '>', '\\', '^', '{', '|', '}', '`':
			return false
		default:
			if c <= ' ' || c >= 0x7f {
				return false
			}
		}
	}
	return true
}

// Get returns the decoded value of a parameter, and how often it is given.
func (t Target) Get(key string) (value string, times int) {
	for _, p := range t.pairs {
		if p.key == key {
			if times++; times == 1 {
				value = p.value
			}
		}
	}
	return value, times
}

// only returns the decoded value of a parameter; empty for none. It is false if the parameter is given more than once, or if there is one
// by a similar name, such as secret[] or Secret, which another server may take for it.
func (t Target) only(key string) (value string, ok bool) {
	times := 0
	for _, p := range t.pairs {
		if strings.Contains(strings.ToLower(p.key), key) {
			if times++; times > 1 || p.key != key {
				return "", false
			}
			value = p.value
		}
	}
	return value, true
}

// raw returns the query byte for byte, without empty parameters.
func (t Target) raw() string {
	out := make([]string, 0, len(t.pairs))
	for _, p := range t.pairs {
		out = append(out, p.raw)
	}
	return strings.Join(out, "&")
}

// AccessToken returns the value of access_token; empty for none.
func (t Target) AccessToken() string {
	value, _ := t.Get(accessTokenKey)
	return value
}

// Query returns the query to send on: with this access_token in the place of the caller's, or added if there was none, without the
// parameters that drop names in any case, and with all others byte for byte. A zero token leaves access_token out.
func (t Target) Query(with token.Value, drop ...string) string {
	own := ""
	if !with.IsZero() {
		own = accessTokenKey + "=" + url.QueryEscape(with.Reveal())
	}
	out := make([]string, 0, len(t.pairs)+1)
	if _, times := t.Get(accessTokenKey); times == 0 && own != "" {
		out = append(out, own)
	}
	for _, p := range t.pairs {
		switch {
		case p.key == accessTokenKey:
			if own != "" {
				out = append(out, own)
			}
		case !slices.ContainsFunc(drop, func(key string) bool { return strings.EqualFold(key, p.key) }):
			out = append(out, p.raw)
		}
	}
	return strings.Join(out, "&")
}
