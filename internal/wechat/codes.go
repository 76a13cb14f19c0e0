// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// outcome describes the meaning of an errcode and the message for the user.
type outcome struct {
	code   int
	class  token.Class
	reason token.Reason
	// retryAfter is the documented duration of a block.
	retryAfter time.Duration
	// what says what happened. {address} is replaced by the caller's address.
	what string
	// next says what the user should do.
	next string
}

// Texts that several codes share.
const (
	whatAddress  = "WeChat does not allow calls from {address} for this account."
	nextAddress  = "Add the address to the IP allowlist of the account in WeChat's console; it works some minutes later."
	whatConfirm  = "The account's administrator has to confirm that {address} may use its AppSecret."
	nextConfirm  = "Confirm the message that WeChat sent to the administrator, or put the address on the account's IP allowlist."
	whatSecret   = "WeChat says that the AppSecret is wrong for this appid."
	nextSecret   = "Compare appid and AppSecret with WeChat's console, and write the current AppSecret into the credentials Secret."
	nextAccount  = "Look at the account's notices in WeChat's console, or appeal to WeChat there."
	nextWait     = "The operator tries again by itself."
	nextStripped = "Something on the way to WeChat removed or changed a part of it: look for a proxy, gateway or firewall that does."
)

// tokenCodes lists the known errcodes of the two token endpoints. They come from the pages that the package comment names,
// from WeChat's global list (https://developers.weixin.qq.com/doc/oplatform/developers/errCode/errCode.html), and in the case of 89502,
// 89504 and 89505 from the list of the WxJava SDK.
var tokenCodes = []outcome{
	{code: -1, class: token.Transient, reason: v1alpha1.ReasonSystemBusy,
		what: "WeChat is busy.", next: nextWait},

	{code: 45011, class: token.Limited, reason: v1alpha1.ReasonRateLimited,
		what: "Too many calls for this account within a minute.", next: nextWait},
	{code: 45009, class: token.Limited, reason: v1alpha1.ReasonDailyQuotaExhausted,
		what: "The account's calls for today are used up.",
		next: "Find out what else fetches tokens for this appid; the quota can be cleared in WeChat's console."},
	{code: 89507, class: token.Limited, reason: v1alpha1.ReasonIPBlocked, retryAfter: time.Hour,
		what: "The account's administrator refused {address}, and WeChat blocks it for an hour.", next: nextConfirm},
	{code: 89506, class: token.Limited, reason: v1alpha1.ReasonIPBlocked, retryAfter: 24 * time.Hour,
		what: "The account's administrator refused {address} twice, and WeChat blocks it for 24 hours.", next: nextConfirm},

	{code: 40001, class: token.Action, reason: v1alpha1.ReasonAppSecretInvalid, what: whatSecret, next: nextSecret},
	{code: 40125, class: token.Action, reason: v1alpha1.ReasonAppSecretInvalid, what: whatSecret, next: nextSecret},
	{code: 40013, class: token.Action, reason: v1alpha1.ReasonAppIDInvalid,
		what: "WeChat does not know this appid.",
		next: "Compare spec.appID with WeChat's console: lower case, no other characters."},
	{code: 40164, class: token.Action, reason: v1alpha1.ReasonIPNotAllowed, what: whatAddress, next: nextAddress},
	{code: 61004, class: token.Action, reason: v1alpha1.ReasonIPNotAllowed, what: whatAddress, next: nextAddress},
	{code: 45035, class: token.Action, reason: v1alpha1.ReasonIPNotAllowed, what: whatAddress, next: nextAddress},
	{code: 89501, class: token.Action, reason: v1alpha1.ReasonAdminConfirmationRequired, what: whatConfirm, next: nextConfirm},
	{code: 89502, class: token.Action, reason: v1alpha1.ReasonAdminConfirmationRequired, what: whatConfirm, next: nextConfirm},
	{code: 89503, class: token.Action, reason: v1alpha1.ReasonAdminConfirmationRequired, what: whatConfirm, next: nextConfirm},
	{code: 89504, class: token.Action, reason: v1alpha1.ReasonAdminConfirmationRequired, what: whatConfirm, next: nextConfirm},
	{code: 89505, class: token.Action, reason: v1alpha1.ReasonAdminConfirmationRequired, what: whatConfirm, next: nextConfirm},
	{code: 40243, class: token.Action, reason: v1alpha1.ReasonAppSecretFrozen,
		what: "The AppSecret is frozen.",
		next: "Unfreeze it in WeChat's console; it works about ten minutes later."},
	{code: 50002, class: token.Action, reason: v1alpha1.ReasonAccountRestricted,
		what: "WeChat restricts the account; it may be frozen or deregistered.", next: nextAccount},
	{code: 50004, class: token.Action, reason: v1alpha1.ReasonAccountRestricted,
		what: "WeChat forbids the account to fetch access tokens.", next: nextAccount},
	{code: 50007, class: token.Action, reason: v1alpha1.ReasonAccountRestricted,
		what: "WeChat has frozen the account.", next: nextAccount},
	{code: 48004, class: token.Action, reason: v1alpha1.ReasonAccountRestricted,
		what: "WeChat has banned the account from this interface for a violation of its rules.", next: nextAccount},
	{code: 61024, class: token.Action, reason: v1alpha1.ReasonUnsupportedAccount,
		what: "This appid is a third-party platform, whose tokens come from another interface.",
		next: "Use the appid of a mini program, an official account or another account that has an AppSecret of its own."},

	// The operator's requests are complete, so these mean that something on the way changed one.
	{code: 40002, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat received the request without its grant_type.", next: nextStripped},
	{code: 41001, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat received the request without its access_token.", next: nextStripped},
	{code: 41002, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat received the request without its appid.", next: nextStripped},
	{code: 41004, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat received the request without its AppSecret.", next: nextStripped},
	{code: 43001, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat received the request with another method than GET.", next: nextStripped},
	{code: 43002, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat received the request with another method than POST.", next: nextStripped},
	{code: 44002, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat received the request without its body.", next: nextStripped},
	{code: 47001, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat could not read the body of the request.", next: nextStripped},
}

// probeCodes lists the known errcodes of a probe. It is searched from the front, and the first entries replace those of tokenCodes.
var probeCodes = append([]outcome{
	{code: 40001, class: token.Transient, reason: token.ReasonTokenRejected, what: whatRejected, next: nextRejected},
	{code: 40014, class: token.Transient, reason: token.ReasonTokenRejected, what: whatRejected, next: nextRejected},
	{code: 42001, class: token.Transient, reason: token.ReasonTokenRejected, what: whatRejected, next: nextRejected},
}, tokenCodes...)

// ticketCodes lists the known errcodes of a call for a ticket, and so all codes that this package knows. It is searched from the front, and
// the first entries replace those of probeCodes. The page of getticket names -1 and 40001 alone; the others come from WeChat's global list,
// and 48001 and 61007 also from https://developers.weixin.qq.com/doc/oplatform/developers/troubleshooting.
var ticketCodes = append([]outcome{
	{code: 48001, class: token.Action, reason: v1alpha1.ReasonUnsupportedAccount, what: whatNoTicket, next: nextNoTicket},
	{code: 61007, class: token.Action, reason: v1alpha1.ReasonUnsupportedAccount, what: whatNoTicket, next: nextNoTicket},
	{code: 45009, class: token.Limited, reason: v1alpha1.ReasonDailyQuotaExhausted,
		what: "The account's calls for tickets are used up for today.",
		next: "Find out what else fetches tickets for this appid; the quota can be cleared in WeChat's console."},
	{code: 40097, class: token.Transient, reason: v1alpha1.ReasonRequestRejected,
		what: "WeChat received the request without a type of ticket that it knows.", next: nextStripped},
}, probeCodes...)

const (
	whatNoTicket = "WeChat has no ticket of this type for the account."
	nextNoTicket = "Tickets are for Official Accounts (公众号, 服务号), websites and apps to which WeChat's console grants the interface; " +
		"Mini Programs have none. Remove the type from spec.tickets, or obtain the permission in WeChat's console."

	whatRejected = "WeChat no longer accepts the access token."
	nextRejected = "The operator replaces it."

	whatUnknown = "WeChat refused the request with an errcode that the operator does not know"
	nextUnknown = "Look the code up in WeChat's list of return codes."
)
