// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

const (
	grantType = "client_credential"
	// maxScene is the maximum length of the scene of a mini program code in characters. See
	// https://developers.weixin.qq.com/miniprogram/dev/server/API/qrcode-link/qr-code/api_getunlimitedqrcode.html.
	maxScene = 32
	// maxPagePath is the maximum length of the path of a page in a code, in bytes.
	maxPagePath = 1024
)

// answer processes a call and returns its answer.
func (p *platform) answer(q request) reply {
	if q.chunked {
		// WeChat's front end wants the length of a body.
		return reply{status: http.StatusPreconditionFailed, contentType: "text/html", body: []byte("<h1>412 Precondition Failed</h1>\n")}
	}
	switch q.endpoint {
	case "":
		return reply{status: http.StatusNotFound, contentType: "text/plain", body: []byte("not found\n")}
	case EndpointStable, EndpointLegacy:
		return p.answerFetch(q)
	case EndpointLogin, EndpointWebLogin, EndpointUserRefresh:
		return p.answerLogin(q)
	case EndpointUserInfo, EndpointUserAuth:
		return p.answerUser(q)
	default:
		return p.answerBearer(q)
	}
}

// answerBearer answers a call that carries a token.
func (p *platform) answerBearer(q request) reply {
	now := p.now()
	t, code := p.checkToken(q, now)
	if code != 0 {
		return q.fail(code, "", now)
	}
	switch q.endpoint {
	case EndpointCallbackIP:
		return success([]byte(`{"ip_list":["203.0.113.16","203.0.113.17","198.51.100.0/25"]}`))
	case EndpointTicket:
		return p.answerTicket(q, p.account(t.AppID), now)
	case EndpointCode:
		return q.answerCode(now)
	case EndpointPageCode:
		return q.answerPageCode(now)
	case EndpointUpload:
		return p.answerUpload(q, t.AppID, now)
	case EndpointMessage:
		return success([]byte(`{"errcode":0,"errmsg":"ok"}`))
	default:
		return success([]byte(`{"ip_list":["203.0.113.32","203.0.113.33","203.0.113.34"]}`))
	}
}

func success(body []byte) reply {
	return reply{status: http.StatusOK, contentType: jsonType, body: body}
}

// answerFetch answers the two token endpoints.
func (p *platform) answerFetch(q request) reply {
	now := p.now()
	mode := Stable
	if q.endpoint == EndpointLegacy {
		mode = Legacy
	}
	if code := q.malformed(mode); code != 0 {
		return q.fail(code, "", now)
	}
	a, code := p.admit(q, mode, now)
	if code != 0 {
		return q.fail(code, "", now)
	}
	var t *IssuedToken
	minted := true
	switch {
	case mode == Legacy:
		t = p.legacyToken(a, now, byCall)
	case q.force:
		t, minted, code = p.forcedToken(a, now)
	default:
		t, minted = p.stableToken(a, now)
	}
	if code != 0 {
		return q.fail(code, "", now)
	}
	body := append(append([]byte(`{"access_token":"`), t.Token...), `","expires_in":`...)
	ok := success(append(strconv.AppendInt(body, int64(t.ExpiresAt.Sub(now)/time.Second), 10), '}'))
	ok.minted = minted
	return ok
}

// malformed returns the errcode of a token request that is not well-formed, or 0.
func (q *request) malformed(mode Mode) int {
	switch {
	case mode == Stable && q.method != http.MethodPost:
		return codeWantPOST
	case mode == Legacy && q.method != http.MethodGet:
		return codeWantGET
	case q.problem != 0:
		return q.problem
	case q.appID == "":
		return codeAppIDMissing
	case q.secret == "":
		return codeAppSecretMissing
	case q.grantType != grantType:
		return codeInvalidGrantType
	}
	return 0
}

// checkToken returns the token of a call, or the errcode if it is not valid.
func (p *platform) checkToken(q request, now time.Time) (*IssuedToken, int) {
	want, code := http.MethodGet, codeWantGET
	if slices.Contains([]Endpoint{EndpointCode, EndpointPageCode, EndpointUpload, EndpointMessage}, q.endpoint) {
		want, code = http.MethodPost, codeWantPOST
	}
	t, issued := p.ledger.byValue[q.token]
	switch {
	case q.method != want:
		return nil, code
	case q.token == "":
		return nil, codeTokenMissing
	case !issued || now.Before(t.IssuedAt):
		return nil, codeInvalidToken
	case t.validAt(now):
		return t, 0
	case t.end().Before(t.ExpiresAt):
		return nil, codeInvalidCredential // replaced
	}
	return nil, codeTokenExpired
}

// answerCode validates a request for a mini program code.
func (q *request) answerCode(now time.Time) reply {
	var fields struct {
		Scene string `json:"scene"`
		Page  string `json:"page"`
	}
	if json.Unmarshal(q.body, &fields) != nil {
		return q.fail(codeNotJSON, "", now)
	}
	if n := utf8.RuneCountInString(fields.Scene); n == 0 || n > maxScene {
		return q.fail(codeInvalidScene, "", now)
	}
	return reply{status: http.StatusOK, contentType: "image/png", scene: fields.Scene}
}

// answerPageCode validates a request for the code of a page. Its picture is a JPEG, as most of WeChat's are.
func (q *request) answerPageCode(now time.Time) reply {
	var fields struct {
		Path string `json:"path"`
	}
	if json.Unmarshal(q.body, &fields) != nil {
		return q.fail(codeNotJSON, "", now)
	}
	if n := len(fields.Path); n == 0 || n > maxPagePath {
		return q.fail(codeInvalidPath, "", now)
	}
	return reply{status: http.StatusOK, contentType: "image/jpeg", scene: fields.Path}
}
