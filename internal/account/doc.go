// SPDX-License-Identifier: Apache-2.0

// Package account holds what the resources of one WeChat account share: who belongs to the account, whose turn it is to mint,
// how calls are paced, and what WeChat last said about the account's token. It does no I/O and reads no clock: the caller passes
// WeChat's time.
//
// The types of this package are safe for concurrent use unless their documentation says otherwise.
package account
