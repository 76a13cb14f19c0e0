// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	_ "embed"
	"encoding/json"
	"io"
	"net/http"
)

//go:embed jssdk.js
var jssdkJS []byte

// JSSDKPath is where JSSDK serves the script.
const JSSDKPath = "/open/js/jweixin-1.6.0.js"

// PageConfig is what a page gives to wx.config, and its address without the fragment.
type PageConfig struct {
	AppID     string      `json:"appId"`
	Timestamp json.Number `json:"timestamp"`
	NonceStr  string      `json:"nonceStr"`
	Signature string      `json:"signature"`
	JSAPIList []string    `json:"jsApiList"`
	URL       string      `json:"url"`
}

// JSSDK returns a handler that takes the place of https://res.wx.qq.com and of the WeChat app. It serves a script whose wx.config calls
// the functions of wx.ready if accepts returns true for the page, and otherwise that of wx.error, with "config:invalid signature". The
// script has no other functions.
func JSSDK(accepts func(PageConfig) bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+JSSDKPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		_, _ = w.Write(jssdkJS) // fails if the client has gone
	})
	mux.HandleFunc("POST /check", func(w http.ResponseWriter, r *http.Request) {
		// The page has another origin than its script.
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "application/json")
		var page PageConfig
		answer := "config:invalid signature"
		if err := json.NewDecoder(io.LimitReader(r.Body, maxRequest)).Decode(&page); err != nil {
			answer = "config:fail " + err.Error()
		} else if accepts(page) {
			answer = "config:ok"
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"errMsg": answer}) // fails if the client has gone
	})
	return mux
}
