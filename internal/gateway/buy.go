// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// maxTokenBody bounds the body of a request for a token, and tokenBodyWithin the time that it may take.
	maxTokenBody    = 4 << 10
	tokenBodyWithin = 10 * time.Second
)

// isKey reports whether a text looks like the key of a client.
func isKey(text string) bool { return len(text) == 32 && strings.Trim(text, "0123456789abcdef") == "" }

// purchase is what a program sends to the token endpoints. Other members, such as force_refresh, are not looked at: a token of the gateway
// is exchanged for the newest of the account in any case, so nothing could be refreshed. Nor is grant_type, which has one value only.
type purchase struct {
	AppID  string `json:"appid"`
	Secret string `json:"secret"`
}

// token answers the token endpoints.
func (d decision) token() {
	p, f, ok := d.purchase()
	if !ok {
		d.refuse(f)
		return
	}
	client, key, f, ok := d.buyer(p)
	if !ok {
		d.refuse(f)
		return
	}
	if !client.Account.Valid(d.call.Started) {
		d.refuse(noTokenRefusal(client.Account))
		return
	}
	claims := Claims{Client: client.UID, AppID: client.Account.AppID, Key: key.Fingerprint, IssuedAt: d.call.Started}
	d.call.Outcome = OutcomeAnswered
	// Nothing in a token needs an escape.
	writeBody(d.w, d.call.ID, http.StatusOK,
		fmt.Appendf(nil, `{"access_token":"%s","expires_in":%d}`, NewToken(claims, key), ToldLife/time.Second))
}

// purchase reads the appid and the key of a request, as the endpoint takes them.
func (d decision) purchase() (p purchase, f refusal, ok bool) {
	if !isStable(d.call.Target.Path) {
		if d.r.Method != http.MethodGet {
			return p, refusal{codeNeedsGet, reasonMethod, "/cgi-bin/token needs GET."}, false
		}
		return d.purchaseInQuery()
	}
	if d.r.Method != http.MethodPost {
		return p, refusal{codeNeedsPost, reasonMethod, "/cgi-bin/stable_token needs POST with a JSON body."}, false
	}
	// A recorder of a test has no deadline, and a real connection always has.
	_ = http.NewResponseController(d.w).SetReadDeadline(time.Now().Add(tokenBodyWithin))
	body, err := io.ReadAll(http.MaxBytesReader(d.w, d.r.Body, maxTokenBody))
	d.call.Sent = int64(len(body))
	if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
		return p, refusal{codeNoAppID, "body", "the body is longer than 4 KiB."}, false
	}
	if err != nil || json.Unmarshal(body, &p) != nil {
		return p, refusal{codeNoAppID, "body", "the body must be JSON with appid and secret."}, false
	}
	return p, refusal{}, true
}

// purchaseInQuery reads the appid and the key of a query.
func (d decision) purchaseInQuery() (p purchase, f refusal, ok bool) {
	if p.AppID, ok = d.call.Target.only("appid"); !ok {
		return p, refusal{codeUnknownApp, reasonAppID, "appid must be given once, by this name."}, false
	}
	if p.Secret, ok = d.call.Target.only("secret"); !ok {
		return p, refusal{codeKeyWrong, "key", "secret must be given once, by this name."}, false
	}
	return p, refusal{}, true
}

// isStable reports whether a path of KindToken is that of the stable token.
func isStable(path string) bool { return strings.EqualFold(path, pathStableToken) }

// buyer returns the client that a key belongs to, if the key may be used and the appid is the client's.
func (d decision) buyer(p purchase) (*Client, Key, refusal, bool) {
	no := func(code int, reason, text string) (*Client, Key, refusal, bool) {
		return nil, Key{}, refusal{code, reason, text}, false
	}
	switch {
	case p.AppID == "":
		return no(codeNoAppID, reasonAppID, "appid is missing.")
	case p.Secret == "":
		return no(codeNoKey, "key", "secret is missing: it must be the key of a WeChatAppClient, from the Secret that spec.key.secretName names.")
	case !d.policy.KnowsApp(p.AppID):
		return no(codeUnknownApp, reasonAppID, "no WeChatAppClient that this gateway serves calls WeChat as this appid.")
	}
	var client *Client
	var key Key
	if isKey(p.Secret) {
		client, key = d.policy.ByKey(p.Secret)
	}
	if client == nil || client.Account.AppID != p.AppID {
		return no(codeKeyWrong, "key", "secret is not the key of a WeChatAppClient for this appid. It is not the AppSecret: "+
			"take app_secret from the Secret that spec.key.secretName names.")
	}
	d.call.By, d.call.Client = ByKey, client
	if !key.Buys(d.call.Started) {
		return no(codeKeyWrong, "key_retired", "this key was replaced and its time is over: restart the program with the current one.")
	}
	return client, key, refusal{}, true
}
