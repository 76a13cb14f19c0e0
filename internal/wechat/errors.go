// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"errors"
)

// ErrStartedTooLate reports that a Legacy call could not be started by its startBy. Nothing was sent.
var ErrStartedTooLate = errors.New("the request could not be started in time, nothing was sent")

// OptionError reports an invalid option.
type OptionError struct {
	// Flag is the name of the command line flag, including its dashes.
	Flag string
	err  error
}

// Error implements error.
func (e *OptionError) Error() string { return e.Flag + ": " + e.err.Error() }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.err }
