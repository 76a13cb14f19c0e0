// SPDX-License-Identifier: Apache-2.0

package token

import (
	"fmt"
	"strings"
	"time"
)

// Class groups failures by what ends them.
type Class string

const (
	// Transient failures end without anybody's help.
	Transient Class = "Transient"
	// Limited failures end when a limit that WeChat imposed expires.
	Limited Class = "Limited"
	// Action failures last until somebody acts.
	Action Class = "Action"
)

// Reason names the cause of a failure. The reasons that can also be those of a condition are constants of package v1alpha1.
type Reason string

// ReasonTokenRejected means that WeChat does not accept an access token (errcodes 40001, 40014 and 42001 of a probe). No condition
// has this reason, because the operator replaces the token.
const ReasonTokenRejected Reason = "TokenRejected"

// Error describes a call that returned no token. It contains no AppSecret, no token and no URL, so it may be logged and
// written into a status as it is.
type Error struct {
	// Code is WeChat's errcode, or 0 if there was none.
	Code   int
	Reason Reason
	Class  Class
	// RequestID is the rid that WeChat's support asks for, or "" if there was none.
	RequestID string
	// Message consists of one or two sentences for a person. They say what happened and what to do next.
	Message string
	// RetryAfter is how long WeChat says that it will refuse further calls, or 0 if it does not say.
	RetryAfter time.Duration
	// MaybeSent reports whether WeChat may have issued a new token although none was received. It is false for calls that
	// never make WeChat issue one, and whenever WeChat answered with an errcode and without a token.
	MaybeSent bool

	// Cause is returned by Unwrap. It is nil or one of a few known values, which contain no text from outside: context.Canceled,
	// context.DeadlineExceeded, wechat.ErrStartedTooLate, a syscall.Errno or io.ErrUnexpectedEOF. It is never an error of net/http,
	// because those quote the URL, and a URL can contain the AppSecret.
	Cause error
	// Answered reports whether the server answered that it refused the request, which means that it issued no token.
	Answered bool
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

// Unwrap returns Cause.
func (e *Error) Unwrap() error { return e.Cause }
