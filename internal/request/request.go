// SPDX-License-Identifier: Apache-2.0

// Package request says how each kind of request appears in the API.
package request

import (
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
