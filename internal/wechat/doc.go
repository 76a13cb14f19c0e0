// SPDX-License-Identifier: Apache-2.0

// Package wechat calls WeChat's token endpoints. Every call returns what it asked for or a *[token.Error].
//
// It makes four calls, which WeChat documents on these pages:
//
//   - POST /cgi-bin/stable_token, by [Client.StableToken]:
//     https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
//   - GET /cgi-bin/token, by [Client.LegacyToken]:
//     https://developers.weixin.qq.com/miniprogram/dev/server/API/mp-access-token/api_getaccesstoken.html
//   - GET /cgi-bin/get_api_domain_ip, by [Client.ProbeToken]:
//     https://developers.weixin.qq.com/doc/service/api/base/api_getapidomainip
//   - GET /cgi-bin/ticket/getticket, by [Client.Ticket]:
//     https://developers.weixin.qq.com/doc/service/api/invoice/auth/api_getticket.html
//
// WeChat reports a failure with HTTP status 200 and an errcode. This package classifies failures by that number alone, using a
// table for each kind of call. The accompanying text (errmsg) changes without notice and may quote the request. The package is liberal in
// reading a refusal and strict in accepting a token or ticket: any errcode that a malformed answer still shows counts, and only an answer
// that is whole and unambiguous is a token or ticket.
//
// A mint is a call that always makes WeChat issue a new token, which is every Legacy call and every Stable call with
// force_refresh. If the answer to a mint is lost, a token that pods still use may be invalidated, so mints are never
// sent twice. A [token.Error] reports whether a mint may have happened.
//
// A [Client] makes these calls. A [Forwarder] passes requests that other programs made on to the same hosts, and does not look into
// answers.
//
// This package returns AppSecrets, tokens and tickets only as a [token.Value]. A Legacy call has the AppSecret in its URL, which net/http
// quotes in its errors, so this package never returns an error of net/http. It cannot prevent one leak: net/http writes
// unsolicited bytes that follow an answer to the standard logger, so a program should discard that logger's output.
package wechat
