// SPDX-License-Identifier: Apache-2.0

// Package failpoint lets the tests in test/chaos kill or stop the operator at a named step, offset its wall clock, and switch off a
// protection to prove that a test would notice. It does so only in builds with the tag failpoint. In all other builds its functions
// are empty and inlined, so that a step costs nothing and no protection can be switched off.
package failpoint

// These are the protections that can be switched off.
const (
	// Mark is the mark on the Secret before a Legacy mint.
	Mark = "mark"
	// Precondition is the resourceVersion in every update of a Secret.
	Precondition = "precondition"
	// KeptToken keeps an issued token in memory until the Secret holds it.
	KeptToken = "kept-token"
	// SingleFetcher lets one member of a Legacy account mint for all.
	SingleFetcher = "single-fetcher"
	// ToldMembers wakes the members of an account when WeChat returns another ticket than before.
	ToldMembers = "told-members"
)
