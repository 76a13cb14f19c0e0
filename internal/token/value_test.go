// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// holder has values where fmt cannot call their methods.
type holder struct {
	secret   Value
	pointer  *Value
	list     []Value
	byName   map[string]Value
	bySecret map[Value]int
	account  Credentials
	token    Token
	any      any
}

// tree has values where every encoder finds them.
type tree struct {
	Secret  Value
	Pointer *Value
	List    []Value
	Map     map[string]Value
	Keys    map[Value]int
	Account *Credentials
	Token   Token
	Any     any
}

func forms() map[string]any {
	s := NewValue(appSecret)
	account, tok := testAccount, Token{Value: NewValue(freshToken), IssuedAt: time.Unix(0, 0)}
	t := tree{s, &s, []Value{s}, map[string]Value{"k": s}, map[Value]int{s: 1}, &account, tok, s}
	h := holder{s, &s, []Value{s}, map[string]Value{"k": s}, map[Value]int{s: 1}, account, tok, &s}
	return map[string]any{
		"secret": s, "pointer": &s, "list": []Value{s}, "map": map[string]Value{"k": s}, "key": map[Value]int{s: 1},
		"account": account, "account pointer": &account, "token": tok, "tree": t, "tree pointer": &t, "holder": h, "holder pointer": &h,
		"any list": []any{s, &s, &t, h}, "two pointers": func() any { p := &s; return &p }(),
	}
}

func TestValueInFmt(t *testing.T) {
	for name, v := range forms() {
		for _, verb := range "vsqxXdpTtbcoOUeEfFgGw!zj" {
			for _, flags := range []string{"", "+", "#", "-", " ", "0", "+#", "40.10"} {
				format := "%" + flags + string(verb)
				text := fmt.Sprintf(format, v) + fmt.Sprintf(format, v, v) // with one too many
				clean(t, name+" "+format, text)
				clean(t, name+" "+format, strings.ToLower(text))
				if strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", appSecret[:12])) {
					t.Errorf("%s %s: in hex: %s", name, format, text)
				}
			}
		}
		clean(t, name, fmt.Sprint(v, v)+fmt.Sprintln(v)+fmt.Errorf("wrapped: %v", v).Error())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		if got := fmt.Sprintf(verb, NewValue(appSecret)); got != "[redacted]" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	if got := fmt.Sprint(testAccount); !strings.Contains(got, testAppID) || !strings.Contains(got, "[redacted]") {
		t.Errorf("credentials print as %s", got)
	}
}

func TestValueInEncodings(t *testing.T) {
	for name, v := range forms() {
		js, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		clean(t, name, string(js))
		js, _ = json.MarshalIndent(v, "", " ")
		clean(t, name, string(js))
		x, _ := xml.Marshal(v)
		clean(t, name, string(x))
		var out bytes.Buffer
		_ = template.Must(template.New("").Parse("{{.}} {{printf \"%#v %x\" . .}}")).Execute(&out, v)
		clean(t, name, out.String())
	}
	js, err := json.Marshal(forms()["tree"])
	if err != nil || strings.Count(string(js), `"[redacted]"`) != 8 {
		t.Errorf("error %v, json %s", err, js)
	}
	if text, err := NewValue(appSecret).MarshalText(); string(text) != "[redacted]" || err != nil {
		t.Errorf("text %s, error %v", text, err)
	}
}

func TestValueInLogs(t *testing.T) {
	var out bytes.Buffer
	logs := map[string]logr.Logger{
		"zap":         zap.New(zap.WriteTo(&out)),
		"zap console": zap.New(zap.WriteTo(&out), zap.UseDevMode(true)),
		"funcr":       funcr.New(func(prefix, args string) { out.WriteString(prefix + args) }, funcr.Options{}),
		"funcr json":  funcr.NewJSON(func(obj string) { out.WriteString(obj) }, funcr.Options{}),
		"slog text":   logr.FromSlogHandler(slog.NewTextHandler(&out, nil)),
		"slog json":   logr.FromSlogHandler(slog.NewJSONHandler(&out, nil)),
	}
	for name, v := range forms() {
		for kind, log := range logs {
			out.Reset()
			log.WithValues("with", v).Info("hello", "value", v)
			log.Error(fmt.Errorf("wrapped: %v", v), "hello", "value", v)
			clean(t, kind+" "+name, out.String())
			if out.Len() == 0 {
				t.Errorf("%s: nothing was logged", kind)
			}
		}
		out.Reset()
		slog.New(slog.NewJSONHandler(&out, nil)).Info("hello", "value", v, slog.Group("g", "value", v))
		clean(t, "slog "+name, out.String())
	}
	for kind, log := range logs {
		out.Reset()
		log.Info("hello", "value", NewValue(appSecret))
		if !strings.Contains(out.String(), "[redacted]") {
			t.Errorf("%s: %s", kind, out.String())
		}
	}
}

func TestValueEquality(t *testing.T) {
	var zero Value
	if !zero.IsZero() || zero.Reveal() != "" || zero.Fingerprint() != "" || zero != NewValue("") {
		t.Error("the zero value holds something")
	}
	if fmt.Sprint(zero) != "[redacted]" {
		t.Error("the zero value can be told from others")
	}
	a, b := NewValue(appSecret), NewValue(strings.Clone(appSecret))
	if a != b || a.IsZero() || a.Reveal() != appSecret || a == NewValue(freshToken) {
		t.Error("equality is not that of the values")
	}
}
