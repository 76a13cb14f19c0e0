// SPDX-License-Identifier: Apache-2.0

package target

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/intern"
)

const (
	// maxOthers bounds the labels and annotations that the cache keeps of a target besides the operator's own, in bytes with entrySize for
	// each. Most targets have none.
	maxOthers = 512
	// entrySize is what an entry of a map costs besides its texts, which may be empty.
	entrySize = 32
	// maxVersion and maxUID are the lengths of the longest apiVersion and UID in an owner reference of the operator's kinds.
	maxVersion, maxUID = 63, 36
	// maxReferences is the number of owner references of the operator's kinds that are kept: a second one is one too many.
	maxReferences = 2
	// incompleteKey is in the annotations of cached metadata that lacks some of the Secret's labels or annotations. No annotation of an
	// API object can have this key.
	incompleteKey = "(incomplete)"
)

// Incomplete reports whether cached metadata lacks labels or annotations that the Secret of a resource has. Then the comparison with what
// the spec wants, and every write, need the Secret as the API server has it.
func Incomplete(cached *metav1.PartialObjectMetadata) bool {
	_, cut := cached.Annotations[incompleteKey]
	return cut
}

// Stripper keeps of a Secret's metadata what decisions need, and at most 4 KiB of memory. The informer uses it on every Opaque Secret
// of the cluster, so that Secrets of others cost next to nothing, whatever they hold. What targets have in common, such as the keys of
// their annotations, they share: it would take more memory than what is different.
type Stripper struct {
	texts map[string]string
	// labels of a target that has none but the operator's, and credentials those of a credentials Secret that has none but its own.
	labels, credentials map[string]string
	// shared has the names of namespaces.
	shared *intern.Pool
}

// NewStripper returns a Stripper for the objects of a cache, which nobody changes.
func NewStripper(shared *intern.Pool) *Stripper {
	s := &Stripper{
		texts: map[string]string{}, shared: shared,
		labels:      map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
		credentials: map[string]string{v1alpha1.LabelCredentials: "true"},
	}
	for _, text := range [...]string{
		v1alpha1.GroupVersion.String(), v1alpha1.Kind, v1alpha1.LabelManagedBy, v1alpha1.ManagedByValue, v1alpha1.AnnotationAdopt,
		v1alpha1.AnnotationOwnerKind, v1alpha1.ClientKind, v1alpha1.LabelCredentials, "true",
		string(v1alpha1.ModeStable), string(v1alpha1.ModeLegacy), string(v1alpha1.DeletionDelete), string(v1alpha1.DeletionRetain),
	} {
		s.texts[text] = text
	}
	for key := range (Record{}).Encode() {
		s.texts[key] = key
	}
	return s
}

// Strip returns a copy for the cache, and leaves its argument as it is.
func (s *Stripper) Strip(in *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	name, uid, version := joined(in.Name, string(in.UID), in.ResourceVersion)
	out := &metav1.PartialObjectMetadata{
		TypeMeta: secretType(),
		ObjectMeta: metav1.ObjectMeta{
			Name:              name,
			Namespace:         in.Namespace,
			UID:               types.UID(uid),
			ResourceVersion:   version,
			CreationTimestamp: in.CreationTimestamp,
			DeletionTimestamp: in.DeletionTimestamp,
			OwnerReferences:   s.references(name, in),
			Labels:            s.known(name, in.Labels, true),
			Annotations:       s.known(name, in.Annotations, false),
		},
	}
	intern.Share(s.shared, &out.Namespace)
	if in.Labels[v1alpha1.LabelManagedBy] != "" || in.Annotations[v1alpha1.AnnotationOwnerUID] != "" {
		s.keepOthers(name, in, out)
	}
	switch {
	case maps.Equal(out.Labels, s.labels):
		out.Labels = s.labels
	case maps.Equal(out.Labels, s.credentials):
		out.Labels = s.credentials
	}
	return out
}

// known returns the labels or annotations that decisions read, except for the list of what the spec set, which may be long. Of labels they
// read two.
func (s *Stripper) known(name string, all map[string]string, labels bool) map[string]string {
	var out map[string]string
	for key, v := range all {
		isLabel := key == v1alpha1.LabelManagedBy || key == v1alpha1.LabelCredentials
		if len(v) <= longest(key) && labels == isLabel && key != v1alpha1.AnnotationAppliedMetadata {
			put(&out, s.one(name, key), s.one(name, v))
		}
	}
	return out
}

// keepOthers adds the labels and annotations that a spec may have set. If they are too many, none is added, and the copy is incomplete.
func (s *Stripper) keepOthers(name string, in, out *metav1.PartialObjectMetadata) {
	size := 0
	for _, all := range [...]map[string]string{in.Labels, in.Annotations} {
		for key, v := range all {
			if isOther(key) {
				size += len(key) + len(v) + entrySize
			}
		}
	}
	if size > maxOthers {
		put(&out.Annotations, incompleteKey, "")
		return
	}
	for key, v := range in.Labels {
		if isOther(key) {
			put(&out.Labels, s.one(name, key), s.one(name, v))
		}
	}
	for key, v := range in.Annotations {
		if isOther(key) {
			put(&out.Annotations, s.one(name, key), s.one(name, v))
		}
	}
}

// isOther reports whether a label or annotation may have been set by a spec. kubectl's copy of a Secret may contain its data.
func isOther(key string) bool {
	theirs := !strings.HasPrefix(key, v1alpha1.AnnotationPrefix) && key != corev1.LastAppliedConfigAnnotation
	return theirs || key == v1alpha1.AnnotationAppliedMetadata
}

func put(to *map[string]string, key, v string) {
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[key] = v
}

// references returns the owner references of the operator's kinds. Others do not matter to decisions, and a write reads them first.
func (s *Stripper) references(name string, in *metav1.PartialObjectMetadata) []metav1.OwnerReference {
	var out []metav1.OwnerReference
	owner := in.Annotations[v1alpha1.AnnotationOwnerUID]
	for _, ref := range in.OwnerReferences {
		if !isOwnKind(ref) && !IsReferenceTo(ref, v1alpha1.ClientKind) {
			continue
		}
		kept := metav1.OwnerReference{
			APIVersion: s.one(name, Clip(ref.APIVersion, maxVersion)), Kind: s.one(name, ref.Kind), Name: s.one(name, Clip(ref.Name, maxName)),
			UID: types.UID(Clip(string(ref.UID), maxUID)), Controller: ref.Controller,
		}
		if string(ref.UID) == owner {
			kept.UID = types.UID(s.one(name, owner))
		}
		if out != nil {
			kept.Name = "" // nobody asks for more than the first one's
		}
		if out = append(out, kept); len(out) == maxReferences {
			break
		}
	}
	return out
}

// Clip shortens a text that is longer than any that is right, so that it still differs from all of those.
func Clip(text string, longest int) string {
	if len(text) <= longest {
		return text
	}
	return strings.Clone(text[:longest+1])
}

// one gives the copy of a string that others hold already, if there is one.
func (s *Stripper) one(name, text string) string {
	if text == name {
		return name // a resource and its target have one name by default
	}
	if shared, found := s.texts[text]; found {
		return shared
	}
	return text
}

// joined puts three strings that are dropped together into one allocation, as the allocator rounds each up.
func joined(a, b, c string) (string, string, string) {
	all := a + b + c
	ab := len(a) + len(b)
	return all[:len(a)], all[len(a):ab], all[ab:]
}
