// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/sha256"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// Policy says who may call what, and with which token, at one moment. It is immutable: each call is judged by one Policy from its first
// decision to its last. The zero value allows nothing.
type Policy struct {
	byUID       map[types.UID]*Client
	byName      map[types.NamespacedName]*Client
	byNamespace map[string][]*Client
	byKey       map[[sha256.Size]byte]keyHolder
	// appIDs has true for an app as which a client may log users in.
	appIDs map[string]bool
	// tokens has the accounts' tokens.
	tokens map[token.Value]bool
	// accounts has the ServiceAccounts that any client names.
	accounts map[types.NamespacedName]bool
	// login reports whether any client may log users in.
	login bool
}

// keyHolder is a client and the index of one of its keys.
type keyHolder struct {
	client *Client
	key    int
}

// Client is what a WeChatAppClient allows. A client that is suspended, being deleted, or without its WeChatAppToken is not in a Policy.
type Client struct {
	UID  types.UID
	Name types.NamespacedName
	// Keys has the current key, and behind it the one before, as long as tokens that were bought with it may be in use.
	Keys []Key
	// ServiceAccounts may call with a token of their own.
	ServiceAccounts map[types.NamespacedName]bool
	// Paths are the patterns of spec.paths.
	Paths []string
	// Login allows the login paths.
	Login bool
	Rate  v1alpha1.RateLimit
	// Account is never nil.
	Account *Account
}

// Key is a key of a client, as NewKey returns it.
type Key struct {
	Value       token.Value
	Fingerprint string
	// BuysUntil is when the key stops to buy tokens and to log users in; zero for the current key. Tokens that were bought before are
	// accepted until their own end.
	BuysUntil time.Time

	signer *signer
}

// NewKey returns a key. until is when it stops to buy tokens; zero for the current key.
func NewKey(value token.Value, until time.Time) Key {
	return Key{Value: value, Fingerprint: value.Fingerprint(), BuysUntil: until, signer: newSigner(value)}
}

// Buys reports whether the key may buy a token.
func (k Key) Buys(now time.Time) bool { return k.BuysUntil.IsZero() || now.Before(k.BuysUntil) }

// Account is what the Secrets of a WeChatAppToken hold.
type Account struct {
	Name  types.NamespacedName
	AppID string
	// Token is zero if the Secret holds none. It may have expired; see Valid.
	Token     token.Value
	ExpiresAt time.Time
	// Tickets has those of spec.tickets that the Secret holds.
	Tickets map[v1alpha1.TicketType]Ticket
	// TicketTypes are those of spec.tickets.
	TicketTypes []v1alpha1.TicketType
	// AppSecret is zero unless a client may log users in and the credentials Secret has the label wechat.apptoken.dev/credentials.
	AppSecret token.Value
}

// Ticket is a ticket that a Secret holds. It may have expired.
type Ticket struct {
	Value     token.Value
	ExpiresAt time.Time
}

// Valid reports whether the account has a token that WeChat accepts, as far as its expiry tells.
func (a *Account) Valid(now time.Time) bool { return !a.Token.IsZero() && isAlive(a.ExpiresAt, now) }

// isAlive reports whether a token or ticket with this expiry is valid. What claims to live longer than any was not written by the operator.
func isAlive(until, now time.Time) bool {
	return now.Before(until) && !until.After(now.Add(longestLife))
}

// NewPolicy returns a policy of these clients, which must not be changed afterwards.
func NewPolicy(clients []*Client) *Policy {
	p := &Policy{
		byUID:       make(map[types.UID]*Client, len(clients)),
		byName:      make(map[types.NamespacedName]*Client, len(clients)),
		byNamespace: map[string][]*Client{},
		byKey:       make(map[[sha256.Size]byte]keyHolder, len(clients)),
		appIDs:      map[string]bool{},
		tokens:      map[token.Value]bool{},
		accounts:    map[types.NamespacedName]bool{},
	}
	for _, c := range clients {
		p.byUID[c.UID], p.byName[c.Name] = c, c
		p.byNamespace[c.Name.Namespace] = append(p.byNamespace[c.Name.Namespace], c)
		for i, k := range c.Keys {
			p.byKey[digest(k.Value.Reveal())] = keyHolder{c, i}
		}
		for account := range c.ServiceAccounts {
			p.accounts[account] = true
		}
		p.appIDs[c.Account.AppID] = p.appIDs[c.Account.AppID] || c.Login
		p.tokens[c.Account.Token] = true
		p.login = p.login || c.Login
	}
	return p
}

// digest hides how much of a key a caller guessed from whoever measures how long a look-up takes.
func digest(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// isKnown reports whether the policy follows from objects that were read. The zero value does not.
func (p *Policy) isKnown() bool { return p.byUID != nil }

// ByUID returns a client; nil for none.
func (p *Policy) ByUID(uid types.UID) *Client { return p.byUID[uid] }

// ByName returns a client; nil for none.
func (p *Policy) ByName(name types.NamespacedName) *Client { return p.byName[name] }

// InNamespace returns the clients of a namespace.
func (p *Policy) InNamespace(namespace string) []*Client { return p.byNamespace[namespace] }

// ByKey returns the client that a key is of, and the key; nil for none.
func (p *Policy) ByKey(key string) (*Client, Key) {
	h, found := p.byKey[digest(key)]
	if !found {
		return nil, Key{}
	}
	return h.client, h.client.Keys[h.key]
}

// KnowsApp reports whether any client calls WeChat as this app.
func (p *Policy) KnowsApp(appID string) bool {
	_, known := p.appIDs[appID]
	return known
}

// LogsInto reports whether any client may log users in as this app.
func (p *Policy) LogsInto(appID string) bool { return p.appIDs[appID] }

// HoldsToken reports whether a value is the access token of an account.
func (p *Policy) HoldsToken(value token.Value) bool { return !value.IsZero() && p.tokens[value] }

// Names reports whether any client names a ServiceAccount.
func (p *Policy) Names(account types.NamespacedName) bool { return p.accounts[account] }

// AnyLogin reports whether any client may log users in.
func (p *Policy) AnyLogin() bool { return p.login }

// Source tells the current policy. A Store is one.
type Source interface {
	// Policy returns the current policy and a channel that is closed when another one replaces it.
	Policy() (current *Policy, replaced <-chan struct{})
}
