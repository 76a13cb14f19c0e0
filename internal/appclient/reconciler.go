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

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/reads"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// +kubebuilder:rbac:groups=wechat.apptoken.dev,resources=wechatapptokens;wechatappclients,verbs=get;list;watch
// +kubebuilder:rbac:groups=wechat.apptoken.dev,resources=wechatappclients/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// errCacheBehind says that a cache has not seen the last write of this process, or of another. The pass ends and is repeated soon. It is a
// conflict like the API server's own.
var errCacheBehind error = apierrors.NewConflict(corev1.Resource("secrets"), "", errors.New("the cache is behind the last write"))

const (
	// lookSoon is when a pass that found a cache behind is repeated. After looksSoon of them in a row it takes twice as long each time, up to
	// retryMax, because it may be a webhook that answers with conflicts.
	lookSoon  = 50 * time.Millisecond
	looksSoon = 20
	// conflictsMax is the number of such passes in a row after which a conflict counts as a failed write.
	conflictsMax = 2
	// refusedAgain is when a write that the API server refused is tried again.
	refusedAgain = 30 * time.Second
)

// Gateway is how clients reach the gateway.
type Gateway struct {
	// URL is what programs set as their host; empty if there is no gateway.
	URL string
	// CA has the certificate authorities of the gateway in PEM; empty where every program trusts them.
	CA string
	// Problem says why there is no URL although a gateway is installed; empty if there is one, or if none is installed.
	Problem string
}

// Options configure a Reconciler.
type Options struct {
	// Client reads WeChatAppClients, WeChatAppTokens and the metadata of Secrets from the cache, and writes.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// Clock tells WeChat's time, and whether it is known; otherwise it is the local time, which may be wrong.
	Clock  func() (now time.Time, synced bool)
	Events events.EventRecorder
	// Gateway returns how clients reach the gateway now. GatewayChanged has to be called when that changes.
	Gateway func() Gateway
	// Hint is told that a gateway saw WeChat refuse the token with this fingerprint of a WeChatAppToken.
	Hint func(ctx context.Context, name types.NamespacedName, fingerprint string)
	// MaxConcurrentReconciles is the number of passes at the same time.
	MaxConcurrentReconciles int
}

// Reconciler keeps the key Secret and the status of each WeChatAppClient.
type Reconciler struct {
	Options

	store target.Store

	// gatewayChanged wakes all clients.
	gatewayChanged chan event.GenericEvent

	mu     sync.Mutex
	states map[types.NamespacedName]*state
}

// New returns a Reconciler.
func New(opts Options) *Reconciler {
	opts.Live = reads.Bounded(opts.Live)
	return &Reconciler{
		Options: opts, store: target.Store{Client: opts.Client, Live: opts.Live},
		gatewayChanged: make(chan event.GenericEvent, 1), states: map[types.NamespacedName]*state{},
	}
}

// GatewayChanged says that Options.Gateway returns something else than before. It does not block.
func (r *Reconciler) GatewayChanged() {
	select {
	case r.gatewayChanged <- event.GenericEvent{Object: &v1alpha1.WeChatAppClient{}}:
	default: // they are about to be woken
	}
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
	p := &pass{Reconciler: r, state: r.stateOf(c), client: c}
	p.now, p.synced = r.Clock()
	again, err := p.run(ctx)
	switch {
	case errors.Is(err, errCacheBehind):
		p.state.behind++
		return ctrl.Result{RequeueAfter: min(retryMax, lookSoon<<min(10, max(0, p.state.behind-looksSoon)))}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	p.state.behind = 0
	if again.IsZero() {
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
	// synced reports that now is WeChat's time.
	synced bool
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
	if d.write {
		if d.plan.change != keep {
			// If the process is told to end now, Secret and status are still written. Otherwise the next one would make another key.
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), reconcileTimeout)
			defer cancel()
		}
		err = p.write(ctx, o, d)
		if errors.Is(err, errCacheBehind) && p.state.behind < conflictsMax {
			return time.Time{}, err
		}
		d = p.afterWrite(o, d, err)
	} else {
		p.state.failingSince = time.Time{} // such as after a write whose answer got lost
	}
	if d.key == nil {
		p.state.unsaved = nil
	}
	if err == nil || d.failed {
		if err := p.report(ctx, o, d); err != nil {
			return time.Time{}, err
		}
		if d.endsUnwritten(err) {
			p.tellKey(d.plan) // once, because the status no longer names the key
		}
	}
	if err == nil || isRefusal(err) {
		return d.at, nil
	}
	// The words of the API server may quote the Secret, and this error is logged.
	return time.Time{}, fmt.Errorf("writing Secret %s: %s", p.secretName(), target.DelayMessage(err))
}

// afterWrite returns what follows from a write of the Secret.
func (p *pass) afterWrite(o observation, d decision, err error) decision {
	if err == nil {
		p.state.failingSince = time.Time{}
		if d.plan.change != keep {
			d.key = p.state.unsaved
		}
		d.verdict.message += referenceNote(p.state.held.references, o, p.state.refusedReferences == p.client.Generation)
		p.tellKey(d.plan)
		if o.held = p.state.held; o.mislabelled() { // something changed what was written, and without its label the gateway has no key
			p.state.repairs = p.state.repairs.Noted(p.now)
			d.verdict, d.at = contested(o, keep), p.now.Add(refusedAgain)
		}
		return d
	}
	if p.state.failingSince.IsZero() || refresh.IsInFuture(p.state.failingSince, p.now) {
		p.state.failingSince = p.now
	}
	d = d.refused(o, err, p.now.Sub(p.state.failingSince))
	d.at = p.now.Add(refusedAgain)
	return d
}

// awaitStatus makes sure that the client is not older than the last write of its status.
func (p *pass) awaitStatus(ctx context.Context) error {
	switch p.state.gate.Status(p.client, p.now) {
	case gate.Current:
	case gate.Behind:
		return errCacheBehind
	case gate.BehindForLong:
		latest, err := p.latest(ctx)
		if err != nil {
			return err
		}
		p.client = latest
	}
	return nil
}

// latest returns the client as the API server has it.
func (p *pass) latest(ctx context.Context) (*v1alpha1.WeChatAppClient, error) {
	c := &v1alpha1.WeChatAppClient{}
	if err := p.Live.Get(ctx, p.name(), c); err != nil {
		return nil, fmt.Errorf("reading WeChatAppClient %s: %w", p.name(), err)
	}
	if c.UID != p.client.UID {
		return nil, errCacheBehind
	}
	return c, nil
}

func (p *pass) name() types.NamespacedName { return client.ObjectKeyFromObject(p.client) }

func (p *pass) secretName() types.NamespacedName {
	return types.NamespacedName{Namespace: p.client.Namespace, Name: p.client.Spec.Key.SecretName}
}
