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

	// These fields are set for the two token endpoints and for the login endpoints.
	appID, secret, grantType string
	force                    bool
	// token is set for all other endpoints. For EndpointUserInfo and EndpointUserAuth it is a user's.
	token string
	// upload is set for EndpointUpload if the body holds a file.
	upload *Upload
	// chunked reports whether the body was sent without its length.
	chunked bool
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
	case "/wxa/getwxacode":
		return EndpointPageCode
	case "/cgi-bin/message/custom/send":
		return EndpointMessage
	case "/cgi-bin/media/upload":
		return EndpointUpload
	case "/sns/jscode2session":
		return EndpointLogin
	case "/sns/oauth2/access_token":
		return EndpointWebLogin
	case "/sns/oauth2/refresh_token":
		return EndpointUserRefresh
	case "/sns/userinfo":
		return EndpointUserInfo
	case "/sns/auth":
		return EndpointUserAuth
	}
	return ""
}

// readRequest reads a request including its body. net/http does not notice that a client gives up before the body has been read.
func readRequest(r *http.Request) (request, error) {
	q := request{endpoint: endpointOf(r.URL.Path), method: r.Method, remote: r.RemoteAddr, query: r.URL.Query(), chunked: r.ContentLength < 0}
	if addr, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		q.ip = addr.Addr().Unmap().WithZone("")
	}
	if q.endpoint == EndpointUpload {
		q.upload = readUpload(r)
	}
	var err error
	if q.body, err = io.ReadAll(io.LimitReader(r.Body, maxRequest)); err != nil {
		return request{}, err
	}
	switch q.endpoint {
	case "":
	case EndpointStable:
		q.readStable()
	case EndpointLegacy, EndpointLogin, EndpointWebLogin, EndpointUserRefresh:
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
