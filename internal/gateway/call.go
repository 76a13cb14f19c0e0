// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"time"
)

// By says how a caller proved who it is; empty if it did not.
type By string

const (
	ByKey            By = "key"
	ByToken          By = "token"
	ByServiceAccount By = "service_account"
)

// Outcome says in one word what became of a call.
type Outcome string

const (
	// OutcomeAnswered: the gateway answered itself, with what was asked for.
	OutcomeAnswered Outcome = "answered"
	// OutcomeRelayed: WeChat answered, whatever it said.
	OutcomeRelayed Outcome = "relayed"
	// OutcomeDenied: the caller may not do this.
	OutcomeDenied Outcome = "denied"
	// OutcomeLimited: the caller, or everybody, calls too often.
	OutcomeLimited Outcome = "limited"
	// OutcomeUnavailable: the gateway or WeChat cannot serve it now.
	OutcomeUnavailable Outcome = "unavailable"
	// OutcomeGone: the caller went away.
	OutcomeGone Outcome = "gone"
)

// Call is a call and what became of it, for the audit log and the metrics. It holds no secret.
type Call struct {
	ID      string
	Started time.Time
	Peer    netip.Addr
	Method  string
	// Target is zero if the request target could not be parsed.
	Target Target
	Kind   Kind
	By     By
	// ServiceAccount is "namespace/name" of a caller who came with one.
	ServiceAccount string
	// Client is nil until the caller is known.
	Client *Client

	Outcome Outcome
	// Reason is the word of a refusal; empty if the call was served.
	Reason string
	// Errcode is the answer's; 0 for none.
	Errcode int
	// Status is the HTTP status of the answer. It is 499 if the caller went away.
	Status int
	// Admitted reports that the limits of the client, or of callers who are not known, counted the call as one to be passed on.
	Admitted bool
	// Attempts is how often the call was sent to WeChat.
	Attempts int
	// Sent and Received are the bytes of the request's and the answer's body.
	Sent, Received int64
	Spent
}

// Spent is where the time of a call went. Upstream is the part of Duration that was spent waiting for WeChat, Caller the part in which the
// caller sent the body of its request and took that of the answer, and Store the part in which another token was waited for. The rest is
// what the gateway adds.
type Spent struct {
	Duration, Upstream, Caller, Store time.Duration
}

// refuse records a refusal.
func (c *Call) refuse(outcome Outcome, f refusal) {
	c.Outcome, c.Reason, c.Errcode = outcome, f.reason, f.code
}
