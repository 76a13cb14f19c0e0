// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestErrcodeOf(t *testing.T) {
	for text, want := range map[string]int{
		`{"errcode":40001,"errmsg":"x"}`:                      40001,
		" \r\n\t{ \"errcode\" : -1 }":                         -1,
		`{"a":{"errcode":1},"b":[{"errcode":2}],"errcode":3}`: 3,
		`{"a":"\"errcode\":1","b":"\\","errcode":42001}`:      42001,
		`{"errmsg":"} ] \" {","errcode":40014}`:               40014,
		`{"a":true,"b":null,"c":-1.5e+7,"errcode":5}`:         5,
		`{"content":"\"errcode\":40001"}`:                     0,
		`{"content":{"errcode":40001}}`:                       0,
		`[{"errcode":40001}]`:                                 0,
		`"errcode":40001`:                                     0,
		`{"errcode":"40001"}`:                                 0,
		`{"errcode":4e4}`:                                     0,
		`{"errcode":99999999999999999999}`:                    0,
		`{}`:                                                  0,
		``:                                                    0,
		"\xff\xd8\xff\xe0 JPEG {\"errcode\":40001}":           0,
		`{"errcode"`:                                          0,
		"{\"a\":\x00,\"errcode\":40001}":                      0,
		`{]}],"errcode":40001}`:                               0,
	} {
		code, _, more := errcodeOf([]byte(text), true)
		if code != want || more {
			t.Errorf("%q: %d, %v, want %d", text, code, more, want)
		}
		// However it is cut, what is said early is what the whole says.
		for i := range len(text) {
			early, found, more := errcodeOf([]byte(text[:i]), false)
			if found && early != want || !found && early != 0 || found && more || !found && !more && want != 0 {
				t.Errorf("%q: %d, found %v, more %v, want %d", text[:i], early, found, more, want)
			}
		}
	}
}

// TestErrcodeOfPicture: a picture is passed on at its first byte.
func TestErrcodeOfPicture(t *testing.T) {
	for _, text := range []string{"\xff", "\x89PNG", "<html>", "ok", "[1"} {
		if _, _, more := errcodeOf([]byte(text), false); more {
			t.Errorf("%q is held back", text)
		}
	}
}

// FuzzErrcodeOf compares with encoding/json, where that reads the text, and looks for panics and endless loops elsewhere.
func FuzzErrcodeOf(f *testing.F) {
	for _, seed := range []string{`{"errcode":40001}`, `{"a":[1,{"errcode":2}],"errcode":3}`, `{"a":"\\\"","errcode":-1}`, `{"errcode":1,"errcode":2}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		code, found, more := errcodeOf([]byte(text), true)
		if more || !found && code != 0 {
			t.Errorf("%d, %v, %v", code, found, more)
		}
		var o map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &o) != nil || strings.Contains(text, `\`) || strings.Count(text, `"errcode"`) != 1 {
			return
		}
		var n int
		if raw, ok := o["errcode"]; ok && json.Unmarshal(raw, &n) == nil && (!found || code != n) && string(raw) != "null" {
			t.Errorf("%d, %v, want %d", code, found, n)
		}
	})
}
