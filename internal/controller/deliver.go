// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// usualWay ends every message about a delivery that does not work.
const usualWay = "; until then pods get a new token the usual way, within about 90 s"

// prompt: pods are to be told of a new token at once.
func (p *pass) prompt() bool { return p.token.Spec.Target.Delivery == v1alpha1.DeliveryPrompt }

// deliver hands a token that pods were not told of to the deliverer, which works apart from all passes. A pass ends here
// only when nothing is left to do for the token itself.
func (p *pass) deliver() {
	if p.deliverer == nil {
		return
	}
	stored := p.stored.fingerprint != "" && p.ownership.Writable() && !p.mem.verified.tampered
	if !p.prompt() || !stored || p.deleted || p.decision.Reason == refresh.Suspended {
		p.deliverer.Cancel(nameOf(p.token))
		return
	}
	if p.deliveredAlready() {
		return
	}
	p.deliverer.Deliver(delivery.Job{
		Owner: nameOf(p.token), UID: p.token.UID, Secret: p.token.TargetName(),
		Fingerprint: p.stored.fingerprint, Since: p.writtenAt,
	})
}

// deliveredAlready: all pods were told, as this process or the status knows. A process that died before it could say so
// leaves the rest to the next one.
func (p *pass) deliveredAlready() bool {
	if o := p.mem.delivered(); o.Fingerprint == p.stored.fingerprint {
		return o.Err == nil
	}
	s := p.token.Status.Delivery
	return s != nil && s.Fingerprint == p.stored.fingerprint && s.Reached >= s.Pods
}

// delivered takes what the deliverer reports; the resource's next pass writes the status.
func (r *Reconciler) delivered(ctx context.Context, owner types.NamespacedName, uid types.UID, o delivery.Outcome) {
	mem := r.memories.find(owner)
	if mem == nil || mem.uid != uid {
		return
	}
	mem.mu.Lock()
	mem.delivery = &o
	mem.mu.Unlock()
	r.wake.send(ctx, owner)
}

// delivered is what the deliverer last reported of the resource.
func (m *memory) delivered() delivery.Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.delivery == nil {
		return delivery.Outcome{}
	}
	return *m.delivery
}

// outcome is what was reported of the stored token; false when nothing was yet.
func (p *pass) outcome() (o delivery.Outcome, known bool) {
	o = p.mem.delivered()
	return o, o.Fingerprint != "" && o.Fingerprint == p.stored.fingerprint
}

// deliveryStatus moves with the numbers, not with each attempt.
func (p *pass) deliveryStatus() *v1alpha1.DeliveryStatus {
	last := p.token.Status.Delivery
	if !p.prompt() || p.deliverer == nil {
		return nil
	}
	o, known := p.outcome()
	if !known || o.Unknown {
		return last
	}
	next := &v1alpha1.DeliveryStatus{
		Fingerprint: o.Fingerprint,
		Pods:        int32(o.Pods),    //nolint:gosec // a namespace has fewer pods
		Reached:     int32(o.Reached), //nolint:gosec // as above
		Time:        metav1.NewTime(o.At.Truncate(time.Second)),
	}
	if last != nil && last.Fingerprint == next.Fingerprint && last.Pods == next.Pods && last.Reached == next.Reached {
		return last
	}
	return next
}

// deliveryProblem is why pods are not told; "" when they are, or when nobody asked for it.
func (p *pass) deliveryProblem() (reason, message string) {
	switch {
	case !p.prompt():
		return "", ""
	case p.deliverer == nil:
		return v1alpha1.ReasonPromptDeliveryDisabled, "the operator runs without prompt delivery: set promptDelivery.enabled of the chart, " +
			"or add the component config/prompt-delivery, or set spec.target.delivery to Kubelet" + usualWay
	}
	o, known := p.outcome()
	switch {
	case !known:
		// A fresh process, or a fresh token, has not found out yet.
		if c := apimeta.FindStatusCondition(p.token.Status.Conditions, v1alpha1.ConditionDeliveryDegraded); c != nil &&
			c.Reason != v1alpha1.ReasonPromptDeliveryDisabled && !p.deliveredAlready() {
			return c.Reason, c.Message
		}
		return "", ""
	case o.Err == nil:
		return "", ""
	case delivery.Forbidden(o.Err):
		return v1alpha1.ReasonPodsForbidden, o.Err.Error() + usualWay
	}
	return v1alpha1.ReasonPodsNotReached, o.Err.Error() + usualWay
}
