// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestEndpoints(t *testing.T) {
	for _, tt := range []struct{ raw, want, err string }{
		{raw: "https://api.weixin.qq.com", want: "https://api.weixin.qq.com"},
		{raw: "https://api.weixin.qq.com/", want: "https://api.weixin.qq.com"},
		{raw: " https://api.weixin.qq.com:8443\n", want: "https://api.weixin.qq.com:8443"},
		{raw: "HTTPS://api.weixin.qq.com", want: "https://api.weixin.qq.com"},
		{raw: "https://203.0.113.7", want: "https://203.0.113.7"},
		{raw: "https://[2001:db8::1]:443", want: "https://[2001:db8::1]:443"},
		{raw: "http://127.0.0.1:8080", want: "http://127.0.0.1:8080"},
		{raw: "http://127.8.9.10", want: "http://127.8.9.10"},
		{raw: "http://[::1]:8080", want: "http://[::1]:8080"},
		{raw: "http://[::ffff:127.0.0.1]", want: "http://[::ffff:127.0.0.1]"},
		{raw: "http://localhost:8080", want: "http://localhost:8080"},

		{raw: "http://api.weixin.qq.com", err: "http would show the AppSecret"},
		{raw: "http://10.0.0.1", err: "http would show"},
		{raw: "http://0.0.0.0", err: "http would show"},
		{raw: "http://[::]", err: "http would show"},
		{raw: "http://[2001:db8::1]", err: "http would show"},
		{raw: "http://127.0.0.1.example.com", err: "http would show"},
		{raw: "http://localhost.example.com", err: "http would show"},
		{raw: "http://example.com#127.0.0.1", err: "path, query or fragment"},
		{raw: "http://127.1", err: "http would show"},
		{raw: "http://2130706433", err: "http would show"},
		{raw: "http://0x7f000001", err: "http would show"},
		{raw: "http://127.0.0.1@example.com", err: "user name or password"},
		{raw: "ftp://127.0.0.1", err: "must use https"},
		{raw: "unix:///run/wechat.sock", err: "no scheme or host"},
		{raw: "//api.weixin.qq.com", err: "must use https"},
		{raw: "https:api.weixin.qq.com", err: "no scheme or host"},
		{raw: "https://", err: "no scheme or host"},
		{raw: "https://:443", err: "no scheme or host"},
		{raw: "https:///path", err: "no scheme or host"},
		{raw: "api.weixin.qq.com", err: "no scheme or host"},
		{raw: "api.weixin.qq.com:443", err: "no scheme or host"},
		{raw: "", err: "no scheme or host"},
		{raw: "https://api.weixin.qq.com/cgi-bin", err: "path, query or fragment"},
		{raw: "https://api.weixin.qq.com/%2e%2e", err: "path, query or fragment"},
		{raw: "https://api.weixin.qq.com?", err: "path, query or fragment"},
		{raw: "https://api.weixin.qq.com?secret=" + appSecret, err: "path, query or fragment"},
		{raw: "https://me:" + proxyPassword + "@api.weixin.qq.com", err: "user name or password"},
		{raw: "https://me:" + proxyPassword + "@api.weixin.qq.com:port", err: "not a URL"},
		{raw: "https://api.weixin.qq.com:99 99", err: "not a URL"},
		{raw: "https://api.weixin.qq.com\r\nX: y", err: "not a URL"},
		{raw: "://" + proxyPassword, err: "not a URL"},
	} {
		t.Run(tt.raw, func(t *testing.T) {
			c, err := New(Options{Endpoints: []string{"https://first.example.com", tt.raw}})
			if tt.err != "" {
				e, ok := errors.AsType[*OptionError](err)
				if !ok || e.Flag != "--wechat-endpoints" || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), "--wechat-endpoints: entry 2: ") {
					t.Fatalf("error %v, want %q of entry 2", err, tt.err)
				}
				cleanError(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.endpoints[1].String(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	c := newClient(t, Options{})
	if len(c.endpoints) != 2 || c.endpoints[0].String() != "https://api.weixin.qq.com" || c.endpoints[1].String() != "https://api2.weixin.qq.com" {
		t.Errorf("endpoints %v", c.endpoints)
	}
	if c.timeout != 5*time.Second || cap(c.slots) != 32 || c.userAgent != "wechat-token-operator" {
		t.Errorf("timeout %v, in flight %d, user agent %s", c.timeout, cap(c.slots), c.userAgent)
	}
	c = newClient(t, Options{Timeout: time.Second, MaxInFlight: 1})
	if c.timeout != time.Second || cap(c.slots) != 1 {
		t.Errorf("timeout %v, in flight %d", c.timeout, cap(c.slots))
	}
	for flag, o := range map[string]Options{
		"--wechat-timeout":       {Timeout: -1},
		"--wechat-max-in-flight": {MaxInFlight: -1},
	} {
		_, err := New(o)
		if e, ok := errors.AsType[*OptionError](err); !ok || e.Flag != flag || e.Unwrap() == nil || !strings.HasPrefix(err.Error(), flag+": must be greater than 0") {
			t.Errorf("error %v, want one of %s", err, flag)
		}
	}
}
