// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// requestAnnotations are the keys of the annotations that ask for something.
func requestAnnotations() []string {
	return []string{v1alpha1.AnnotationRotateKeyRequestedAt, v1alpha1.AnnotationRevokeKeyRequestedAt}
}

// handled returns the requests that had their attempts: what the status says, unless this process knows more. Values that are there when a
// client is first seen are recorded as handled, because GitOps and backups replay annotations when they re-create a resource.
func (p *pass) handled() v1alpha1.HandledClientRequests {
	status := p.client.Status
	switch {
	case status.ObservedGeneration < 0, p.state.unsaved != nil:
		return p.state.handled
	case status.HandledRequests != nil:
		return *status.HandledRequests
	}
	return v1alpha1.HandledClientRequests{}
}

// wants reports whether a request was made that is not handled yet.
func wants(c *v1alpha1.WeChatAppClient, annotation, handled string) bool {
	v := c.Annotations[annotation]
	return v != "" && v != handled && len(v) <= v1alpha1.RequestValueMaxLength
}

// allHandled returns the record after everything that is asked for was done: a new key is all that a rotation wants, too.
func allHandled(c *v1alpha1.WeChatAppClient, h v1alpha1.HandledClientRequests) v1alpha1.HandledClientRequests {
	if wants(c, v1alpha1.AnnotationRotateKeyRequestedAt, h.RotateKey) {
		h.RotateKey = c.Annotations[v1alpha1.AnnotationRotateKeyRequestedAt]
	}
	if wants(c, v1alpha1.AnnotationRevokeKeyRequestedAt, h.RevokeKey) {
		h.RevokeKey = c.Annotations[v1alpha1.AnnotationRevokeKeyRequestedAt]
	}
	return h
}

// report writes the status if it says something else than the last one, and sends what events follow.
func (p *pass) report(ctx context.Context, o observation, d decision) error {
	last := p.client.Status
	next := status(last, o, d)
	if !equality.Semantic.DeepEqual(next, last) {
		failpoint.Hit("before-client-status")
		seen := metav1.ObjectMeta{Namespace: p.client.Namespace, Name: p.client.Name, ResourceVersion: p.client.ResourceVersion}
		version, err := kube.PatchStatus(ctx, p.Client, v1alpha1.ClientKind, &v1alpha1.WeChatAppClient{ObjectMeta: seen, Status: last},
			&v1alpha1.WeChatAppClient{ObjectMeta: seen, Status: next}, target.FieldManager)
		switch {
		case apierrors.IsNotFound(err):
			return nil // deleted meanwhile
		case apierrors.IsConflict(err):
			return errCacheBehind // the gateway wrote a hint, or the spec has changed
		case err != nil:
			return fmt.Errorf("writing the status of WeChatAppClient %s: %w", p.name(), err)
		}
		p.state.gate.WroteStatus(version, p.now)
		failpoint.Hit("after-client-status")
	}
	p.state.unsaved = nil
	was := apimeta.FindStatusCondition(last.Conditions, v1alpha1.ConditionReady)
	if d.verdict.reason == v1alpha1.ReasonKeySecretConflict && (was == nil || was.Reason != d.verdict.reason) {
		p.event(notice{corev1.EventTypeWarning, v1alpha1.EventKeySecretConflict, d.verdict.message})
	}
	return nil
}

// status returns what to say.
func status(last v1alpha1.WeChatAppClientStatus, o observation, d decision) v1alpha1.WeChatAppClientStatus {
	next := v1alpha1.WeChatAppClientStatus{ObservedGeneration: o.client.Generation, Key: d.key, Hint: last.Hint}
	if d.handled != (v1alpha1.HandledClientRequests{}) {
		handled := d.handled
		next.HandledRequests = &handled
	}
	next.Conditions = conditions(last.Conditions, o, d.verdict)
	return next
}

// conditions returns Ready, and Reconciling or Stalled while it is True.
func conditions(last []metav1.Condition, o observation, v verdict) []metav1.Condition {
	list := slices.Clone(last)
	set := func(kind string, is bool) {
		if !is && kind != v1alpha1.ConditionReady {
			apimeta.RemoveStatusCondition(&list, kind)
			return
		}
		c := metav1.Condition{
			Type: kind, Status: metav1.ConditionFalse, Reason: v.reason, Message: v.message,
			ObservedGeneration: o.client.Generation, LastTransitionTime: seconds(o.now),
		}
		if is {
			c.Status = metav1.ConditionTrue
		}
		apimeta.SetStatusCondition(&list, c)
	}
	set(v1alpha1.ConditionReady, v.ready)
	set(v1alpha1.ConditionReconciling, v.progress == reconciling)
	set(v1alpha1.ConditionStalled, v.progress == stalled)
	slices.SortFunc(list, func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
	return list
}

// maxNote is the longest note of an event, in bytes. The API server refuses more than 1024.
const maxNote = 1000

// notice is what people are told once.
type notice struct{ kind, reason, note string }

// tellKey sends the event about a key that has changed. The first key sends none.
func (p *pass) tellKey(plan keyPlan) {
	name := p.client.Spec.Key.SecretName
	switch plan.change {
	case rotate:
		p.event(notice{corev1.EventTypeNormal, v1alpha1.EventKeyRotated, fmt.Sprintf(
			"Secret %q has a new key; the one before buys tokens until %s: restart the programs that read it",
			name, target.FormatTime(plan.until.Time))})
	case revoke:
		p.event(notice{corev1.EventTypeNormal, v1alpha1.EventKeyRevoked, fmt.Sprintf(
			"the keys of Secret %q and all tokens that were bought with them are ended: restart the programs that read it", name)})
	case repair:
		p.event(notice{corev1.EventTypeWarning, v1alpha1.EventKeyRepaired, fmt.Sprintf(
			"somebody changed or deleted Secret %q, so it has a new key: restart the programs that read it", name)})
	case keep, issue:
		if plan.lost {
			p.event(notice{corev1.EventTypeWarning, v1alpha1.EventKeyRepaired, fmt.Sprintf(
				"somebody removed the key before from Secret %q: programs that still use it must restart", name)})
		}
	}
}

func (p *pass) event(n notice) {
	regarding := &v1alpha1.WeChatAppClient{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.ClientKind},
		ObjectMeta: p.client.ObjectMeta,
	}
	p.Events.Eventf(regarding, nil, n.kind, n.reason, "Reconcile", "%s", n.note[:min(len(n.note), maxNote)])
}
