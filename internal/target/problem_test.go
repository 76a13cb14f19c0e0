// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// answered returns an answer of the API server, which quotes the Secret.
func answered(code int32, reason metav1.StatusReason, message string) error {
	return fmt.Errorf("updating target Secret shop/shop: %w", &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message + " " + tokenText,
	}})
}

// What the API server says of a write is told without what it may quote.
func TestProblems(t *testing.T) {
	secrets, kind := corev1.Resource("secrets"), corev1.SchemeGroupVersion.WithKind("Secret").GroupKind()
	immutable := field.ErrorList{field.Invalid(field.NewPath("data"), tokenText, "is immutable")}
	for name, test := range map[string]struct {
		err     error
		refusal bool
		says    string // RefusalMessage if it is a refusal, or else DelayMessage
	}{
		"quota": {
			answered(http.StatusForbidden, metav1.StatusReasonForbidden, "exceeded quota: secrets"), true,
			"forbidden; look for a ResourceQuota, an admission policy, or missing permissions of the operator's ServiceAccount",
		},
		"policy": {
			answered(http.StatusForbidden, metav1.StatusReasonForbidden, `ValidatingAdmissionPolicy 'no-tokens.example.com' denied`), true,
			`forbidden by "no-tokens.example.com"; look for a ResourceQuota, an admission policy, or missing permissions of the operator's ServiceAccount`,
		},
		"webhook that forbids": {
			answered(http.StatusForbidden, metav1.StatusReasonForbidden, `admission webhook "deny.example.com" denied the request:`), true,
			`forbidden by "deny.example.com"; look for a ResourceQuota, an admission policy, or missing permissions of the operator's ServiceAccount`,
		},
		"webhook": {
			answered(http.StatusBadRequest, metav1.StatusReasonBadRequest, `admission webhook "deny.example.com" denied the request:`), true,
			`rejected (BadRequest) by "deny.example.com"; look for an admission webhook or policy`,
		},
		"too large": {
			answered(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, ""), true,
			"rejected (RequestEntityTooLarge); look for an admission webhook or policy",
		},
		"invalid": {apierrors.NewInvalid(kind, "shop", immutable), true, "the result would be invalid; look at spec.target"},
		"namespace ends": {
			&apierrors.StatusError{ErrStatus: metav1.Status{
				Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: tokenText,
				Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}},
			}}, true, "its namespace is being deleted",
		},
		"a name that is none": {
			answered(http.StatusForbidden, metav1.StatusReasonForbidden, `webhook "`+tokenText+`" denied`), true,
			"forbidden; look for a ResourceQuota, an admission policy, or missing permissions of the operator's ServiceAccount",
		},
		"conflict":       {fmt.Errorf("patching: %w", apierrors.NewConflict(secrets, "shop", errors.New(tokenText))), false, "somebody else keeps writing it"},
		"already exists": {fmt.Errorf("creating: %w", apierrors.NewAlreadyExists(secrets, "shop")), false, "somebody else keeps writing it"},
		"not found":      {fmt.Errorf("patching: %w", apierrors.NewNotFound(secrets, "shop")), false, "somebody else keeps writing it"},
		"server error": {
			answered(http.StatusInternalServerError, metav1.StatusReasonInternalError, `failed calling webhook "slow.example.com": `), false,
			`it answered 500 (InternalError) by "slow.example.com"`,
		},
		"unavailable":    {answered(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, ""), false, "it answered 503 (ServiceUnavailable)"},
		"too many":       {answered(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, ""), false, "it answered 429 (TooManyRequests)"},
		"not authorized": {answered(http.StatusUnauthorized, metav1.StatusReasonUnauthorized, ""), false, "it answered 401 (Unauthorized)"},
		"not in time":    {fmt.Errorf("patching: %w", context.DeadlineExceeded), false, "it did not answer in time"},
		"no answer":      {fmt.Errorf("patching: %w", io.ErrUnexpectedEOF), false, "it cannot be reached"},
	} {
		says := DelayMessage(test.err)
		if test.refusal {
			says = RefusalMessage(test.err, AtTarget)
		}
		if got := IsRefusal(test.err); got != test.refusal || says != test.says {
			t.Errorf("%s: refusal %t, %q, want %q", name, got, says, test.says)
		}
		for _, message := range []string{RefusalMessage(test.err, AtTarget), DelayMessage(test.err)} {
			if strings.Contains(message, tokenText) {
				t.Errorf("%s: %q quotes the Secret", name, message)
			}
		}
	}
	if got, want := RefusalMessage(apierrors.NewNotFound(corev1.Resource("namespaces"), "shop"), AtTarget), "its namespace does not exist any more"; got != want {
		t.Errorf("the namespace is gone: %q, want %q", got, want)
	}
	if IsRefusal(nil) {
		t.Error("a refusal out of nothing")
	}
}
