// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

const (
	// askAgainAfter is how long a member waits for the account's fetcher before it asks again.
	askAgainAfter = 5 * time.Second
	// copySources is the most Secrets that one look for a copy reads: those of others may have been made to hold anything.
	copySources = 8
)

// member of a Legacy account.
type member struct {
	token    *v1alpha1.WeChatAppToken
	mem      *memory
	eligible bool
	// failing: the API server failed its last pass, a short time ago.
	failing bool
}

func (m member) targetName() client.ObjectKey {
	return client.ObjectKey{Namespace: m.token.Namespace, Name: m.token.TargetName()}
}

// peer caches to which account another member found a resource to belong.
type peer struct {
	version string
	id      accountID
}

// joinAsPeer joins the account that another member proved this resource to belong to, so that a fetcher that has not
// called yet knows that it is waited for.
func (p *pass) joinAsPeer(version string) {
	known := p.mem.knownPeer()
	if p.mem.account == nil && p.legacy() && known.version == version+"/"+p.token.Spec.CredentialsSecretRef.Key &&
		known.id.appID == p.token.Spec.AppID {
		p.join(known.id)
	}
}

// accountMembers are the resources of all namespaces that hold the same AppSecret for the same appid, this one first.
func (p *pass) accountMembers(ctx context.Context) ([]member, error) {
	list := &v1alpha1.WeChatAppTokenList{}
	err := p.Client.List(ctx, list, client.MatchingFields{legacyAppIDIndex: p.token.Spec.AppID},
		client.UnsafeDisableDeepCopy) // nobody changes one
	if err != nil {
		return nil, fmt.Errorf("listing Legacy WeChatAppTokens: %w", err)
	}
	members := []member{{token: p.token, mem: p.mem, eligible: true}}
	if failpoint.Off(failpoint.SingleFetcher) {
		return members, nil
	}
	for i := range list.Items {
		item := &list.Items[i]
		if item.UID == p.token.UID {
			continue
		}
		mem := p.memories.ofMember(nameOf(item), item.UID)
		if mem == nil {
			continue // replaced by another resource, or about to be: its own pass asks
		}
		id, err := p.accountOf(ctx, item, mem)
		if apierrors.IsForbidden(err) {
			// It gets no token from here, and cannot fetch one: nobody reads its AppSecret.
			log.FromContext(ctx).V(1).Info("left out a resource whose credentials may not be read", "resource", nameOf(item), "error", err.Error())
			continue
		}
		if err != nil {
			return nil, err
		}
		if id == p.mem.accountID {
			members = append(members, member{
				token: item, mem: mem, eligible: eligible(item), failing: p.mem.account.fails(item.UID, p.WeChat.Now()),
			})
		}
	}
	return members, nil
}

// accountOf proves by the live AppSecret to which account a resource belongs.
func (p *pass) accountOf(ctx context.Context, item *v1alpha1.WeChatAppToken, mem *memory) (accountID, error) {
	version, err := p.credentialsVersion(ctx, item)
	if err != nil || version == "" {
		return accountID{}, err
	}
	version += "/" + item.Spec.CredentialsSecretRef.Key
	if known := mem.knownPeer(); known.version == version {
		return known.id, nil
	}
	state, err := p.liveCredentials(ctx, item)
	if err != nil {
		return accountID{}, err
	}
	var id accountID
	if state.problem == "" {
		id = accountID{legacy: true, appID: item.Spec.AppID, credentials: state.value.Fingerprint()}
	}
	mem.mu.Lock()
	mem.peer = &peer{version: version, id: id}
	mem.mu.Unlock()
	return id, nil
}

// eligible: the resource can be its account's fetcher.
func eligible(token *v1alpha1.WeChatAppToken) bool {
	if token.DeletionTimestamp != nil || token.Spec.Suspend || token.Status.ObservedGeneration < 0 {
		return false
	}
	if ready := readyCondition(token.Status); ready != nil {
		switch ready.Reason {
		case v1alpha1.ReasonTargetConflict, v1alpha1.ReasonTargetTerminating,
			v1alpha1.ReasonCredentialsNotFound, v1alpha1.ReasonCredentialsMalformed:
			return false
		}
	}
	if e := token.Status.LastError; e != nil {
		switch e.Reason {
		case v1alpha1.ReasonTargetWriteFailed, v1alpha1.ReasonAppSecretInvalid, v1alpha1.ReasonAppIDInvalid:
			return false
		}
	}
	return true
}

// electFetcher picks the oldest eligible member that can do its work. The first member is the one that asks; it is eligible.
func electFetcher(members []member) member {
	chosen := members[0]
	for _, m := range members[1:] {
		if m.eligible && !m.failing && older(m.token, chosen.token) {
			chosen = m
		}
	}
	return chosen
}

// copyFrom takes over a token that another member of the account holds, if it serves as well as a new one. Its worth is
// proven by the other's status, which only the operator may write; the data is its namespace's to edit.
func (p *pass) copyFrom(ctx context.Context, others []member) (bool, error) {
	for _, source := range p.sources(others) {
		snapshot, err := p.store.Read(ctx, source.targetName())
		if apierrors.IsForbidden(err) {
			continue // its namespace is not the operator's any more
		}
		if client.IgnoreNotFound(err) != nil {
			return false, err
		}
		status := source.token.Status.Token
		value := snapshot.Token(source.token.Spec.Target.AccessTokenKey)
		if value.Fingerprint() != status.Fingerprint {
			continue // gone, or not what the operator wrote
		}
		p.handleCheck()
		token := p.issued(wechat.Token{Value: value, IssuedAt: status.IssueTime.Time, ExpiresAt: status.ExpirationTime.Time})
		token.copied = true
		p.mem.put(token)
		return true, nil
	}
	return false, nil
}

// sources are the members whose token serves: the newest token first, and of those that hold the same one the members of the own
// namespace, which no neighbour can edit.
func (p *pass) sources(others []member) []member {
	serving := slices.DeleteFunc(slices.Clone(others), func(m member) bool { return !m.eligible || !p.serves(m.token.Status.Token) })
	foreign := func(m member) int {
		if m.token.Namespace == p.token.Namespace {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(serving, func(a, b member) int {
		return cmp.Or(b.token.Status.Token.IssueTime.Compare(a.token.Status.Token.IssueTime.Time), foreign(a)-foreign(b))
	})
	return serving[:min(len(serving), copySources)]
}

// serves: another member's token is valid, and newer than the stored one and than a mint whose answer was lost. Any
// valid one will do when the stored one was overwritten, is refused by WeChat, or is not of this account.
func (p *pass) serves(t *v1alpha1.TokenStatus) bool {
	if p.mem.mintAgain {
		return false
	}
	if t == nil || t.Fingerprint == "" || t.Mode != v1alpha1.ModeLegacy ||
		p.mem.account.isDead(t.Fingerprint) || t.IssueTime.Time.Before(p.unansweredMark().StartedAt.Truncate(time.Second)) {
		return false
	}
	// While the time is not known, who takes an expired token asks WeChat about it. To mint would end one that is not.
	if now, synced := p.WeChat.Clock(); synced && !now.Before(t.ExpirationTime.Time) {
		return false
	}
	s := p.stored
	return p.mem.verified.tampered || p.mem.account.isDead(s.fingerprint) ||
		s.appID != p.token.Spec.AppID || s.mode != p.token.Spec.Mode || p.credentialsChanged() ||
		t.Fingerprint != s.fingerprint && s.issuedAt.Truncate(time.Second).Before(t.IssueTime.Time)
}

// noteOutcome is for the other members of a Legacy account, who may wait for this resource.
func (p *pass) noteOutcome(err error) {
	if acct := p.mem.account; acct != nil && p.legacy() && acct.shared() {
		acct.noteOutcome(p.token.UID, err != nil, p.WeChat.Now())
	}
}

// ask wakes the account's fetcher, which mints for all.
func (p *pass) ask(ctx context.Context, fetcher member) {
	p.mem.account.want(true)
	p.mem.askedAt = p.WeChat.Now()
	if p.decision.Reason == refresh.RequestExecutable {
		p.handle(p.decision.Request, p.requested(p.decision.Request))
	}
	p.wake.send(ctx, nameOf(fetcher.token))
}
