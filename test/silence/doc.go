// SPDX-License-Identifier: Apache-2.0

// Package silence runs the operator's binary through every failure at the highest log level, and searches whatever it
// leaves behind for AppSecrets and tokens. A program that leaks on purpose proves that the search finds them.
package silence
