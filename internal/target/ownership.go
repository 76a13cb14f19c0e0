// SPDX-License-Identifier: Apache-2.0

package target

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// Claim is what a resource may do with its target Secret.
type Claim string

const (
	// Create: there is no Secret, and no older resource wants it.
	Create Claim = "Create"
	// Own: the Secret carries the resource's UID.
	Own Claim = "Own"
	// Adopt: its owner consented; it never gets an owner reference.
	Adopt Claim = "Adopt"
	// TakeOver: a resource of the same name and appid that is gone left it with Retain; its token is kept.
	TakeOver Claim = "TakeOver"
	// Conflict: it is somebody else's.
	Conflict Claim = "Conflict"
	// Terminating: it waits to be collected.
	Terminating Claim = "Terminating"
)

// Ownership is a claim, and for people why it is refused and what to do.
type Ownership struct {
	Claim   Claim
	Message string
}

// Writable tells whether the resource may write the Secret.
func (o Ownership) Writable() bool { return o.Claim != Conflict && o.Claim != Terminating }

// Neighbours are the other resources of the namespace, as far as ownership needs them.
type Neighbours interface {
	// ByUID names the live resource with that UID. said is the name that the Secret gives for it.
	ByUID(uid types.UID, said string) (name string, live bool)
	// OlderClaimant names the oldest resource that wants the same target, if it is older than this one.
	OlderClaimant() (name string, found bool)
}

// Settle decides who owns the Secret. existing is nil when there is none. While a Secret exists, the resource whose UID it carries
// keeps it; age decides only when none exists.
func Settle(owner *v1alpha1.WeChatAppToken, existing *metav1.PartialObjectMetadata, others Neighbours) Ownership {
	name := owner.TargetName()
	if name == owner.Spec.CredentialsSecretRef.Name {
		return conflict("Secret %q holds the credentials and cannot receive the token: set spec.target.name to another name", name)
	}
	if existing == nil {
		return settleNew(name, others)
	}
	if existing.DeletionTimestamp != nil {
		return Ownership{Terminating, fmt.Sprintf("Secret %q is being deleted; it is made anew once it is gone", name)}
	}
	said := func(key string) string { return valueOf(existing.Annotations, key) }
	consent := owner.Name + "/" + owner.Spec.AppID
	annotated, referenced := annotatedOwner(existing), referencedOwner(existing)
	holder := holderOf(annotated, referenced, owner.UID, others)
	switch {
	case holder.uid == owner.UID:
		return Ownership{Claim: Own}
	case ofClient(existing):
		return conflict("Secret %q has the key of the WeChatAppClient %q: choose another spec.target.name, or delete the Secret",
			name, holder.name)
	case said(v1alpha1.AnnotationAdopt) == consent && holder.uid == "":
		return Ownership{Claim: Adopt}
	case holder.uid == "":
		return conflict("Secret %q exists and was not made by this WeChatAppToken: choose another spec.target.name, delete the Secret, "+
			"or let its owner consent with the annotation %s: %q",
			name, v1alpha1.AnnotationAdopt, consent)
	}
	if other, live := others.ByUID(holder.uid, holder.name); live {
		return conflict("Secret %q belongs to the WeChatAppToken %q: choose another spec.target.name, or delete one of the two", name, other)
	}
	switch {
	case referenced.uid != "":
		return Ownership{Terminating, fmt.Sprintf(
			"Secret %q belonged to a WeChatAppToken that is gone and waits to be collected; it is made anew then", name)}
	case said(v1alpha1.AnnotationAdopt) == consent:
		return Ownership{Claim: Adopt}
	case said(v1alpha1.AnnotationDeletionPolicy) == string(v1alpha1.DeletionRetain) && annotated.name == owner.Name &&
		said(v1alpha1.AnnotationAppID) == owner.Spec.AppID:
		return Ownership{Claim: TakeOver}
	}
	return conflict("Secret %q was left by the WeChatAppToken %q for appid %q: choose another spec.target.name, delete the Secret, "+
		"or consent with the annotation %s: %q",
		name, annotated.name, said(v1alpha1.AnnotationAppID), v1alpha1.AnnotationAdopt, consent)
}

// settleNew decides who may create the Secret with this name.
func settleNew(name string, others Neighbours) Ownership {
	if older, found := others.OlderClaimant(); found {
		return conflict("Secret %q belongs to the older WeChatAppToken %q: choose another spec.target.name, or delete one of the two",
			name, older)
	}
	return Ownership{Claim: Create}
}

// owned names the resource that a Secret says it belongs to.
type owned struct {
	uid  types.UID
	name string
}

// holderOf is the resource that has the Secret: the annotation's, unless that was stripped or changed by hand
// to one that nobody has. Then the owner reference counts, by which the Secret is collected or kept.
func holderOf(annotated, referenced owned, own types.UID, others Neighbours) owned {
	if referenced.uid == "" || annotated.uid == own {
		return annotated
	}
	if annotated.uid != "" {
		if _, live := others.ByUID(annotated.uid, annotated.name); live {
			return annotated
		}
	}
	return referenced
}

func conflict(format string, args ...any) Ownership {
	return Ownership{Conflict, fmt.Sprintf(format, args...)}
}

func annotatedOwner(existing *metav1.PartialObjectMetadata) owned {
	all := existing.Annotations
	return owned{types.UID(valueOf(all, v1alpha1.AnnotationOwnerUID)), valueOf(all, v1alpha1.AnnotationOwnerName)}
}

// referencedOwner is the WeChatAppToken in the owner references; zero without one.
func referencedOwner(existing *metav1.PartialObjectMetadata) owned {
	for _, ref := range existing.OwnerReferences {
		if isOwnKind(ref) {
			return owned{ref.UID, ref.Name}
		}
	}
	return owned{}
}

func isOwnKind(ref metav1.OwnerReference) bool { return IsReferenceTo(ref, v1alpha1.Kind) }

// IsReferenceTo reports whether an owner reference is to a resource of this kind of the operator's.
func IsReferenceTo(ref metav1.OwnerReference, kind string) bool {
	return ref.Kind == kind && groupOf(ref.APIVersion) == v1alpha1.GroupName
}

// ofClient reports whether a Secret has the key of a WeChatAppClient. Such a one is nobody's target, whatever its annotations consent to.
func ofClient(existing *metav1.PartialObjectMetadata) bool {
	return valueOf(existing.Annotations, v1alpha1.AnnotationOwnerKind) == v1alpha1.ClientKind ||
		slices.ContainsFunc(existing.OwnerReferences, func(ref metav1.OwnerReference) bool { return IsReferenceTo(ref, v1alpha1.ClientKind) })
}
