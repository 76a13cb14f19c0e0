// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
)

// maxRequest is the largest request body that is read, in bytes.
const maxRequest = 1 << 20

// request is a call, read.
type request struct {
	endpoint Endpoint
	method   string
	remote   string
	ip       netip.Addr
	query    url.Values
	body     []byte

	// For the two token endpoints.
	appID, secret, grantType string
	force                    bool
	// token is for the others.
	token string
	// problem is the errcode for what cannot be read at all.
	problem int
}

// endpointOf finds the interface of a path; empty for none.
func endpointOf(path string) Endpoint {
	switch path {
	case "/cgi-bin/stable_token":
		return EndpointStable
	case "/cgi-bin/token":
		return EndpointLegacy
	case "/cgi-bin/get_api_domain_ip":
		return EndpointProbe
	case "/cgi-bin/getcallbackip":
		return EndpointCallbackIP
	case "/cgi-bin/ticket/getticket":
		return EndpointTicket
	case "/wxa/getwxacodeunlimit":
		return EndpointCode
	}
	return ""
}

// readRequest reads all of the body: only then does net/http notice that a client gives up.
func readRequest(r *http.Request) (request, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		return request{}, err
	}
	q := request{endpoint: endpointOf(r.URL.Path), method: r.Method, remote: r.RemoteAddr, query: r.URL.Query(), body: body}
	if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		q.ip = addr.Addr().Unmap().WithZone("")
	}
	switch q.endpoint {
	case "":
	case EndpointStable:
		q.readStable()
	case EndpointLegacy:
		q.appID, q.secret, q.grantType = q.query.Get("appid"), q.query.Get("secret"), q.query.Get("grant_type")
	default:
		q.token = q.query.Get("access_token")
	}
	return q, nil
}

// readStable reads the JSON body of stable_token. WeChat finds no appid in any other form, whatever
// Content-Type says.
func (q *request) readStable() {
	var fields struct {
		GrantType    string `json:"grant_type"`
		AppID        string `json:"appid"`
		Secret       string `json:"secret"`
		ForceRefresh bool   `json:"force_refresh"`
	}
	if body := bytes.TrimSpace(q.body); len(body) == 0 || body[0] != '{' {
		return
	}
	if json.Unmarshal(q.body, &fields) != nil {
		q.problem = codeNotJSON
	}
	q.appID, q.secret, q.grantType, q.force = fields.AppID, fields.Secret, fields.GrantType, fields.ForceRefresh
}
