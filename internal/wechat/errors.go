// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Class says who has to move after a failure.
type Class string

const (
	// ClassTransient passes by itself.
	ClassTransient Class = "Transient"
	// ClassLimited passes when the limit that WeChat set is over.
	ClassLimited Class = "Limited"
	// ClassAction needs somebody to do something.
	ClassAction Class = "Action"
)

// Reason names a failure; it is the reason of a condition too.
type Reason string

// The reasons. Which errcode has which is in the table of codes.go.
const (
	// ReasonSystemBusy: WeChat says that it is busy.
	ReasonSystemBusy Reason = "SystemBusy"
	// ReasonUnreachable: no answer (network, deadline) or an HTTP 5xx.
	ReasonUnreachable Reason = "Unreachable"
	// ReasonBadResponse: an answer that is not WeChat's: no JSON, fields missing or malformed, a redirect.
	ReasonBadResponse Reason = "BadResponse"
	// ReasonRequestRejected: an errcode that is not in the table. Its class is Transient; the caller
	// makes it Action when it stays.
	ReasonRequestRejected Reason = "RequestRejected"

	ReasonRateLimited         Reason = "RateLimited"
	ReasonDailyQuotaExhausted Reason = "DailyQuotaExhausted"
	ReasonIPBlocked           Reason = "IPBlocked"

	ReasonAppSecretInvalid          Reason = "AppSecretInvalid"
	ReasonAppIDInvalid              Reason = "AppIDInvalid"
	ReasonIPNotAllowed              Reason = "IPNotAllowed"
	ReasonAdminConfirmationRequired Reason = "AdminConfirmationRequired"
	ReasonAppSecretFrozen           Reason = "AppSecretFrozen"
	ReasonAccountRestricted         Reason = "AccountRestricted"
	ReasonUnsupportedAccount        Reason = "UnsupportedAccount"

	// ReasonTokenRejected: WeChat does not accept the token (40001, 40014, 42001). Of ProbeToken only.
	ReasonTokenRejected Reason = "TokenRejected"
)

// ErrStartedTooLate says that a Legacy call could not start by the time it was given. Nothing was sent.
var ErrStartedTooLate = errors.New("the request could not be started in time, nothing was sent")

// Error is the outcome of a call that brought no token. It holds no AppSecret, no token and no URL, and
// may be logged and written into a status as it is.
type Error struct {
	// Code is WeChat's errcode, 0 when there was none.
	Code   int
	Reason Reason
	Class  Class
	// RequestID is the rid that WeChat's support asks for, "" when there was none.
	RequestID string
	// Message is one or two sentences for a person: what happened and what to do next.
	Message string
	// RetryAfter is the time that WeChat names before it will answer again, else 0.
	RetryAfter time.Duration
	// MaybeSent says that a mint may have happened although its token was not received. It is false
	// for calls that do not mint, and whenever WeChat answered with an errcode.
	MaybeSent bool

	// err serves errors.Is; it is one of few known values, never an error of net/http.
	err error
	// answered: the server refused, so it did nothing.
	answered bool
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Reason))
	if e.Code != 0 {
		fmt.Fprintf(&b, " (errcode %d)", e.Code)
	}
	b.WriteString(": " + e.Message)
	if e.RequestID != "" {
		b.WriteString(" rid: " + e.RequestID)
	}
	return b.String()
}

// Unwrap returns the cause: context.Canceled, context.DeadlineExceeded, ErrStartedTooLate, a
// syscall.Errno or io.ErrUnexpectedEOF, else nil.
func (e *Error) Unwrap() error { return e.err }

// OptionError says which option is wrong.
type OptionError struct {
	// Flag is the name of the flag with its dashes.
	Flag string
	err  error
}

// Error implements error.
func (e *OptionError) Error() string { return e.Flag + ": " + e.err.Error() }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.err }
