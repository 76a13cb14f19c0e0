// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
)

// Indexes of the WeChatAppToken cache. Each entry takes about as much memory as a small object, so those with a target of their own
// name in Stable mode, which are most, are in none.
const (
	otherTargetNameIndex = "spec.target.name"
	legacyAppIDIndex     = "legacyAppID"
)

const (
	// retryBase and retryMax bound the back-off after errors of the API server. A rotation waits for it, so it stays
	// far below the handover window.
	retryBase = 100 * time.Millisecond
	retryMax  = 10 * time.Second
	// reconcileTimeout bounds one pass: the longest ordinary one makes a few API requests and WeChat calls.
	reconcileTimeout = 2 * time.Minute
)

// SetupWithManager registers the indexes and watches.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	if err := r.addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	if r.deliverer != nil {
		r.deliverer.Log = mgr.GetLogger().WithName("delivery")
		if err := mgr.Add(r.deliverer); err != nil {
			return fmt.Errorf("adding the delivery to pods: %w", err)
		}
	}
	warm := true // a standby fills its caches and queue, so that it leads at once
	return ctrl.NewControllerManagedBy(mgr).
		Named("wechatapptoken").
		For(&v1alpha1.WeChatAppToken{}, builder.WithPredicates(r.specOrRequestChanged())).
		WatchesMetadata(&corev1.Secret{}, r.enqueueConcerned(), builder.WithPredicates(r.secretChanged())).
		Watches(&v1alpha1.WeChatAppToken{}, handler.Funcs{DeleteFunc: r.wakeRivals}).
		WatchesRawSource(source.Channel(r.wake.events, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.MaxConcurrentReconciles,
			ReconciliationTimeout:   reconcileTimeout,
			EnableWarmup:            &warm,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryBase, retryMax),
		}).
		Complete(r)
}

func (r *Reconciler) addIndexes(ctx context.Context, to client.FieldIndexer) error {
	for name, value := range indexes() {
		if err := to.IndexField(ctx, &v1alpha1.WeChatAppToken{}, name, indexer(value)); err != nil {
			return fmt.Errorf("indexing WeChatAppTokens by %s: %w", name, err)
		}
	}
	return nil
}

func indexes() map[string]func(*v1alpha1.WeChatAppToken) string {
	return map[string]func(*v1alpha1.WeChatAppToken) string{
		otherTargetNameIndex: func(t *v1alpha1.WeChatAppToken) string {
			if t.TargetName() == t.Name {
				return ""
			}
			return t.TargetName()
		},
		legacyAppIDIndex: func(t *v1alpha1.WeChatAppToken) string {
			if t.Spec.Mode == v1alpha1.ModeLegacy {
				return t.Spec.AppID
			}
			return ""
		},
	}
}

// indexer leaves a resource out whose value is empty.
func indexer(value func(*v1alpha1.WeChatAppToken) string) client.IndexerFunc {
	return func(o client.Object) []string {
		token, ok := o.(*v1alpha1.WeChatAppToken)
		if !ok || value(token) == "" {
			return nil
		}
		return []string{value(token)}
	}
}

// specOrRequestChanged lets through what a person or pipeline asked for, and not the operator's own status writes or
// labels that GitOps tools move about.
func (r *Reconciler) specOrRequestChanged() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			if e.ObjectOld == nil || e.ObjectNew == nil {
				return false
			}
			if mem := r.memories.find(client.ObjectKeyFromObject(e.ObjectNew)); mem != nil {
				mem.statusSeen(e.ObjectNew.GetResourceVersion())
			}
			if e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || e.ObjectOld.GetUID() != e.ObjectNew.GetUID() {
				return true
			}
			was, is := e.ObjectOld.GetAnnotations(), e.ObjectNew.GetAnnotations()
			for _, kind := range refresh.RequestKinds() {
				if key := request.Annotation(kind); was[key] != is[key] {
					return true
				}
			}
			return false
		},
	}
}

// secretChanged drops events that say nothing new, and lets a deletion end the memory of own writes.
func (r *Reconciler) secretChanged() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetResourceVersion() != e.ObjectNew.GetResourceVersion()
		},
		DeleteFunc: func(e event.DeleteEvent) bool {
			for _, name := range r.memories.claiming(client.ObjectKeyFromObject(e.Object)) {
				if mem := r.memories.find(name); mem != nil {
					mem.targetGone(e.Object.GetUID(), e.Object.GetResourceVersion())
				}
			}
			return true
		},
	}
}

// enqueueConcerned starts the resources that a Secret concerns, in the state that an update left it in: controller-runtime's
// map function would be asked about the state before as well, and an own write would never be taken for one.
func (r *Reconciler) enqueueConcerned() handler.EventHandler {
	enqueue := func(secret client.Object, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		for _, wake := range r.concernedBy(secret) {
			queue.Add(wake)
		}
	}
	return handler.WithLowPriorityWhenUnchanged(handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(e.Object, queue)
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(e.ObjectNew, queue)
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(e.Object, queue)
		},
	})
}

// concernedBy names the resources that use the Secret as credentials or target. The echo of an own write concerns
// nobody.
func (r *Reconciler) concernedBy(secret client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, name := range r.memories.lookingAt(client.ObjectKeyFromObject(secret)) {
		if mem := r.memories.find(name); mem == nil || !mem.ownWrite(secret.GetUID(), secret.GetResourceVersion()) {
			out = append(out, reconcile.Request{NamespacedName: name})
		}
	}
	return out
}

// wakeRivals starts the resources that wanted the target of one that is gone.
func (r *Reconciler) wakeRivals(_ context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
	gone, ok := e.Object.(*v1alpha1.WeChatAppToken)
	if !ok {
		return
	}
	for _, name := range r.memories.claiming(types.NamespacedName{Namespace: gone.Namespace, Name: gone.TargetName()}) {
		queue.Add(reconcile.Request{NamespacedName: name})
	}
}

// claimants are the resources whose target is this Secret. Do not change them: they are the cache's own.
func claimants(ctx context.Context, cached client.Reader, secret types.NamespacedName) ([]v1alpha1.WeChatAppToken, error) {
	tokens, err := indexed(ctx, cached, otherTargetNameIndex, secret)
	if err != nil {
		return nil, err
	}
	namesake := &v1alpha1.WeChatAppToken{}
	err = cached.Get(ctx, secret, namesake, client.UnsafeDisableDeepCopy)
	if err == nil && namesake.TargetName() == secret.Name {
		tokens = append(tokens, *namesake)
	}
	return tokens, client.IgnoreNotFound(err)
}

// indexed are the resources that an index has under the name of a Secret of their namespace. Do not change them.
func indexed(ctx context.Context, cached client.Reader, index string, secret types.NamespacedName) ([]v1alpha1.WeChatAppToken, error) {
	list := &v1alpha1.WeChatAppTokenList{}
	err := cached.List(ctx, list,
		client.InNamespace(secret.Namespace), client.MatchingFields{index: secret.Name}, client.UnsafeDisableDeepCopy)
	return list.Items, err
}

// waker lets one resource's pass start another's.
type waker struct {
	events chan event.GenericEvent
}

func newWaker() waker {
	return waker{events: make(chan event.GenericEvent, 1024)}
}

func (w waker) send(ctx context.Context, name types.NamespacedName) {
	token := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	select {
	case w.events <- event.GenericEvent{Object: token}:
	case <-ctx.Done():
	}
}
