// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// SecretIndex is the index of the cache that finds the WeChatAppTokens that use a Secret of their namespace as credentials or target.
const SecretIndex = "secret"

// Referrers returns the resources that use the Secret as credentials or target, from a cache with SecretIndex. Nobody may change them.
func Referrers(ctx context.Context, cached client.Reader, secret types.NamespacedName) ([]v1alpha1.WeChatAppToken, error) {
	list := &v1alpha1.WeChatAppTokenList{}
	err := cached.List(ctx, list,
		client.InNamespace(secret.Namespace), client.MatchingFields{SecretIndex: secret.Name}, client.UnsafeDisableDeepCopy)
	return list.Items, err
}

// SettleWith is Settle, with the answers of a cache that has SecretIndex and, where it cannot know, of the API server.
func SettleWith(
	ctx context.Context, cached, live client.Reader, owner *v1alpha1.WeChatAppToken, existing *metav1.PartialObjectMetadata,
) (Ownership, error) {
	others := &neighbours{ctx: ctx, cache: cached, live: live, resource: owner}
	return Settle(owner, existing, others), others.err
}

// neighbours answers the questions of Settle about the other resources of a namespace.
type neighbours struct {
	ctx      context.Context //nolint:containedctx // lives for one call of Settle, which stays free of I/O types
	cache    client.Reader
	live     client.Reader
	resource *v1alpha1.WeChatAppToken
	err      error
}

// ByUID implements Neighbours. It asks the API server about a resource that is not in the cache, because that may belong to
// another shard.
func (n *neighbours) ByUID(uid types.UID, said string) (string, bool) {
	list := &v1alpha1.WeChatAppTokenList{}
	n.note(n.cache.List(n.ctx, list, client.InNamespace(n.resource.Namespace), client.UnsafeDisableDeepCopy))
	for i := range list.Items {
		if list.Items[i].UID == uid {
			return list.Items[i].Name, true
		}
	}
	if n.err != nil || len(validation.IsDNS1123Subdomain(said)) > 0 {
		return "", false // an annotation can say anything
	}
	other := &v1alpha1.WeChatAppToken{}
	err := n.live.Get(n.ctx, types.NamespacedName{Namespace: n.resource.Namespace, Name: said}, other)
	n.note(client.IgnoreNotFound(err))
	return said, err == nil && other.UID == uid
}

// OlderClaimant implements Neighbours.
func (n *neighbours) OlderClaimant() (string, bool) {
	oldest := n.resource
	name := types.NamespacedName{Namespace: n.resource.Namespace, Name: n.resource.TargetName()}
	all, err := Referrers(n.ctx, n.cache, name)
	n.note(err)
	for i := range all {
		if item := &all[i]; item.TargetName() == name.Name && item.DeletionTimestamp == nil && Older(item, oldest) {
			oldest = item
		}
	}
	return oldest.Name, oldest.UID != n.resource.UID
}

func (n *neighbours) note(err error) {
	if err != nil {
		n.err = fmt.Errorf("reading WeChatAppTokens of namespace %s: %w", n.resource.Namespace, err)
	}
}

// Older orders the resources of a namespace by age, then by name.
func Older(a, b metav1.Object) bool {
	if x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp(); !x.Equal(&y) {
		return x.Before(&y)
	}
	return a.GetName() < b.GetName()
}
