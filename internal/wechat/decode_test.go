// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

var allMalformed = []malformed{errTooLarge, errGzip, errEmpty, errHTML, errNotJSON, errDuplicate, errErrcode, errNoToken,
	errTokenChars, errExpiresIn, errNoIPList, errNoTicket, errTicketChars}

func TestDecodeToken(t *testing.T) {
	long := strings.Repeat("0123456789abcdefghij", 100)
	life := func(expiresIn string) string { return `{"access_token":"t","expires_in":` + expiresIn + `}` }
	for _, tt := range []struct {
		name, body string
		token      string
		life       time.Duration
		code       int
		err        error
	}{
		{name: "documented", body: goodBody, token: freshToken, life: 2 * time.Hour},
		{name: "errcode 0", body: `{"errcode":0,"errmsg":"ok","access_token":"t","expires_in":345}`, token: "t", life: 345 * time.Second},
		{name: "errcode -0", body: `{"errcode":-0,"access_token":"t","expires_in":1}`, token: "t", life: time.Second},
		{name: "2,000 characters", body: `{"access_token":"` + long + `","expires_in":7200}`, token: long, life: 2 * time.Hour},
		{name: "white space", body: "\r\n { \"access_token\" : \"t\" ,\t\"expires_in\" : 300 } \n", token: "t", life: 5 * time.Minute},
		{name: "other fields", body: `{"a":[{"access_token":1,"access_token":2}],"access_token":"t","expires_in":300,"b":null}`, token: "t", life: 5 * time.Minute},
		{name: "escapes", body: `{"access_token":"\u0074\"\\","expires_in":300}`, token: `t"\`, life: 5 * time.Minute},

		{name: "errcode", body: `{"errcode":40013,"errmsg":"invalid appid"}`, code: 40013},
		{name: "errcode beside a token", body: `{"errcode":-1,"access_token":"t","expires_in":7200}`, token: "t", code: -1},
		{name: "errcode, errmsg no string", body: `{"errcode":-1,"errmsg":{"a":1},"access_token":7}`, code: -1},
		{name: "errcode text", body: `{"errcode":"40013"}`, code: 40013},
		{name: "errcode null", body: `{"errcode":null,"access_token":"t","expires_in":7200}`, err: errErrcode},
		{name: "errcode fraction", body: `{"errcode":40013.0}`, code: 40013},
		{name: "errcode exponent", body: `{"errcode":4e4}`, code: 40000},
		{name: "errcode half", body: `{"errcode":40013.5}`, err: errErrcode},
		{name: "errcode object", body: `{"errcode":{"code":40013}}`, err: errErrcode},
		{name: "errcode 0 as text", body: `{"errcode":"0","access_token":"t","expires_in":7200}`, err: errErrcode},
		{name: "errcode huge", body: `{"errcode":2147483648}`, err: errErrcode},
		{name: "errcode bool", body: `{"errcode":false,"access_token":"t","expires_in":7200}`, err: errErrcode},

		{name: "life of 1", body: life("1"), token: "t", life: time.Second},
		{name: "life at the limit", body: life("14400"), token: "t", life: 4 * time.Hour},
		{name: "life above", body: life("14401"), token: "t", life: 4 * time.Hour},
		{name: "life of a year", body: life("31536000"), token: "t", life: 4 * time.Hour},
		{name: "life above 32 bits", body: life("4294967296"), token: "t", life: 4 * time.Hour},
		{name: "life above 64 bits of nanoseconds", body: life("10000000000"), token: "t", life: 4 * time.Hour},
		{name: "life above 64 bits", body: life("99999999999999999999999"), token: "t", life: 4 * time.Hour},
		{name: "life 0", body: life("0"), err: errExpiresIn},
		{name: "life -1", body: life("-1"), err: errExpiresIn},
		{name: "life -0", body: life("-0"), err: errExpiresIn},
		{name: "life text", body: life(`"7200"`), err: errExpiresIn},
		{name: "life fraction", body: life("7200.5"), err: errExpiresIn},
		{name: "life fraction of 0", body: life("7200.0"), err: errExpiresIn},
		{name: "life exponent", body: life("1e3"), err: errExpiresIn},
		{name: "life null", body: life("null"), err: errExpiresIn},
		{name: "life list", body: life("[7200]"), err: errExpiresIn},
		{name: "life missing", body: `{"access_token":"t"}`, err: errExpiresIn},

		{name: "token missing", body: `{"expires_in":7200}`, err: errNoToken},
		{name: "token empty", body: `{"access_token":"","expires_in":7200}`, err: errNoToken},
		{name: "token null", body: `{"access_token":null,"expires_in":7200}`, err: errNoToken},
		{name: "token number", body: `{"access_token":7,"expires_in":7200}`, err: errNoToken},
		{name: "token list", body: `{"access_token":["t"],"expires_in":7200}`, err: errNoToken},
		{name: "token with a space", body: `{"access_token":"a b","expires_in":7200}`, err: errTokenChars},
		{name: "token with a line", body: `{"access_token":"a\nb","expires_in":7200}`, err: errTokenChars},
		{name: "token with NUL", body: `{"access_token":"a\u0000","expires_in":7200}`, err: errTokenChars},
		{name: "token with DEL", body: `{"access_token":"a\u007f","expires_in":7200}`, err: errTokenChars},
		{name: "token not ASCII", body: `{"access_token":"令牌","expires_in":7200}`, err: errTokenChars},
		{name: "token not UTF-8", body: "{\"access_token\":\"a\xff\",\"expires_in\":7200}", err: errTokenChars},

		{name: "other case", body: `{"Access_Token":"t","EXPIRES_IN":7200}`, err: errNoToken},
		{name: "errcode in other case", body: `{"ErrCode":40013,"access_token":"t","expires_in":7200}`, token: "t", code: 40013},
		{name: "two tokens", body: `{"access_token":"t","expires_in":7200,"access_token":"u"}`, err: errDuplicate},
		{name: "two tokens, one escaped", body: `{"access_token":"t","expires_in":7200,"access\u005ftoken":"u"}`, err: errDuplicate},
		{name: "two errcodes", body: `{"errcode":0,"errcode":40013}`, code: 40013},
		{name: "empty", body: "", err: errEmpty},
		{name: "white space alone", body: " \r\n\t", err: errEmpty},
		{name: "empty object", body: "{}", err: errNoToken},
		{name: "web page", body: "\n<!DOCTYPE html><html>" + goodBody, err: errHTML},
		{name: "XML", body: "<xml><errcode>0</errcode></xml>", err: errHTML},
		{name: "text", body: "Bad Gateway", err: errNotJSON},
		{name: "list", body: "[" + goodBody + "]", err: errNotJSON},
		{name: "string", body: `"` + freshToken + `"`, err: errNotJSON},
		{name: "null", body: "null", err: errNotJSON},
		{name: "two objects", body: goodBody + goodBody, err: errNotJSON},
		{name: "text behind", body: goodBody + "x", err: errNotJSON},
		{name: "byte order mark", body: "\ufeff" + goodBody, err: errNotJSON},
		{name: "deep", body: strings.Repeat(`{"a":`, 12000), err: errNotJSON},
		{name: "deep and closed", body: `{"a":` + strings.Repeat("[", 12000) + strings.Repeat("]", 12000) + "}", err: errNotJSON},
		{name: "gzip", body: "\x1f\x8b\x08\x00", err: errNotJSON},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodeToken([]byte(tt.body))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got.token.Reveal() != tt.token || got.life != tt.life || got.code != tt.code {
				t.Errorf("token %q, life %v, code %d, want %q, %v, %d", got.token.Reveal(), got.life, got.code, tt.token, tt.life, tt.code)
			}
		})
	}
}

// TestCutAnswer cuts a good answer at every place.
func TestCutAnswer(t *testing.T) {
	for i := 1; i < len(goodBody); i++ {
		if _, err := decodeToken([]byte(goodBody[:i])); !errors.Is(err, errNotJSON) {
			t.Errorf("%s: error %v, want %v", goodBody[:i], err, errNotJSON)
		}
	}
	for i := 1; i < len(ticketBody); i++ {
		if _, err := decodeTicket([]byte(ticketBody[:i])); !errors.Is(err, errNotJSON) {
			t.Errorf("%s: error %v, want %v", ticketBody[:i], err, errNotJSON)
		}
	}
}

// TestBadAnswer: every call says why, and quote nothing.
func TestBadAnswer(t *testing.T) {
	for body, why := range map[string]malformed{
		"":                                errEmpty,
		"<html>" + storedToken:            errHTML,
		goodBody[:len(goodBody)-1]:        errNotJSON,
		`{"errcode":"` + appSecret + `"}`: errErrcode,
		`{"a":1,"a":"` + appSecret + `"}`: errDuplicate,
	} {
		for _, call := range allCalls {
			_, err := call.do(t.Context(), offline(t, body))
			wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0), "api.example.com", string(why), "proxy or gateway")
		}
	}
}

func FuzzDecodeToken(f *testing.F) {
	for _, seed := range []string{
		goodBody, probeBody, "", "<html>", `{"errcode":40164,"errmsg":"invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: 1-2-3"}`,
		`{"errcode":1,"errmsg":"bad 79_FRESHtoken","access_token":"79_FRESHtoken"}`, `{"access_token":"t","expires_in":1e3}`,
		`{"access_token":"\u0074\ud800","expires_in":99999999999999999999}`, `{"a":1,"a":2}`, `{"errcode":-0,"access_token":"t","expires_in":"7200"}`, "{\xff", `[{}]`,
		brokenRefusal[:40], "\ufeff" + brokenRefusal, inUTF16(brokenRefusal, binary.LittleEndian, true), inUTF16(goodBody, binary.BigEndian, true),
		strings.Replace(brokenRefusal, "invalid", "\x1b[31m\xb7\xc7", 1), strings.Replace(brokenRefusal, "40164", `"40164"`, 1),
		`{"errcode":0,"errcode":40013}`, `{"ErrCode":40013,"access_token":"t","expires_in":7200}`, `{"data":` + brokenRefusal + `}`,
		`{"access_token":"t","expires_in":7200,"data":"{\"errcode\":40001}"}`, `{"access_token":"t","Access_Token":"u","expires_in":7200}`,
		"<html>" + strings.ReplaceAll(brokenRefusal, `"`, "&quot;"), `{"errcode":7,"errmsg":"系统繁忙 79_FRESHtoken","access_token":"79_FRESHtoken"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := decodeToken(body)
		if isGood(t, a, err) {
			if tok := a.token.Reveal(); tok == "" || !printable(tok) || a.life <= 0 || a.life > 4*time.Hour || a.errmsg != "" {
				t.Errorf("token %q, life %v, errmsg %q", tok, a.life, a.errmsg)
			}
			beyondDoubt(t, body, a)
		}
		if code := statedErrcode(body); code != 0 && (err != nil || a.code == 0) {
			t.Errorf("errcode %d is not read", code)
		}
		_, _ = decodeProbe(body)
	})
}

// isGood reports whether an answer is neither malformed nor a refusal. It fails the test if one of these brings more than it may.
func isGood(t *testing.T, a answer, err error) bool {
	t.Helper()
	var why malformed
	switch {
	case err != nil:
		if !errors.As(err, &why) || !slices.Contains(allMalformed, why) || a != (answer{}) {
			t.Errorf("error %q with %v, want one of the known and nothing", err, a)
		}
		return false
	case a.code != 0:
		if a.life != 0 {
			t.Errorf("errcode %d and a life of %v", a.code, a.life)
		}
		hidesToken(t, a)
		return false
	}
	return true
}

// beyondDoubt fails the test unless two readers that differ in what they accept find the same token and no errcode.
func beyondDoubt(t *testing.T, body []byte, a answer) {
	t.Helper()
	var loose struct {
		Errcode     int    `json:"errcode"`
		AccessToken string `json:"access_token"`
		ExpiresIn   any    `json:"expires_in"`
	}
	var exact map[string]any
	if json.Unmarshal(body, &loose) != nil || json.Unmarshal(body, &exact) != nil {
		t.Fatal("not JSON")
	}
	if seconds, ok := loose.ExpiresIn.(float64); !ok || seconds <= 0 {
		t.Errorf("expires_in is %v", loose.ExpiresIn)
	}
	if loose.Errcode != 0 || loose.AccessToken != a.token.Reveal() || exact["access_token"] != loose.AccessToken {
		t.Errorf("errcode %d, token %q or %v", loose.Errcode, loose.AccessToken, exact["access_token"])
	}
}

// statedErrcode returns the errcode that an ordinary reader finds, or 0.
func statedErrcode(body []byte) int32 {
	var a struct {
		Errcode int32 `json:"errcode"`
	}
	if json.Unmarshal(body, &a) != nil {
		return 0
	}
	return a.Errcode
}

// FuzzAnswer checks that nothing but a whole and plain answer is a token, whatever encoding it comes in, and that decompression ends at
// the limit.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{goodBody, brokenRefusal, "\x1f\x8b", gzipped(goodBody), gzipped(brokenRefusal), gzipped(goodBody)[:30],
		gzipped(goodBody) + "x", gzipped(strings.Repeat(" ", maxBody) + goodBody), gzipped(gzipped(goodBody))} {
		f.Add([]byte(seed), 200)
	}
	f.Add([]byte(goodBody), 203)
	f.Add([]byte(brokenRefusal), 403)
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		c := without(t, func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body))}, nil
		})
		tok, err := c.StableToken(t.Context(), testAccount, false)
		if err != nil {
			if e, ok := errors.AsType[*token.Error](err); !ok || e.Message == "" || !tok.Value.IsZero() {
				t.Errorf("token %q, error %v", tok.Value.Reveal(), err)
			}
			return
		}
		plain := body
		if bytes.HasPrefix(body, gzipMagic) {
			z, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err = io.ReadAll(z); err != nil {
				t.Fatal(err)
			}
		}
		if status != http.StatusOK || len(plain) > maxBody || len(body) > maxBody {
			t.Fatalf("a token with status %d and %d bytes", status, len(plain))
		}
		beyondDoubt(t, plain, answer{token: tok.Value})
	})
}

// hidesToken: whatever errmsg says, a message shows nothing of a token or ticket that stands beside it.
func hidesToken(t *testing.T, a answer) {
	t.Helper()
	e := classify(a, ticketCodes, []token.Value{a.token, a.ticket})
	visible := strings.Map(func(r rune) rune {
		if r == ' ' || chinese(r) {
			return -1
		}
		return r
	}, e.Message)
	if utf8.RuneCountInString(e.Message) > 400 || !printable(visible) || !printable(e.RequestID) {
		t.Errorf("message %q, rid %q", e.Message, e.RequestID)
	}
	showsNothing(t, a.errmsg, a.token)
	showsNothing(t, a.errmsg, a.ticket)
}

// showsNothing: no 8 letters and digits of the secret are shown in their order, whatever the errmsg says and puts between them.
func showsNothing(t *testing.T, errmsg string, secret token.Value) {
	t.Helper()
	key, _ := alphanumeric(secret.Reveal())
	if len(key) < 8 {
		return
	}
	said := excerpt(errmsg, []token.Value{secret})
	for piece := range strings.SplitSeq(said, token.Redacted) {
		piece, _ = alphanumeric(piece)
		for i := range len(key) - 7 {
			if strings.Contains(piece, key[i:i+8]) {
				t.Fatalf("errmsg %q is shown as %q, secret %q", errmsg, said, secret.Reveal())
			}
		}
	}
}

// An errmsg that repeats a secret in part and in other clothes shows nothing of it.
func FuzzExcerpt(f *testing.F) {
	f.Add(appSecret, "invalid secret ", "-", uint8(0), uint8(32))
	f.Add(awkwardSecret, `"`, "\u0000 ", uint8(3), uint8(20))
	f.Add(freshToken, "x", "é\x1b", uint8(1), uint8(200))
	f.Add(appSecret, "密钥", "系", uint8(0), uint8(32))
	f.Add(appSecret, "ａ", "\u3000", uint8(0), uint8(32))
	f.Add("redacted-redacted", "[redacted", "]", uint8(0), uint8(17))
	f.Fuzz(func(t *testing.T, secret, around, between string, from, to uint8) {
		part := secret[min(int(from), len(secret)):]
		part = part[:min(int(to), len(part))]
		if letters, _ := alphanumeric(between); letters != "" {
			between = " " // letters of others make another text of it
		}
		showsNothing(t, around+punctuated(part, between)+around, token.NewValue(secret))
	})
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
