// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// The errcodes that the server returns without a fault. They come from WeChat's lists of return codes.
const (
	codeInvalidCredential = 40001 // wrong AppSecret (Legacy) or replaced token
	codeInvalidGrantType  = 40002
	codeInvalidAppID      = 40013
	codeInvalidOpenID     = 40003
	codeInvalidMediaType  = 40004
	codeInvalidToken      = 40014
	codeInvalidCode       = 40029
	codeInvalidRefresh    = 40030
	codeInvalidArgs       = 40097
	codeInvalidAppSecret  = 40125
	codeInvalidPath       = 40159
	codeCodeUsed          = 40163
	codeIPNotAllowed      = 40164
	codeInvalidScene      = 40169
	codeAppSecretFrozen   = 40243
	codeTokenMissing      = 41001
	codeAppIDMissing      = 41002
	codeAppSecretMissing  = 41004
	codeMediaMissing      = 41005
	codeCodeMissing       = 41008
	codeOpenIDMissing     = 41009
	codeTokenExpired      = 42001
	codeWantGET           = 43001
	codeWantPOST          = 43002
	codeMediaTooLarge     = 45001
	codeDailyQuota        = 45009
	codeMinuteQuota       = 45011
	codeNotJSON           = 47001
	codeUnauthorized      = 48001
	codeAdminConfirmation = 89503
)

// errmsg returns WeChat's text for an errcode, without the rid. WeChat does not promise the wording.
func errmsg(code int, ip netip.Addr) string {
	const getStable = ", could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"
	switch code {
	case -1:
		return "system error"
	case codeInvalidCredential:
		return "invalid credential, access_token is invalid or not latest" + getStable
	case codeInvalidGrantType:
		return "invalid grant_type"
	case codeInvalidAppID:
		return "invalid appid"
	case codeInvalidToken:
		return "invalid access_token"
	case codeInvalidArgs:
		return "invalid args"
	case codeInvalidAppSecret:
		return "invalid appsecret, view more at http://t.cn/RAEkdVq"
	case codeIPNotAllowed:
		return notAllowed(ip)
	case codeInvalidScene:
		return "invalid length for scene, or the data is not json string"
	case codeAppSecretFrozen:
		return "appsecret has been frozen"
	case codeTokenMissing:
		return "access_token missing"
	case codeAppIDMissing:
		return "appid missing"
	case codeAppSecretMissing:
		return "appsecret missing"
	case codeTokenExpired:
		return "access_token expired"
	}
	return lessUsualErrmsg(code, getStable)
}

// lessUsualErrmsg returns the text for the less common errcodes.
func lessUsualErrmsg(code int, getStable string) string {
	switch code {
	case codeWantGET:
		return "require GET method"
	case codeWantPOST:
		return "require POST method"
	case codeDailyQuota:
		return "reach max api daily quota limit" + getStable
	case codeMinuteQuota:
		return "api minute-quota reach limit, must slower, retry next minute"
	case codeNotJSON:
		return "data format error"
	case codeUnauthorized:
		return "api unauthorized"
	case 48004:
		return "api forbidden for irregularities, view detail on mp.weixin.qq.com"
	case 50002:
		return "user limited"
	case 61004, 45035:
		return "access clientip is not registered"
	case codeAdminConfirmation, 89501:
		return "this api call needs the confirmation of the administrator"
	case 89506, 89507:
		return "the administrator refused this ip"
	}
	return userErrmsg(code)
}

// userErrmsg returns the text for the errcodes of logins, users and uploads.
func userErrmsg(code int) string {
	switch code {
	case codeInvalidOpenID:
		return "invalid openid"
	case codeInvalidMediaType:
		return "invalid media type"
	case codeInvalidCode:
		return "invalid code"
	case codeInvalidRefresh:
		return "invalid refresh_token"
	case codeInvalidPath:
		return "invalid length for path, or the data is not json string"
	case codeCodeUsed:
		return "code been used"
	case codeMediaMissing:
		return "media data missing"
	case codeCodeMissing:
		return "missing code"
	case codeOpenIDMissing:
		return "missing openid"
	case codeMediaTooLarge:
		return "media size out of limit"
	}
	return "error " + strconv.Itoa(code)
}

// notAllowed returns the text of 40164, which contains the caller's address.
func notAllowed(ip netip.Addr) string {
	if ip.Is4() {
		return fmt.Sprintf("invalid ip %s ipv6 ::ffff:%s, not in whitelist", ip, ip)
	}
	return fmt.Sprintf("invalid ip %s ipv6 %s, not in whitelist", ip, ip)
}

// requestID returns a rid, which consists of the time and two random numbers in hex.
func requestID(now time.Time) string {
	return fmt.Sprintf("%08x-%08x-%08x", uint32(now.Unix()), rand.Uint32(), rand.Uint32())
}

// fail returns an answer with an errcode. Its HTTP status is 200, as always. If text is empty, WeChat's own text is used.
func (q *request) fail(code int, text string, now time.Time) reply {
	if text == "" {
		text = errmsg(code, q.ip) + " rid: " + requestID(now)
	}
	quoted, _ := json.Marshal(text) // never fails for a string
	body := append(strconv.AppendInt([]byte(`{"errcode":`), int64(code), 10), `,"errmsg":`...)
	body = append(append(body, quoted...), '}')
	return reply{status: http.StatusOK, contentType: jsonType, body: body, errcode: code}
}
