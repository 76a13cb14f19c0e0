// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// user is what the answers about users have.
type user struct {
	OpenID       string `json:"openid"`
	SessionKey   string `json:"session_key"`
	RefreshToken string `json:"refresh_token"`
	Nickname     string `json:"nickname"`
}

func (a answer) user(t *testing.T) user {
	t.Helper()
	var u user
	if err := json.Unmarshal(a.body, &u); err != nil {
		t.Fatalf("%q: %s", a.body, err)
	}
	return u
}

// login logs in with a code. endpoint is "jscode2session" or "oauth2/access_token".
func (f *fixture) login(endpoint, id, appSecret, code string) answer {
	f.t.Helper()
	parameter := "code"
	if endpoint == "jscode2session" {
		parameter = "js_code"
	}
	query := url.Values{"appid": {id}, "secret": {appSecret}, "grant_type": {"authorization_code"}, parameter: {code}}
	return f.must(http.MethodGet, "/sns/"+endpoint+"?"+query.Encode(), "")
}

func TestLogin(t *testing.T) {
	f := newFixture(t, Options{})
	for endpoint, kinds := range map[string][2]CodeKind{
		"jscode2session":      {CodeMiniProgram, CodeWeb},
		"oauth2/access_token": {CodeWeb, CodeMiniProgram},
	} {
		code := f.NewCode(appID, kinds[0], "").Code
		otherKind := f.NewCode(appID, kinds[1], "").Code
		ofOther := f.NewCode(other, kinds[0], "").Code
		for _, tc := range []struct {
			what, app, secret, code string
			want                    int
		}{
			{"unknown app", "wx00000000000000ff", secret, code, codeInvalidAppID},
			{"no app", "", secret, code, codeAppIDMissing},
			{"wrong secret", appID, "x" + secret[1:], code, codeInvalidAppSecret},
			{"no secret", appID, "", code, codeAppSecretMissing},
			{"no code", appID, secret, "", codeCodeMissing},
			{"unknown code", appID, secret, "nobody", codeInvalidCode},
			{"code of another kind of login", appID, secret, otherKind, codeInvalidCode},
			{"code of another app", appID, secret, ofOther, codeInvalidCode},
			{"good, after all these refusals", appID, secret, code, 0},
			{"used", appID, secret, code, codeCodeUsed},
		} {
			if a := f.login(endpoint, tc.app, tc.secret, tc.code); a.code() != tc.want || a.status != http.StatusOK {
				t.Errorf("%s, %s: HTTP %d, errcode %d, want %d", endpoint, tc.what, a.status, a.code(), tc.want)
			}
		}
		if got := f.must(http.MethodPost, "/sns/"+endpoint+"?appid="+appID, "").code(); got != codeWantGET {
			t.Errorf("%s, POST: errcode %d", endpoint, got)
		}
		late := f.NewCode(appID, kinds[0], "")
		f.Advance(codeLife)
		if got := f.login(endpoint, appID, secret, late.Code).code(); got != codeInvalidCode {
			t.Errorf("%s, a code that is too old: errcode %d", endpoint, got)
		}
	}
	f.SetApp(App{ID: appID, Secret: secret, Frozen: true})
	if got := f.login("jscode2session", appID, secret, f.NewCode(appID, CodeMiniProgram, "").Code).code(); got != codeAppSecretFrozen {
		t.Errorf("with a frozen AppSecret: errcode %d", got)
	}
	if c := f.Calls(Filter{Endpoint: EndpointLogin}); len(c) == 0 || c[len(c)-1].AppID != appID {
		t.Errorf("the login is recorded as %+v", c)
	}
}

func TestMiniProgramLogin(t *testing.T) {
	f := newFixture(t, Options{})
	code := f.NewCode(appID, CodeMiniProgram, "o-me")
	a := f.login("jscode2session", appID, secret, code.Code)
	if u := a.user(t); u.OpenID != "o-me" || u.SessionKey == "" || a.Errcode != nil || a.Token != "" {
		t.Errorf("answered %s", a.body)
	}
}

func TestUserTokens(t *testing.T) {
	f := newFixture(t, Options{})
	first := f.login("oauth2/access_token", appID, secret, f.NewCode(appID, CodeWeb, "o-me").Code)
	refresh := first.user(t).RefreshToken
	if first.Token == "" || refresh == "" || first.ExpiresIn != 7200 || first.user(t).OpenID != "o-me" {
		t.Fatalf("answered %s", first.body)
	}
	page := func(path, token, openID string) answer {
		return f.must(http.MethodGet, path+"?"+url.Values{"access_token": {token}, "openid": {openID}}.Encode(), "")
	}
	for _, tc := range []struct {
		what, token, openID string
		want                int
	}{
		{"good", first.Token, "o-me", 0},
		{"no token", "", "o-me", codeTokenMissing},
		{"the app's token", f.stable(appID).Token, "o-me", codeInvalidCredential},
		{"no openid", first.Token, "", codeOpenIDMissing},
		{"another's openid", first.Token, "o-you", codeInvalidOpenID},
	} {
		for _, path := range []string{"/sns/userinfo", "/sns/auth"} {
			if got := page(path, tc.token, tc.openID).code(); got != tc.want {
				t.Errorf("%s, %s: errcode %d, want %d", path, tc.what, got, tc.want)
			}
		}
	}
	if got := page("/sns/userinfo", first.Token, "o-me"); got.user(t).OpenID != "o-me" || got.Errcode != nil {
		t.Errorf("userinfo answered %s", got.body)
	}
	if got := f.lastCall(); got.AppID != appID {
		t.Errorf("the call is recorded as %+v", got)
	}
	if got := f.probe(first.Token); got != codeInvalidToken {
		t.Errorf("a user's token in place of the app's: errcode %d", got)
	}

	again := func(query url.Values) answer {
		query.Set("grant_type", "refresh_token")
		return f.must(http.MethodGet, "/sns/oauth2/refresh_token?"+query.Encode(), "")
	}
	good := func() url.Values { return url.Values{"appid": {appID}, "refresh_token": {refresh}} }
	f.Advance(time.Hour)
	if a := again(good()); a.Token != first.Token || a.ExpiresIn != 7200 {
		t.Errorf("a refresh of a valid token answered %s", a.body)
	}
	f.Advance(2 * time.Hour)
	if got := page("/sns/auth", first.Token, "o-me").code(); got != codeTokenExpired {
		t.Errorf("an expired token: errcode %d", got)
	}
	second := again(good())
	if second.Token == "" || second.Token == first.Token || second.user(t).RefreshToken != refresh {
		t.Errorf("a refresh of an expired token answered %s", second.body)
	}
	for what, tc := range map[string]struct {
		query url.Values
		want  int
	}{
		"wrong secret": {url.Values{"appid": {appID}, "refresh_token": {refresh}, "secret": {"wrong"}}, codeInvalidAppSecret},
		"right secret": {url.Values{"appid": {appID}, "refresh_token": {refresh}, "secret": {secret}}, 0},
		"another app":  {url.Values{"appid": {other}, "refresh_token": {refresh}}, codeInvalidRefresh},
		"no token":     {url.Values{"appid": {appID}}, codeInvalidRefresh},
	} {
		if got := again(tc.query).code(); got != tc.want {
			t.Errorf("refresh, %s: errcode %d, want %d", what, got, tc.want)
		}
	}
	f.Advance(refreshLife)
	if got := again(good()).code(); got != codeInvalidRefresh {
		t.Errorf("a refresh after 30 days: errcode %d", got)
	}
}

func TestRemoteCode(t *testing.T) {
	f := newFixture(t, Options{})
	admin := httptest.NewServer(f.AdminHandler())
	defer admin.Close()
	code, err := NewRemote(admin.URL).NewCode(t.Context(), appID, CodeMiniProgram, "o-me")
	if err != nil {
		t.Fatal(err)
	}
	if a := f.login("jscode2session", appID, secret, code.Code); a.user(t).OpenID != "o-me" {
		t.Errorf("answered %s", a.body)
	}
}
