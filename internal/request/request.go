// SPDX-License-Identifier: Apache-2.0

// Package request says how each kind of request appears in the API.
package request

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// names has a row for each of refresh.RequestKinds.
var names = map[refresh.RequestKind]struct {
	annotation string
	event      string
	handled    func(*v1alpha1.HandledRequests) *string
}{
	refresh.RequestCheck: {
		annotation: v1alpha1.AnnotationCheckRequestedAt,
		event:      v1alpha1.EventRequestedCheck,
		handled:    func(h *v1alpha1.HandledRequests) *string { return &h.Check },
	},
	refresh.RequestRefresh: {
		annotation: v1alpha1.AnnotationRefreshRequestedAt,
		event:      v1alpha1.EventRequestedRefresh,
		handled:    func(h *v1alpha1.HandledRequests) *string { return &h.Refresh },
	},
	refresh.RequestRevoke: {
		annotation: v1alpha1.AnnotationRevokeRequestedAt,
		event:      v1alpha1.EventRequestedRevoke,
		handled:    func(h *v1alpha1.HandledRequests) *string { return &h.Revoke },
	},
}

// Annotation returns the key of the annotation that makes a request.
func Annotation(kind refresh.RequestKind) string { return names[kind].annotation }

// Annotations returns the keys of the annotations that make requests of a WeChatAppToken. It is a literal, because it is asked for with
// each object that a cache receives.
func Annotations() []string {
	return []string{v1alpha1.AnnotationRevokeRequestedAt, v1alpha1.AnnotationRefreshRequestedAt, v1alpha1.AnnotationCheckRequestedAt}
}

// Shrink leaves out of a resource's metadata what no decision needs, for the cache. What users can write is bounded: the value of one of
// these annotations that is too long stays too long.
func Shrink(meta *metav1.ObjectMeta, annotations []string) {
	meta.ManagedFields, meta.Labels, meta.OwnerReferences, meta.Finalizers = nil, nil, nil, nil
	all := meta.Annotations
	meta.Annotations = nil
	for _, key := range annotations {
		if v := all[key]; v != "" {
			metav1.SetMetaDataAnnotation(meta, key, strings.Clone(v[:min(len(v), v1alpha1.RequestValueMaxLength+1)]))
		}
	}
}

// Changed reports whether a person or pipeline asked for something, by the spec or by one of these annotations, or made another resource.
func Changed(was, is metav1.Object, annotations []string) bool {
	before, after := was.GetAnnotations(), is.GetAnnotations()
	return was.GetGeneration() != is.GetGeneration() || was.GetUID() != is.GetUID() ||
		slices.ContainsFunc(annotations, func(key string) bool { return before[key] != after[key] })
}

// Value returns the value of the annotation by which a resource makes a request; "" for none.
func Value(resource *v1alpha1.WeChatAppToken, kind refresh.RequestKind) string {
	return resource.Annotations[Annotation(kind)]
}

// Handled returns the field of the status that records the last value of the annotation that was processed.
func Handled(h *v1alpha1.HandledRequests, kind refresh.RequestKind) *string {
	return names[kind].handled(h)
}

// Event returns the reason of the event that reports the outcome.
func Event(kind refresh.RequestKind) string { return names[kind].event }
