// SPDX-License-Identifier: Apache-2.0

package target

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// Desired is what the metadata of a target Secret ought to be.
type Desired struct {
	labels, annotations keys
	// reference is the owner reference that ought to be there; nil for none.
	reference *metav1.OwnerReference
	// dropData are the keys of the data that held tickets which the spec dropped.
	dropData []string
}

// keys to set, and keys that the operator set earlier and that ought to go.
type keys struct {
	set  map[string]string
	drop []string
}

// Want completes the record of the Secret, with what the operator put there earlier, by what the spec says about ownership and
// metadata. tickets are the types of those that the Secret has or is about to get.
func Want(owner *v1alpha1.WeChatAppToken, claim Claim, record Record, tickets ...v1alpha1.TicketType) (Record, Desired) {
	previous := record.Applied
	spec := owner.Spec.Target
	record.OwnerUID, record.OwnerName = owner.UID, owner.Name
	record.Applied = Applied{
		Labels:      slices.Sorted(maps.Keys(spec.Labels)),
		Annotations: slices.Sorted(maps.Keys(spec.Annotations)),
		Tickets:     appliedTickets(owner.Spec.Tickets, previous.Tickets, tickets),
		Adopted:     claim == Adopt || previous.Adopted, // a TakeOver included: its owner never gave it away
	}
	record.DeletionPolicy = spec.DeletionPolicy
	if record.Applied.Adopted {
		record.DeletionPolicy = v1alpha1.DeletionRetain // it was never ours to delete
	}
	d := Desired{labels: wanted(previous.Labels, spec.Labels, 1), annotations: wanted(previous.Annotations, spec.Annotations, 13)}
	for _, before := range [...]map[v1alpha1.TicketType]string{previous.Tickets, previous.former} {
		d.dropData = append(d.dropData, droppedKeys(spec.AccessTokenKey, before, record.Applied.Tickets)...)
	}
	d.labels.set[v1alpha1.LabelManagedBy] = v1alpha1.ManagedByValue
	for k, v := range record.Encode() {
		if v == "" {
			d.annotations.drop = append(d.annotations.drop, k)
		} else {
			d.annotations.set[k] = v
		}
	}
	if record.DeletionPolicy == v1alpha1.DeletionDelete {
		d.reference = ReferenceTo(owner, v1alpha1.Kind)
	}
	return record, d
}

// KeepMetadata returns a copy of the resource whose spec names the labels and annotations that the operator has set on the Secret before,
// with the values that they have.
func KeepMetadata(owner *v1alpha1.WeChatAppToken, secret *metav1.PartialObjectMetadata, applied Applied) *v1alpha1.WeChatAppToken {
	kept := *owner
	kept.Spec.Target.Labels = present[v1alpha1.LabelValue](applied.Labels, secret.Labels)
	kept.Spec.Target.Annotations = present[v1alpha1.AnnotationValue](applied.Annotations, secret.Annotations)
	return &kept
}

// present returns those of the keys that there are, with their values. The list is read from an annotation that others may edit: the
// operator's own keys are none of them.
func present[V ~string](list []string, have map[string]string) map[string]V {
	out := make(map[string]V, len(list))
	for _, key := range list {
		if value, found := have[key]; found && !strings.HasPrefix(key, v1alpha1.AnnotationPrefix) {
			out[key] = V(value)
		}
	}
	return out
}

// Outdated tells whether labels or annotations of the Secret differ from what is wanted.
func (d Desired) Outdated(existing *metav1.PartialObjectMetadata) bool {
	return d.labels.differ(existing.Labels) || d.annotations.differ(existing.Annotations)
}

func (k keys) differ(have map[string]string) bool {
	for key, want := range k.set {
		if got, found := have[key]; !found || got != want {
			return true
		}
	}
	return slices.ContainsFunc(k.drop, func(key string) bool { _, found := have[key]; return found })
}

// patch is a JSON merge patch of the keys.
func (k keys) patch() map[string]any {
	out := make(map[string]any, len(k.set)+len(k.drop))
	for key, v := range k.set {
		out[key] = v
	}
	for _, key := range k.drop {
		out[key] = nil
	}
	return out
}

// ReferenceOutdated reports whether the owner reference is missing, left over or for another resource.
func (d Desired) ReferenceOutdated(existing *metav1.PartialObjectMetadata) bool {
	_, changed := References(existing.OwnerReferences, d.reference, v1alpha1.Kind)
	return changed
}

// References returns a Secret's owner references with ours to a resource of this kind as wanted, nil for none, and those of others as they
// are. changed reports whether ours is not as wanted.
func References(existing []metav1.OwnerReference, want *metav1.OwnerReference, kind string) (next []metav1.OwnerReference, changed bool) {
	missing := want != nil
	for _, ref := range existing {
		switch {
		case !IsReferenceTo(ref, kind):
		case want != nil && ref.UID == want.UID:
			missing = false
		default:
			changed = true
			continue
		}
		next = append(next, ref)
	}
	if missing {
		next, changed = append(next, *want), true
	}
	return next, changed
}

// ReferenceTo returns the owner reference to a resource of this kind of the operator's.
func ReferenceTo(owner metav1.Object, kind string) *metav1.OwnerReference {
	return &metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: kind, Name: owner.GetName(), UID: owner.GetUID(), Controller: new(true),
		// No blockOwnerDeletion: it needs a permission on finalizers, and nothing here is worth waiting for.
	}
}

// wanted are the keys of the spec, with room for so many of the operator's own.
func wanted[V ~string](previous []string, spec map[string]V, own int) keys {
	k := keys{set: make(map[string]string, len(spec)+own)}
	for key, v := range spec {
		// kubectl's annotation is never kept in the cache, so it would look outdated for ever.
		if key != corev1.LastAppliedConfigAnnotation {
			k.set[key] = string(v)
		}
	}
	for _, key := range previous {
		// The list is read from an annotation that others may edit: it must not remove the operator's own keys.
		if _, still := spec[key]; !still && !strings.HasPrefix(key, v1alpha1.AnnotationPrefix) {
			k.drop = append(k.drop, key)
		}
	}
	return k
}

func groupOf(apiVersion string) string {
	group, _, _ := strings.Cut(apiVersion, "/")
	return group
}
