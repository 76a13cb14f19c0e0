// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// progress is the condition beside Ready.
type progress string

const (
	none        progress = ""
	reconciling progress = v1alpha1.ConditionReconciling
	stalled     progress = v1alpha1.ConditionStalled
)

// verdict is what the conditions say.
type verdict struct {
	ready           bool
	reason, message string
	progress        progress
}

// decision is what to write and what to tell.
type decision struct {
	// write reports that the Secret has to be written as planned.
	write bool
	plan  keyPlan
	// key is what the status says of the key if nothing is written, or if the write fails.
	key     *v1alpha1.ClientKeyStatus
	handled v1alpha1.HandledClientRequests
	verdict verdict
	// failed reports that the verdict tells of a write that failed.
	failed bool
	// at is when to look again; zero for not before an event.
	at time.Time
}

// decide is a function of the observation alone.
func decide(o observation) decision {
	d := decision{key: o.known, handled: o.handled, verdict: judge(o)}
	if o.client.Spec.Key == nil {
		d.handled, d.key = allHandled(o.client, o.handled), nil
		return d
	}
	wantsRotate, wantsRevoke := wants(o.client, v1alpha1.AnnotationRotateKeyRequestedAt, o.handled.RotateKey),
		wants(o.client, v1alpha1.AnnotationRevokeKeyRequestedAt, o.handled.RevokeKey)
	writable := o.gateway.URL != "" && o.token != nil && o.ownership.Writable()
	switch {
	case writable && (!o.client.Spec.Suspend || wantsRevoke):
	case wantsRevoke: // without the Secret's new key: what the status does not name is no key
		d.key, d.handled = nil, allHandled(o.client, o.handled)
		d.plan.change = revoke
		return d
	default:
		return d
	}
	d.plan = planKey(keyInputs{
		now: o.now, synced: o.synced, spec: *o.client.Spec.Key, known: o.known, current: o.held.current, previous: o.held.previous,
		rotate: wantsRotate, revoke: wantsRevoke,
	})
	d.write = d.plan.change != keep || o.held.previous != d.plan.previous || o.outdated()
	if d.write && o.tooSoonFor(d.plan.change) {
		d.write, d.at, d.verdict = false, o.repairNotBefore, contested(o, d.plan.change)
		d.plan = keyPlan{}
		return d
	}
	d.at = d.plan.at
	if d.plan.change != keep {
		d.handled = allHandled(o.client, o.handled)
	} else if d.key != nil {
		d.key = d.plan.next(d.key.Fingerprint)
	}
	d.verdict.message += keyNotes(o, d.plan)
	if !d.write {
		d.verdict.message += referenceNote(o.held.references, o, o.referencesRefused)
	}
	return d
}

// tooSoonFor reports whether a repair has to wait. A rotation or a revoke does not wait.
func (o observation) tooSoonFor(c change) bool {
	return (c == keep || c == repair) && o.now.Before(o.repairNotBefore)
}

// refused returns the decision after the API server did not take a write of the Secret, which has failed for some time.
func (d decision) refused(o observation, err error, lasts time.Duration) decision {
	if d.plan.change == revoke {
		d.key, d.handled = nil, allHandled(o.client, o.handled) // what the status does not name is no key
		d.failed = true
	} else {
		d.key, d.handled = o.known, o.handled
	}
	name := o.client.Spec.Key.SecretName
	otherType, isOtherType := errors.AsType[otherTypeError](err)
	switch {
	case isOtherType:
		d.failed = true
		d.verdict = verdict{reason: v1alpha1.ReasonKeySecretConflict, progress: stalled, message: fmt.Sprintf(
			"Secret %q exists and is of type %q: delete it with kubectl delete secret -n %s %[1]s, or delete this WeChatAppClient and create one "+
				"with another spec.key.secretName", name, string(otherType), o.client.Namespace)}
	case target.IsRefusal(err):
		d.failed = true
		d.verdict = verdict{reason: v1alpha1.ReasonKeySecretWriteFailed, progress: stalled, message: fmt.Sprintf(
			"the API server refuses the write of Secret %q: %s", name, target.RefusalMessage(err, fmt.Sprintf("if it is immutable or too large, "+
				"delete it with kubectl delete secret -n %s %s, and it is made anew with another key", o.client.Namespace, name)))}
	case lasts >= refresh.ReportAfter:
		d.failed = true
		d.verdict = verdict{reason: v1alpha1.ReasonKeySecretWriteFailed, progress: reconciling, message: fmt.Sprintf(
			"Secret %q could not be written: %s; the operator tries again by itself", name, target.DelayMessage(err))}
	}
	return d
}

// contested says that somebody keeps changing the Secret, which is to be changed back.
func contested(o observation, by change) verdict {
	what := "somebody keeps rewriting Secret %q, or changes the labels or annotations that the operator gives it; it is put right in a while"
	if by == repair {
		what = "somebody keeps rewriting or deleting Secret %q; a new key is made in a while"
	}
	return verdict{reason: v1alpha1.ReasonKeySecretConflict, progress: reconciling, message: fmt.Sprintf(
		what+": find out who with kubectl get secret -n %s %[1]s -o yaml --show-managed-fields",
		o.client.Spec.Key.SecretName, o.client.Namespace)}
}

// endsUnwritten reports whether the status ends a key without a write of the Secret, given the error of the write.
func (d decision) endsUnwritten(err error) bool {
	return d.plan.change == revoke && (!d.write || err != nil) || d.plan.lost && !d.write
}

// isRefusal reports whether a write fails until somebody acts. The status tells, and the next attempt has time.
func isRefusal(err error) bool {
	_, isOtherType := errors.AsType[otherTypeError](err)
	return isOtherType || target.IsRefusal(err)
}

// otherTypeError says that a Secret of this type is in the way.
type otherTypeError corev1.SecretType

// Error implements error.
func (e otherTypeError) Error() string { return "a Secret of type " + string(e) + " is in the way" }

// judge says whether the client can call, if all goes as planned.
func judge(o observation) verdict {
	spec, namespace := o.client.Spec, o.client.Namespace
	switch {
	case spec.Suspend:
		return verdict{reason: v1alpha1.ReasonSuspended, message: fmt.Sprintf(
			"its calls are refused: kubectl patch wxclient -n %s %s --type merge -p '{\"spec\":{\"suspend\":false}}' lets them pass again",
			namespace, o.client.Name)}
	case o.gateway.Problem != "":
		return verdict{reason: v1alpha1.ReasonGatewayNotInstalled, progress: reconciling, message: o.gateway.Problem}
	case o.gateway.URL == "":
		return verdict{reason: v1alpha1.ReasonGatewayNotInstalled, progress: stalled, message: "this operator knows of no gateway: install it " +
			"with the chart's values gateway.enabled, gateway.namespaces and gateway.tls, or start the operator with --gateway-url"}
	case o.token == nil:
		return verdict{reason: v1alpha1.ReasonTokenNotFound, progress: reconciling, message: fmt.Sprintf(
			"WeChatAppToken %q does not exist here, or this operator does not serve it: look with kubectl get wxtoken -n %s, and create it",
			spec.TokenRef.Name, namespace)}
	case spec.Key != nil && o.ownership.Claim == target.Conflict:
		return verdict{reason: v1alpha1.ReasonKeySecretConflict, progress: stalled, message: o.ownership.Message}
	case spec.Key != nil && o.ownership.Claim == target.Terminating:
		return verdict{reason: v1alpha1.ReasonKeySecretConflict, progress: reconciling, message: o.ownership.Message}
	case spec.Login && (o.credentials == nil || o.credentials.Labels[v1alpha1.LabelCredentials] != "true"):
		v := verdict{reason: v1alpha1.ReasonCredentialsNotLabelled, progress: stalled}
		secret := o.token.Spec.CredentialsSecretRef.Name
		v.message = fmt.Sprintf("spec.login needs a label on Secret %q, by which the gateway may read the AppSecret: "+
			"kubectl label secret -n %s %[1]s %[3]s=true", secret, namespace, v1alpha1.LabelCredentials)
		if o.credentials == nil {
			v.progress = reconciling
			v.message = fmt.Sprintf("spec.login needs Secret %q with the AppSecret and the label %s=true, and it does not exist", secret,
				v1alpha1.LabelCredentials)
		}
		return v
	}
	v := verdict{ready: true, reason: v1alpha1.ReasonClientReady, message: "it may call WeChat's API at " + o.gateway.URL}
	if spec.Key != nil {
		v.message += fmt.Sprintf(" with the key in Secret %q", spec.Key.SecretName)
	}
	return v
}

// keyNotes returns what people have to know of the key before, and of requests that wait.
func keyNotes(o observation, p keyPlan) string {
	var out strings.Builder
	if p.previous != "" {
		fmt.Fprintf(&out, "; the key before it buys no more tokens from %s on: restart the programs that read the Secret before %s",
			target.FormatTime(p.until.Time), target.FormatTime(p.createTime.Time))
	}
	if p.rotationWaits {
		fmt.Fprintf(&out, "; the requested rotation waits until %s, when the last tokens of the key before have ended",
			target.FormatTime(p.until.Add(tokensLive)))
		if !o.synced {
			out.WriteString(", and for an answer of WeChat, which tells the time")
		}
	}
	for _, key := range requestAnnotations() {
		if len(o.client.Annotations[key]) > v1alpha1.RequestValueMaxLength {
			fmt.Fprintf(&out, "; the annotation %s is longer than %d characters and is ignored", key, v1alpha1.RequestValueMaxLength)
		}
	}
	return out.String()
}

// referenceNote says that the owner reference is not as spec.key.deletionPolicy wants it, and cannot be changed; "" if it is.
func referenceNote(have []metav1.OwnerReference, o observation, refused bool) string {
	if _, changed := target.References(have, o.reference(), v1alpha1.ClientKind); !refused || !changed {
		return ""
	}
	return "; spec.key.deletionPolicy has no effect, because the API server refuses to change the owner reference: this cluster lets only " +
		"accounts that may delete Secrets do it, or the Secret has another controller. Edit its metadata.ownerReferences by hand"
}
