// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"bytes"
	"encoding/json"
	"image/jpeg"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

var ridAtEnd = regexp.MustCompile(` rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$`)

func TestErrcodes(t *testing.T) {
	const stable, code = "/cgi-bin/stable_token", "/wxa/getwxacodeunlimit?access_token="
	f := newFixture(t, Options{})
	f.SetApp(App{ID: "wxfrozen0000000000", Secret: secret, Frozen: true})
	f.SetApp(App{ID: "wxconfirm000000000", Secret: secret, NeedsAdminConfirmation: true})
	token := f.stable(appID).Token
	for _, tc := range []struct {
		name, method, path, body string
		want                     int
	}{
		{"GET", http.MethodGet, stable, "", codeWantPOST},
		{"no body", http.MethodPost, stable, "", codeAppIDMissing},
		{"form", http.MethodPost, stable, "grant_type=client_credential&appid=" + appID + "&secret=" + secret, codeAppIDMissing},
		{"query", http.MethodPost, stable + "?grant_type=client_credential&appid=" + appID + "&secret=" + secret, "{}", codeAppIDMissing},
		{"cut JSON", http.MethodPost, stable, `{"appid":"`, codeNotJSON},
		{"wrong types", http.MethodPost, stable, `{"appid":1}`, codeNotJSON},
		{"no secret", http.MethodPost, stable, `{"grant_type":"client_credential","appid":"` + appID + `"}`, codeAppSecretMissing},
		{"no grant_type", http.MethodPost, stable, `{"appid":"` + appID + `","secret":"x"}`, codeInvalidGrantType},
		{"wrong grant_type", http.MethodPost, stable, strings.Replace(stableBody(appID, false), grantType, "x", 1), codeInvalidGrantType},
		{"unknown appid", http.MethodPost, stable, stableBody("wx0000000000000000", false), codeInvalidAppID},
		{"upper case appid", http.MethodPost, stable, stableBody(strings.ToUpper(appID), false), codeInvalidAppID},
		{"wrong secret", http.MethodPost, stable, strings.Replace(stableBody(appID, false), secret, "x", 1), codeInvalidAppSecret},
		{"wrong secret, forced", http.MethodPost, stable, strings.Replace(stableBody(appID, true), secret, "x", 1), codeInvalidAppSecret},
		{"frozen", http.MethodPost, stable, stableBody("wxfrozen0000000000", false), codeAppSecretFrozen},
		{"confirmation", http.MethodPost, stable, stableBody("wxconfirm000000000", false), codeAdminConfirmation},

		{"Legacy POST", http.MethodPost, legacyPath(appID, secret), "", codeWantGET},
		{"Legacy nothing", http.MethodGet, "/cgi-bin/token", "", codeAppIDMissing},
		{"Legacy no secret", http.MethodGet, legacyPath(appID, ""), "", codeAppSecretMissing},
		{"Legacy wrong grant_type", http.MethodGet, strings.Replace(legacyPath(appID, secret), grantType, "x", 1), "", codeInvalidGrantType},
		{"Legacy unknown appid", http.MethodGet, legacyPath("gh_0123456789ab", secret), "", codeInvalidAppID},
		{"Legacy wrong secret", http.MethodGet, legacyPath(appID, "x"), "", codeInvalidCredential},
		{"Legacy frozen", http.MethodGet, legacyPath("wxfrozen0000000000", secret), "", codeAppSecretFrozen},
		{"Legacy confirmation", http.MethodGet, legacyPath("wxconfirm000000000", secret), "", codeAdminConfirmation},

		{"no token", http.MethodGet, "/cgi-bin/getcallbackip", "", codeTokenMissing},
		{"unknown token", http.MethodGet, "/cgi-bin/getcallbackip?access_token=92_x", "", codeInvalidToken},
		{"probe by POST", http.MethodPost, "/cgi-bin/get_api_domain_ip?access_token=" + token, "", codeWantGET},
		{"ticket without type", http.MethodGet, "/cgi-bin/ticket/getticket?access_token=" + token, "", codeInvalidArgs},
		{"code by GET", http.MethodGet, code + token, "", codeWantPOST},
		{"code with a bad token", http.MethodPost, code + "x", `{"scene":"a"}`, codeInvalidToken},
		{"code no JSON", http.MethodPost, code + token, "scene=a", codeNotJSON},
		{"code no scene", http.MethodPost, code + token, `{"page":"pages/index"}`, codeInvalidScene},
		{"code long scene", http.MethodPost, code + token, `{"scene":"` + strings.Repeat("a", 33) + `"}`, codeInvalidScene},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := f.must(tc.method, tc.path, tc.body)
			f.wantCode(tc.name, a, tc.want)
			if !ridAtEnd.MatchString(a.Errmsg) {
				t.Errorf("errmsg %q has no rid", a.Errmsg)
			}
			if c := f.lastCall(); c.Errcode != tc.want || c.HTTPStatus != http.StatusOK || !c.Finished || c.Minted || c.Fault {
				t.Errorf("written down as %+v", c)
			}
			if strings.Contains(string(a.body), secret) {
				t.Error("the answer repeats the AppSecret")
			}
		})
	}
	if got := len(f.Tokens("")); got != 1 {
		t.Errorf("%d tokens were made, want 1", got)
	}
	if a := f.must(http.MethodGet, "/cgi-bin/nothing", ""); a.status != http.StatusNotFound {
		t.Errorf("an unknown path got HTTP %d", a.status)
	}
	if c := f.lastCall(); c.Endpoint != "" || c.HTTPStatus != http.StatusNotFound {
		t.Errorf("an unknown path is written down as %+v", c)
	}
}

func TestSetSecret(t *testing.T) {
	f := newFixture(t, Options{})
	a := f.stable(appID)
	f.SetSecret(appID, "another")
	f.wantCode("old AppSecret", f.stable(appID), codeInvalidAppSecret)
	f.wantProbe("token after a new AppSecret", a.Token, 0)
	f.SetApp(App{ID: appID, Secret: secret, Frozen: true})
	f.wantProbe("token after freezing", a.Token, 0)
	f.SetApp(App{ID: appID, Secret: secret})
	if again := f.stable(appID); again.Token != a.Token {
		t.Error("SetApp changed the Stable token")
	}
}

func TestAutoApps(t *testing.T) {
	f := newFixture(t, Options{AutoApps: true})
	const id = "wxaaaaaaaaaaaaaaaa"
	f.wantCode("first AppSecret", f.stable(id), 0)
	f.wantCode("the same AppSecret", f.legacy(id), 0)
	f.wantCode("another AppSecret", f.must(http.MethodGet, legacyPath(id, "x"), ""), codeInvalidCredential)
	f.wantCode("malformed appid", f.stable("wxaaaaaaaaaaaaaaa"), codeInvalidAppID)
	f.SetApp(App{ID: "wxbbbbbbbbbbbbbbbb", Life: time.Hour})
	if a := f.stable("wxbbbbbbbbbbbbbbbb"); a.ExpiresIn != 3600 {
		t.Errorf("an app that was set without AppSecret: errcode %d, expires_in %d", a.code(), a.ExpiresIn)
	}
}

func TestQuotas(t *testing.T) {
	f := newFixture(t, Options{})
	f.SetApp(App{ID: appID, Secret: secret, DailyLegacyQuota: 2, DailyStableQuota: 4, MinuteQuota: 3})
	f.RivalMint(appID)
	f.wantCode("second mint of the day", f.legacy(appID), 0)
	f.wantCode("third mint of the day", f.legacy(appID), codeDailyQuota)
	for range 3 {
		f.wantCode("Stable call", f.stable(appID), 0)
	}
	f.wantCode("fourth Stable call in a minute", f.stable(appID), codeMinuteQuota)
	f.Advance(time.Minute)
	f.wantCode("fourth Stable call of the day", f.stable(appID), 0)
	f.wantCode("fifth Stable call of the day", f.stable(appID), codeDailyQuota)
	if f.RivalMint(appID).Token == "" {
		t.Error("a rival was refused")
	}

	midnight := time.Date(2026, 3, 4, 16, 0, 0, 0, time.UTC) // in Beijing
	f.Advance(midnight.Sub(f.Now()) - time.Nanosecond)
	f.wantCode("mint before midnight", f.legacy(appID), codeDailyQuota)
	f.Advance(time.Nanosecond)
	f.wantCode("mint after midnight", f.legacy(appID), 0)
	f.wantCode("Stable call after midnight", f.stable(appID), 0)
}

// What is refused before the quota does not use it up.
func TestQuotaCountsAdmittedCalls(t *testing.T) {
	f := newFixture(t, Options{})
	f.SetApp(App{ID: appID, Secret: secret, DailyLegacyQuota: 1})
	for range 3 {
		f.wantCode("wrong AppSecret", f.must(http.MethodGet, legacyPath(appID, "x"), ""), codeInvalidCredential)
	}
	f.wantCode("first mint", f.legacy(appID), 0)
}

func TestDefaultQuotas(t *testing.T) {
	a := &account{}
	now := epoch
	for i := range defaultDailyLegacy {
		if code := a.spend(Legacy, now); code != 0 {
			t.Fatalf("mint %d: errcode %d", i, code)
		}
	}
	if code := a.spend(Legacy, now); code != codeDailyQuota {
		t.Errorf("mint 2001: errcode %d", code)
	}
	for i := range defaultMinute {
		if code := a.spend(Stable, now); code != 0 {
			t.Fatalf("Stable call %d: errcode %d", i, code)
		}
	}
	if code := a.spend(Stable, now); code != codeMinuteQuota {
		t.Errorf("Stable call 10001: errcode %d", code)
	}
}

func TestAllowedIPs(t *testing.T) {
	f := newFixture(t, Options{})
	a := f.stable(appID)
	f.SetApp(App{ID: appID, Secret: secret, AllowedIPs: []string{"203.0.113.0/24"}})
	const want = "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist rid: "
	for name, refused := range map[string]answer{"Stable": f.stable(appID), "Legacy": f.legacy(appID)} {
		f.wantCode(name, refused, codeIPNotAllowed)
		if !strings.HasPrefix(refused.Errmsg, want) {
			t.Errorf("%s: errmsg %q, want %q…", name, refused.Errmsg, want)
		}
	}
	f.wantProbe("token from an address that may not fetch", a.Token, 0)
	f.SetApp(App{ID: appID, Secret: secret, AllowedIPs: []string{"203.0.113.7", "127.0.0.*"}})
	f.wantCode("after the address was added", f.stable(appID), 0)
}

func TestAllows(t *testing.T) {
	s := &Server{platform: newPlatform(Options{})}
	for _, tc := range []struct {
		allowed, ip string
		want        bool
	}{
		{"203.0.113.7", "203.0.113.7", true},
		{"203.0.113.7", "203.0.113.8", false},
		{"203.0.113.*", "203.0.113.8", true},
		{"203.0.113.*", "203.0.114.8", false},
		{"203.0.0.0/16", "203.0.114.8", true},
		{"2001:db8::/32", "2001:db8::1", true},
		{"2001:db8::/32", "203.0.113.7", false},
		{"anything", "203.0.113.7", false},
		{"*", "203.0.113.7", false},
	} {
		s.SetApp(App{ID: appID, AllowedIPs: []string{tc.allowed}})
		if got := s.platform.apps[appID].allows(netip.MustParseAddr(tc.ip)); got != tc.want {
			t.Errorf("%q allows %s: %t, want %t", tc.allowed, tc.ip, got, tc.want)
		}
	}
}

func TestTokenIsBearer(t *testing.T) {
	f := newFixture(t, Options{})
	for mode, token := range map[Mode]string{Stable: f.stable(appID).Token, Legacy: f.legacy(appID).Token} {
		for path, endpoint := range map[string]Endpoint{
			"/cgi-bin/get_api_domain_ip": EndpointProbe,
			"/cgi-bin/getcallbackip":     EndpointCallbackIP,
		} {
			a := f.must(http.MethodGet, path+"?access_token="+token, "")
			var got struct {
				IPList []string `json:"ip_list"`
			}
			if err := json.Unmarshal(a.body, &got); err != nil || len(got.IPList) == 0 || a.Errcode != nil {
				t.Errorf("%s with a %s token: %s", path, mode, a.body)
			}
			if c := f.lastCall(); c.Endpoint != endpoint || c.AppID != appID {
				t.Errorf("%s is written down as %+v", path, c)
			}
		}
	}
}

func TestTicket(t *testing.T) {
	f := newFixture(t, Options{})
	get := func(id, kind string) answer {
		t.Helper()
		a := f.must(http.MethodGet, "/cgi-bin/ticket/getticket?type="+kind+"&access_token="+f.legacy(id).Token, "")
		f.wantCode(kind, a, 0)
		if a.Errcode == nil || a.Errmsg != "ok" || a.ExpiresIn != 7200 {
			t.Errorf("%s: %s", kind, a.body)
		}
		return a
	}
	first := get(appID, "jsapi").Ticket
	if get(appID, "wx_card").Ticket == first || get(other, "jsapi").Ticket == first {
		t.Error("different kinds or accounts have the same ticket")
	}
	f.Advance(2*time.Hour - time.Nanosecond)
	if get(appID, "jsapi").Ticket != first {
		t.Error("the ticket changed within its life")
	}
	f.Advance(time.Nanosecond)
	if get(appID, "jsapi").Ticket == first {
		t.Error("the ticket did not change after its life")
	}
}

func TestCode(t *testing.T) {
	f := newFixture(t, Options{})
	token := f.stable(appID).Token
	get := func(scene string) []byte {
		t.Helper()
		a := f.must(http.MethodPost, "/wxa/getwxacodeunlimit?access_token="+token, `{"scene":"`+scene+`","page":"pages/index"}`)
		if got := a.header.Get("Content-Type"); got != "image/jpeg" {
			t.Fatalf("Content-Type is %q: %s", got, a.body)
		}
		picture, err := jpeg.Decode(bytes.NewReader(a.body))
		if err != nil {
			t.Fatal(err)
		}
		if size := picture.Bounds().Size(); size.X < 100 || size.X != size.Y {
			t.Errorf("the picture is %v", size)
		}
		return a.body
	}
	first := get("table=7")
	if !bytes.Equal(first, get("table=7")) {
		t.Error("the same scene has another picture")
	}
	if bytes.Equal(first, get("table=8")) {
		t.Error("another scene has the same picture")
	}
	get(strings.Repeat("桌", maxScene))
}
