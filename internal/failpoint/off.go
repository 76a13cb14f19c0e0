// SPDX-License-Identifier: Apache-2.0

//go:build !failpoint

package failpoint

import "time"

// Hit is a named step.
func Hit(string) {}

// Off tells whether a protection is switched off.
func Off(string) bool { return false }

// Wall is the wall clock; nil means the machine's.
func Wall() func() time.Time { return nil }
