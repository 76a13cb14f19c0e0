// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/issue"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// observer gathers what a pass has to know. Besides what it finds out about the credentials and the target, it changes nothing in the
// state of the resource.
type observer struct {
	*Reconciler

	state *resourceState
	// resource is the cache's copy; its status is what the operator wrote last.
	resource *v1alpha1.WeChatAppToken
	// gone reports that the resource was deleted while the pass went on.
	gone bool
}

// observe gathers everything that a decision depends on. The observation is complete, or there is none: after an error nothing is
// called and no Secret is written.
func (p *observer) observe(ctx context.Context, known report.KnownTarget) (report.Observation, error) {
	o := report.Observation{Resource: p.resource, Intent: p.state.intent}
	if err := p.observeCredentials(ctx, &o); err != nil {
		return o, err
	}
	failpoint.Hit("credentials-resolved")
	p.observeFailure(&o)
	if err := p.observeTarget(ctx, &o, known); err != nil {
		return o, err
	}
	failpoint.Hit("target-loaded")
	now, synced := p.WeChat.Clock()
	o.Now, o.ClockSynced = now, synced
	o.UID, o.CheckInterval = string(p.resource.UID), p.resource.Spec.CheckInterval.Duration
	o.Traits = issue.Traits(p.resource.Spec.Mode)
	o.StartedAt = p.started.NotLater(now)
	o.Deleting, o.Suspended = p.gone, p.resource.Spec.Suspend
	p.observeStored(&o)
	p.observeTickets(&o)
	p.state.observeMetadata(&o)
	o.NoteTold(p.state.told)
	unwritten := o.Target.Outdated || o.Target.Tampered || o.Token.Unwritten || o.TicketUnwritten
	if f := o.Failure; f != nil && f.OfWrite && !f.Binds && o.Target.Exists && !unwritten {
		p.state.failureEnds() // nobody wants that write any more
		o.Failed, o.Failure = nil, nil
	}
	if err := p.observeRequests(ctx, &o); err != nil {
		return o, err
	}
	p.observeAccount(ctx, &o)
	p.observeDelivery(&o)
	return o, nil
}

// observeTarget finds the target's metadata, who owns it, and what its data is.
func (p *observer) observeTarget(ctx context.Context, o *report.Observation, known report.KnownTarget) error {
	snapshot, err := p.settle(ctx, o, known)
	if err != nil {
		return err
	}
	o.SecretIsLatest = o.Secret != nil && (snapshot != nil || known.Secret != nil)
	k := p.state.target.Met(o.Secret, o.Ownership.Claim, p.WeChat.Now())
	if o.Secret != nil {
		o.Record = target.DecodeRecord(o.Secret.Annotations)
		p.state.intent = p.state.intent.Seen(o.Record.Mint, p.WeChat.Now())
		o.Intent, o.Unanswered = p.state.intent, p.state.intent.Unanswered(o.Record.Mint)
		if o.Ownership.Writable() {
			k = p.judge(o, k, snapshot)
		}
	}
	p.state.target = k
	return nil
}

// judge finds out what the data of the target is, and counts somebody else's change that has to be undone. There is no snapshot if the
// data is known already, or gives way whatever it is.
func (p *observer) judge(o *report.Observation, k target.Knowledge, snapshot *target.Snapshot) target.Knowledge {
	status := p.resource.Status.Token
	if o.Ownership.Claim == target.TakeOver {
		status = nil
	}
	last := k.Verdict
	k = p.judgeData(o, k, snapshot, status)
	v := k.Verdict
	if v.Refused != "" && v.ResourceVersion == o.Secret.ResourceVersion {
		o.Ownership = target.Ownership{Claim: target.Conflict, Message: v.Refused}
	}
	if o.Holding = v.Holding; !o.Ownership.Writable() || o.Ownership.Claim == target.Adopt {
		return k
	}
	o.Stored = k.Stored(status, o.Record)
	if o.Target.Outdated = o.Stored.Fingerprint != "" && !target.Incomplete(o.Secret) && p.outdated(o, k); !o.Target.Outdated {
		k.Verdict.Generation = p.resource.Generation
	}
	judgedBefore := last.UID == v.UID && last.ResourceVersion == v.ResourceVersion // nobody changed it since
	if snapshot != nil && !judgedBefore && isForeign(o, k, p.state.target) {
		k.Repairs = k.Repairs.Noted(p.WeChat.Now())
	}
	return k
}

// isForeign reports whether somebody else changed the target since last in a way that has to be undone.
func isForeign(o *report.Observation, k, last target.Knowledge) bool {
	return k.Verdict.Holding == target.HoldsOther || k.ForeignTokenWritten() || o.Target.Outdated ||
		len(o.HeldTickets(k)) < len(o.HeldTickets(last))
}

// judgeData finds out what the data of the target is. The status is nil if it is not about the target.
func (p *observer) judgeData(
	o *report.Observation, k target.Knowledge, snapshot *target.Snapshot, status *v1alpha1.TokenStatus,
) target.Knowledge {
	now, synced := p.WeChat.Clock()
	claim := o.Ownership.Claim
	switch {
	case claim == target.Adopt:
		if snapshot != nil {
			k.Verdict = target.Verdict{UID: o.Secret.UID, ResourceVersion: o.Secret.ResourceVersion, Refused: snapshot.Refusal()}
		}
	case snapshot == nil && k.Verdict.ResourceVersion == "":
		k = k.Wrote(o.Secret, false) // by what the status says
	case snapshot != nil:
		var plausibleAt time.Time
		if synced {
			plausibleAt = now
		}
		k = k.Judged(*snapshot, o.Record, p.resource.Spec.Target.AccessTokenKey, status, plausibleAt).
			JudgedTickets(*snapshot, p.resource.Spec.Tickets, p.resource.Status.Tickets)
	}
	if claim == target.Own {
		k = k.AttestedBy(status, o.Record)
	}
	if synced {
		k = k.Dated(now)
	}
	return k
}

// settle finds the target and its owner. A version whose data was not judged yet costs one live read, which returns a snapshot.
func (p *observer) settle(ctx context.Context, o *report.Observation, known report.KnownTarget) (*target.Snapshot, error) {
	secret, snapshot, err := p.findTarget(ctx, known)
	if err != nil {
		return nil, err
	}
	o.Secret = secret
	if o.Ownership, err = target.SettleWith(ctx, p.Client, p.Live, p.resource, o.Secret); err != nil {
		return nil, err
	}
	claim := o.Ownership.Claim
	if o.Secret == nil || !o.Ownership.Writable() || claim == target.Adopt || snapshot != nil || p.judged(o.Secret, claim) {
		return snapshot, nil
	}
	if snapshot, err = p.readTarget(ctx, o.Secret.UID); err != nil {
		return nil, err
	}
	if o.Secret = nil; snapshot != nil {
		o.Secret = snapshot.Meta
	}
	o.Ownership, err = target.SettleWith(ctx, p.Client, p.Live, p.resource, o.Secret)
	return snapshot, err
}

// findTarget returns the target's metadata, nil for none: as the last step left it, from the cache, or, where the cache cannot know,
// from the API server together with a snapshot of its data.
func (p *observer) findTarget(ctx context.Context, known report.KnownTarget) (*metav1.PartialObjectMetadata, *target.Snapshot, error) {
	if known.Secret != nil {
		return known.Secret, nil, nil
	}
	cached, err := kube.CachedMetadata(ctx, p.Client, p.targetName())
	if err != nil {
		return nil, nil, err
	}
	var uid types.UID
	if cached != nil {
		uid = cached.UID
	}
	cached, freshness := p.state.gate.Target(cached, p.WeChat.Now())
	switch {
	case freshness == gate.BehindForLong, known.LookAgain:
		snapshot, err := p.readTarget(ctx, uid)
		if err != nil || snapshot == nil {
			return nil, nil, err
		}
		return snapshot.Meta, snapshot, nil
	case freshness == gate.Behind:
		return nil, nil, errCacheBehind
	}
	return cached, nil, nil
}

// readTarget reads the target from the API server; nil if it does not exist. cached is the UID of the one in the cache, or empty.
func (p *observer) readTarget(ctx context.Context, cached types.UID) (*target.Snapshot, error) {
	snapshot, err := p.store.Read(ctx, p.targetName())
	if apierrors.IsNotFound(err) {
		p.state.gate.TargetDeleted(cached, "")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p.state.gate.SawTarget(snapshot.Meta, false, p.WeChat.Now())
	p.state.shared.noteRead()
	return &snapshot, nil
}

// judged reports whether the data of this version is known: this process judged it, or the status names it as the last write.
func (p *observer) judged(secret *metav1.PartialObjectMetadata, claim target.Claim) bool {
	if v := p.state.target.Verdict; v.ResourceVersion != "" {
		return v.ResourceVersion == secret.ResourceVersion && v.UID == secret.UID &&
			(!target.Incomplete(secret) || v.Generation == p.resource.Generation)
	}
	status := &p.resource.Status
	return status.TargetResourceVersion == secret.ResourceVersion && claim == target.Own && !target.Incomplete(secret) &&
		status.Token != nil && status.Token.Fingerprint != ""
}
