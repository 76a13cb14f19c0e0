// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// observation is everything that a pass knows of a client at one moment. It has no key.
type observation struct {
	now     time.Time
	synced  bool
	client  *v1alpha1.WeChatAppClient
	gateway Gateway
	// token is the WeChatAppToken; nil if it does not exist.
	token *v1alpha1.WeChatAppToken
	// credentials is the metadata of the token's credentials Secret, for a client with login; nil if it does not exist.
	credentials *metav1.PartialObjectMetadata

	// secret is the metadata of the key Secret; nil if it does not exist. Nobody may change it.
	secret    *metav1.PartialObjectMetadata
	ownership target.Ownership
	held      held
	settings  settings
	// known is the key by what only the operator writes; nil for none.
	known *v1alpha1.ClientKeyStatus
	// handled are the requests that had their attempts.
	handled v1alpha1.HandledClientRequests
	// repairNotBefore paces repairs, and referencesRefused reports that the owner reference cannot be changed.
	repairNotBefore   time.Time
	referencesRefused bool
}

// observe gathers what a decision depends on.
func (p *pass) observe(ctx context.Context) (observation, error) {
	o := observation{
		now: p.now, synced: p.synced, client: p.client, gateway: p.Gateway(), handled: p.handled(), known: p.client.Status.Key,
		referencesRefused: p.state.refusedReferences == p.client.Generation,
	}
	if p.state.unsaved != nil {
		o.known = p.state.unsaved
	}
	if err := p.observeToken(ctx, &o); err != nil {
		return o, err
	}
	if p.client.Spec.Key == nil || o.token == nil {
		return o, nil
	}
	o.settings = settings{o.token.Spec.AppID, o.gateway.URL, o.gateway.CA}
	if err := p.observeSecret(ctx, &o); err != nil {
		return o, err
	}
	switch {
	case o.secret == nil:
	case o.ownership.Claim == target.Own:
		o.held = p.state.held
	case o.ownership.Claim == target.TakeOver:
		o.held.annotations = p.state.held.annotations // whatever else it holds is no key of this client
	}
	o.repairNotBefore = p.state.repairs.NotBefore(p.now)
	return o, nil
}

func (p *pass) observeToken(ctx context.Context, o *observation) error {
	name := types.NamespacedName{Namespace: p.client.Namespace, Name: p.client.Spec.TokenRef.Name}
	found := &v1alpha1.WeChatAppToken{}
	switch err := p.Client.Get(ctx, name, found, client.UnsafeDisableDeepCopy); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("reading WeChatAppToken %s: %w", name, err)
	}
	if found.DeletionTimestamp != nil {
		return nil
	}
	o.token = found
	if !p.client.Spec.Login {
		return nil
	}
	name.Name = found.Spec.CredentialsSecretRef.Name
	var err error
	o.credentials, err = kube.CachedMetadata(ctx, p.Client, name)
	return err
}

// observeSecret finds the key Secret, whose it is, and what it holds. A version that this process has not seen costs one read.
func (p *pass) observeSecret(ctx context.Context, o *observation) (err error) {
	before := p.state.held
	if o.secret, err = p.findSecret(ctx); err != nil {
		return err
	}
	if o.secret == nil {
		p.noteChange(before, o)
		p.state.held = held{}
		return p.settle(ctx, o)
	}
	if err := p.settle(ctx, o); err != nil {
		return err
	}
	claim := o.ownership.Claim
	if p.state.held.of(o.secret) || claim != target.Own && claim != target.TakeOver {
		return nil
	}
	if err := p.readSecret(ctx); err != nil {
		return err
	}
	if o.secret = nil; p.read != nil {
		o.secret = p.read.meta
	}
	p.noteChange(before, o)
	return p.settle(ctx, o)
}

// findSecret returns the metadata of the key Secret, nil for none, from the cache or, if that is behind for long, from the API server.
func (p *pass) findSecret(ctx context.Context) (*metav1.PartialObjectMetadata, error) {
	cached, err := kube.CachedMetadata(ctx, p.Client, p.secretName())
	if err != nil {
		return nil, err
	}
	secret, freshness := p.state.gate.Target(cached, p.now)
	switch freshness {
	case gate.Current:
	case gate.Behind:
		return nil, errCacheBehind
	case gate.BehindForLong:
		if err := p.readSecret(ctx); err != nil || p.read == nil {
			return nil, err
		}
		secret = p.read.meta
	}
	return secret, nil
}

func (p *pass) settle(ctx context.Context, o *observation) (err error) {
	n := &neighbours{ctx: ctx, cached: p.Client, api: p.Live, owner: p.client}
	o.ownership = settle(p.client, o.settings.appID, o.secret, n)
	return n.err
}

// noteChange counts a change by somebody else that has to be undone, so that a Secret that somebody keeps rewriting is repaired ever
// more slowly.
func (p *pass) noteChange(before held, o *observation) {
	if before.version == "" || o.known == nil {
		return
	}
	if o.secret == nil || p.state.held.current != o.known.Fingerprint || !p.state.held.same(before) {
		p.state.repairs = p.state.repairs.Noted(p.now)
	}
}

// readSecret reads the key Secret from the API server; p.read is nil afterwards if it does not exist.
func (p *pass) readSecret(ctx context.Context) error {
	p.read = nil
	s, err := p.readSnapshot(ctx)
	if apierrors.IsNotFound(err) {
		p.state.gate.TargetDeleted(p.state.held.uid, "")
		return nil
	}
	if err != nil {
		return err
	}
	if s.secretType == corev1.SecretTypeOpaque { // the cache never has another one
		p.state.gate.SawTarget(s.meta, false, p.now)
	}
	p.read, p.state.held = s, s.held
	return nil
}

// record returns what the annotations of the key Secret are to say.
func (o observation) record() target.Record {
	adopted := o.ownership.Claim == target.Adopt || target.DecodeRecord(o.held.annotations).Applied.Adopted
	r := target.Record{
		OwnerUID: o.client.UID, OwnerName: o.client.Name, AppID: o.settings.appID,
		DeletionPolicy: o.client.Spec.Key.DeletionPolicy, Applied: target.Applied{Adopted: adopted},
	}
	if adopted {
		r.DeletionPolicy = v1alpha1.DeletionRetain // it was never ours to delete
	}
	return r
}

// outdated reports whether the Secret differs from what is wanted in anything but its keys.
func (o observation) outdated() bool {
	_, changed := target.References(o.held.references, o.reference(), v1alpha1.ClientKind)
	return o.held.extra || o.held.settings != o.settings.digest() || o.mislabelled() || changed && !o.referencesRefused
}

// mislabelled reports whether the Secret has other labels or annotations than are wanted.
func (o observation) mislabelled() bool {
	for key, want := range annotations(o.record()) {
		if got, found := o.held.annotations[key]; got != want || found != (want != "") {
			return true
		}
	}
	return !o.held.labelled
}

// reference returns the owner reference that the Secret is to have; nil for none.
func (o observation) reference() *metav1.OwnerReference {
	if o.record().DeletionPolicy == v1alpha1.DeletionDelete {
		return target.ReferenceTo(o.client, v1alpha1.ClientKind)
	}
	return nil
}
