// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// brokenRefusal is an answer as WeChat writes it, which the tests damage.
const brokenRefusal = `{"errcode":40164,"errmsg":"invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: 60c0a0b1-3d0f8f71-2c3f5e53"}`

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

func inUTF16(text string, order binary.ByteOrder, mark bool) string {
	if mark {
		text = "\ufeff" + text
	}
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		pair := make([]byte, 2)
		order.PutUint16(pair, unit)
		b = append(b, pair...)
	}
	return string(b)
}

// TestBrokenRefusal checks that an answer that still shows an errcode is classified, however broken it is, with the address and the rid
// if it shows them.
func TestBrokenRefusal(t *testing.T) {
	inside := func(with string) string { return strings.Replace(brokenRefusal, "invalid ip", "invalid"+with+"ip", 1) }
	for name, body := range map[string]string{
		"escape sequence":          inside("\x1b[31m"),
		"line break":               inside("\r\n"),
		"tab":                      inside("\t"),
		"NUL":                      inside(" \x00"),
		"DEL":                      inside(" \x7f"),
		"escaped NUL":              inside(` \u0000`),
		"not UTF-8":                inside("\xff\xfe "),
		"GBK":                      inside("\xb7\xc7\xb7\xa8 "),
		"GBK with a backslash":     inside("\x81\x5c "),
		"GBK, cut in a character":  strings.Replace(brokenRefusal, `53"}`, "53\x81\"}", 1),
		"GBK, quote is swallowed":  strings.Replace(brokenRefusal, `53"}`, "53 \x81\\\"}", 1),
		"byte order mark":          "\ufeff" + brokenRefusal,
		"two byte order marks":     "\ufeff\ufeff" + brokenRefusal,
		"UTF-16, little":           inUTF16(brokenRefusal, binary.LittleEndian, true),
		"UTF-16, big":              inUTF16(brokenRefusal, binary.BigEndian, true),
		"UTF-16 without its mark":  inUTF16(brokenRefusal, binary.LittleEndian, false),
		"bad escape":               inside(`\x`),
		"bare quotes":              inside(` "x" `),
		"text before":              "HTTP/1.1 200 OK\r\n\r\n" + brokenRefusal,
		"text behind":              brokenRefusal + "\n<!-- proxy -->",
		"twice":                    brokenRefusal + brokenRefusal,
		"in a list":                "[" + brokenRefusal + "]",
		"in a field":               `{"data":` + brokenRefusal + `}`,
		"as a string":              fmt.Sprintf("%q", brokenRefusal),
		"in a field, as a string":  fmt.Sprintf(`{"data":%q}`, brokenRefusal),
		"in a web page":            "<html><body><pre>" + brokenRefusal + "</pre></body></html>",
		"in a web page, escaped":   "<html><pre>" + strings.ReplaceAll(brokenRefusal, `"`, "&quot;") + "</pre></html>",
		"JSONP":                    "callback(" + brokenRefusal + ");",
		"XML":                      "<xml><errcode>40164</errcode><errmsg>invalid ip 203.0.113.7, rid: 60c0a0b1-3d0f8f71-2c3f5e53</errmsg></xml>",
		"single quotes":            strings.ReplaceAll(brokenRefusal, `"`, "'"),
		"no quotes":                strings.ReplaceAll(brokenRefusal, `"`, ""),
		"errcode as text":          strings.Replace(brokenRefusal, "40164", `"40164"`, 1),
		"errcode as padded text":   strings.Replace(brokenRefusal, "40164", `" 40164 "`, 1),
		"errcode as a fraction":    strings.Replace(brokenRefusal, "40164", "40164.0", 1),
		"errcode with an exponent": strings.Replace(brokenRefusal, "40164", "4.0164e4", 1),
		"errcode in a list":        strings.Replace(brokenRefusal, "40164", "[40164]", 1),
		"errcode twice":            strings.Replace(brokenRefusal, "{", `{"errcode":0,`, 1),
		"errcode twice, alike":     strings.Replace(brokenRefusal, "{", `{"errcode":40164,`, 1),
		"errmsg twice":             strings.Replace(brokenRefusal, "{", `{"errmsg":"",`, 1),
		"another field twice":      strings.Replace(brokenRefusal, "{", `{"a":1,"a":2,`, 1),
		"other case":               strings.NewReplacer("errcode", "ErrCode", "errmsg", "ErrMsg").Replace(brokenRefusal),
		"escaped name":             strings.Replace(brokenRefusal, "errcode", `\u0065rrcode`, 1),
		"escaped, in other case":   strings.Replace(brokenRefusal, "errcode", `\u0045rrcode`, 1),
		"errmsg is no text":        strings.Replace(brokenRefusal, `"errmsg":`, `"errmsg":1,"hint":`, 1),
		"gzip":                     gzipped(brokenRefusal),
		"gzip, cut":                gzipped(brokenRefusal)[:len(gzipped(brokenRefusal))-6],
		"gzip, then more":          gzipped(brokenRefusal) + "more",
		"gzip of broken":           gzipped("\ufeff" + inside("\n")),
		"too large":                brokenRefusal + strings.Repeat(" ", maxBody),
		"gzip, too large":          gzipped(brokenRefusal + strings.Repeat(" ", 16<<20)),
		"beside a token":           strings.Replace(brokenRefusal, "{", `{"access_token":"`+freshToken+`","expires_in":7200,`, 1),
		"in a field of a token":    `{"access_token":"` + freshToken + `","expires_in":7200,"ip_list":[],"detail":` + brokenRefusal + "}",
	} {
		for _, call := range allCalls {
			t.Run(name+"/"+call.name, func(t *testing.T) {
				_, err := call.do(t.Context(), clientOf(t, serve(t, saying(200, body))))
				e := wantError(t, err, token.Action, v1alpha1.ReasonIPNotAllowed, 40164)
				shown := name != "errmsg is no text" && name != "errmsg twice"
				if shown && (!strings.Contains(e.Message, "203.0.113.7") || e.RequestID != "60c0a0b1-3d0f8f71-2c3f5e53") {
					t.Errorf("message %q, rid %q", e.Message, e.RequestID)
				}
				if doubt := call.mint && strings.Contains(name, "token"); e.MaybeSent != doubt {
					t.Errorf("MaybeSent is %v", e.MaybeSent)
				}
			})
		}
	}
	// It may be cut anywhere behind the errcode.
	for n := len(`{"errcode":40164,`); n < len(brokenRefusal); n++ {
		_, err := offline(t, brokenRefusal[:n]).StableToken(t.Context(), testAccount, false)
		_ = wantError(t, err, token.Action, v1alpha1.ReasonIPNotAllowed, 40164)
	}
	// Before that nobody can know the code.
	for n := 1; n < len(`{"errcode":40164,`); n++ {
		_, err := offline(t, brokenRefusal[:n]).StableToken(t.Context(), testAccount, false)
		_ = wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0)
	}
}

// TestRefusalBeforeTheConnectionIsCut checks that an errcode that came before the connection was cut is classified.
func TestRefusalBeforeTheConnectionIsCut(t *testing.T) {
	for _, call := range allCalls {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			_, _ = io.WriteString(w, brokenRefusal[:90])
		})
		_, err := call.do(t.Context(), clientOf(t, s))
		wantText(t, wantError(t, err, token.Action, v1alpha1.ReasonIPNotAllowed, 40164), "203.0.113.7")
		s.wantHits(t, 1)
	}
}

// TestRefusalWithAnotherStatus checks that a known errcode that somebody has to act on is classified whatever the HTTP status is, and
// that only a status that means a refusal proves that a mint was not made. Any other code may be one of a gateway.
func TestRefusalWithAnotherStatus(t *testing.T) {
	for _, status := range []int{201, 400, 403, 404, 412, 429, 500, 502, 504} {
		for _, call := range allCalls {
			s := serve(t, saying(status, brokenRefusal))
			_, err := call.do(t.Context(), clientOf(t, s))
			e := wantError(t, err, token.Action, v1alpha1.ReasonIPNotAllowed, 40164)
			if e.MaybeSent != (call.mint && status != 429) {
				t.Errorf("%d, %s: MaybeSent is %v", status, call.name, e.MaybeSent)
			}
			for _, code := range []int{status, -1, 40014} {
				_, err = call.do(t.Context(), clientOf(t, serve(t, saying(status, refusal(code, "upstream")))))
				if e, ok := errors.AsType[*token.Error](err); !ok || e.Code != 0 {
					t.Errorf("%d, %s: %v", status, call.name, err)
				}
			}
		}
	}
}

// doubtful returns damaged copies of a good answer, in which a field has a token or ticket.
func doubtful(good, field, value string) map[string]string {
	return map[string]string{
		"byte order mark":       "\ufeff" + good,
		"UTF-16":                inUTF16(good, binary.LittleEndian, true),
		"control character":     strings.Replace(good, "}", ",\"a\":\"\n\"}", 1),
		"two tokens":            strings.Replace(good, "{", `{"`+field+`":"other",`, 1),
		"two alike":             strings.Replace(good, "{", `{"`+field+`":"`+value+`",`, 1),
		"two in other case":     strings.Replace(good, "{", `{"`+strings.ToUpper(field)+`":"other",`, 1),
		"two lives":             strings.Replace(good, "{", `{"expires_in":1,`, 1),
		"two lives, other case": strings.Replace(good, "{", `{"Expires_In":1,`, 1),
		"errcode of null":       strings.Replace(good, "{", `{"errcode":null,`, 1),
		"errcode as text":       strings.Replace(good, "{", `{"errcode":"0",`, 1),
		"errcode, other case":   strings.Replace(good, "{", `{"ErrCode":"no",`, 1),
		"in a list":             "[" + good + "]",
		"in a field":            `{"data":` + good + `}`,
		"text before":           "x" + good,
		"text behind":           good + "x",
		"gzip, cut":             gzipped(good)[:len(gzipped(good))-1],
		"gzip, wrong checksum":  gzipped(good)[:len(gzipped(good))-8] + "\x00\x00\x00\x00" + gzipped(good)[len(gzipped(good))-4:],
		"gzip, then more":       gzipped(good) + "more",
		"gzip of gzip":          gzipped(gzipped(good)),
		"gzip of two":           gzipped(good) + gzipped(good),
		"gzip of half":          gzipped(good[:len(good)/2]),
		"gzip, too large":       gzipped(good + strings.Repeat(" ", maxBody)),
		"gzip bomb":             gzipped(good + strings.Repeat(" ", 64<<20)),
		"gzip header alone":     gzipped("")[:10],
	}
}

// TestDoubtfulToken checks that an answer that is not beyond doubt a token or ticket is none.
func TestDoubtfulToken(t *testing.T) {
	for _, call := range issuing() {
		bodies := doubtful(goodBody, "access_token", freshToken)
		if call.name == "ticket" {
			bodies = doubtful(ticketBody, "ticket", freshTicket)
		}
		for name, body := range bodies {
			t.Run(name+"/"+call.name, func(t *testing.T) {
				tok, err := call.do(t.Context(), clientOf(t, serve(t, saying(200, body))))
				e := wantError(t, err, token.Transient, v1alpha1.ReasonBadResponse, 0)
				if !tok.Value.IsZero() || e.MaybeSent != call.mint {
					t.Errorf("token %q, MaybeSent %v", tok.Value.Reveal(), e.MaybeSent)
				}
			})
		}
	}
	// A token does not count whose answer has another status, or was cut behind its last brace.
	for name, s := range map[string]*server{
		"203": serve(t, saying(203, goodBody)),
		"cut": serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			_, _ = io.WriteString(w, goodBody)
		}),
	} {
		if tok, err := clientOf(t, s).StableToken(t.Context(), testAccount, false); err == nil || !tok.Value.IsZero() {
			t.Errorf("%s: token %q, error %v", name, tok.Value.Reveal(), err)
		}
	}
}

// TestUnaskedGzip checks that the client asks for an answer without compression, and reads a compressed one all the same.
func TestUnaskedGzip(t *testing.T) {
	for _, call := range allCalls {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("Accept-Encoding: %q", got)
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, gzipped(bodyFor(r)))
		})
		tok, err := call.do(t.Context(), clientOf(t, s))
		if err != nil || tok.Value.Reveal() != call.want {
			t.Errorf("%s: token %q, error %v", call.name, tok.Value.Reveal(), err)
		}
	}
}

// TestChineseErrmsg checks that the text of an unknown errcode is shown if it is Chinese, and nothing else that is not ASCII.
func TestChineseErrmsg(t *testing.T) {
	const hidden = "[redacted]"
	for _, tt := range []struct{ name, errmsg, want string }{
		{"plain", "系统繁忙，请稍候再试", "系统繁忙，请稍候再试"},
		{"traditional", "參數錯誤：請檢查「appid」", "參數錯誤：請檢查「appid」"},
		{"mixed", "获取access_token失败，请使用getStableAccessToken接口40001", "获取access_token失败，请使用getStableAccessToken接口40001"},
		{"escape sequence", "系统\x1b[2J繁忙", "系统[2J繁忙"},
		{"turned around", "系统\u202e繁忙\u2066", "系统繁忙"},
		{"invisible", "系统\u200b\u00ad\ufeff繁忙", "系统繁忙"},
		{"other scripts and emoji", "систем ระบบ 😀é", ""},
		{"full width", "ＡＰＰＩＤ无效！", "APPID无效！"},
		{"full width space", "无效\u3000参数", "无效 参数"},
		{"AppSecret", "密钥" + appSecret + "错误", "密钥" + hidden + "错误"},
		{"AppSecret in full width", "密钥" + strings.Map(wide, appSecret) + "错误", "密钥" + hidden + "错误"},
		{"AppSecret with Chinese between", "x " + punctuated(appSecret, "系") + " y", "x " + hidden + " y"},
		{"unknown token", "令牌Zz9Yy8Xx7Ww6Vv5无效", "令牌" + hidden + "无效"},
		{"long", strings.Repeat("系统", 100), strings.Repeat("系统", 58) + "系..."},
		{"not UTF-8", "\xcf\xb5\xcd\xb3 busy", "busy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := excerpt(tt.errmsg, []token.Value{token.NewValue(appSecret)})
			if got != tt.want || !utf8.ValidString(got) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	_, err := offline(t, `{"errcode":7,"errmsg":"\u7cfb\u7edf繁忙"}`).StableToken(t.Context(), testAccount, false)
	wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonRequestRejected, 7), `it said "系统繁忙".`)
}

// wide returns the full-width form of a letter or digit.
func wide(r rune) rune { return r + 0xfee0 }

// TestStrippedRequest checks that the codes of a request that arrived without its body, its parameters or its method say so.
func TestStrippedRequest(t *testing.T) {
	for code, says := range map[int]string{
		40002: "without its grant_type", 41001: "without its access_token", 41002: "without its appid", 41004: "without its AppSecret",
		43001: "another method than GET", 43002: "another method than POST", 44002: "without its body", 47001: "body of the request",
	} {
		for _, call := range allCalls {
			_, err := call.do(t.Context(), offline(t, refusal(code, "")))
			wantText(t, wantError(t, err, token.Transient, v1alpha1.ReasonRequestRejected, code), says, "on the way to WeChat", "proxy")
		}
	}
}
