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
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// A token is at hand, and the Secret holds another one that no pass of this process wrote: one of them has to give way.
func TestSuperseded(t *testing.T) {
	ours, theirs := token.NewValue("our-token"), token.NewValue("their-token")
	const stable, legacy = v1alpha1.ModeStable, v1alpha1.ModeLegacy
	type scene struct {
		*pass

		o report.Observation
		t *pendingToken
	}
	earlier := func(s *scene) { s.t.IssuedAt = ago(time.Minute) }
	later := func(s *scene) { s.t.IssuedAt = unitNow.Add(time.Minute) }
	read := func(s *scene) { s.t.readSinceIssued = true }
	known := func(s *scene) { s.o.Holding = target.HoldsKnown }
	unmarked := func(s *scene) { s.t.unmarked = true }
	notReplaced := func(s *scene) { s.t.replaces = theirs.Fingerprint() }
	marked := func(id string) func(*scene) {
		return func(s *scene) {
			s.state.intent = s.state.intent.Marked(account.Mark{}, account.Mark{StartedAt: unitNow, ID: "m"})
			s.o.Record.Mint = account.Mark{StartedAt: unitNow, ID: id}
		}
	}
	refused := func(fingerprint string) func(*scene) {
		return func(s *scene) { s.state.membership.account.NoteDead(fingerprint, false, unitNow) }
	}
	for name, test := range map[string]struct {
		mode  v1alpha1.Mode
		edits []func(*scene)
		want  bool
	}{
		"Stable, asked before the read of the Secret": {stable, []func(*scene){read}, true},
		"Stable, asked after it":                      {stable, nil, false},
		"Stable, a forced call":                       {stable, []func(*scene){read, func(s *scene) { s.t.forced = true }}, false},
		"Stable, the same token":                      {stable, []func(*scene){read, func(s *scene) { s.o.Record.TokenFingerprint = ours.Fingerprint() }}, false},
		"Stable, no other Secret":                     {stable, []func(*scene){read, func(s *scene) { s.o.Secret = nil }}, false},
		"Stable, the status attests theirs":           {stable, []func(*scene){read, known}, true},
		"Stable, theirs is the one to replace":        {stable, []func(*scene){read, known, notReplaced}, false},
		"Stable, to replace, but nobody knows it":     {stable, []func(*scene){read, notReplaced}, true},

		"Legacy, minted earlier":                {legacy, []func(*scene){earlier}, true},
		"Legacy, minted later":                  {legacy, []func(*scene){later}, false},
		"Legacy, minted at the same moment":     {legacy, []func(*scene){func(s *scene) { s.t.IssuedAt = unitNow }}, false},
		"Legacy, minted unmarked":               {legacy, []func(*scene){later, unmarked}, true},
		"Legacy, the same token":                {legacy, []func(*scene){earlier, unmarked, func(s *scene) { s.o.Record.TokenFingerprint = ours.Fingerprint() }}, false},
		"Legacy, no other Secret":               {legacy, []func(*scene){unmarked, func(s *scene) { s.o.Secret = nil }}, false},
		"Legacy, theirs is the one to replace":  {legacy, []func(*scene){earlier, known, notReplaced}, false},
		"Legacy, another leader replaced it":    {legacy, []func(*scene){earlier, known}, true},
		"Legacy, minted after another leader's": {legacy, []func(*scene){later, known}, false},
		"Legacy, handed out, theirs is known":   {legacy, []func(*scene){earlier, known, func(s *scene) { s.t.replaces = "" }}, false},
		"Legacy, under this mark":               {legacy, []func(*scene){earlier, unmarked, marked("m")}, false},
		"Legacy, under another mark":            {legacy, []func(*scene){earlier, marked("n")}, true},
		"Legacy, refused theirs":                {legacy, []func(*scene){earlier, refused(theirs.Fingerprint())}, false},
		"Legacy, refused some one":              {legacy, []func(*scene){earlier, refused("another")}, true},
	} {
		s := &scene{
			pass: unitPass(t, test.mode),
			o: report.Observation{
				Secret: secretAt("shop", "s", "10"), Holding: target.HoldsUnattested,
				Record: target.Record{TokenFingerprint: theirs.Fingerprint(), IssuedAt: unitNow},
			},
			t: &pendingToken{Token: token.Token{Value: ours, IssuedAt: ago(time.Second)}, replaces: "older"},
		}
		s.o.Traits = traitsOf(test.mode)
		for _, e := range test.edits {
			e(s)
		}
		if got := s.superseded(s.o, s.t); got != test.want {
			t.Errorf("%s: superseded is %t", name, got)
		}
	}
}

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
	// wants are for a Secret that exists, after another conflict of the pass, and for none.
	type wants struct{ fresh, again, create want }
	sameFor := func(w want) wants { return wants{w, w, w} }
	look := want{look: true}
	for name, test := range map[string]wants{
		"conflict":            {look, want{true, transient, "somebody else keeps writing it"}, look},
		"already exists":      {look, want{true, transient, "somebody else keeps writing it"}, look},
		"not found":           {look, want{true, transient, "somebody else keeps writing it"}, want{false, action, "rejected (NotFound)"}},
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
		for situation, expect := range map[string]want{"update": test.fresh, "update again": test.again, "create": test.create} {
			p := unitPass(t, v1alpha1.ModeLegacy)
			o := report.Observation{Secret: secretAt("shop", "s", "10")}
			if situation == "create" {
				o.Secret = nil
			}
			if situation == "update again" {
				p.conflicts = 1
			}
			err := refusals()[name]
			if err == nil {
				t.Fatalf("there is no refusal %q", name)
			}
			e, err := p.refused(o, effect{calledAt: unitNow}, err)
			if err != nil || !e.calledAt.Equal(unitNow) {
				t.Errorf("%s, %s: %v, %+v", name, situation, err, e)
			}
			if e.target.lookAgain != expect.look || (e.failure == nil) != (expect.class == "") {
				t.Errorf("%s, %s: look again %t, failure %+v", name, situation, e.target.lookAgain, e.failure)
				continue
			}
			if e.failure == nil {
				continue
			}
			f := e.failure
			if f.Class != expect.class || f.Reason != v1alpha1.ReasonTargetWriteFailed || !f.OfWrite || f.Code != 0 {
				t.Errorf("%s, %s: %+v", name, situation, f.Failure)
			}
			if !strings.Contains(f.message, expect.says) || !strings.Contains(f.message, `Secret "shop"`) || strings.Contains(f.message, quoted) {
				t.Errorf("%s, %s: %q, want it to say %q", name, situation, f.message, expect.says)
			}
		}
	}
	// Two conflicts of one pass are no accident.
	p := unitPass(t, v1alpha1.ModeStable)
	o := report.Observation{Secret: secretAt("shop", "s", "10")}
	for i, failed := range []bool{false, true, true} {
		if e, _ := p.refused(o, effect{}, refusals()["conflict"]); (e.failure != nil) != failed {
			t.Errorf("conflict %d: %+v", i+1, e.failure)
		}
	}
	// When the process ends, nothing failed.
	if e, err := p.refused(o, effect{}, fmt.Errorf("patching: %w", context.Canceled)); !errors.Is(err, context.Canceled) || e.failure != nil {
		t.Errorf("the process ends: %v, %+v", err, e.failure)
	}
}

// A failed request has had its attempt; a revoke that is half done goes on.
func TestFailureEndsARequest(t *testing.T) {
	for name, test := range map[string]struct {
		d       refresh.Decision
		started bool // the revoke had its first call
		want    v1alpha1.HandledRequests
	}{
		"no request":             {refresh.Decision{Action: refresh.Issue, Reason: refresh.RefreshDue}, false, v1alpha1.HandledRequests{}},
		"check":                  {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestCheck}, false, v1alpha1.HandledRequests{Check: "check"}},
		"refresh":                {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestRefresh}, false, v1alpha1.HandledRequests{Refresh: "refresh"}},
		"the first of a revoke":  {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestRevoke}, false, v1alpha1.HandledRequests{Revoke: "revoke"}},
		"the second of a revoke": {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestRevoke}, true, v1alpha1.HandledRequests{}},
		"a check during one":     {refresh.Decision{Reason: refresh.RequestExecutable, Request: refresh.RequestCheck}, true, v1alpha1.HandledRequests{Check: "check"}},
	} {
		p := unitPass(t, v1alpha1.ModeStable)
		p.resource.Annotations = map[string]string{
			v1alpha1.AnnotationCheckRequestedAt: "check", v1alpha1.AnnotationRefreshRequestedAt: "refresh", v1alpha1.AnnotationRevokeRequestedAt: "revoke",
		}
		p.state.progress = report.Progress{Revocation: &v1alpha1.RevocationStatus{Value: "revoke"}}
		var o report.Observation
		if test.started {
			o.Requests.RevokeStarted = ago(time.Minute)
		}
		e := effect{failure: &failure{Failure: refresh.Failure{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable}, message: "what happened"}}
		p.apply(log.IntoContext(t.Context(), logr.Discard()), o, test.d, e)
		if got := p.state.progress.Handled; got != test.want {
			t.Errorf("%s: handled %+v, want %+v", name, got, test.want)
		}
		if f := p.state.failure; f == nil || f.Message != "what happened" || f.Attempts != 1 || !f.RetryAt.After(unitNow) {
			t.Errorf("%s: %+v", name, f)
		}
		if done := test.want.Revoke != ""; (p.state.progress.Revocation == nil) != done {
			t.Errorf("%s: the revoke is %+v", name, p.state.progress.Revocation)
		}
	}
}
