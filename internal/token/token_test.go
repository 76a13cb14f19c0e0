// SPDX-License-Identifier: Apache-2.0

package token

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

const (
	testAppID     = "wx0123456789abcdef"
	appSecret     = "8f3c1e5a7b9d2f4061c8e0a2b4d6f809"
	awkwardSecret = `p+q/r=s&t"u<v>w%x y\z#1234567890`
	freshToken    = "79_FRESHtoken-from_WeChat-now_9Tz8Yx7Wv6Ut5Sr4Qp3On2Ml1Kj0Ih"
)

var testAccount = Credentials{AppID: testAppID, AppSecret: NewValue(appSecret)}

// clean fails the test if text contains 12 characters of a secret in a row, in any encoding.
func clean(t *testing.T, what, text string) {
	t.Helper()
	for _, secret := range []string{appSecret, awkwardSecret, freshToken} {
		quoted, _ := json.Marshal(secret)
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret), strings.Trim(string(quoted), `"`)} {
			for i := range len(form) - 12 {
				if strings.Contains(text, form[i:i+12]) {
					t.Fatalf("%s contains a part of %s: %s", what, secret, text)
				}
			}
		}
	}
}

func TestFingerprints(t *testing.T) {
	// The expected values are those of sha256sum and of "openssl dgst -sha256 -hmac"; the second is test case 2 of RFC 4231.
	if got := NewValue("abc").Fingerprint(); got != "ba7816bf8f01cfea" {
		t.Errorf("fingerprint %s", got)
	}
	rfc := Credentials{AppID: "what do ya want for nothing?", AppSecret: NewValue("Jefe")}
	if got := rfc.Account(); got != "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" {
		t.Errorf("account %s", got)
	}
	if got := rfc.Fingerprint(); got != "5bdcc146bf60754e" {
		t.Errorf("fingerprint of credentials %s", got)
	}
	for what, other := range map[string]Credentials{
		"another AppSecret": {AppID: testAppID, AppSecret: NewValue(awkwardSecret)},
		"another appid":     {AppID: "wxfedcba9876543210", AppSecret: NewValue(appSecret)},
		"no AppSecret":      {AppID: testAppID},
	} {
		if other.Fingerprint() == testAccount.Fingerprint() || other.Account() == testAccount.Account() {
			t.Errorf("%s: the same fingerprint or account", what)
		}
	}
	if (Credentials{AppID: "wx1"}).Fingerprint() == (Credentials{AppID: "wx2"}).Fingerprint() {
		t.Error("two appids without an AppSecret have the same fingerprint")
	}
}

func TestParseAppSecret(t *testing.T) {
	for stored, want := range map[string]string{
		appSecret:                      appSecret,
		" \t" + appSecret + "\r\n":     appSecret,
		"0123456789abcDEF":             "0123456789abcDEF",
		strings.Repeat("a", 128):       strings.Repeat("a", 128),
		"":                             "",
		" \n":                          "",
		"0123456789abcde":              "",
		strings.Repeat("a", 129):       "",
		awkwardSecret:                  "",
		appSecret + "\n" + appSecret:   "",
		appSecret + "\x00":             "",
		"\u200b" + appSecret:           "",
		appSecret[:16] + " " + "abcde": "",
	} {
		got, ok := ParseAppSecret([]byte(stored))
		if got.Reveal() != want || ok != (want != "") {
			t.Errorf("%q: %q, %t", stored, got.Reveal(), ok)
		}
	}
}
