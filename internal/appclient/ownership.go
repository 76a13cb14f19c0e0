// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// others answers the questions of settle about the rest of the namespace.
type others interface {
	// user returns what uses the Secret as credentials or target; empty for nothing.
	user() string
	// older names the oldest client that wants the same Secret, if it is older than this one; empty for none.
	older() string
	// live reports whether the client with this UID exists. name is the one that the Secret gives for it.
	live(uid types.UID, name string) bool
}

// another is what to do about a Secret that is somebody else's. Its name is immutable, so nothing less than another client helps.
const another = "delete this WeChatAppClient and create one with another spec.key.secretName"

// settle decides whose the Secret for the key is, by the rules of a target. existing is nil if there is none.
func settle(owner *v1alpha1.WeChatAppClient, appID string, existing *metav1.PartialObjectMetadata, o others) target.Ownership {
	name := owner.Spec.Key.SecretName
	if user := o.user(); user != "" {
		return refused("Secret %q %s and cannot hold a key: %s", name, user, another)
	}
	if existing == nil {
		if older := o.older(); older != "" {
			return refused("Secret %q belongs to the older WeChatAppClient %q: %s", name, older, another)
		}
		return target.Ownership{Claim: target.Create}
	}
	if existing.DeletionTimestamp != nil {
		return terminating("Secret %q is being deleted; it is made anew once it is gone", name)
	}
	h := holderOf(existing)
	switch {
	case h.ofClient && h.record.OwnerUID == owner.UID:
		return target.Ownership{Claim: target.Own}
	case h.ref != nil && h.ref.UID == owner.UID && (!h.ofClient || !o.live(h.record.OwnerUID, h.record.OwnerName)):
		return target.Ownership{Claim: target.Own} // somebody changed the annotations
	}
	consent := owner.Name + "/" + appID
	consents := existing.Annotations[v1alpha1.AnnotationAdopt] == consent
	switch {
	case h.record.OwnerUID != "" || h.ref != nil:
		return h.settle(owner, appID, consents, o)
	case consents:
		return target.Ownership{Claim: target.Adopt}
	}
	return refused("Secret %q exists and was not made by this WeChatAppClient: %s, delete the Secret, or let its owner consent: "+
		"kubectl annotate secret -n %s %s %s=%s", name, another, owner.Namespace, name, v1alpha1.AnnotationAdopt, consent)
}

// holder is who has a Secret, by what its metadata say.
type holder struct {
	record target.Record
	// ofClient reports that the annotations name a WeChatAppClient, and ref is the owner reference to one; nil for none.
	ofClient bool
	ref      *metav1.OwnerReference
}

func holderOf(secret *metav1.PartialObjectMetadata) holder {
	return holder{
		record:   target.DecodeRecord(secret.Annotations),
		ofClient: secret.Annotations[v1alpha1.AnnotationOwnerKind] == v1alpha1.ClientKind,
		ref:      reference(secret),
	}
}

// settle decides about a Secret that is or was another's.
func (h holder) settle(owner *v1alpha1.WeChatAppClient, appID string, consents bool, o others) target.Ownership {
	name, record := owner.Spec.Key.SecretName, h.record
	switch {
	case !h.ofClient && h.ref == nil:
		return refused("Secret %q holds the token of the WeChatAppToken %q: %s", name, record.OwnerName, another)
	case h.ofClient && o.live(record.OwnerUID, record.OwnerName):
		return refused("Secret %q belongs to the WeChatAppClient %q: %s", name, record.OwnerName, another)
	case h.ref != nil && o.live(h.ref.UID, h.ref.Name):
		return refused("Secret %q belongs to the WeChatAppClient %q: %s", name, h.ref.Name, another)
	case h.ref != nil:
		return terminating("Secret %q belonged to a WeChatAppClient that is gone and waits to be collected; it is made anew then", name)
	case consents:
		return target.Ownership{Claim: target.Adopt}
	case record.DeletionPolicy == v1alpha1.DeletionRetain && record.OwnerName == owner.Name && record.AppID == appID:
		return target.Ownership{Claim: target.TakeOver}
	}
	return refused("Secret %q was left by the WeChatAppClient %q: %s, or delete the Secret: kubectl delete secret -n %s %s",
		name, record.OwnerName, another, owner.Namespace, name)
}

func refused(format string, args ...any) target.Ownership {
	return target.Ownership{Claim: target.Conflict, Message: fmt.Sprintf(format, args...)}
}

func terminating(format string, args ...any) target.Ownership {
	return target.Ownership{Claim: target.Terminating, Message: fmt.Sprintf(format, args...)}
}

// reference returns the owner reference to a WeChatAppClient; nil for none.
func reference(secret *metav1.PartialObjectMetadata) *metav1.OwnerReference {
	for i := range secret.OwnerReferences {
		if target.IsReferenceTo(secret.OwnerReferences[i], v1alpha1.ClientKind) {
			return &secret.OwnerReferences[i]
		}
	}
	return nil
}

// neighbours answers from the cache and, where it cannot know, from the API server.
type neighbours struct {
	ctx    context.Context //nolint:containedctx // lives for one call of settle, which stays free of I/O types
	cached client.Reader
	api    client.Reader
	owner  *v1alpha1.WeChatAppClient
	err    error
}

// user implements others.
func (n *neighbours) user() string {
	name := types.NamespacedName{Namespace: n.owner.Namespace, Name: n.owner.Spec.Key.SecretName}
	all, err := target.Referrers(n.ctx, n.cached, name)
	n.note(err)
	for i := range all {
		if all[i].Spec.CredentialsSecretRef.Name == name.Name {
			return fmt.Sprintf("has the AppSecret of the WeChatAppToken %q", all[i].Name)
		}
	}
	if len(all) > 0 {
		return fmt.Sprintf("is the target of the WeChatAppToken %q", all[0].Name)
	}
	return ""
}

// older implements others.
func (n *neighbours) older() string {
	oldest := n.owner
	list := &v1alpha1.WeChatAppClientList{}
	n.note(n.cached.List(n.ctx, list, client.InNamespace(n.owner.Namespace),
		client.MatchingFields{secretIndex: n.owner.Spec.Key.SecretName}, client.UnsafeDisableDeepCopy))
	for i := range list.Items {
		if item := &list.Items[i]; item.DeletionTimestamp == nil && target.Older(item, oldest) {
			oldest = item
		}
	}
	if oldest.UID == n.owner.UID {
		return ""
	}
	return oldest.Name
}

// live implements others. It asks the API server about a client that is not in the cache, because that may belong to another shard. One
// that is there costs nothing, however many clients name its Secret.
func (n *neighbours) live(uid types.UID, name string) bool {
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return false // an annotation can say anything
	}
	key := types.NamespacedName{Namespace: n.owner.Namespace, Name: name}
	cached := &v1alpha1.WeChatAppClient{}
	if err := n.cached.Get(n.ctx, key, cached, client.UnsafeDisableDeepCopy); err == nil && cached.UID == uid {
		return true
	}
	other := &metav1.PartialObjectMetadata{}
	other.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.ClientKind))
	err := n.api.Get(n.ctx, key, other)
	n.note(client.IgnoreNotFound(err))
	return err == nil && other.UID == uid
}

func (n *neighbours) note(err error) {
	if err != nil {
		n.err = fmt.Errorf("reading who uses Secrets of namespace %s: %w", n.owner.Namespace, err)
	}
}
