// SPDX-License-Identifier: Apache-2.0

package controller

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

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// quoted is what answers of the API server quote, and nobody may see.
const quoted = "86_token-that-nobody-may-see"

// statusError returns an answer of the API server.
func statusError(code int32, reason metav1.StatusReason, message string) error {
	return fmt.Errorf("updating target Secret shop/shop: %w", &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message + " " + quoted,
	}})
}

// refusals are the ways in which the API server does not take a write.
func refusals() map[string]error {
	secrets := corev1.Resource("secrets")
	return map[string]error{
		"conflict":            fmt.Errorf("patching: %w", apierrors.NewConflict(secrets, "shop", errors.New(quoted))),
		"already exists":      fmt.Errorf("creating: %w", apierrors.NewAlreadyExists(secrets, "shop")),
		"not found":           fmt.Errorf("patching: %w", apierrors.NewNotFound(secrets, "shop")),
		"invalid":             apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("Secret").GroupKind(), "shop", field.ErrorList{field.Invalid(field.NewPath("data"), quoted, "is immutable")}),
		"forbidden":           statusError(http.StatusForbidden, metav1.StatusReasonForbidden, "exceeded quota: secrets"),
		"forbidden by policy": statusError(http.StatusForbidden, metav1.StatusReasonForbidden, `ValidatingAdmissionPolicy 'no-tokens.example.com' denied`),
		"webhook says no":     statusError(http.StatusBadRequest, "", `admission webhook "deny.example.com" denied the request:`),
		"too large":           statusError(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge, ""),
		"namespace ends": &apierrors.StatusError{ErrStatus: metav1.Status{
			Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: quoted,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}},
		}},
		"server error":   statusError(http.StatusInternalServerError, metav1.StatusReasonInternalError, `failed calling webhook "slow.example.com": `),
		"unavailable":    statusError(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, ""),
		"too many":       statusError(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, ""),
		"no answer":      fmt.Errorf("patching: %w", io.ErrUnexpectedEOF),
		"not in time":    fmt.Errorf("patching: %w", context.DeadlineExceeded),
		"not authorized": statusError(http.StatusUnauthorized, metav1.StatusReasonUnauthorized, ""),
	}
}

// Each way in which a write is refused is settled by one more look, or is a failure that has a back-off.
func TestRefused(t *testing.T) {
	const action, transient = token.Action, token.Transient
	type want struct {
		look  bool // look again, with nothing else
		class token.Class
		says  string
	}
	// wants are for a Secret that exists, after another conflict of the pass or a write that failed, and for none.
	type wants struct{ fresh, again, create want }
	sameFor := func(w want) wants { return wants{w, w, w} }
	look := want{look: true}
	for name, test := range map[string]wants{
		"conflict":            {look, want{true, transient, "somebody else keeps writing it"}, look},
		"already exists":      {look, want{true, transient, "somebody else keeps writing it"}, look},
		"not found":           {look, want{true, transient, "somebody else keeps writing it"}, want{false, action, "its namespace does not exist any more"}},
		"invalid":             {look, want{false, action, "would be invalid; look at spec.target"}, want{false, action, "would be invalid; look at spec.target"}},
		"forbidden":           sameFor(want{false, action, "forbidden; look for a ResourceQuota"}),
		"forbidden by policy": sameFor(want{false, action, `forbidden by "no-tokens.example.com"; look for`}),
		"webhook says no":     sameFor(want{false, action, `by "deny.example.com"; look for an admission webhook`}),
		"too large":           sameFor(want{false, action, "rejected (RequestEntityTooLarge)"}),
		"namespace ends":      sameFor(want{false, action, "its namespace is being deleted"}),
		"server error":        sameFor(want{false, transient, `it answered 500 (InternalError) by "slow.example.com"; the operator tries again`}),
		"unavailable":         sameFor(want{false, transient, "it answered 503 (ServiceUnavailable)"}),
		"too many":            sameFor(want{false, transient, "it answered 429 (TooManyRequests)"}),
		"no answer":           sameFor(want{false, transient, "it cannot be reached"}),
		"not in time":         sameFor(want{false, transient, "it did not answer in time"}),
		"not authorized":      sameFor(want{false, transient, "it answered 401 (Unauthorized)"}),
	} {
		for situation, expect := range map[string]want{
			"update": test.fresh, "update again": test.again, "update after a failure": test.again, "create": test.create, "update after another failure": test.fresh,
		} {
			p := unitPass(t, v1alpha1.ModeLegacy)
			o := report.Observation{Secret: secretAt("shop", "s", "10")}
			switch situation {
			case "create":
				o.Secret = nil
			case "update again":
				p.conflicts = 1
			case "update after a failure":
				p.state.failure = &report.Failure{Failure: refresh.Failure{Class: token.Transient, OfWrite: true}}
			case "update after another failure":
				p.state.failure = &report.Failure{Failure: refresh.Failure{Class: token.Transient}}
			}
			err := refusals()[name]
			if err == nil {
				t.Fatalf("there is no refusal %q", name)
			}
			e, err := p.refused(o, report.Effect{Times: report.Times{Called: unitNow}}, err, false)
			if err != nil || !e.Times.Called.Equal(unitNow) {
				t.Errorf("%s, %s: %v, %+v", name, situation, err, e)
			}
			if e.Target.LookAgain != expect.look || (e.Failed == nil) != (expect.class == "") {
				t.Errorf("%s, %s: look again %t, failure %+v", name, situation, e.Target.LookAgain, e.Failed)
				continue
			}
			if e.Failed == nil {
				continue
			}
			f := e.Failed
			if f.Class != expect.class || f.Reason != v1alpha1.ReasonTargetWriteFailed || !f.OfWrite || f.Code != 0 {
				t.Errorf("%s, %s: %+v", name, situation, f.Failure)
			}
			if !strings.Contains(f.Message, expect.says) || !strings.Contains(f.Message, `Secret "shop"`) || strings.Contains(f.Message, quoted) {
				t.Errorf("%s, %s: %q, want it to say %q", name, situation, f.Message, expect.says)
			}
		}
	}
	// Two conflicts of one pass are no accident.
	p := unitPass(t, v1alpha1.ModeStable)
	o := report.Observation{Secret: secretAt("shop", "s", "10")}
	for i, failed := range []bool{false, true, true} {
		if e, _ := p.refused(o, report.Effect{}, refusals()["conflict"], false); (e.Failed != nil) != failed {
			t.Errorf("conflict %d: %+v", i+1, e.Failed)
		}
	}
	// When the process ends, nothing failed.
	if e, err := p.refused(o, report.Effect{}, fmt.Errorf("patching: %w", context.Canceled), false); !errors.Is(err, context.Canceled) || e.Failed != nil {
		t.Errorf("the process ends: %v, %+v", err, e.Failed)
	}
}
