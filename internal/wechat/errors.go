// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"errors"
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
