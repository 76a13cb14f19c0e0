// SPDX-License-Identifier: Apache-2.0

// Package token is the vocabulary of the operator: a secret value that never prints itself, the access token and the credentials that
// are made of such values, and the error that describes why a call for a token failed.
//
// It imports no other package of this module, so that every package can use it.
package token
