// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// +kubebuilder:rbac:groups=wechat.apptoken.dev,resources=wechatapptokens,verbs=get;list;watch
// +kubebuilder:rbac:groups=wechat.apptoken.dev,resources=wechatapptokens/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// actionsPerPass bounds what one pass does before others get their turn. The longest ordinary way is a mint: ask,
// issue, write, and decide that all is well.
const actionsPerPass = 5

// Options of a Reconciler.
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
	// MaxConcurrentReconciles is the number of passes at the same time.
	MaxConcurrentReconciles int
}

// Reconciler keeps the target Secret of each WeChatAppToken supplied with a valid token.
type Reconciler struct {
	Options

	store    target.Store
	memories *memories
	accounts *accounts
	wake     waker
	// deliverer tells pods of new tokens; nil without PromptDelivery.
	deliverer *delivery.Deliverer
	started   *startTime
}

// New makes a Reconciler.
func New(opts Options) *Reconciler {
	if opts.Recorder == nil {
		opts.Recorder = unrecorded{}
	}
	r := &Reconciler{
		Options:  opts,
		store:    target.Store{Client: opts.Client, Live: opts.Live},
		memories: newMemories(),
		accounts: newAccounts(),
		wake:     newWaker(),
		started:  &startTime{},
	}
	if opts.PromptDelivery {
		r.deliverer = delivery.New(delivery.Options{
			Live: opts.Live, Client: opts.Client, Recorder: opts.Recorder, Now: opts.WeChat.Now, Done: r.delivered,
		})
	}
	return r
}

// Reconcile makes one pass over one resource.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	p, err := r.load(ctx, req)
	if err != nil || p == nil {
		return ctrl.Result{}, err
	}
	if p.token.DeletionTimestamp != nil {
		return ctrl.Result{}, nil // the garbage collector does the rest
	}
	err = p.run(ctx)
	if err == nil {
		p.deliver()
	}
	if statusErr := p.writeStatus(ctx); err == nil {
		err = statusErr
	}
	p.noteOutcome(err)
	if err != nil {
		return ctrl.Result{}, err
	}
	return p.requeue(), nil
}

// pass is one pass over one resource. It lives no longer.
type pass struct {
	*Reconciler

	token *v1alpha1.WeChatAppToken
	mem   *memory

	credentials credentialState
	existing    *metav1.PartialObjectMetadata
	ownership   target.Ownership
	record      target.Record
	stored      stored
	decision    refresh.Decision
	// decidedAt is the time of the decision. Other passes may set the clock right meanwhile, by hours.
	decidedAt time.Time
	handled   v1alpha1.HandledRequests
	// writtenAt is when this pass gave the Secret a token that it did not hold; zero if it did not.
	writtenAt time.Time
	// note is one more thing that people should know, for the condition's message.
	note string
	// deleted: the resource was deleted while the pass went on.
	deleted bool
}

// load gets the resource and what this process remembers of it; nil when it is gone.
func (r *Reconciler) load(ctx context.Context, req ctrl.Request) (*pass, error) {
	token := &v1alpha1.WeChatAppToken{}
	var mem *memory
	for range catchUpLooks {
		if err := r.Client.Get(ctx, req.NamespacedName, token); err != nil {
			if client.IgnoreNotFound(err) == nil {
				r.forget(req.NamespacedName)
				return nil, nil
			}
			return nil, fmt.Errorf("reading WeChatAppToken %s: %w", req.NamespacedName, err)
		}
		var replaced *memory
		mem, replaced = r.memories.of(req.NamespacedName, token.UID)
		r.leaveAccount(replaced)
		if mem.freshen(token) {
			break
		}
	}
	r.memories.lookAt(req.NamespacedName, looks{credentials: token.Spec.CredentialsSecretRef.Name, target: token.TargetName()})
	p := &pass{Reconciler: r, token: token, mem: mem}
	p.recallHandled()
	mem.recallFailure(p.token)
	failpoint.Hit("loaded")
	return p, nil
}

// run takes the steps until there is nothing to do but wait.
func (p *pass) run(ctx context.Context) error {
	for range actionsPerPass {
		if err := p.observe(ctx); err != nil {
			return err
		}
		now, in := p.inputs()
		p.decision, p.decidedAt = refresh.Decide(now, in), now
		failpoint.Hit("decided")
		if p.decision.Action == refresh.Wait {
			return nil
		}
		failpoint.Hit("acting")
		log.FromContext(ctx).V(1).Info("acting", "action", p.decision.Action, "reason", p.decision.Reason, "request", p.decision.Request)
		if err := p.act(ctx); err != nil {
			return err
		}
	}
	p.decision.Action, p.decision.At = refresh.Wait, p.decidedAt.Add(time.Second)
	return nil
}

// observe gathers what the decision needs: credentials, target, ownership, the token that is stored.
func (p *pass) observe(ctx context.Context) error {
	if err := p.resolveCredentials(ctx); err != nil {
		return err
	}
	failpoint.Hit("credentials-resolved")
	if err := p.loadTarget(ctx); err != nil {
		return err
	}
	failpoint.Hit("target-loaded")
	if err := p.settleOwnership(ctx); err != nil {
		return err
	}
	return p.loadStored(ctx)
}

// act carries the decision out. What WeChat or the API server refuse becomes a failure of the resource; an error
// means that the API server could not be asked.
func (p *pass) act(ctx context.Context) error {
	legacy := p.token.Spec.Mode == v1alpha1.ModeLegacy
	switch p.decision.Action {
	case refresh.Write:
		return p.writeTarget(ctx)
	case refresh.Issue:
		if legacy {
			return p.mint(ctx)
		}
		return p.issueStable(ctx)
	case refresh.Check:
		if legacy {
			return p.probe(ctx)
		}
		return p.issueStable(ctx)
	case refresh.Force, refresh.Revoke:
		if legacy {
			return p.mint(ctx)
		}
		return p.force(ctx)
	case refresh.Wait:
	}
	return nil
}

// requeue turns the decision's time into a timer. Work that a token's life depends on goes before checks.
func (p *pass) requeue() ctrl.Result {
	if p.decision.At.IsZero() {
		return ctrl.Result{}
	}
	after := max(p.decision.At.Sub(p.decidedAt), time.Millisecond)
	priority := 0
	if !p.decision.DueAt.IsZero() && !p.decision.At.Before(p.decision.DueAt) {
		priority = dueRotationPriority
	}
	return ctrl.Result{RequeueAfter: after, Priority: &priority}
}

// dueRotationPriority puts due rotations before events and checks, whose priority is 0. The first pass over a resource after a start
// comes last: controller-runtime gives it -100 (docs/scaling.md).
const dueRotationPriority = 10
