// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// WeChat's errcodes, as the gateway uses them for its own answers.
const (
	codeBusy          = -1    // passes by itself
	codeTokenInvalid  = 40001 // also a Bearer token that is none
	codeUnknownApp    = 40013
	codeKeyWrong      = 40125
	codeNoToken       = 41001
	codeNoAppID       = 41002
	codeNoKey         = 41004
	codeTokenExpired  = 42001
	codeNeedsGet      = 43001
	codeNeedsPost     = 43002
	codeTooMany       = 45011
	codeNotAllowed    = 48001
	requestIDHeader   = "X-Wechat-Gateway" // as net/http spells it
	clientHeader      = "X-WeChat-App-Client"
	jsonContentType   = "application/json"
	refusalTextPrefix = "wechat gateway: "
)

// refusal is an answer of the gateway's own in place of WeChat's.
type refusal struct {
	code int
	// reason is a word for the audit log and the metrics, of the list in docs/gateway.md.
	reason string
	// text says what happened and what to do. It quotes nothing of the request and no error of the transport.
	text string
}

// outcome returns what became of a call that is refused with this errcode.
func (f refusal) outcome() Outcome {
	switch f.code {
	case codeBusy:
		return OutcomeUnavailable
	case codeTooMany:
		return OutcomeLimited
	}
	return OutcomeDenied
}

// status returns the HTTP status of the answer. It is 200, because SDKs look for an errcode in no other answer. After errcode -1 some of
// them make the call again, which must not happen to one that WeChat may have carried out.
func (f refusal) status() int {
	if f.reason == reasonUnanswered {
		return http.StatusGatewayTimeout
	}
	return http.StatusOK
}

// write sends the refusal in WeChat's form, with an errcode. id is the call's.
func (f refusal) write(w http.ResponseWriter, id string) {
	writeJSON(w, id, f.status(), struct {
		Code int    `json:"errcode"`
		Text string `json:"errmsg"`
	}{f.code, refusalTextPrefix + f.text + " rid: " + id})
}

// writeJSON sends an answer of the gateway's own. There is no line feed behind the JSON, which some SDKs cannot read.
func writeJSON(w http.ResponseWriter, id string, status int, answer any) {
	body, err := json.Marshal(answer)
	if err != nil {
		body = []byte(`{"errcode":-1,"errmsg":"` + refusalTextPrefix + `internal error"}`) // the answers have strings and numbers alone
	}
	writeBody(w, id, status, body)
}

// writeBody sends an answer of the gateway's own that is JSON already.
func writeBody(w http.ResponseWriter, id string, status int, body []byte) {
	h := w.Header()
	h.Set(requestIDHeader, id)
	h.Set("Content-Type", jsonContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller may be gone
}
