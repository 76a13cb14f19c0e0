// SPDX-License-Identifier: Apache-2.0

// Package wechat talks to WeChat's token endpoints and turns every outcome into a token or one typed
// error.
//
// Three calls are made, as WeChat documents them:
//
//   - POST /cgi-bin/stable_token, by [Client.StableToken]:
//     https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
//   - GET /cgi-bin/token, by [Client.LegacyToken]:
//     https://developers.weixin.qq.com/miniprogram/dev/server/API/mp-access-token/api_getaccesstoken.html
//   - GET /cgi-bin/get_api_domain_ip, by [Client.ProbeToken]:
//     https://developers.weixin.qq.com/doc/service/api/base/api_getapidomainip
//
// WeChat answers a failure with HTTP 200 and an errcode. Failures are classified by that number alone,
// from one table; the text beside it (errmsg) changes without notice and may echo what was sent.
//
// A call that always makes WeChat issue a new token is called a mint here: a Legacy call, and a Stable
// call that forces. A mint whose answer is lost may kill a token that pods still use, so mints are
// never sent twice, and a [token.Error] says whether one may have happened.
//
// AppSecret and token leave this package as a [token.Value] only. Legacy carries the AppSecret in the URL,
// which net/http puts into its errors, so no error of net/http leaves this package. One thing is out of
// reach here: what a server sends behind an answer, net/http quotes to the standard logger, so a program
// should not let that print.
package wechat
