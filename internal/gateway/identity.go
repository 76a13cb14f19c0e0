// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/access"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Reviewer tells which ServiceAccount a Bearer token is of.
type Reviewer interface {
	// Review returns the ServiceAccount. named reports whether any client names an account; tokens of others need no review. The error is
	// ErrBearerRefused or ErrTooManyReviews, or another one if nobody can tell, such as ErrNoReview.
	Review(ctx context.Context, bearer string, peer netip.Addr, named func(types.NamespacedName) bool) (types.NamespacedName, error)
}

// Errors of a Reviewer.
var (
	// ErrBearerRefused means that the token is no token of a ServiceAccount that any client names, or not for this gateway.
	ErrBearerRefused = errors.New("the token is refused")
	// ErrTooManyReviews means that the peer sent too many bad tokens, or that too many tokens wait for a review.
	ErrTooManyReviews = errors.New("too many reviews of tokens")
	// ErrNoReview means that the API server cannot be asked.
	ErrNoReview = errors.New("the API server cannot be asked about the token")
)

// noReviewer refuses all tokens.
type noReviewer struct{}

func (noReviewer) Review(context.Context, string, netip.Addr, func(types.NamespacedName) bool) (types.NamespacedName, error) {
	return types.NamespacedName{}, ErrBearerRefused
}

// identify returns the client that a call is made for: by a Bearer token, or by a token of the gateway in the place of WeChat's. If both
// are there, they must be of the same client.
func (d decision) identify() (*Client, refusal, bool) {
	value := d.call.Target.AccessToken()
	if len(d.r.Header.Values("Authorization")) == 0 {
		if value == "" {
			return nil, refusal{codeNoToken, "no_token_given", "access_token is missing: fetch one from /cgi-bin/token, " +
				"or send the token of a ServiceAccount as Authorization: Bearer."}, false
		}
		return d.byToken(value)
	}
	client, f, ok := d.byBearer()
	if !ok {
		return nil, f, false
	}
	if f, ok := d.ownToken(client, value); !ok {
		return nil, f, false
	}
	return client, refusal{}, true
}

// ownToken checks an access_token that comes with another proof of who the caller is. It may be missing.
func (d decision) ownToken(client *Client, value string) (refusal, bool) {
	if value == "" {
		return refusal{}, true
	}
	if c, err := d.verify(value); err != nil || c != client {
		return refusal{codeTokenInvalid, "token", "access_token is not of the same WeChatAppClient as the caller: leave it out."}, false
	}
	return refusal{}, true
}

// byToken returns the client that a token of the gateway is of.
func (d decision) byToken(value string) (*Client, refusal, bool) {
	client, err := d.verify(value)
	switch {
	case errors.Is(err, ErrTokenExpired):
		return nil, refusal{codeTokenExpired, "token_expired", "access_token has expired: fetch one from /cgi-bin/token."}, false
	case err != nil:
		return nil, refusal{codeTokenInvalid, "token", "access_token is not of this gateway, or its key was replaced: fetch one from " +
			"/cgi-bin/token. WeChat's own tokens are not accepted here."}, false
	}
	d.call.By, d.call.Client = ByToken, client
	return client, refusal{}, true
}

// verify returns the client that a token of the gateway is of.
func (d decision) verify(value string) (*Client, error) {
	claims, err := VerifyToken(value, d.call.Started, func(c Claims) []Key {
		client := d.policy.ByUID(c.Client)
		if client == nil || client.Account.AppID != c.AppID {
			return nil
		}
		return client.Keys
	})
	if err != nil {
		return nil, err
	}
	return d.policy.ByUID(claims.Client), nil
}

// byBearer returns the client of a caller with an Authorization header: a token of a ServiceAccount, or one of the gateway, which is how
// calls of a user's access_token name their client.
func (d decision) byBearer() (*Client, refusal, bool) {
	bearer, ok := access.Bearer(d.r.Header)
	if !ok {
		return nil, refusal{codeTokenInvalid, "authorization", "the Authorization header is not Bearer and one token."}, false
	}
	if !strings.Contains(bearer, ".") { // a token of a ServiceAccount has dots, and one of the gateway never has
		return d.byToken(bearer)
	}
	account, err := d.Reviewer.Review(d.r.Context(), bearer, d.call.Peer, d.policy.Names)
	switch {
	case errors.Is(err, ErrBearerRefused):
		return nil, refusal{codeTokenInvalid, "bearer", "the Bearer token is none of a ServiceAccount that a WeChatAppClient names, " +
			"with this gateway's audience, or it has expired."}, false
	case errors.Is(err, ErrTooManyReviews):
		return nil, refusal{codeTooMany, "reviews", "too many Bearer tokens had to be checked: try again in a second."}, false
	case d.r.Context().Err() != nil:
		return nil, refusal{codeBusy, reasonGone, "the caller is gone."}, false
	case err != nil:
		return nil, refusal{codeBusy, "no_review", "the API server cannot be asked about the Bearer token."}, false
	}
	d.call.By, d.call.ServiceAccount = ByServiceAccount, account.String()
	return d.clientOf(account)
}

// clientOf returns the client that a ServiceAccount calls for: the one that a header names, or else the only one of its own namespace that
// names it. So nobody can draw the calls of another namespace to himself by naming its ServiceAccounts.
func (d decision) clientOf(account types.NamespacedName) (*Client, refusal, bool) {
	var found *Client
	switch names := d.r.Header.Values(clientHeader); {
	case len(names) == 1:
		namespace, name, _ := strings.Cut(names[0], "/")
		if found = d.policy.ByName(types.NamespacedName{Namespace: namespace, Name: name}); found != nil && !found.ServiceAccounts[account] {
			found = nil
		}
	case len(names) == 0:
		for _, c := range d.policy.InNamespace(account.Namespace) {
			if !c.ServiceAccounts[account] {
				continue
			}
			if found != nil {
				return nil, refusal{codeNotAllowed, "client_ambiguous", "several WeChatAppClients of the caller's namespace name its " +
					"ServiceAccount: say which with the header " + clientHeader + ": namespace/name."}, false
			}
			found = c
		}
	}
	if found == nil {
		return nil, refusal{codeNotAllowed, "client", "no WeChatAppClient of the caller's namespace names its ServiceAccount, or not the one " +
			"that the header " + clientHeader + " gives as namespace/name."}, false
	}
	d.call.Client = found
	return found, refusal{}, true
}

// still returns the account's token if a policy allows the call, too.
func (d decision) still(p *Policy) (token.Value, refusal, bool) {
	c := p.ByUID(d.call.Client.UID)
	switch {
	case c == nil || c != d.call.Client && !d.allowedBy(p, c):
		return token.Value{}, refusalEnded, false
	case !c.Account.Valid(d.Now()):
		return token.Value{}, noTokenRefusal(c.Account), false
	}
	return c.Account.Token, refusal{}, true
}

// allowedBy reports whether a policy allows the call, in which its client has become this one.
func (d decision) allowedBy(p *Policy, c *Client) bool {
	if c.Account.AppID != d.call.Client.Account.AppID || !c.allows(d.call.Target.Path) {
		return false
	}
	if d.call.By == ByServiceAccount {
		namespace, name, _ := strings.Cut(d.call.ServiceAccount, "/")
		return c.ServiceAccounts[types.NamespacedName{Namespace: namespace, Name: name}]
	}
	d.policy = p
	_, err := d.verify(d.gatewayToken())
	return err == nil
}
