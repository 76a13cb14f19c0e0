// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/issue"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/reads"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// +kubebuilder:rbac:groups=wechat.apptoken.dev,resources=wechatapptokens,verbs=get;list;watch
// +kubebuilder:rbac:groups=wechat.apptoken.dev,resources=wechatapptokens/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// stepsPerPass bounds what one pass does before others get their turn. The longest ordinary pass is a mint: ask, issue, write, and
// find that all is well.
const stepsPerPass = 5

// dueRotationPriority puts due rotations before events and checks, whose priority is 0. The first pass over a resource after a start
// comes last: controller-runtime gives it -100 (docs/scaling.md). While a check waits in the queue, the rotation that falls due waits
// with it. So checks within dueNext of a rotation go with the rotations, and those within dueSoon are in between: many of them must not
// hold up rotations that are due.
const dueRotationPriority, dueSoonPriority, dueSoon, dueNext = 10, 5, 5 * time.Minute, time.Minute

// errCacheBehind says that a cache has not seen the last write of this process. The pass ends and is repeated soon.
var errCacheBehind = errors.New("the cache is behind the last write")

// lookSoon is when a pass that found a cache behind is repeated. A cache is seldom behind for longer.
const lookSoon = 50 * time.Millisecond

// Options configure a Reconciler.
type Options struct {
	// Client reads WeChatAppTokens and Secret metadata from the cache, and writes.
	Client client.Client
	// Live reads from the API server.
	Live client.Reader
	// WeChat issues tokens and tells the time.
	WeChat *wechat.Client
	Events events.EventRecorder
	// RequireCredentialsLabel refuses credentials without the label wechat.apptoken.dev/credentials: "true".
	RequireCredentialsLabel bool
	// Recorder is told what happened, for metrics; default none.
	Recorder Recorder
	// PromptDelivery tells pods of new tokens where a resource asks for it.
	PromptDelivery bool
	// CheckPodPolicy returns nil if an admission policy confines what this process changes on the pod; see delivery.Options.
	CheckPodPolicy func(ctx context.Context, pod types.NamespacedName) error
	// MaxConcurrentReconciles is the number of passes at the same time.
	MaxConcurrentReconciles int
}

// Reconciler keeps the target Secret of each WeChatAppToken supplied with a valid token.
type Reconciler struct {
	Options

	store    target.Store
	issuers  issue.Env
	states   *states
	accounts *account.Registry
	wake     waker
	// deliverer tells pods of new tokens; nil without PromptDelivery.
	deliverer *delivery.Deliverer
	started   *refresh.StartTime
}

// New returns a Reconciler.
func New(opts Options) *Reconciler {
	if opts.Recorder == nil {
		opts.Recorder = unrecorded{}
	}
	opts.Live = reads.Bounded(opts.Live)
	r := &Reconciler{
		Options:  opts,
		store:    target.Store{Client: opts.Client, Live: opts.Live},
		states:   newStates(),
		accounts: account.NewRegistry(),
		wake:     make(waker, 1024),
		started:  &refresh.StartTime{},
	}
	r.issuers = issue.Env{WeChat: opts.WeChat, Store: r.store, Cache: opts.Client, Wake: r.wake.send, Give: r.states.give}
	if opts.PromptDelivery {
		r.deliverer = delivery.New(delivery.Options{
			Live: opts.Live, Client: opts.Client, Recorder: opts.Recorder, Now: opts.WeChat.Now, Done: r.delivered,
			CheckPolicy: opts.CheckPodPolicy,
		})
	}
	return r
}

// pass is one pass over one resource. It observes, and changes the state of the resource by what its steps come to.
type pass struct {
	observer

	// writtenAt is when this pass gave the Secret a token or a ticket that it did not hold; zero if it did not.
	writtenAt time.Time
	// conflicts counts the writes of this pass that met another writer.
	conflicts int
}

// Reconcile makes one pass over one resource: observe, decide, act, and so on until there is nothing to do but wait; then it reports.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	p, err := r.load(ctx, req.NamespacedName)
	switch {
	case errors.Is(err, errCacheBehind):
		return ctrl.Result{RequeueAfter: lookSoon}, nil
	case err != nil || p == nil:
		return ctrl.Result{}, err
	case p.resource.DeletionTimestamp != nil: // the garbage collector does the rest
		r.leaveAccount(p.state) // or the other members would wait for this one's mint
		return ctrl.Result{}, nil
	}
	result, err := p.run(ctx)
	if errors.Is(err, errCacheBehind) {
		return ctrl.Result{RequeueAfter: lookSoon}, nil
	}
	p.noteOutcome(err)
	if err != nil {
		return ctrl.Result{}, errors.Join(err, p.reportUnread(ctx, err))
	}
	p.state.unreadSince = time.Time{}
	return result, nil
}

// load returns a pass over the resource, or nil if it is gone.
func (r *Reconciler) load(ctx context.Context, name types.NamespacedName) (*pass, error) {
	resource := &v1alpha1.WeChatAppToken{}
	if err := r.Client.Get(ctx, name, resource); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.forget(name)
			return nil, nil
		}
		return nil, fmt.Errorf("reading WeChatAppToken %s: %w", name, err)
	}
	state, discarded := r.states.of(resource)
	r.discard(discarded)
	switch state.gate.Status(resource, r.WeChat.Now()) {
	case gate.Current:
	case gate.Behind:
		return nil, errCacheBehind
	case gate.BehindForLong:
		if err := r.Live.Get(ctx, name, resource); err != nil {
			return nil, fmt.Errorf("reading WeChatAppToken %s: %w", name, err)
		}
		if resource.UID != state.uid {
			return nil, errCacheBehind
		}
	}
	failpoint.Hit("loaded")
	return &pass{observer: observer{Reconciler: r, state: state, resource: resource}}, nil
}

// run takes one step after the other until there is nothing to do but wait, and reports.
func (p *pass) run(ctx context.Context) (ctrl.Result, error) {
	var known report.KnownTarget
	for steps := 0; ; steps++ {
		o, err := p.observe(ctx, known)
		if err != nil {
			return ctrl.Result{}, err
		}
		for _, ended := range o.Ended {
			p.event(ended.Event())
		}
		d := refresh.Decide(o.Now, o.Inputs)
		failpoint.Hit("decided")
		switch {
		case d.Action == refresh.Wait:
			p.recordCheck(o)
			p.deliver(o, d)
			return requeue(o.Now, d), p.report(ctx, o, d)
		case steps == stepsPerPass:
			return ctrl.Result{RequeueAfter: time.Second}, p.report(ctx, o, d)
		}
		failpoint.Hit("acting")
		log.FromContext(ctx).V(1).Info("acting", "action", d.Action, "reason", d.Reason, "request", d.Request)
		e, err := p.act(ctx, o, d)
		if err != nil {
			return ctrl.Result{}, err
		}
		p.apply(ctx, o, d, e)
		if known = e.Target; known == (report.KnownTarget{}) && o.SecretIsLatest {
			known.Secret = o.Secret // the cache may not have it yet, and a call must not wait for its write
		}
		if e.Landed != nil {
			// If the process is told to end now, the status is still written, or the next one would carry out a request again.
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), kube.AnswerWithin)
			defer cancel()
		}
		if e.StatusFirst {
			o.Progress = p.state.progress
			if err := p.report(ctx, o, d); err != nil {
				return ctrl.Result{}, err
			}
		}
	}
}

// requeue turns a decision's time into a timer. Work that a token's life depends on goes before checks.
func requeue(now time.Time, d refresh.Decision) ctrl.Result {
	if d.At.IsZero() {
		return ctrl.Result{}
	}
	priority := 0
	switch {
	case d.DueAt.IsZero():
	case !d.At.Before(d.DueAt.Add(-dueNext)):
		priority = dueRotationPriority
	case !d.At.Before(d.DueAt.Add(-dueSoon)):
		priority = dueSoonPriority
	}
	return ctrl.Result{RequeueAfter: max(d.At.Sub(now), time.Millisecond), Priority: &priority}
}

// forget drops what is known of a resource that is gone.
func (r *Reconciler) forget(name types.NamespacedName) {
	if r.deliverer != nil {
		r.deliverer.Cancel(name)
	}
	r.discard(r.states.drop(name))
}

// discard ends what others keep of a resource that is gone. state may be nil.
func (r *Reconciler) discard(state *resourceState) {
	if state != nil {
		r.leaveAccount(state)
		r.Recorder.Gone(state.uid)
	}
}

// Hint lets the next pass check the stored token of a resource, if it has this fingerprint, because a gateway saw WeChat refuse it.
// Whoever can give hints can so cause one check in 10 s for each account.
func (r *Reconciler) Hint(ctx context.Context, name types.NamespacedName, fingerprint string) {
	if state := r.states.find(name); state != nil {
		state.shared.setRefused(fingerprint)
		r.wake.send(ctx, name)
	}
}

// leaveAccount ends the membership of a resource that is gone or has another account. state may be nil.
func (r *Reconciler) leaveAccount(state *resourceState) {
	if state != nil && state.membership.account != nil {
		r.accounts.Leave(state.membership.id, state.uid, r.WeChat.Now())
		state.membership = membership{}
	}
}

// isGone reports whether the resource was deleted since the pass began, perhaps while WeChat took its time: a Secret that is created
// now would belong to nobody, and a status would go to a namesake.
func (p *pass) isGone(ctx context.Context) (bool, error) {
	latest := &v1alpha1.WeChatAppToken{}
	err := p.Client.Get(ctx, nameOf(p.resource), latest, client.UnsafeDisableDeepCopy)
	if apierrors.IsNotFound(err) { // it may have moved to another shard, and what WeChat issued meanwhile must not get lost by that
		err = p.Live.Get(ctx, nameOf(p.resource), latest)
	}
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("reading WeChatAppToken %s: %w", nameOf(p.resource), err)
	}
	p.gone = err != nil || latest.UID != p.resource.UID || latest.DeletionTimestamp != nil
	return p.gone, nil
}

func (p *observer) targetName() types.NamespacedName {
	return types.NamespacedName{Namespace: p.resource.Namespace, Name: p.resource.TargetName()}
}

func nameOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
