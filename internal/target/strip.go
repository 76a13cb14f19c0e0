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

// Stripper keeps of a Secret's metadata what decisions need. The informer uses it on every Opaque Secret of the cluster, so
// that Secrets of others cost next to nothing. What targets have in common, such as the keys of their annotations, they share: it
// would take more memory than what is different. The zero value shares nothing.
type Stripper struct {
	known map[string]string
	// labels of a target that has none but the operator's.
	labels map[string]string
	// shared has the names of namespaces.
	shared *intern.Pool
}

// NewStripper makes one for the objects of a cache, which nobody changes.
func NewStripper(shared *intern.Pool) *Stripper {
	s := &Stripper{
		known: map[string]string{}, shared: shared,
		labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
	}
	for _, text := range [...]string{
		v1alpha1.GroupVersion.String(), v1alpha1.Kind, v1alpha1.LabelManagedBy, v1alpha1.ManagedByValue,
		string(v1alpha1.ModeStable), string(v1alpha1.ModeLegacy), string(v1alpha1.DeletionDelete), string(v1alpha1.DeletionRetain),
	} {
		s.known[text] = text
	}
	for key := range (Record{}).Encode() {
		s.known[key] = key
	}
	return s
}

// StripMetadata is what a Stripper keeps, for a single Secret.
func StripMetadata(in *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	return (&Stripper{}).Strip(in)
}

// Strip leaves its argument as it is.
func (s *Stripper) Strip(in *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	managed := in.Labels[v1alpha1.LabelManagedBy] != "" || in.Annotations[v1alpha1.AnnotationOwnerUID] != ""
	name, uid, version := joined(in.Name, string(in.UID), in.ResourceVersion)
	labels := s.keep(name, in.Labels, managed)
	if maps.Equal(labels, s.labels) {
		labels = s.labels
	}
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
			Labels:            labels,
			Annotations:       s.keep(name, in.Annotations, managed),
		},
	}
	intern.Share(s.shared, &out.Namespace)
	return out
}

func (s *Stripper) keep(name string, all map[string]string, managed bool) map[string]string {
	var out map[string]string
	for k, v := range all {
		// kubectl's copy of a Secret may contain its data.
		if strings.HasPrefix(k, v1alpha1.AnnotationPrefix) || managed && k != corev1.LastAppliedConfigAnnotation {
			if out == nil {
				out = make(map[string]string)
			}
			out[s.one(name, k)] = s.one(name, v)
		}
	}
	return out
}

func (s *Stripper) references(name string, in *metav1.PartialObjectMetadata) []metav1.OwnerReference {
	if len(in.OwnerReferences) == 0 {
		return nil
	}
	owner := in.Annotations[v1alpha1.AnnotationOwnerUID]
	out := make([]metav1.OwnerReference, 0, len(in.OwnerReferences))
	for _, ref := range in.OwnerReferences {
		ref.APIVersion, ref.Kind, ref.Name = s.one(name, ref.APIVersion), s.one(name, ref.Kind), s.one(name, ref.Name)
		if string(ref.UID) == owner {
			ref.UID = types.UID(owner)
		}
		out = append(out, ref)
	}
	return out
}

// one gives the copy of a string that others hold already, if there is one.
func (s *Stripper) one(name, text string) string {
	if text == name {
		return name // a resource and its target have one name by default
	}
	if known, found := s.known[text]; found {
		return known
	}
	return text
}

// joined puts three strings that are dropped together into one allocation, as the allocator rounds each up.
func joined(a, b, c string) (string, string, string) {
	all := a + b + c
	ab := len(a) + len(b)
	return all[:len(a)], all[len(a):ab], all[ab:]
}
