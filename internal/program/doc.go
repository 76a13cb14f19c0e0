// SPDX-License-Identifier: Apache-2.0

// Package program has what the operator and the gateway do alike when they start: they read their flags and their environment, set up
// their log and bound their memory.
package program
