// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// maxBody is the maximum size of an answer in bytes. Real answers have a few hundred bytes.
	maxBody = 64 << 10
	// maxLife caps the life of a token or ticket. It is twice the life that WeChat documents.
	maxLife = 4 * time.Hour
)

// answer is a decoded answer of WeChat. It has either an errcode other than 0 or the requested data.
type answer struct {
	code   int
	errmsg string // untrusted, must not be shown unmodified
	token  token.Value
	ticket token.Value
	// life is the expires_in of the token or ticket. It is positive and at most maxLife.
	life time.Duration
	// salvaged reports whether the errcode was read from an answer that is malformed.
	salvaged bool
}

// malformed is an error that says why an answer is not one of WeChat's. All values are constants, so none quotes the answer.
type malformed string

func (m malformed) Error() string { return string(m) }

const (
	errTooLarge    malformed = "it is larger than 64 KiB"
	errGzip        malformed = "it is compressed, and the compression is broken"
	errEmpty       malformed = "it is empty"
	errHTML        malformed = "it is a web page"
	errNotJSON     malformed = "it is no JSON object, or was cut"
	errDuplicate   malformed = "it names a field twice"
	errErrcode     malformed = "its errcode is not an integer"
	errNoToken     malformed = "it has neither an access_token nor an errcode"
	errTokenChars  malformed = "its access_token has characters that no token has"
	errExpiresIn   malformed = "its expires_in is not a positive integer"
	errNoIPList    malformed = "it has neither an ip_list nor an errcode"
	errNoTicket    malformed = "it has neither a ticket nor an errcode"
	errTicketChars malformed = "its ticket has characters that no ticket has"
)

// decodeToken decodes an answer of the two token endpoints.
func decodeToken(body []byte) (answer, error) {
	fields, a, err := decodeCommon(body)
	if err != nil || a.code != 0 {
		return a, err
	}
	tok, life, err := issued(fields, "access_token", errNoToken, errTokenChars)
	return answer{token: tok, life: life}, err
}

// decodeTicket decodes an answer of getticket.
func decodeTicket(body []byte) (answer, error) {
	fields, a, err := decodeCommon(body)
	if err != nil || a.code != 0 {
		return a, err
	}
	ticket, life, err := issued(fields, "ticket", errNoTicket, errTicketChars)
	return answer{ticket: ticket, life: life}, err
}

// issued returns the value of a field that is a token or ticket, and its life. The value is printable ASCII without white space. Its length
// is limited by maxBody alone, because WeChat documents none that would hold for long. The errors missing and chars are for a field that
// has no text, and for one that has other characters.
func issued(fields map[string]json.RawMessage, name string, missing, chars malformed) (token.Value, time.Duration, error) {
	var value string
	if json.Unmarshal(fields[name], &value) != nil || value == "" {
		return token.Value{}, 0, missing
	}
	for i := range len(value) {
		if value[i] <= ' ' || value[i] > '~' {
			return token.Value{}, 0, chars
		}
	}
	life, ok := lifetime(fields["expires_in"])
	if !ok {
		return token.Value{}, 0, errExpiresIn
	}
	return token.NewValue(value), life, nil
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
// other fields. It is strict in accepting an answer and liberal in reading a refusal: if any errcode other than 0 can be read from
// the body, the answer is a refusal, however malformed it is otherwise.
func decodeCommon(body []byte) (map[string]json.RawMessage, answer, error) {
	o, err := members(body)
	if a, ok := o.refusal(); ok {
		a.salvaged = err != nil
		return nil, a, nil
	}
	if a, ok := salvage(body); ok {
		return nil, a, nil
	}
	if err != nil {
		return nil, answer{}, err
	}
	for _, raw := range o.named("errcode") {
		if code, err := strconv.ParseInt(string(raw), 10, 32); err != nil || code != 0 {
			return nil, answer{}, errErrcode
		}
	}
	for _, name := range []string{"access_token", "expires_in", "ip_list", "ticket"} {
		if len(o.named(name)) > 1 {
			return nil, answer{}, errDuplicate
		}
	}
	return o.fields, answer{}, nil
}

// object is a JSON object. Its names keep their case, unlike those that json.Unmarshal matches with the fields of a struct.
type object struct {
	fields map[string]json.RawMessage // the first value of each name
	all    []member                   // in the order of the object
}

type member struct {
	name  string
	value json.RawMessage
}

// named returns the values of a name, whatever its case.
func (o object) named(name string) (values []json.RawMessage) {
	for _, m := range o.all {
		if strings.EqualFold(m.name, name) {
			values = append(values, m.value)
		}
	}
	return values
}

// text returns the first value of a name, whatever its case, that is a string and not empty.
func (o object) text(name string) (text string) {
	for _, raw := range o.named(name) {
		if json.Unmarshal(raw, &text) == nil && text != "" {
			return text
		}
	}
	return ""
}

// refusal returns the refusal that the object states, if it names an errcode other than 0. A token or ticket beside an errcode is not
// used, but it has to be known because errmsg could quote it.
func (o object) refusal() (answer, bool) {
	for _, raw := range o.named("errcode") {
		if code, ok := readErrcode(strings.Trim(string(raw), " \t\r\n\"[]")); ok {
			return answer{
				code: code, errmsg: o.text("errmsg"),
				token: token.NewValue(o.text("access_token")), ticket: token.NewValue(o.text("ticket")),
			}, true
		}
	}
	return answer{}, false
}

// members returns the members of a JSON object. It rejects duplicate names, because programs differ in which value they take. With
// errDuplicate it returns the members too.
func members(body []byte) (o object, err error) {
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return o, errEmpty
	case body[0] == '<':
		return o, errHTML
	case body[0] != '{' || !json.Valid(body):
		return o, errNotJSON
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if _, err := dec.Token(); err != nil { // the opening brace
		return o, errNotJSON
	}
	o.fields = make(map[string]json.RawMessage)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return object{}, errNotJSON
		}
		m := member{}
		m.name, _ = name.(string)
		if err := dec.Decode(&m.value); err != nil {
			return object{}, errNotJSON
		}
		o.all = append(o.all, m)
		if _, twice := o.fields[m.name]; !twice {
			o.fields[m.name] = m.value
		}
	}
	if len(o.fields) < len(o.all) {
		return o, errDuplicate
	}
	return o, nil
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
