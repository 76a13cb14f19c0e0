// SPDX-License-Identifier: Apache-2.0

// Package wechattest is a server that answers like WeChat's API, in the spirit of net/http/httptest. It
// gives out tokens that die when WeChat's do, keeps a ledger of them that can be asked about any moment,
// writes down every call, and fails in the ways that are asked for.
//
// What WeChat documents is done as documented:
//   - https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken (Stable)
//   - https://developers.weixin.qq.com/miniprogram/dev/server/API/mp-access-token/api_getaccesstoken.html (Legacy)
//   - https://developers.weixin.qq.com/doc/oplatform/developers/errCode/errCode.html (errcodes)
//
// Where the documents are silent, this is what the server does, stricter rather than kinder:
//   - The rotation window is 300 s, as documented, for a token that lives longer than that. Else it is three
//     fifths of the token's life, rounded up to whole seconds, so that short lives in a demo rotate too, and
//     a client that calls at half of it is not a moment too early. A call in the window gets a new Stable
//     token; a Stable token never rotates without a call.
//   - A token that is replaced early, by force or by a Legacy mint, lives on for the length of its window at
//     most. The 20 forced refreshes a day are counted over 24 h and per refresh: a forced call less than 30 s
//     after a forced refresh is an ordinary call, and is not counted.
//   - A second forced refresh ends at once what the first one had replaced. What an ordinary rotation had
//     replaced keeps its documented five minutes.
//   - Daily quotas start anew at midnight in Beijing, quotas per minute at each minute of the server's clock.
//     Calls with a wrong AppSecret, or from a wrong address, do not count.
//   - A new AppSecret ends no token, nor does freezing it.
//   - The IP allowlist guards the two token endpoints, as with a mini program, not calls with a token.
//   - When the clock is set back behind a token's issue, the token is not valid until then, and the next
//     ordinary call makes a new one.
package wechattest
