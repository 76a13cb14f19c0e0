// SPDX-License-Identifier: Apache-2.0

// Package controller reconciles WeChatAppTokens.
//
// One pass reads as a list of steps in reconciler.go: load the resource, resolve its credentials, load the target,
// settle whose it is, decide (package refresh), act, write the Secret (package target), write the status. What one
// process knows beyond the API server is in memory.go, per resource, and accounts.go, per WeChat account.
package controller
