// SPDX-License-Identifier: Apache-2.0

// Package controller reconciles WeChatAppTokens.
//
// A pass over a resource repeats three steps until there is nothing to do but wait, and then reports:
//
//	observe         gathers everything that a decision depends on into one report.Observation
//	refresh.Decide  says what to do and why
//	act             carries out one call or one write; its effect is what came of it
//	report.Status   turns the last observation and decision into the status
//
// Only apply changes what the process remembers of a resource because of a step (resourceState). What the resources of one WeChat
// account share is in package account.
package controller
