// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/issue"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
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
	o.StartedAt = p.started.notLater(now)
	o.Deleting, o.Suspended = p.gone, p.resource.Spec.Suspend
	p.observeStored(&o)
	if f := o.Failure; f != nil && f.OfWrite && !f.Binds && o.Target.Exists && !o.Target.Outdated && !o.Target.Tampered && !o.Token.Unwritten {
		p.state.failure, o.Failed, o.Failure = nil, nil, nil // nobody wants that write any more
	}
	if err := p.observeRequests(ctx, &o); err != nil {
		return o, err
	}
	p.observeAccount(&o)
	p.observeDelivery(&o)
	p.state.unreadSince = time.Time{}
	return o, nil
}

// observeTarget finds the target's metadata, who owns it, and what its data is.
func (p *observer) observeTarget(ctx context.Context, o *report.Observation, known report.KnownTarget) error {
	snapshot, err := p.settle(ctx, o, known)
	if err != nil {
		return err
	}
	p.noteReplaced(o.Secret, o.Ownership)
	if o.Secret == nil {
		return nil
	}
	o.Record = target.DecodeRecord(o.Secret.Annotations)
	p.state.intent = p.state.intent.Seen(o.Record.Mint, p.WeChat.Now())
	o.Intent, o.Unanswered = p.state.intent, p.state.intent.Unanswered(o.Record.Mint)
	switch {
	case !o.Ownership.Writable():
		return nil
	case snapshot != nil && o.Ownership.Claim == target.Adopt: // whatever it holds gives way
		p.state.verdict = target.Verdict{UID: o.Secret.UID, ResourceVersion: o.Secret.ResourceVersion, Refused: snapshot.Refusal()}
	case snapshot != nil:
		p.judge(o, *snapshot)
	}
	p.attest(o)
	v := p.state.verdict
	o.Holding = v.Holding
	if v.Refused != "" && v.ResourceVersion == o.Secret.ResourceVersion {
		o.Ownership = target.Ownership{Claim: target.Conflict, Message: v.Refused}
	}
	return nil
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

// attest recognizes a token that the status has come to name since the Secret was read: another process of this operator wrote both.
func (p *observer) attest(o *report.Observation) {
	v, s := &p.state.verdict, p.resource.Status.Token
	if v.Holding != target.HoldsUnattested || s == nil || s.Fingerprint == "" || s.Fingerprint != v.Fingerprint ||
		target.FormatTime(o.Record.ExpiresAt) != target.FormatTime(s.ExpirationTime.Time) || o.Ownership.Claim != target.Own {
		return
	}
	v.Holding = target.HoldsKnown
	stored := target.Attested(s, o.Record)
	p.state.stored = &stored
}

// findTarget returns the target's metadata, nil for none: as the last step left it, from the cache, or, where the cache cannot know,
// from the API server together with a snapshot of its data.
func (p *observer) findTarget(ctx context.Context, known report.KnownTarget) (*metav1.PartialObjectMetadata, *target.Snapshot, error) {
	if known.Secret != nil {
		return known.Secret, nil, nil
	}
	cached, err := p.cachedMetadata(ctx, p.targetName())
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
		p.state.gate.SawNoTarget(cached)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p.state.gate.SawTarget(snapshot.Meta, false, p.WeChat.Now())
	p.state.shared.noteRead()
	return &snapshot, nil
}

// cachedMetadata returns a Secret's metadata from the cache, nil for none. Nobody may change it, because it is the cache's own.
func (r *Reconciler) cachedMetadata(ctx context.Context, name types.NamespacedName) (*metav1.PartialObjectMetadata, error) {
	meta := &metav1.PartialObjectMetadata{}
	meta.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := r.Client.Get(ctx, name, meta, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading metadata of Secret %s: %w", name, err)
	}
	return meta, nil
}

// judged reports whether the data of this version is known: this process judged it, or the status names it as the last write.
func (p *observer) judged(secret *metav1.PartialObjectMetadata, claim target.Claim) bool {
	if v := p.state.verdict; v.ResourceVersion != "" {
		return v.ResourceVersion == secret.ResourceVersion && v.UID == secret.UID
	}
	status := &p.resource.Status
	if status.TargetResourceVersion != secret.ResourceVersion || claim != target.Own ||
		status.Token == nil || status.Token.Fingerprint == "" {
		return false
	}
	p.state.verdict = target.Verdict{UID: secret.UID, ResourceVersion: secret.ResourceVersion, Holding: target.HoldsKnown}
	return true
}

// noteReplaced counts a target that somebody deleted, or replaced by one that has to be adopted again.
func (p *observer) noteReplaced(secret *metav1.PartialObjectMetadata, ownership target.Ownership) {
	v := p.state.verdict
	if v.UID == "" || v.Refused != "" {
		return
	}
	if secret == nil || secret.UID != v.UID || ownership.Claim == target.Adopt {
		p.state.repairs = p.state.repairs.Noted(p.WeChat.Now())
		p.state.verdict = target.Verdict{}
	}
}

// judge finds out what the data of the target is, and counts somebody else's change that has to be undone.
func (p *observer) judge(o *report.Observation, snapshot target.Snapshot) {
	now, synced := p.WeChat.Clock()
	var plausibleAt time.Time
	if synced {
		plausibleAt = now
	}
	last := p.state.verdict
	var known []target.Token
	if p.state.stored != nil {
		known = append(known, *p.state.stored)
	}
	if s := p.resource.Status.Token; s != nil && s.Fingerprint != "" && o.Ownership.Claim != target.TakeOver {
		known = append(known, target.Attested(s, o.Record))
	}
	v, match := target.Judge(snapshot, p.resource.Spec.Target.AccessTokenKey, known, plausibleAt)
	if match > 0 {
		p.state.stored = &known[match] // another process of this operator wrote it
	}
	v.Fingerprint = o.Record.TokenFingerprint
	if last.Holding == v.Holding && last.Fingerprint == v.Fingerprint {
		v.At = last.At
	}
	p.state.verdict = v
	outdated := false
	if o.Stored = p.storedToken(o); o.Stored.Fingerprint != "" {
		outdated = p.outdated(o)
	}
	judgedBefore := last.UID == v.UID && last.ResourceVersion == v.ResourceVersion // nobody changed it since
	if !judgedBefore && (v.Holding == target.HoldsOther || p.state.foreignTokenWritten() || outdated) {
		p.state.repairs = p.state.repairs.Noted(now)
	}
}

// storedToken returns the token that the target holds, or ought to hold; the zero value for none.
func (p *observer) storedToken(o *report.Observation) target.Token {
	status := p.resource.Status.Token
	switch {
	case p.state.verdict.Holding == target.HoldsUnattested:
		return target.Recorded(o.Record)
	case p.state.stored != nil:
		return *p.state.stored
	case status != nil && o.Ownership.Claim != target.TakeOver:
		return target.Attested(status, o.Record)
	}
	return target.Token{}
}

// startTime is the time of the first pass: a standby that becomes leader starts then.
type startTime struct {
	mu sync.Mutex
	at time.Time
}

// notLater returns the time of the start. If the clock turns out to have run ahead at the first pass, that is now.
func (s *startTime) notLater(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || refresh.IsInFuture(s.at, now) {
		s.at = now
	}
	return s.at
}
