// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// maxBody is the maximum size of an answer in bytes. Real answers have a few hundred bytes.
	maxBody = 64 << 10
	// maxLife caps the life of a token. It is twice the life that WeChat documents.
	maxLife = 4 * time.Hour
)

// answer is a decoded answer of WeChat. It has either an errcode other than 0 or the requested data.
type answer struct {
	code   int
	errmsg string // untrusted, must not be shown unmodified
	token  token.Value
	// life is the expires_in of the token. It is positive and at most maxLife.
	life time.Duration
}

// malformed is an error that says why an answer is not one of WeChat's. All values are constants, so none quotes the answer.
type malformed string

func (m malformed) Error() string { return string(m) }

const (
	errTooLarge   malformed = "it is larger than 64 KiB"
	errEmpty      malformed = "it is empty"
	errHTML       malformed = "it is a web page"
	errNotJSON    malformed = "it is no JSON object, or was cut"
	errDuplicate  malformed = "it names a field twice"
	errErrcode    malformed = "its errcode is not an integer"
	errNoToken    malformed = "it has neither an access_token nor an errcode"
	errTokenChars malformed = "its access_token has characters that no token has"
	errExpiresIn  malformed = "its expires_in is not a positive integer"
	errNoIPList   malformed = "it has neither an ip_list nor an errcode"
)

// decodeToken decodes an answer of the two token endpoints.
func decodeToken(body []byte) (answer, error) {
	fields, a, err := decodeCommon(body)
	if err != nil || a.code != 0 {
		return a, err
	}
	var tok string
	if json.Unmarshal(fields["access_token"], &tok) != nil || tok == "" {
		return answer{}, errNoToken
	}
	for i := range len(tok) {
		if tok[i] <= ' ' || tok[i] > '~' {
			return answer{}, errTokenChars
		}
	}
	life, ok := lifetime(fields["expires_in"])
	if !ok {
		return answer{}, errExpiresIn
	}
	return answer{token: token.NewValue(tok), life: life}, nil
}

// decodeProbe decodes an answer of get_api_domain_ip.
func decodeProbe(body []byte) (answer, error) {
	fields, a, err := decodeCommon(body)
	if err != nil || a.code != 0 {
		return a, err
	}
	if list := fields["ip_list"]; len(list) == 0 || list[0] != '[' {
		return answer{}, errNoIPList
	}
	return a, nil
}

// decodeCommon decodes what all answers have in common. If the errcode is not 0, the answer is complete and the caller ignores all
// other fields.
func decodeCommon(body []byte) (map[string]json.RawMessage, answer, error) {
	fields, err := members(body)
	if err != nil {
		return nil, answer{}, err
	}
	raw, ok := fields["errcode"]
	if !ok {
		return fields, answer{}, nil
	}
	// The status stores the errcode in 32 bits.
	code, err := strconv.ParseInt(string(raw), 10, 32)
	if err != nil {
		return nil, answer{}, errErrcode
	}
	a := answer{code: int(code)}
	if code != 0 {
		// A field that is not a string is treated as empty. A token beside an errcode is not used, but it has to be known because
		// errmsg could quote it.
		var tok string
		_ = json.Unmarshal(fields["errmsg"], &a.errmsg)
		_ = json.Unmarshal(fields["access_token"], &tok)
		a.token = token.NewValue(tok)
	}
	return fields, a, nil
}

// members returns the members of a JSON object. It rejects duplicate names and does not fold case, unlike json.Unmarshal into a
// struct, which would accept ambiguous answers.
func members(body []byte) (map[string]json.RawMessage, error) {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return nil, errEmpty
	case body[0] == '<':
		return nil, errHTML
	case body[0] != '{' || !json.Valid(body):
		return nil, errNotJSON
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if _, err := dec.Token(); err != nil { // the opening brace
		return nil, errNotJSON
	}
	fields := make(map[string]json.RawMessage)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errNotJSON
		}
		key, _ := name.(string)
		if _, twice := fields[key]; twice {
			return nil, errDuplicate
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errNotJSON
		}
		fields[key] = value
	}
	return fields, nil
}

// lifetime returns the duration for a number of seconds, capped at maxLife. It returns false unless raw is a positive integer.
func lifetime(raw json.RawMessage) (time.Duration, bool) {
	for _, c := range raw {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	if len(raw) > 9 { // JSON allows no leading zeros, so the number exceeds maxLife
		return maxLife, true
	}
	seconds, err := strconv.Atoi(string(raw))
	if err != nil || seconds <= 0 {
		return 0, false
	}
	return min(time.Duration(seconds)*time.Second, maxLife), true
}
