// SPDX-License-Identifier: Apache-2.0

// Package silence runs the binaries of operator and gateway through every failure at the highest log level, and searches whatever they
// leave behind for AppSecrets, keys and tokens. A program that leaks on purpose proves that the search finds them.
package silence
