// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"errors"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// The reasons. Which errcode has which is in the table of codes.go.
const (
	// ReasonSystemBusy: WeChat says that it is busy.
	ReasonSystemBusy token.Reason = "SystemBusy"
	// ReasonUnreachable: no answer (network, deadline) or an HTTP 5xx.
	ReasonUnreachable token.Reason = "Unreachable"
	// ReasonBadResponse: an answer that is not WeChat's: no JSON, fields missing or malformed, a redirect.
	ReasonBadResponse token.Reason = "BadResponse"
	// ReasonRequestRejected: an errcode that is not in the table. Its class is Transient; the caller
	// makes it Action when it stays.
	ReasonRequestRejected token.Reason = "RequestRejected"

	ReasonRateLimited         token.Reason = "RateLimited"
	ReasonDailyQuotaExhausted token.Reason = "DailyQuotaExhausted"
	ReasonIPBlocked           token.Reason = "IPBlocked"

	ReasonAppSecretInvalid          token.Reason = "AppSecretInvalid"
	ReasonAppIDInvalid              token.Reason = "AppIDInvalid"
	ReasonIPNotAllowed              token.Reason = "IPNotAllowed"
	ReasonAdminConfirmationRequired token.Reason = "AdminConfirmationRequired"
	ReasonAppSecretFrozen           token.Reason = "AppSecretFrozen"
	ReasonAccountRestricted         token.Reason = "AccountRestricted"
	ReasonUnsupportedAccount        token.Reason = "UnsupportedAccount"

	// ReasonTokenRejected: WeChat does not accept the token (40001, 40014, 42001). Of ProbeToken only.
	ReasonTokenRejected token.Reason = "TokenRejected"
)

// ErrStartedTooLate says that a Legacy call could not start by the time it was given. Nothing was sent.
var ErrStartedTooLate = errors.New("the request could not be started in time, nothing was sent")

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
