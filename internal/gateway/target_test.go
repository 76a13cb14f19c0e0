// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func TestParseTarget(t *testing.T) {
	for raw, test := range map[string]struct {
		path  string
		query string // as it is sent on with the token T
		err   error
	}{
		"/":                                      {"/", "access_token=T", nil},
		"/cgi-bin/user/info":                     {"/cgi-bin/user/info", "access_token=T", nil},
		"/cgi-bin/user/info?":                    {"/cgi-bin/user/info", "access_token=T", nil},
		"/cgi-bin/user/info?&access_token=g":     {"/cgi-bin/user/info", "access_token=T", nil},
		"/cgi-bin//user///info/":                 {"/cgi-bin/user/info", "access_token=T", nil},
		"/a?x=%E4%BD%A0&access_token=g&y=a+b%2F": {"/a", "x=%E4%BD%A0&access_token=T&y=a+b%2F", nil},
		"/a?x=1&x=2&access_token=g":              {"/a", "x=1&x=2&access_token=T", nil},
		"/a?flag":                                {"/a", "access_token=T&flag", nil},
		"/a?openid=o-_~.!*'()":                   {"/a", "access_token=T&openid=o-_~.!*'()", nil},

		"http://evil/cgi-bin/x":            {err: errForm},
		"wx:cgi-bin/x":                     {err: errForm},
		"evil:443":                         {err: errForm},
		"*":                                {err: errForm},
		"":                                 {err: errForm},
		"?access_token=g":                  {err: errForm},
		"//evil/cgi-bin/x":                 {"/evil/cgi-bin/x", "access_token=T", nil}, // a path as any other: hosts come from flags
		"/x/../cgi-bin/token":              {err: errPath},
		"/./token":                         {err: errPath},
		"/.../token":                       {err: errPath},
		"/cgi-bin%2ftoken":                 {err: errPath},
		"/%2e%2e/token":                    {err: errPath},
		`/cgi-bin\token`:                   {err: errPath},
		"/cgi-bin/token;a=b":               {err: errPath},
		"/a%00":                            {err: errPath},
		"/a b":                             {err: errPath},
		"/你":                               {err: errPath},
		"/" + strings.Repeat("a", maxPath): {err: errPath},

		"/a?access_token=g&access_token=h":           {err: errTokenKey},
		"/a?access%5Ftoken=g":                        {err: errTokenKey},
		"/a?Access_Token=g":                          {err: errTokenKey},
		"/a?access_token[]=g":                        {err: errTokenKey},
		"/a?component_access_token=g&access_token=h": {err: errTokenKey},
		"/a?access_token%00=g":                       {err: errTokenKey},
		"/a?a=1;access_token=x":                      {err: errQuery},
		"/a?a=%x":                                    {err: errQuery},
		"/a?a=%":                                     {err: errQuery},
		"/a?%zz=1":                                   {err: errQuery},
		"/a?a=b#c":                                   {err: errQuery},
		"/a?a=b c":                                   {err: errQuery},
		"/a?a=\x7f":                                  {err: errQuery},
		"/a?a=" + strings.Repeat("b", maxQuery):      {err: errQueryLong},
		"/a?" + strings.Repeat("a&", maxPairs+1):     {err: errQueryLong},
	} {
		got, err := ParseTarget(raw)
		if !errors.Is(err, test.err) || err == nil != (test.err == nil) {
			t.Errorf("%.60q: %v, want %v", raw, err, test.err)
			continue
		}
		if err != nil {
			continue
		}
		if query := got.Query(token.NewValue("T")); got.Path != test.path || query != test.query {
			t.Errorf("%.60q: %q and %q, want %q and %q", raw, got.Path, query, test.path, test.query)
		}
	}
}

func TestTargetQuery(t *testing.T) {
	target, err := ParseTarget("/sns/jscode2session?appid=wx&secret=k&SECRET=l&js_code=c&access_token=g")
	if err != nil {
		t.Fatal(err)
	}
	if got := target.Query(token.Value{}, "secret"); got != "appid=wx&js_code=c" {
		t.Errorf("without secret and token: %q", got)
	}
	if got := target.Query(token.NewValue("a&b=c")); got != "appid=wx&secret=k&SECRET=l&js_code=c&access_token=a%26b%3Dc" {
		t.Errorf("with an odd token: %q", got)
	}
	if v, n := target.Get("secret"); v != "k" || n != 1 || target.AccessToken() != "g" {
		t.Errorf("secret %q %d times, token %q", v, n, target.AccessToken())
	}
}

// Whatever is accepted has one reading: Go's own parser finds the same path and parameters in what is sent on.
func FuzzParseTarget(f *testing.F) {
	for _, raw := range []string{"/a?b=c&access_token=d", "//evil/x", "/a?a=1;b", "/a?%61ccess_token=1", "/a?=&&=b", "/a?a=%00", "/a/../b"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		target, err := ParseTarget(raw)
		if err != nil {
			return
		}
		sent := target.Path + "?" + target.Query(token.NewValue("T"))
		u, err := url.ParseRequestURI(sent)
		if err != nil || u.Path != target.Path || u.Host != "" || u.RawPath != "" {
			t.Fatalf("%q is sent as %q: %v, %+v", raw, sent, err, u)
		}
		values, err := url.ParseQuery(u.RawQuery)
		if err != nil || len(values["access_token"]) != 1 || values.Get("access_token") != "T" {
			t.Errorf("%q is sent as %q: %v, %v", raw, sent, err, values)
		}
		for key := range values {
			if strings.Contains(strings.ToLower(key), "access_token") && key != "access_token" {
				t.Errorf("%q is sent with %q", raw, key)
			}
		}
		if strings.Contains(target.Path, "..") || strings.Contains(target.Path, "//") {
			if strings.Contains(target.Path, "/../") || strings.Contains(target.Path, "//") {
				t.Errorf("%q has the path %q", raw, target.Path)
			}
		}
	})
}

func TestKindOf(t *testing.T) {
	for path, want := range map[string]Kind{
		"/cgi-bin/token": KindToken, "/CGI-BIN/Token": KindToken, "/cgi-bin/stable_token": KindToken, "/cgi-bin/ticket/getticket": KindTicket, "/cgi-bin/ticket/getticket/v2": KindForbidden,
		"/sns/jscode2session": KindLogin, "/sns/oauth2/access_token": KindLogin, "/sns/oauth2/refresh_token": KindLogin,
		"/sns/userinfo": KindUser, "/sns/auth": KindUser, "/sns/other": KindForbidden, "/sns": KindForbidden,
		"/cgi-bin/token/x": KindForbidden, "/cgi-bin/clear_quota": KindForbidden, "/cgi-bin/clear_quota/v2": KindForbidden,
		"/cgi-bin/Clear_Quota": KindForbidden, "/cgi-bin/openapi/quota/get": KindForbidden, "/cgi-bin/component/api_component_token": KindForbidden,
		"/cgi-bin/user/info": KindRelay, "/wxa/getwxacodeunlimit": KindRelay, "/cgi-bin/tokens": KindRelay, "/cgi-bin/componentx": KindRelay, "/": KindRelay,
	} {
		if got := KindOf(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestPathAllowed(t *testing.T) {
	for name, test := range map[string]struct {
		pattern, path string
		want          bool
	}{
		"the same":          {"/wxa/getwxacode", "/wxa/getwxacode", true},
		"a longer one":      {"/wxa/getwxacode", "/wxa/getwxacodeunlimit", false},
		"below":             {"/wxa/getwxacode", "/wxa/getwxacode/x", false},
		"one segment":       {"/wxa/*", "/wxa/getwxacode", true},
		"two segments":      {"/wxa/*", "/wxa/a/b", true},
		"the folder itself": {"/wxa/*", "/wxa", false},
		"a neighbour":       {"/wxa/*", "/wxab/a", false},
		"another case":      {"/wxa/*", "/WXA/a", false},
		"everything":        {"/*", "/a", true},
		"everything but /":  {"/*", "/", false},
	} {
		if got := PathAllowed(test.pattern, test.path); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
