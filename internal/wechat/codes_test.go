// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// known is written down from WeChat's documents, not from the code.
var known = []struct {
	code       int
	class      token.Class
	reason     token.Reason
	retryAfter time.Duration
	advice     string
}{
	{-1, "Transient", "SystemBusy", 0, "tries again by itself"},
	{45011, "Limited", "RateLimited", 0, "tries again by itself"},
	{45009, "Limited", "DailyQuotaExhausted", 0, "what else fetches tokens"},
	{89507, "Limited", "IPBlocked", time.Hour, "Confirm the message"},
	{89506, "Limited", "IPBlocked", 24 * time.Hour, "Confirm the message"},
	{40001, "Action", "AppSecretInvalid", 0, "Compare appid and AppSecret"},
	{40125, "Action", "AppSecretInvalid", 0, "Compare appid and AppSecret"},
	{40013, "Action", "AppIDInvalid", 0, "Compare spec.appID"},
	{40164, "Action", "IPNotAllowed", 0, "Add the address to the IP allowlist"},
	{61004, "Action", "IPNotAllowed", 0, "Add the address to the IP allowlist"},
	{45035, "Action", "IPNotAllowed", 0, "Add the address to the IP allowlist"},
	{89501, "Action", "AdminConfirmationRequired", 0, "Confirm the message"},
	{89502, "Action", "AdminConfirmationRequired", 0, "Confirm the message"},
	{89503, "Action", "AdminConfirmationRequired", 0, "Confirm the message"},
	{89504, "Action", "AdminConfirmationRequired", 0, "Confirm the message"},
	{89505, "Action", "AdminConfirmationRequired", 0, "Confirm the message"},
	{40243, "Action", "AppSecretFrozen", 0, "Unfreeze it"},
	{50002, "Action", "AccountRestricted", 0, "notices in WeChat's console"},
	{50004, "Action", "AccountRestricted", 0, "notices in WeChat's console"},
	{50007, "Action", "AccountRestricted", 0, "notices in WeChat's console"},
	{48004, "Action", "AccountRestricted", 0, "notices in WeChat's console"},
	{61024, "Action", "UnsupportedAccount", 0, "Use the appid of"},
	{40002, "Transient", "RequestRejected", 0, "on the way to WeChat"},
	{41001, "Transient", "RequestRejected", 0, "on the way to WeChat"},
	{41002, "Transient", "RequestRejected", 0, "on the way to WeChat"},
	{41004, "Transient", "RequestRejected", 0, "on the way to WeChat"},
	{43001, "Transient", "RequestRejected", 0, "on the way to WeChat"},
	{43002, "Transient", "RequestRejected", 0, "on the way to WeChat"},
	{44002, "Transient", "RequestRejected", 0, "on the way to WeChat"},
	{47001, "Transient", "RequestRejected", 0, "on the way to WeChat"},
}

func refusal(code int, errmsg string) string {
	body, _ := json.Marshal(map[string]any{"errcode": code, "errmsg": errmsg})
	return string(body)
}

func TestErrorTable(t *testing.T) {
	const errmsg = "some text, client 203.0.113.7 rid: 60c0a0b1-3d0f8f71-2c3f5e53"
	if len(tokenCodes) != len(known) {
		t.Errorf("the table has %d codes, want %d", len(tokenCodes), len(known))
	}
	for _, want := range known {
		for _, call := range allCalls {
			t.Run(fmt.Sprint(want.code, "/", call.name), func(t *testing.T) {
				_, err := call.do(t.Context(), offline(t, refusal(want.code, errmsg)))
				if call.name == "probe" && want.code == 40001 {
					_ = wantError(t, err, token.Transient, token.ReasonTokenRejected, 40001)
					return
				}
				if call.name == "ticket" && (want.code == 40001 || want.code == 45009) {
					return // see TestTicketErrors
				}
				e := wantError(t, err, want.class, want.reason, want.code)
				wantText(t, e, want.advice)
				if e.RetryAfter != want.retryAfter || e.RequestID != "60c0a0b1-3d0f8f71-2c3f5e53" || e.MaybeSent || e.Unwrap() != nil {
					t.Errorf("RetryAfter %v, want %v; rid %q, MaybeSent %v, cause %v", e.RetryAfter, want.retryAfter, e.RequestID, e.MaybeSent, e.Unwrap())
				}
				if named := strings.Contains(e.Message, "203.0.113.7"); named != aboutAddress(want.reason) {
					t.Errorf("the message names the address: %v: %s", named, e.Message)
				}
				for _, part := range []string{string(want.reason), fmt.Sprintf("(errcode %d)", want.code), e.Message, "rid: " + e.RequestID} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %q does not hold %q", err, part)
					}
				}
				if strings.ContainsAny(e.Message, "{}\n") || !strings.HasSuffix(e.Message, ".") {
					t.Errorf("message %q is no sentence", e.Message)
				}
			})
		}
	}
}

func aboutAddress(r token.Reason) bool {
	return r == v1alpha1.ReasonIPNotAllowed || r == v1alpha1.ReasonIPBlocked || r == v1alpha1.ReasonAdminConfirmationRequired
}

func TestUnknownCode(t *testing.T) {
	for _, code := range []int{40003, 47999, 40014, 42001, 1, -2, 2147483647, -2147483648} {
		for _, call := range allCalls {
			_, err := call.do(t.Context(), offline(t, refusal(code, "invalid grant_type, rid: 1-2-3")))
			if (call.name == "probe" || call.name == "ticket") && (code == 40014 || code == 42001) {
				continue // see TestProbe and TestTicketErrors
			}
			e := wantError(t, err, token.Transient, v1alpha1.ReasonRequestRejected, code)
			wantText(t, e, `it said "invalid grant_type,".`, "Look the code up")
			if e.RetryAfter != 0 || e.RequestID != "1-2-3" {
				t.Errorf("RetryAfter %v, rid %q", e.RetryAfter, e.RequestID)
			}
		}
	}
	_, err := offline(t, `{"errcode":40003}`).StableToken(t.Context(), testAccount, false)
	wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonRequestRejected, 40003), "does not know. Look")
	_, err = offline(t, `{"errcode":7,"errmsg":"see short-token","access_token":"short-token"}`).StableToken(t.Context(), testAccount, false)
	wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonRequestRejected, 7), `"see [redacted]"`)
}

func TestProbe(t *testing.T) {
	for _, code := range []int{40001, 40014, 42001} {
		err := offline(t, refusal(code, "invalid credential")).ProbeToken(t.Context(), token.NewValue(storedToken))
		wantText(t, wantError(t, err, token.Transient, token.ReasonTokenRejected, code), "no longer accepts")
	}
	for code, reason := range map[int]token.Reason{40164: v1alpha1.ReasonIPNotAllowed, 45009: v1alpha1.ReasonDailyQuotaExhausted, 48001: v1alpha1.ReasonRequestRejected, 61007: v1alpha1.ReasonRequestRejected} {
		err := offline(t, refusal(code, "")).ProbeToken(t.Context(), token.NewValue(storedToken))
		if e, _ := err.(*token.Error); e == nil || e.Reason != reason { //nolint:errorlint // exactly this type is promised
			t.Errorf("%d: error %v, want reason %s, which says nothing about the token", code, err, reason)
		}
	}
	for _, body := range []string{probeBody, `{"ip_list":[]}`, `{"errcode":0,"errmsg":"ok","ip_list":["x"]}`, ` { "ip_list" : [ ] } `} {
		if err := offline(t, body).ProbeToken(t.Context(), token.NewValue(storedToken)); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	for _, body := range []string{`{}`, `{"errcode":0}`, goodBody, `{"ip_list":null}`, `{"ip_list":"[]"}`, `{"ip_list":{}}`} {
		err := offline(t, body).ProbeToken(t.Context(), token.NewValue(storedToken))
		wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0), "neither an ip_list nor an errcode")
	}
}

func TestAddress(t *testing.T) {
	for _, tt := range []struct{ errmsg, want string }{
		{"invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: 60c0a0b1-3d0f8f71-2c3f5e53", "203.0.113.7"},
		{"invalid ip ipv6 ::ffff:203.0.113.7, not in whitelist", "203.0.113.7"},
		{"invalid ip 2001:DB8::7, not in whitelist", "2001:db8::7"},
		{"client is 203.0.113.7.", "203.0.113.7"},
		{"client is 203.0.113.7:", "203.0.113.7"},
		{"(203.0.113.7)", "203.0.113.7"},
		{"version 1.2.3.4.5 at 12:30:00 from 203.0.113.7", "203.0.113.7"},
		{"invalid ip fe80::1%<script>alert(1)</script>", "fe80::1"},
		{"access clientip is not registered", "the operator's address"},
		{"", "the operator's address"},
		{"999.999.999.999 10.0.0 1.2.3.4/8x", "1.2.3.4"},
		{strings.Repeat(":", 60000), "the operator's address"},
		// An AppSecret that is dressed up as an address.
		{"invalid ip 8f3c:1e5a:7b9d:2f40:61c8:e0a2:b4d6:f809", "the operator's address"},
	} {
		_, err := offline(t, refusal(40164, tt.errmsg)).StableToken(t.Context(), testAccount, false)
		e := wantError(t, err, token.Action, v1alpha1.ReasonIPNotAllowed, 40164)
		if want := "WeChat does not allow calls from " + tt.want + " for this account. "; !strings.HasPrefix(e.Message, want) {
			t.Errorf("%.80q: message %q, want %q", tt.errmsg, e.Message, want)
		}
		if strings.Contains(e.Message, "2f40:61c8") {
			t.Error("the message holds the AppSecret")
		}
	}
}

func TestRequestID(t *testing.T) {
	for _, tt := range []struct{ errmsg, want string }{
		{"invalid appid rid: 60c0a0b1-3d0f8f71-2c3f5e53", "60c0a0b1-3d0f8f71-2c3f5e53"},
		{"invalid appid, rid:60c0a0b1-3d0f8f71-2c3f5e53, hints", "60c0a0b1-3d0f8f71-2c3f5e53"},
		{"rid 1-2", "1-2"},
		{"rid: 60c0a0b1", ""},
		{"grid: 60c0a0b1-3d0f8f71-2c3f5e53", ""},
		{"rid: 60c0a0b1-3d0f8f71-\n\x1b[31m", "60c0a0b1-3d0f8f71"},
		{"rid: " + appSecret, ""},
		{"rid: " + appSecret[:16] + "-" + appSecret[16:], ""},
		{"rid: 1-" + appSecret[4:16], ""},
		{"rid: " + strings.Repeat("a-", 30000), "a-a-a-a-a"},
		{"rid: " + strings.Repeat("a", 17) + "-1", ""},
	} {
		_, err := offline(t, refusal(40013, tt.errmsg)).StableToken(t.Context(), testAccount, false)
		if e := wantError(t, err, token.Action, v1alpha1.ReasonAppIDInvalid, 40013); e.RequestID != tt.want {
			t.Errorf("%.80q: rid %q, want %q", tt.errmsg, e.RequestID, tt.want)
		}
	}
}

// punctuated puts something behind each character.
func punctuated(s, with string) string { return strings.Join(strings.Split(s, ""), with) }

func TestExcerpt(t *testing.T) {
	const hidden = "[redacted]"
	spread := strings.Join(strings.Split(appSecret, ""), "\u200b")
	for _, tt := range []struct{ name, errmsg, want string }{
		{"plain", "invalid grant_type", "invalid grant_type"},
		{"real", "invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r",
			"invalid credential, access_token is invalid or not latest, could get access_token by getStableAccessToken, more detai..."},
		{"white space", " a\n\tb\r\n  c ", "a b c"},
		{"terminal and no Chinese", "a\x1b[31mb\u202e\u0000системаc", "a[31mbc"},
		{"nothing left", "система\u200b \n", ""},
		{"quotes", `"a\b"`, `"a\b"`},
		{"AppSecret", "x " + appSecret + " y", "x " + hidden + " y"},
		{"beside letters", "secret=" + appSecret, "secret=" + hidden},
		{"spread by what is dropped", "x " + spread + " y", "x " + hidden + " y"},
		{"cut", "x " + appSecret[:20] + "... y", "x " + hidden + "... y"},
		{"cut on both sides", "x" + appSecret[3:20] + "y", "x" + hidden + "y"},
		{"awkward and cut", "x" + awkwardSecret[3:20] + "y", "x/" + hidden + `\y`},
		{"7 characters of it", appSecret[:7] + " " + appSecret[:8], appSecret[:7] + " " + hidden},
		{"beyond 4 KiB of white space", strings.Repeat(" ", 4<<10-len(appSecret)/2) + appSecret, hidden},
		{"awkward", awkwardSecret, hidden},
		{"awkward in a URL", "a?secret=p%2Bq%2Fr%3Ds%26t%22u%3Cv%3Ew%25x+y%5Cz%231234567890&b", "a?secret=" + hidden + "&b"},
		{"awkward in JSON", `p+q/r=s\u0026t\"u\u003cv\u003ew%x y\\z#1234567890`, hidden},
		{"in upper case", "x " + strings.ToUpper(appSecret) + " y", "x " + hidden + " y"},
		{"punctuated", "x " + punctuated(appSecret, "-") + " y", "x " + hidden + " y"},
		{"punctuated with more", "x " + punctuated(appSecret, ".:/?&#~") + " y", "x " + hidden + " y"},
		{"spaced", "x " + punctuated(appSecret, " ") + " y", "x " + hidden + " y"},
		{"punctuated in part", "x " + punctuated(appSecret[5:14], "|") + " y", "x " + hidden + " y"},
		{"punctuated and awkward", "x" + punctuated(awkwardSecret, ",") + "y", "x" + hidden + "y"},
		{"any long run with punctuation", "x Zz9.Yy8-Xx7:Ww6 y", "x " + hidden + " y"},
		{"any long run of letters", "x bcdfghjk.mnbvcxzl,kjhgfdsa y", "x " + hidden + " y"},
		{"an address and a number", "client 203.0.113.7:44321, version 20260101123456", "client 203.0.113.7:44321, version 20260101123456"},
		{"any long run", "x " + strings.Repeat("Zz9_", 6) + " y", "x " + hidden + " y"},
		{"long", strings.Repeat("ab ", 100), strings.Repeat("ab ", 39) + "..."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := excerpt(tt.errmsg, []token.Value{{}, token.NewValue(appSecret), token.NewValue(awkwardSecret)}); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
