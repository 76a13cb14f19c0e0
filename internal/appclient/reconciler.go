// SPDX-License-Identifier: Apache-2.0

// Package appclient keeps the key Secret and the status of each WeChatAppClient, by which the gateway knows its callers.
//
// A pass observes, plans the key (a pure function), writes the Secret and then the status. The status is the trust anchor: a value in the
// Secret is a key only if the status names its fingerprint, so whoever writes the Secret by hand makes no key.
package appclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/reads"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// +kubebuilder:rbac:groups=wechat.apptoken.dev,resources=wechatapptokens;wechatappclients,verbs=get;list;watch
// +kubebuilder:rbac:groups=wechat.apptoken.dev,resources=wechatappclients/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// errCacheBehind says that a cache has not seen the last write of this process. The pass ends and is repeated soon.
var errCacheBehind = errors.New("the cache is behind the last write")

const (
	// lookSoon is when a pass that found a cache behind is repeated.
	lookSoon = 50 * time.Millisecond
	// refusedAgain is when a write that the API server refused is tried again.
	refusedAgain = 30 * time.Second
)

// Gateway is how clients reach the gateway.
type Gateway struct {
	// URL is what programs set as their host; empty if there is no gateway.
	URL string
	// CA has the certificate authorities of the gateway in PEM; empty where every program trusts them.
	CA string
}

// Options configure a Reconciler.
type Options struct {
	// Client reads WeChatAppClients, WeChatAppTokens and the metadata of Secrets from the cache, and writes.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Now tells the time.
	Now    func() time.Time
	Events events.EventRecorder
	// Gateway is told to the clients.
	Gateway Gateway
	// Hint is told that a gateway saw WeChat refuse the token with this fingerprint of a WeChatAppToken.
	Hint func(ctx context.Context, name types.NamespacedName, fingerprint string)
	// MaxConcurrentReconciles is the number of passes at the same time.
	MaxConcurrentReconciles int
}

// Reconciler keeps the key Secret and the status of each WeChatAppClient.
type Reconciler struct {
	Options

	store store

	mu     sync.Mutex
	states map[types.NamespacedName]*state
}

// state is what a process remembers of a client beyond the API server.
type state struct {
	uid types.UID
	// gate knows what the caches have to reach. Losing it costs a conflict.
	gate gate.Gate
	// held is what the Secret holds. Losing it costs a GET.
	held held
	// unsaved is the key of a Secret that this process wrote, until the status names it; nil for none. Losing it costs a new key.
	unsaved *v1alpha1.ClientKeyStatus
	// handled are the requests that had their attempts. The status keeps them over a restart.
	handled v1alpha1.HandledClientRequests
	// repairs paces the repair of a Secret that somebody keeps rewriting.
	repairs target.Repairs
	// refusedReferences is the generation whose change of the owner reference the API server refused. Losing it costs a request.
	refusedReferences int64
	// failingSince is when writes of the Secret began to fail; zero while they work. Losing it delays what the status tells by a minute.
	failingSince time.Time
}

// New returns a Reconciler.
func New(opts Options) *Reconciler {
	opts.Live = reads.Bounded(opts.Live)
	return &Reconciler{Options: opts, store: store{opts.Client, opts.Live}, states: map[types.NamespacedName]*state{}}
}

// stateOf returns what is remembered of a client.
func (r *Reconciler) stateOf(c *v1alpha1.WeChatAppClient) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := client.ObjectKeyFromObject(c)
	if s := r.states[name]; s != nil && s.uid == c.UID {
		return s
	}
	s := &state{uid: c.UID, handled: handledBefore(c)}
	r.states[name] = s
	return s
}

// find returns what is remembered under a name; nil for nothing.
func (r *Reconciler) find(name types.NamespacedName) *state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.states[name]
}

func (r *Reconciler) forget(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.states, name)
}

// Reconcile makes one pass over one client.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	c := &v1alpha1.WeChatAppClient{}
	if err := r.Client.Get(ctx, req.NamespacedName, c); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req.NamespacedName)
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("reading WeChatAppClient %s: %w", req.NamespacedName, err)
	}
	if c.DeletionTimestamp != nil {
		return ctrl.Result{}, nil // its keys are dead, and the garbage collector does the rest
	}
	p := &pass{Reconciler: r, state: r.stateOf(c), client: c, now: r.Now()}
	again, err := p.run(ctx)
	switch {
	case errors.Is(err, errCacheBehind):
		return ctrl.Result{RequeueAfter: lookSoon}, nil
	case err != nil:
		return ctrl.Result{}, err
	case again.IsZero():
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: max(again.Sub(p.now), time.Millisecond)}, nil
}

// pass is one pass over one client.
type pass struct {
	*Reconciler

	state  *state
	client *v1alpha1.WeChatAppClient
	now    time.Time
	// read is the Secret as the API server has it; nil if this pass did not read it.
	read *snapshot
}

// run observes, writes the Secret and then the status, and returns when to look again; zero for not before an event.
func (p *pass) run(ctx context.Context) (again time.Time, err error) {
	if err := p.awaitStatus(ctx); err != nil {
		return time.Time{}, err
	}
	o, err := p.observe(ctx)
	if err != nil {
		return time.Time{}, err
	}
	d := decide(o)
	again = d.at
	if d.write {
		err = p.write(ctx, o, d)
		if errors.Is(err, errCacheBehind) {
			return time.Time{}, err
		}
		d, again = p.afterWrite(o, d, err)
	}
	if d.key == nil {
		p.state.unsaved = nil
	}
	if err == nil || d.failed {
		err = errors.Join(err, p.report(ctx, o, d))
	}
	if target.IsRefusal(err) {
		err = nil // the status tells, and the next attempt has time
	}
	return again, err
}

// afterWrite returns what follows from a write of the Secret, and when to look again.
func (p *pass) afterWrite(o observation, d decision, err error) (decision, time.Time) {
	switch {
	case err == nil:
		p.state.failingSince = time.Time{}
		d.key, p.state.handled = p.state.unsaved, d.handled
		p.tellKey(d.plan)
		return d, d.at
	case p.state.failingSince.IsZero(), refresh.IsInFuture(p.state.failingSince, p.now):
		p.state.failingSince = p.now
	}
	return d.refused(o, err, p.now.Sub(p.state.failingSince)), p.now.Add(refusedAgain)
}

// awaitStatus makes sure that the client is not older than the last write of its status.
func (p *pass) awaitStatus(ctx context.Context) error {
	switch p.state.gate.Status(p.client, p.now) {
	case gate.Current:
	case gate.Behind:
		return errCacheBehind
	case gate.BehindForLong:
		latest := &v1alpha1.WeChatAppClient{}
		if err := p.Live.Get(ctx, p.name(), latest); err != nil {
			return fmt.Errorf("reading WeChatAppClient %s: %w", p.name(), err)
		}
		if latest.UID != p.client.UID {
			return errCacheBehind
		}
		p.client = latest
	}
	return nil
}

func (p *pass) name() types.NamespacedName { return client.ObjectKeyFromObject(p.client) }

func (p *pass) secretName() types.NamespacedName {
	return types.NamespacedName{Namespace: p.client.Namespace, Name: p.client.Spec.Key.SecretName}
}

// write brings the Secret to what was decided.
func (p *pass) write(ctx context.Context, o observation, d decision) error {
	c, err := p.content(ctx, o, d)
	if err != nil {
		return err
	}
	var meta *metav1.PartialObjectMetadata
	if o.secret == nil {
		meta, err = p.store.create(ctx, p.secretName(), c)
	} else {
		meta, err = p.store.update(ctx, o.secret, c)
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

// wrote remembers what was written, until the caches and the status say so.
func (p *pass) wrote(o observation, d decision, c content, meta *metav1.PartialObjectMetadata) {
	h := o.held
	h.uid, h.version, h.settings, h.extra = meta.UID, meta.ResourceVersion, c.settings.digest(), false
	if !c.current.IsZero() {
		h.current = c.current.Fingerprint()
	}
	h.previous = d.plan.previous
	h.labelled, h.annotations, h.references = true, ownAnnotations(meta), meta.OwnerReferences
	p.state.held = h
	p.state.gate.SawTarget(meta, true, p.now)
	p.state.unsaved = d.plan.next(h.current)
}

// content returns what the Secret is to hold.
func (p *pass) content(ctx context.Context, o observation, d decision) (content, error) {
	c := content{settings: o.settings, record: o.record(), dropPrevious: d.plan.previous == ""}
	if c.record.DeletionPolicy == v1alpha1.DeletionDelete {
		c.reference = referenceTo(p.client)
	}
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
	next := references(meta.OwnerReferences, want)
	if sameReferences(meta.OwnerReferences, next) || p.state.refusedReferences == p.client.Generation {
		return
	}
	after, err := p.store.updateReferences(ctx, meta, next)
	switch {
	case target.IsRefusal(err):
		p.state.refusedReferences = p.client.Generation
	case err == nil: // otherwise a later pass tries again
		p.state.held.version, p.state.held.references = after.ResourceVersion, after.OwnerReferences
		p.state.gate.SawTarget(after, true, p.now)
	}
}

// inTheWay finds out what kept the Secret from being created, although the cache has none.
func (p *pass) inTheWay(ctx context.Context) error {
	if err := p.readSecret(ctx); err != nil {
		return err
	}
	if p.read == nil || p.read.secretType == "Opaque" {
		return errCacheBehind
	}
	return otherTypeError(p.read.secretType)
}
