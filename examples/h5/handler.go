// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

//go:embed page.html page.js
var files embed.FS

// noTicket is what a caller is told while there is no ticket; the log says more.
const noTicket = "There is no ticket to sign with. The WeChatAppToken needs spec.tickets with the type jsapi, and the pod must mount " +
	"app_id and jsapi_ticket of its Secret. Run \"kubectl describe wxtoken\", and look at the log of this service."

// newHandler serves the page at /, its signature at /signature?url=…, and the probe.
func newHandler(o options, now func() time.Time, log *slog.Logger) http.Handler {
	page := template.Must(template.ParseFS(files, "page.html"))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := page.Execute(w, o.scriptURL); err != nil {
			log.Warn("writing the page", "error", err)
		}
	})
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "page.js") })
	mux.Handle("GET /signature", &signer{options: o, now: now, log: log})
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Browsers must not guess that an answer is something else than its Content-Type says.
		w.Header().Set("X-Content-Type-Options", "nosniff")
		// A signature belongs to one opening of one page, and an old page may ask for what is gone.
		w.Header().Set("Cache-Control", "no-store")
		// Other sites must not frame the page. Scripts and frames are not limited, because WeChat's client adds its own to the page.
		w.Header().Set("Content-Security-Policy", "frame-ancestors 'none'")
		mux.ServeHTTP(w, r)
	})
}

// signer answers with what wx.config needs.
type signer struct {
	options
	now func() time.Time
	log *slog.Logger
}

// configuration is a part of the argument of wx.config, with its names.
type configuration struct {
	AppID     string `json:"appId"`
	Timestamp int64  `json:"timestamp"`
	NonceStr  string `json:"nonceStr"`
	Signature string `json:"signature"`
}

func (s *signer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The fragment is no part of what WeChat checks.
	address, _, _ := strings.Cut(r.URL.Query().Get("url"), "#")
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		http.Error(w, "url must be the address of the page, as encodeURIComponent(location.href.split('#')[0])", http.StatusBadRequest)
		return
	}
	if !slices.Contains(s.hosts, u.Host) {
		s.log.Warn("refused: the host of the page is not in --hosts", "host", u.Host)
		http.Error(w, "This service does not sign for the pages of this host. Add the host to --hosts or H5_HOSTS.", http.StatusForbidden)
		return
	}
	appID, t, err := readTicket(s.ticketDir)
	if err != nil {
		s.log.Error("there is no ticket; look at spec.tickets of the WeChatAppToken and at the volume of this pod", "error", err)
		w.Header().Set("Retry-After", "10")
		http.Error(w, noTicket, http.StatusServiceUnavailable)
		return
	}
	c := configuration{AppID: appID, Timestamp: s.now().Unix(), NonceStr: rand.Text()}
	// The address is signed as it came: WeChat compares it with what the browser shows, byte by byte.
	c.Signature = t.sign(c.NonceStr, c.Timestamp, address)
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(c); err != nil {
		s.log.Warn("writing a signature", "error", fmt.Sprintf("%T", err))
	}
}
