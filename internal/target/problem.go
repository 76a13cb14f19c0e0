// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// IsRefusal reports whether a person must act, because the API server, its admission or a quota said no.
func IsRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	switch status.Status().Code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return true
	}
	return false
}

// Refusal returns what a status says of a write of a Secret that the API server refuses: of labels, annotations or the owner reference
// alone, or of more.
func Refusal(secret string, err error, ofMetadata bool) string {
	if ofMetadata {
		return fmt.Sprintf("the API server refuses to set labels, annotations or the owner reference of Secret %q as spec.target wants them: "+
			"%s; tokens are written without them", secret, RefusalMessage(err, AtTarget))
	}
	return fmt.Sprintf("the API server refuses to write Secret %q: %s", secret, RefusalMessage(err, AtTarget))
}

// AtTarget is what to do about a target Secret that would be invalid.
const AtTarget = "look at spec.target"

// RefusalMessage returns why the API server refuses a write, without the data that its answer may quote. ifInvalid is what to do if the
// Secret would be invalid.
func RefusalMessage(err error, ifInvalid string) string {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return "its namespace is being deleted"
	case apierrors.IsForbidden(err):
		return "forbidden" + gatekeeper(err) +
			"; look for a ResourceQuota, an admission policy, or missing permissions of the operator's ServiceAccount"
	case apierrors.IsInvalid(err):
		return "the result would be invalid" + gatekeeper(err) + "; " + ifInvalid
	case apierrors.IsNotFound(err):
		return "its namespace does not exist any more"
	default:
		return "rejected (" + string(apierrors.ReasonForError(err)) + ")" + gatekeeper(err) + "; look for an admission webhook or policy"
	}
}

// DelayMessage returns why a request did not work that may work the next time, without the data that an answer may quote.
func DelayMessage(err error) string {
	var status apierrors.APIStatus
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		return "somebody else keeps writing it"
	case errors.As(err, &status):
		return fmt.Sprintf("it answered %d (%s)%s", status.Status().Code, status.Status().Reason, gatekeeper(err))
	case errors.Is(err, context.DeadlineExceeded):
		return "it did not answer in time"
	}
	return "it cannot be reached"
}

// AnswerMessage returns what the API server answered, without its own words, which may quote an object.
func AnswerMessage(err error) string {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return fmt.Sprintf("the API server answered %d (%s)", status.Status().Code, status.Status().Reason)
	}
	return "the API server could not be asked"
}

// gatekeeperName finds the name of a webhook or policy in what the API server says.
var gatekeeperName = regexp.MustCompile(`(?:webhook|ValidatingAdmissionPolicy) ["']([-.a-z0-9]{1,253})["']`)

// gatekeeper returns " by <name>" if the API server names the webhook or policy that stopped a request; else "". Nothing else of what it
// says is repeated, because it may quote the Secret.
func gatekeeper(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return ""
	}
	found := gatekeeperName.FindStringSubmatch(status.Status().Message)
	if found == nil {
		return ""
	}
	return fmt.Sprintf(" by %q", found[1])
}
