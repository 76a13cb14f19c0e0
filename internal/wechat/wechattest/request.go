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

// maxRequest limits how much of a request body is read, in bytes.
const maxRequest = 1 << 20

// request is a request that has been read.
type request struct {
	endpoint Endpoint
	method   string
	remote   string
	ip       netip.Addr
	query    url.Values
	body     []byte

	// These fields are set for the two token endpoints.
	appID, secret, grantType string
	force                    bool
	// token is set for all other endpoints.
	token string
	// problem is the errcode of a body that cannot be parsed, or 0.
	problem int
}

// endpointOf returns the interface of a path, or "" if there is none.
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

// readRequest reads a request including its body. net/http does not notice that a client gives up before the body has been read.
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

// readStable parses the JSON body of stable_token. Like WeChat, it finds no appid in a body of another format, whatever the Content-Type
// is.
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
