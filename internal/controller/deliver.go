// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
)

// observeDelivery describes how far pods were told of the stored token.
func (p *observer) observeDelivery(o *report.Observation) {
	o.Delivery.Wanted = p.resource.Spec.Target.Delivery == v1alpha1.DeliveryPrompt
	o.Delivery.Disabled = p.deliverer == nil
	if !o.Delivery.Wanted || o.Delivery.Disabled {
		return
	}
	last, known := p.state.shared.deliveredOf(o.DeliveredFingerprint())
	if !known {
		return
	}
	d := &o.Delivery
	d.Known, d.Counted, d.Pods, d.Reached, d.At = true, !last.Unknown, last.Pods, last.Reached, last.At
	switch {
	case last.Err == nil:
	case delivery.Unbound(last.Err):
		d.Reason, d.Message = v1alpha1.ReasonPromptDeliveryDisabled, last.Err.Error()
	case delivery.Forbidden(last.Err):
		d.Reason, d.Message = v1alpha1.ReasonPodsForbidden, last.Err.Error()
	default:
		d.Reason, d.Message = v1alpha1.ReasonPodsNotReached, last.Err.Error()
	}
}

// deliver hands a token that pods were not told of to the deliverer, which works apart from all passes. It is called when nothing is left
// to do for the token itself.
func (p *pass) deliver(o report.Observation, d refresh.Decision) {
	if p.deliverer == nil {
		return
	}
	stored := o.Stored.Fingerprint != "" && !o.Target.Conflict && !o.Target.Terminating && !o.Target.Tampered
	if !o.Delivery.Wanted || !stored || p.gone || d.Reason == refresh.Suspended {
		p.deliverer.Cancel(nameOf(p.resource))
		return
	}
	// A process that died before it could report leaves the rest to the next one.
	fingerprint := o.DeliveredFingerprint()
	complete := report.Delivered(p.resource.Status.Delivery, fingerprint)
	if o.Delivery.Known {
		complete = o.Delivery.Reason == ""
	}
	if complete {
		return
	}
	p.deliverer.Deliver(delivery.Job{
		Owner: nameOf(p.resource), UID: p.resource.UID, Secret: p.resource.TargetName(),
		Fingerprint: fingerprint, Since: p.writtenAt,
	})
}

// delivered records what the deliverer reports; the resource's next pass writes the status.
func (r *Reconciler) delivered(ctx context.Context, owner types.NamespacedName, uid types.UID, outcome delivery.Outcome) {
	state := r.states.find(owner)
	if state == nil || state.uid != uid {
		return
	}
	state.shared.setDelivered(outcome)
	r.wake.send(ctx, owner)
}
