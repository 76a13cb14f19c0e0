// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"
)

const (
	// codeLife is how long a code of a login works.
	codeLife = 5 * time.Minute
	// userTokenLife and refreshLife are the documented lives of a user's token and of its refresh token.
	userTokenLife = 2 * time.Hour
	refreshLife   = 30 * 24 * time.Hour

	grantTypeCode    = "authorization_code"
	grantTypeRefresh = "refresh_token"
)

// CodeKind is a kind of login.
type CodeKind string

// The kinds of logins.
const (
	// CodeMiniProgram is what wx.login gives a mini program, for /sns/jscode2session.
	CodeMiniProgram CodeKind = "mini-program"
	// CodeWeb is what a user's consent gives a web page, for /sns/oauth2/access_token.
	CodeWeb CodeKind = "web"
)

// IssuedCode is the code of a login, which works once. Its times are those of the server's clock.
type IssuedCode struct {
	Code     string    `json:"code"`
	AppID    string    `json:"appID"`
	Kind     CodeKind  `json:"kind"`
	OpenID   string    `json:"openID"`
	IssuedAt time.Time `json:"issuedAt"`
	// UsedAt is zero until the code has been used.
	UsedAt time.Time `json:"usedAt,omitzero"`
}

// userToken is the token of a user who has logged in on a web page.
type userToken struct {
	AppID, OpenID, value, refresh string

	expiresAt, refreshUntil time.Time
}

// users is what the platform knows of users.
type users struct {
	codes  map[string]*IssuedCode
	tokens map[string]*userToken // by their values
	// refreshes has the newest token of each refresh token.
	refreshes map[string]*userToken
}

func newUsers() users {
	return users{codes: make(map[string]*IssuedCode), tokens: make(map[string]*userToken), refreshes: make(map[string]*userToken)}
}

// NewCode makes the code of a login, as if a user with this openid had agreed. If openID is empty, it is random.
func (s *Server) NewCode(appID string, kind CodeKind, openID string) IssuedCode {
	s.mu.Lock()
	defer s.mu.Unlock()
	if openID == "" {
		openID = "o" + randomText(27)
	}
	c := &IssuedCode{Code: "0" + randomText(31), AppID: appID, Kind: kind, OpenID: openID, IssuedAt: s.platform.now()}
	s.platform.users.codes[c.Code] = c
	return *c
}

// randomText returns random URL-safe characters.
func randomText(length int) string {
	raw := make([]byte, length)
	_, _ = rand.Read(raw) // never fails
	return base64.RawURLEncoding.EncodeToString(raw)[:length]
}

// answerLogin answers the endpoints that carry an AppSecret and a code, or a refresh token.
func (p *platform) answerLogin(q request) reply {
	now := p.now()
	if q.method != http.MethodGet {
		return q.fail(codeWantGET, "", now)
	}
	if q.appID == "" {
		return q.fail(codeAppIDMissing, "", now)
	}
	if q.endpoint == EndpointUserRefresh {
		return p.answerRefresh(q, now)
	}
	if q.secret == "" {
		return q.fail(codeAppSecretMissing, "", now)
	}
	a, code := p.authenticate(q)
	switch {
	case code != 0:
		return q.fail(code, "", now)
	case a.Frozen:
		return q.fail(codeAppSecretFrozen, "", now)
	case q.grantType != grantTypeCode:
		return q.fail(codeInvalidGrantType, "", now)
	}
	kind, parameter := CodeMiniProgram, "js_code"
	if q.endpoint == EndpointWebLogin {
		kind, parameter = CodeWeb, "code"
	}
	c, code := p.useCode(q.query.Get(parameter), q.appID, kind, now)
	switch {
	case code != 0:
		return q.fail(code, "", now)
	case kind == CodeWeb:
		return p.userTokenAnswer(p.newUserToken(c.AppID, c.OpenID, randomText(107), now), now)
	}
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	return jsonSuccess(map[string]any{"session_key": base64.StdEncoding.EncodeToString(key), "openid": c.OpenID})
}

// useCode uses a code up, or returns the errcode of a refusal.
func (p *platform) useCode(value, appID string, kind CodeKind, now time.Time) (*IssuedCode, int) {
	c, ok := p.users.codes[value]
	switch {
	case value == "":
		return nil, codeCodeMissing
	case !ok || c.AppID != appID || c.Kind != kind || now.Before(c.IssuedAt) || now.Sub(c.IssuedAt) >= codeLife:
		return nil, codeInvalidCode
	case !c.UsedAt.IsZero():
		return nil, codeCodeUsed
	}
	c.UsedAt = now
	return c, 0
}

// answerRefresh answers /sns/oauth2/refresh_token. WeChat asks for no AppSecret here, but one that is sent must be right.
func (p *platform) answerRefresh(q request, now time.Time) reply {
	if q.query.Has("secret") {
		if _, code := p.authenticate(q); code != 0 {
			return q.fail(code, "", now)
		}
	}
	t, ok := p.users.refreshes[q.query.Get("refresh_token")]
	switch {
	case q.grantType != grantTypeRefresh:
		return q.fail(codeInvalidGrantType, "", now)
	case !ok || t.AppID != q.appID || !now.Before(t.refreshUntil):
		return q.fail(codeInvalidRefresh, "", now)
	case now.Before(t.expiresAt):
		t.expiresAt = now.Add(userTokenLife) // a token that is still valid only lives longer
	default:
		t = p.newUserToken(t.AppID, t.OpenID, t.refresh, now)
	}
	return p.userTokenAnswer(t, now)
}

func (p *platform) newUserToken(appID, openID, refresh string, now time.Time) *userToken {
	t := &userToken{
		AppID: appID, OpenID: openID, value: newTokenValue(), refresh: refresh,
		expiresAt: now.Add(userTokenLife), refreshUntil: now.Add(refreshLife),
	}
	if before, ok := p.users.refreshes[refresh]; ok {
		t.refreshUntil = before.refreshUntil
	}
	p.users.tokens[t.value], p.users.refreshes[refresh] = t, t
	return t
}

func (p *platform) userTokenAnswer(t *userToken, now time.Time) reply {
	return jsonSuccess(map[string]any{
		"access_token": t.value, "expires_in": int64(t.expiresAt.Sub(now) / time.Second), "refresh_token": t.refresh,
		"openid": t.OpenID, "scope": "snsapi_userinfo",
	})
}

// answerUser answers the endpoints that carry a user's token. The token of an app is not one.
func (p *platform) answerUser(q request) reply {
	now := p.now()
	t, ok := p.users.tokens[q.token]
	openID := q.query.Get("openid")
	switch {
	case q.method != http.MethodGet:
		return q.fail(codeWantGET, "", now)
	case q.token == "":
		return q.fail(codeTokenMissing, "", now)
	case !ok:
		return q.fail(codeInvalidCredential, "", now)
	case !now.Before(t.expiresAt):
		return q.fail(codeTokenExpired, "", now)
	case openID == "":
		return q.fail(codeOpenIDMissing, "", now)
	case openID != t.OpenID:
		return q.fail(codeInvalidOpenID, "", now)
	case q.endpoint == EndpointUserAuth:
		return success([]byte(`{"errcode":0,"errmsg":"ok"}`))
	}
	return jsonSuccess(map[string]any{"openid": t.OpenID, "nickname": "user of " + t.AppID, "sex": 0, "privilege": []string{}})
}

// jsonSuccess returns an answer without an errcode.
func jsonSuccess(fields map[string]any) reply {
	body, _ := json.Marshal(fields) // never fails for text and numbers
	return success(body)
}
