// SPDX-License-Identifier: Apache-2.0

//go:build !failpoint

package failpoint

import "time"

// Hit marks a step that has a name. It does nothing in this build.
func Hit(string) {}

// Off reports whether a protection is switched off, which it never is in this build.
func Off(string) bool { return false }

// Wall returns nil, which stands for the machine's wall clock.
func Wall() func() time.Time { return nil }
