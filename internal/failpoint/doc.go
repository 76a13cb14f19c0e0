// SPDX-License-Identifier: Apache-2.0

// Package failpoint lets the tests below test/chaos kill or stop the operator at a named step, offset its wall clock, and
// switch a protection off to prove that a test would notice. All of it exists in builds with the tag failpoint alone. In any
// other build the functions are empty and inlined: a step costs nothing, and a protection cannot be switched off.
package failpoint

// Protections that a build with the tag can be told to do without.
const (
	// Mark is the mark on the Secret before a Legacy mint.
	Mark = "mark"
	// Precondition is the resourceVersion in every update of a Secret.
	Precondition = "precondition"
	// KeptToken is the memory of an issued token until the Secret holds it.
	KeptToken = "kept-token"
	// SingleFetcher is the one member of a Legacy account that mints for all.
	SingleFetcher = "single-fetcher"
)
