// SPDX-License-Identifier: Apache-2.0

// Package refresh decides when a token is issued, checked or left alone, and why.
//
// It is pure: no clock, no I/O and no randomness. Times come in with the inputs and are
// WeChat's; jitter is a hash, so that the same inputs always give the same answer and a
// decision never depends on how often it is made.
package refresh
