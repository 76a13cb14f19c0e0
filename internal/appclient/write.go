// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// write brings the Secret to what was decided.
func (p *pass) write(ctx context.Context, o observation, d decision) error {
	if o.secret != nil && d.plan.change != keep {
		if err := p.isLatest(ctx); err != nil {
			return err
		}
	}
	c, err := p.content(ctx, o, d)
	if err != nil {
		return err
	}
	var meta *metav1.PartialObjectMetadata
	if o.secret == nil {
		meta, err = p.create(ctx, c)
	} else {
		meta, err = p.update(ctx, o.secret, c)
	}
	switch {
	case apierrors.IsAlreadyExists(err):
		return p.inTheWay(ctx)
	case apierrors.IsConflict(err), o.secret != nil && apierrors.IsNotFound(err):
		return errCacheBehind
	case err != nil:
		return err
	}
	failpoint.Hit("after-client-secret")
	p.wrote(o, d, c, meta)
	if o.secret != nil {
		p.writeReferences(ctx, meta, c.reference)
	}
	return nil
}

// isLatest makes sure that the client is as the API server has it, before a key is written in place of another. The cache of a new leader
// may not know the key that the leader before has made, which would be ended.
func (p *pass) isLatest(ctx context.Context) error {
	latest, err := p.latest(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return errCacheBehind
	case err != nil:
		return err
	case latest.ResourceVersion != p.client.ResourceVersion:
		return errCacheBehind
	}
	return nil
}

// wrote remembers what was written, until the caches and the status say so.
func (p *pass) wrote(o observation, d decision, c content, meta *metav1.PartialObjectMetadata) {
	h := o.held.with(meta)
	h.settings, h.extra = c.settings.digest(), false
	if !c.current.IsZero() {
		h.current = c.current.Fingerprint()
	}
	h.previous = d.plan.previous
	p.state.held = h
	p.state.gate.SawTarget(meta, true, p.now)
	if d.plan.change != keep {
		p.state.unsaved, p.state.handled = d.plan.next(h.current), d.handled
	}
}

// content returns what the Secret is to hold.
func (p *pass) content(ctx context.Context, o observation, d decision) (content, error) {
	c := content{settings: o.settings, record: o.record(), dropPrevious: d.plan.previous == "", reference: o.reference()}
	if d.plan.change == keep {
		return c, nil
	}
	c.current = newKey()
	if d.plan.previous == "" {
		return c, nil
	}
	if p.read == nil {
		if err := p.readSecret(ctx); err != nil {
			return c, err
		}
	}
	if p.read == nil || p.read.version != o.secret.ResourceVersion {
		return c, errCacheBehind
	}
	var found bool
	if c.previous, found = p.read.key(d.plan.previous); !found {
		return c, errCacheBehind
	}
	return c, nil
}

// writeReferences sets or removes the owner reference, if it is not as it should be. No key waits for it.
func (p *pass) writeReferences(ctx context.Context, meta *metav1.PartialObjectMetadata, want *metav1.OwnerReference) {
	next, changed := target.References(meta.OwnerReferences, want, v1alpha1.ClientKind)
	if !changed || p.state.refusedReferences == p.client.Generation {
		return
	}
	after, err := p.store.Patch(ctx, meta, map[string]any{"metadata": map[string]any{"ownerReferences": next}})
	switch {
	case target.IsRefusal(err):
		p.state.refusedReferences = p.client.Generation
	case err == nil: // otherwise a later pass tries again
		p.state.held = p.state.held.with(after)
		p.state.gate.SawTarget(after, true, p.now)
	}
}

// inTheWay finds out what kept the Secret from being created, although the cache has none.
func (p *pass) inTheWay(ctx context.Context) error {
	if err := p.readSecret(ctx); err != nil {
		return err
	}
	if p.read == nil || p.read.secretType == corev1.SecretTypeOpaque {
		return errCacheBehind
	}
	p.state.held = held{}
	return otherTypeError(p.read.secretType)
}
