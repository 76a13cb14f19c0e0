// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// longestLife is the longest life of an access token or a ticket that the operator writes, with room for clocks that differ. What
	// claims to live longer was not written by it.
	longestLife = 4*time.Hour + 5*time.Minute

	// These are the defaults of the kinds' schemas.
	defaultRate         = 50
	defaultBurst        = 100
	defaultAppSecretKey = "appSecret"
)

// Inputs are the objects that a Policy is made of.
type Inputs struct {
	Clients map[types.NamespacedName]*v1alpha1.WeChatAppClient
	Tokens  map[types.NamespacedName]*v1alpha1.WeChatAppToken
	// Managed are the Secrets that the operator writes: targets and the keys of clients. Credentials are those with the label for it.
	Managed, Credentials map[types.NamespacedName]*corev1.Secret
}

// builder builds one Policy. The next one takes over what follows from objects that are still the same: most changes are about one of
// thousands.
type builder struct {
	Inputs

	keys     map[types.NamespacedName]foundKeys
	accounts map[types.NamespacedName]foundAccount
	// holders counts the clients that a key belongs to, those that are suspended included: whoever could read their Secret knows it.
	holders map[token.Value]int
	// logins has the WeChatAppTokens with a client that may log users in.
	logins map[types.NamespacedName]bool
}

// foundKeys are the keys that follow from these objects.
type foundKeys struct {
	client *v1alpha1.WeChatAppClient
	secret *corev1.Secret
	keys   []Key
}

// foundAccount is the account that follows from these objects. credentials is nil unless a client may log users in.
type foundAccount struct {
	token               *v1alpha1.WeChatAppToken
	target, credentials *corev1.Secret
	account             *Account
}

// build looks at all objects. before is the builder of the last policy; nil for none.
func build(in Inputs, before *builder) *builder {
	if before == nil {
		before = &builder{}
	}
	b := &builder{
		Inputs:   in,
		keys:     make(map[types.NamespacedName]foundKeys, len(in.Clients)),
		accounts: make(map[types.NamespacedName]foundAccount, len(in.Tokens)),
		holders:  make(map[token.Value]int, len(in.Clients)),
		logins:   map[types.NamespacedName]bool{},
	}
	for name, c := range in.Clients {
		found := foundKeys{client: c}
		if c.Spec.Key != nil {
			found.secret = in.Managed[types.NamespacedName{Namespace: c.Namespace, Name: c.Spec.Key.SecretName}]
		}
		if last := before.keys[name]; last.client == c && last.secret == found.secret {
			found.keys = last.keys
		} else {
			found.keys = readKeys(c, found.secret)
		}
		b.keys[name] = found
		for _, k := range found.keys {
			b.holders[k.Value]++
		}
		if isActive(c) && c.Spec.Login {
			b.logins[tokenOf(c)] = true
		}
	}
	for _, c := range in.Clients {
		if name := tokenOf(c); isActive(c) && b.accounts[name].account == nil {
			b.accounts[name] = b.account(name, before.accounts[name])
		}
	}
	return b
}

// policy returns the policy of the clients that may call. What is missing or contradicts itself allows nothing.
func (b *builder) policy() *Policy {
	clients := make([]*Client, 0, len(b.Clients))
	for name, c := range b.Clients {
		if account := b.accounts[tokenOf(c)].account; isActive(c) && account != nil {
			clients = append(clients, b.client(c, b.keys[name].keys, account))
		}
	}
	return NewPolicy(clients)
}

// isActive reports whether a client may call at all.
func isActive(c *v1alpha1.WeChatAppClient) bool { return !c.Spec.Suspend && c.DeletionTimestamp == nil }

// tokenOf returns the name of the WeChatAppToken that a client is for.
func tokenOf(c *v1alpha1.WeChatAppClient) types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Spec.TokenRef.Name}
}

// readKeys returns the keys of a client: the values of its Secret that its status knows. Either may be a moment older than the other, so it
// does not matter under which key of the data a value is. The status says whether a key is the current one.
func readKeys(c *v1alpha1.WeChatAppClient, secret *corev1.Secret) []Key {
	if c.Status.Key == nil || !isOwned(secret, c.UID, v1alpha1.ClientKind) {
		return nil
	}
	status := c.Status.Key
	var current, before Key
	for _, name := range [...]string{v1alpha1.AppSecretKey, v1alpha1.PreviousAppSecretKey} {
		if !isKey(string(secret.Data[name])) {
			continue
		}
		k := NewKey(token.NewValue(string(secret.Data[name])), time.Time{})
		switch {
		case k.Fingerprint == status.Fingerprint:
			current = k
		case k.Fingerprint == status.PreviousFingerprint && status.PreviousUntilTime != nil:
			k.BuysUntil = status.PreviousUntilTime.Time
			before = k
		}
	}
	var keys []Key
	for _, k := range [...]Key{current, before} {
		if !k.Value.IsZero() {
			keys = append(keys, k)
		}
	}
	return keys
}

// client returns what a client allows. A key that is another client's too is nobody's, as either could pass for the other.
func (b *builder) client(c *v1alpha1.WeChatAppClient, keys []Key, account *Account) *Client {
	out := &Client{
		UID:     c.UID,
		Name:    types.NamespacedName{Namespace: c.Namespace, Name: c.Name},
		Account: account,
		Login:   c.Spec.Login,
		Rate:    c.Spec.Rate.PerReplica,
		Paths:   make([]string, 0, len(c.Spec.Paths)),
		Keys:    keys,
	}
	if slices.ContainsFunc(keys, b.isShared) {
		out.Keys = slices.DeleteFunc(slices.Clone(keys), b.isShared)
	}
	if len(c.Spec.ServiceAccounts) > 0 {
		out.ServiceAccounts = make(map[types.NamespacedName]bool, len(c.Spec.ServiceAccounts))
	}
	for _, a := range c.Spec.ServiceAccounts {
		out.ServiceAccounts[types.NamespacedName{Namespace: a.Namespace, Name: a.Name}] = true
	}
	for _, p := range c.Spec.Paths {
		out.Paths = append(out.Paths, string(p))
	}
	if out.Rate.RequestsPerSecond <= 0 {
		out.Rate.RequestsPerSecond = defaultRate
	}
	if out.Rate.Burst <= 0 {
		out.Rate.Burst = defaultBurst
	}
	return out
}

// isShared reports whether a key is of several clients.
func (b *builder) isShared(k Key) bool { return b.holders[k.Value] > 1 }

// account returns what the Secrets of a WeChatAppToken hold; no account if there is no such WeChatAppToken.
func (b *builder) account(name types.NamespacedName, last foundAccount) foundAccount {
	t := b.Tokens[name]
	if t == nil || t.DeletionTimestamp != nil {
		return foundAccount{}
	}
	found := foundAccount{token: t, target: b.Managed[types.NamespacedName{Namespace: t.Namespace, Name: t.TargetName()}]}
	if b.logins[name] {
		found.credentials = b.Credentials[types.NamespacedName{Namespace: t.Namespace, Name: t.Spec.CredentialsSecretRef.Name}]
	}
	if last.token == t && last.target == found.target && last.credentials == found.credentials {
		return last
	}
	found.account = &Account{Name: name, AppID: t.Spec.AppID, AppSecret: appSecretOf(t, found.credentials)}
	for _, spec := range t.Spec.Tickets {
		found.account.TicketTypes = append(found.account.TicketTypes, spec.Type)
	}
	readTarget(found.account, t, found.target)
	return found
}

// readTarget adds what the target Secret of a WeChatAppToken holds, if it is the target of this one and for its appid.
func readTarget(a *Account, t *v1alpha1.WeChatAppToken, secret *corev1.Secret) {
	if !isOwned(secret, t.UID, v1alpha1.Kind) || string(secret.Data[v1alpha1.AppIDKey]) != t.Spec.AppID {
		return
	}
	key := t.Spec.Target.AccessTokenKey
	if key == "" {
		key = v1alpha1.DefaultAccessTokenKey
	}
	a.Token, a.ExpiresAt = valueOf(secret, key, v1alpha1.ExpiresAtKey)
	for _, spec := range t.Spec.Tickets {
		if value, until := valueOf(secret, spec.KeyName(), spec.ExpiresAtKeyName()); !value.IsZero() {
			if a.Tickets == nil {
				a.Tickets = map[v1alpha1.TicketType]Ticket{}
			}
			a.Tickets[spec.Type] = Ticket{Value: value, ExpiresAt: until}
		}
	}
}

// valueOf returns a value and its expiry; zero unless the operator can have written both. What the time means for a call is decided when
// that comes.
func valueOf(secret *corev1.Secret, key, expiresAtKey string) (token.Value, time.Time) {
	until, err := time.Parse(time.RFC3339, string(secret.Data[expiresAtKey]))
	if err != nil || !isPlain(secret.Data[key]) {
		return token.Value{}, time.Time{}
	}
	return token.NewValue(string(secret.Data[key])), until.UTC()
}

// appSecretOf returns the AppSecret of a WeChatAppToken; zero unless its Secret has the label for it.
func appSecretOf(t *v1alpha1.WeChatAppToken, secret *corev1.Secret) token.Value {
	if secret == nil || secret.Labels[v1alpha1.LabelCredentials] != "true" || secret.Type != corev1.SecretTypeOpaque {
		return token.Value{}
	}
	key := t.Spec.CredentialsSecretRef.Key
	if key == "" {
		key = defaultAppSecretKey
	}
	value, _ := token.ParseAppSecret(secret.Data[key])
	return value
}

// isOwned reports whether a Secret, as stripManaged keeps it, is of this owner. One without a kind is of a WeChatAppToken.
func isOwned(secret *corev1.Secret, owner types.UID, kind string) bool {
	if secret == nil || secret.DeletionTimestamp != nil || secret.Type != corev1.SecretTypeOpaque || owner == "" {
		return false
	}
	said := string(secret.Data[ownerKind])
	if said == "" {
		said = v1alpha1.Kind
	}
	return said == kind && string(secret.Data[ownerUID]) == string(owner)
}
