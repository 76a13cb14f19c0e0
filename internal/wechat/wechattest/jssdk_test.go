// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestJSSDK checks what the script gets from its server; test/h5 runs the script in a browser.
func TestJSSDK(t *testing.T) {
	var seen PageConfig
	server := httptest.NewServer(JSSDK(func(p PageConfig) bool {
		seen = p
		return p.Signature == "right"
	}))
	defer server.Close()
	client := &http.Client{Timeout: 30 * time.Second}
	for _, tc := range []struct{ body, want string }{
		{`{"appId":"wx0123456789abcdef","timestamp":1414587457,"nonceStr":"n","signature":"right","jsApiList":["a"],"url":"https://a/"}`,
			`{"errMsg":"config:ok"}`},
		{`{"signature":"wrong"}`, `{"errMsg":"config:invalid signature"}`},
		{`signature=right`, `{"errMsg":"config:fail `},
		{``, `{"errMsg":"config:fail `},
	} {
		res, err := client.Post(server.URL+"/check", "text/plain", strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.HasPrefix(string(got), tc.want) || res.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: got %s, %v", tc.body, got, res.Header)
		}
		want := PageConfig{AppID: "wx0123456789abcdef", Timestamp: "1414587457", NonceStr: "n", Signature: "right",
			JSAPIList: []string{"a"}, URL: "https://a/"}
		if seen.Signature == "right" && !reflect.DeepEqual(seen, want) {
			t.Errorf("it was asked about %+v, want %+v", seen, want)
		}
	}
	res, err := client.Get(server.URL + JSSDKPath)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	script, _ := io.ReadAll(res.Body)
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/javascript") || !strings.Contains(string(script), "window.wx") {
		t.Errorf("%s is %s: %s", JSSDKPath, res.Header.Get("Content-Type"), script)
	}
}
