// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// userCallsPerSecond and userCallsBurst limit the calls of a peer who is not known, on the paths that carry a user's proof alone.
	userCallsPerSecond = 5
	userCallsBurst     = 20

	pathRefresh = "/sns/oauth2/refresh_token"
)

// login decides about the login paths. The AppSecret takes the place of the client's key, or is added for a ServiceAccount.
func (d decision) login() {
	p, f, ok := d.purchaseInQuery()
	switch {
	case d.r.Method != http.MethodGet, d.r.ContentLength != 0: // a form in the body could carry another appid and secret
		d.deny(refusal{codeNeedsGet, reasonMethod, "the login paths need GET without a body."})
		return
	case !ok:
		d.deny(f)
		return
	case p.Secret == "" && strings.EqualFold(d.call.Target.Path, pathRefresh) && len(d.r.Header.Values("Authorization")) == 0:
		d.refresh(p.AppID)
		return
	}
	client, f, ok := d.loginClient(p)
	if !ok {
		d.refuse(f)
		return
	}
	if f, ok := d.ownToken(client, d.call.Target.AccessToken()); !ok {
		d.deny(f)
		return
	}
	target, appSecret := d.call.Target, client.Account.AppSecret
	d.Relay.relay(d.w, d.r, forward{
		call: d.call,
		path: target.Path,
		query: func(token.Value) string {
			return target.Query(token.Value{}, "secret") + "&secret=" + url.QueryEscape(appSecret.Reveal())
		},
		hidden: appSecret,
		once:   true,
	})
}

// loginClient returns the client that a login is made for, if it may log users in as this app.
func (d decision) loginClient(p purchase) (client *Client, f refusal, ok bool) {
	if len(d.r.Header.Values("Authorization")) > 0 {
		if client, f, ok = d.byBearer(); !ok {
			return nil, f, false
		}
	}
	if d.call.By != ByServiceAccount {
		// A token of the gateway is no proof for the AppSecret: it outlives the time in which its key logs users in.
		owner, _, f, ok := d.buyer(p)
		switch {
		case !ok:
			return nil, f, false
		case client != nil && client != owner:
			return nil, refusal{codeKeyWrong, "key", "secret and the Bearer token are of different WeChatAppClients."}, false
		}
		client = owner
	}
	switch {
	case p.AppID == "":
		return nil, refusal{codeNoAppID, reasonAppID, "appid is missing."}, false
	case client.Account.AppID != p.AppID:
		return nil, refusal{codeUnknownApp, reasonAppID, "the WeChatAppClient is for another appid."}, false
	case !client.Login:
		return nil, refusal{codeNotAllowed, "login", "the WeChatAppClient may not log users in: set spec.login: true."}, false
	case client.Account.AppSecret.IsZero():
		return nil, refusal{codeNotAllowed, "credentials", "the gateway has no AppSecret: the credentials Secret of the WeChatAppToken " +
			"needs the label wechat.apptoken.dev/credentials: \"true\", and an AppSecret in it."}, false
	}
	return client, refusal{}, true
}

// refresh decides about the path that renews a user's token when the call has no key. SDKs send it so, because WeChat asks for none there:
// the user's refresh_token is the proof. It is passed on without the AppSecret, as the calls of users are.
func (d decision) refresh(appID string) {
	target := d.call.Target
	var client *Client
	if value := target.AccessToken(); value != "" {
		var f refusal
		var ok bool
		if client, f, ok = d.byToken(value); !ok {
			d.refuse(f)
			return
		}
	}
	switch {
	case appID == "":
		d.deny(refusal{codeNoAppID, reasonAppID, "appid is missing."})
		return
	case client == nil && !d.policy.KnowsApp(appID), client != nil && client.Account.AppID != appID:
		d.deny(refusal{codeUnknownApp, reasonAppID, "no WeChatAppClient of the caller calls WeChat as this appid."})
		return
	case client == nil && !d.policy.LogsInto(appID), client != nil && !client.Login:
		d.deny(refusal{codeNotAllowed, "login", "no WeChatAppClient of the caller may log users in as this app: set spec.login: true."})
		return
	case client == nil:
		if f, ok := d.stranger(); !ok {
			d.refuse(f)
			return
		}
	}
	d.Relay.relay(d.w, d.r, forward{
		call:  d.call,
		path:  target.Path,
		query: func(token.Value) string { return target.Query(token.Value{}) },
		once:  true,
	})
}

// user decides about the paths that carry the access_token of a user, which passes unchanged. A caller may prove in a header who he is.
func (d decision) user() {
	target := d.call.Target
	value := target.AccessToken()
	known := len(d.r.Header.Values("Authorization")) > 0
	switch {
	case d.r.Method != http.MethodGet, d.r.ContentLength != 0: // a slow body would hold the call of somebody who is not known
		d.deny(refusal{codeNeedsGet, reasonMethod, "this path needs GET without a body."})
		return
	case value == "":
		d.deny(refusal{codeNoToken, "no_token_given", "access_token is missing: this path takes that of a user."})
		return
	case isOwnForm(value), d.policy.HoldsToken(token.NewValue(value)):
		d.deny(refusal{codeTokenInvalid, "token", "access_token is of the app, or of the gateway: this path takes that of a user."})
		return
	}
	var f refusal
	ok := false
	if known {
		_, f, ok = d.byBearer()
	} else {
		f, ok = d.stranger()
	}
	if !ok {
		d.refuse(f)
		return
	}
	d.Relay.relay(d.w, d.r, forward{
		call:  d.call,
		path:  target.Path,
		query: func(token.Value) string { return target.raw() },
	})
}

// isOwnForm reports whether a value is a token of the gateway by its form.
func isOwnForm(value string) bool {
	_, _, _, err := decode(value)
	return err == nil
}

// stranger reports whether a call of a caller who proves nothing may pass: at a low rate, and only where some client logs users in.
func (d decision) stranger() (refusal, bool) {
	switch {
	case !d.policy.AnyLogin():
		return refusal{codeNotAllowed, "login", "no WeChatAppClient that this gateway serves may log users in."}, false
	case !d.users.take(d.call.Peer, d.call.Started):
		return refusal{codeTooMany, "stranger_rate", "too many calls of users from this address: say who calls with Authorization: Bearer " +
			"and a token of the gateway or of a ServiceAccount."}, false
	}
	return refusal{}, true
}
