// SPDX-License-Identifier: Apache-2.0

// Package wechattest provides a server that behaves like WeChat's API, in the spirit of net/http/httptest. Its tokens expire and are
// invalidated as WeChat's are. It records all tokens in a ledger that can be queried for any time, records every call, and fails in the
// ways that the caller injects.
//
// It follows WeChat's documentation:
//   - https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken (Stable)
//   - https://developers.weixin.qq.com/miniprogram/dev/server/API/mp-access-token/api_getaccesstoken.html (Legacy)
//   - https://developers.weixin.qq.com/doc/service/api/invoice/auth/api_getticket.html (tickets)
//   - https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-login/code2Session.html (login of mini programs)
//   - https://developers.weixin.qq.com/doc/offiaccount/OA_Web_Apps/Wechat_webpage_authorization.html (login of web pages)
//   - https://developers.weixin.qq.com/doc/offiaccount/Asset_Management/New_temporary_materials.html (uploads)
//   - https://developers.weixin.qq.com/doc/oplatform/developers/errCode/errCode.html (errcodes)
//
// Where the documentation is silent, the server is strict rather than lenient:
//   - The rotation window is 300 s, as documented, for a token that lives longer than that. For other tokens it is three
//     fifths of the token's life, rounded up to whole seconds, so that tokens with a short life rotate as well and
//     a client that calls at half of the life is not too early. A call within the window returns a new Stable
//     token. A Stable token never rotates without a call.
//   - A token that is replaced early, by a forced refresh or by a Legacy mint, stays valid at most for the length of its window.
//     The 20 forced refreshes a day are counted within the last 24 h. A forced call less than 30 s
//     after a forced refresh is treated as an ordinary call and is not counted.
//   - A second forced refresh immediately invalidates the token that the first one replaced. A token that an ordinary
//     rotation replaced stays valid for the documented five minutes.
//   - Daily quotas are reset at midnight in Beijing and quotas per minute at each full minute of the server's clock.
//     Calls with a wrong AppSecret or from an address that is not allowed do not count.
//   - Changing or freezing an AppSecret invalidates no token.
//   - The IP allowlist applies to the two token endpoints, as it does for mini programs, but not to calls with a token.
//   - If the clock is set back to before a token or ticket was issued, it is not valid until that time, and the next
//     ordinary call issues a new one.
//   - When a ticket changes, and what becomes of the old one, is not documented at all. TicketRules has what was reported or is
//     conceivable; a client has to cope with each. A ticket does not depend on the token with which it was asked for.
//   - A code of a login works once, for five minutes, for the appid and the kind of login that it was made for. A login that is refused
//     for its appid or AppSecret does not use the code up.
//   - A body without a Content-Length is answered with HTTP status 412, whatever the path.
package wechattest
