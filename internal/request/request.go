// SPDX-License-Identifier: Apache-2.0

// Package request says how each kind of request appears in the API: as an annotation that asks for it, a field of the
// status that tells it was handled, and an event that tells the outcome.
package request

import (
	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// Annotation is the key whose value asks for a request.
func Annotation(kind refresh.RequestKind) string {
	switch kind {
	case refresh.RequestRefresh:
		return v1alpha1.AnnotationRefreshRequestedAt
	case refresh.RequestRevoke:
		return v1alpha1.AnnotationRevokeRequestedAt
	case refresh.RequestCheck:
	}
	return v1alpha1.AnnotationCheckRequestedAt
}

// Handled is the field that holds the last value that had its attempt.
func Handled(h *v1alpha1.HandledRequests, kind refresh.RequestKind) *string {
	switch kind {
	case refresh.RequestRefresh:
		return &h.Refresh
	case refresh.RequestRevoke:
		return &h.Revoke
	case refresh.RequestCheck:
	}
	return &h.Check
}

// Event is the reason of the event that tells the outcome.
func Event(kind refresh.RequestKind) string {
	switch kind {
	case refresh.RequestRefresh:
		return v1alpha1.EventRequestedRefresh
	case refresh.RequestRevoke:
		return v1alpha1.EventRequestedRevoke
	case refresh.RequestCheck:
	}
	return v1alpha1.EventRequestedCheck
}
