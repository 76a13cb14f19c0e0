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
	"github.com/wechat-token-operator/wechat-token-operator/internal/issue"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

const (
	// retryBase and retryMax bound the back-off after errors of the API server. A rotation waits for it, so it stays far below the
	// handover window; and Ready has to turn False within five seconds of the expiry.
	retryBase = 100 * time.Millisecond
	retryMax  = 5 * time.Second
	// reconcileTimeout bounds one pass. The longest ordinary one makes a few API requests and calls to WeChat.
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
		WatchesMetadata(&corev1.Secret{}, kube.EnqueueConcerned(r.concernedBy), builder.WithPredicates(r.secretChanged(ctx))).
		Watches(&v1alpha1.WeChatAppToken{}, handler.Funcs{DeleteFunc: r.enqueueRivals}).
		WatchesRawSource(source.Channel(r.wake, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.MaxConcurrentReconciles,
			ReconciliationTimeout:   reconcileTimeout,
			EnableWarmup:            &warm,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryBase, retryMax),
		}).
		Complete(r)
}

func (r *Reconciler) addIndexes(ctx context.Context, to client.FieldIndexer) error {
	for name, values := range indexes() {
		extract := func(o client.Object) []string {
			if resource, ok := o.(*v1alpha1.WeChatAppToken); ok {
				return values(resource)
			}
			return nil
		}
		if err := to.IndexField(ctx, &v1alpha1.WeChatAppToken{}, name, extract); err != nil {
			return fmt.Errorf("indexing WeChatAppTokens by %s: %w", name, err)
		}
	}
	return nil
}

// indexes returns the functions that extract the values of each index.
func indexes() map[string]func(*v1alpha1.WeChatAppToken) []string {
	return map[string]func(*v1alpha1.WeChatAppToken) []string{
		target.SecretIndex: func(t *v1alpha1.WeChatAppToken) []string {
			return []string{t.Spec.CredentialsSecretRef.Name, t.TargetName()}
		},
		issue.LegacyAppIDIndex: func(t *v1alpha1.WeChatAppToken) []string {
			if t.Spec.Mode == v1alpha1.ModeLegacy {
				return []string{t.Spec.AppID}
			}
			return nil
		},
	}
}

// specOrRequestChanged lets through what a person or pipeline asked for, and not the operator's own status writes or
// labels that GitOps tools move about.
func (r *Reconciler) specOrRequestChanged() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld != nil && e.ObjectNew != nil && request.Changed(e.ObjectOld, e.ObjectNew, request.Annotations())
		},
	}
}

// secretChanged drops events that say nothing new, and takes note of a target's deletion.
func (r *Reconciler) secretChanged(ctx context.Context) predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: predicate.ResourceVersionChangedPredicate{}.Update,
		DeleteFunc: func(e event.DeleteEvent) bool {
			secret := client.ObjectKeyFromObject(e.Object)
			for _, resource := range r.referrersOf(ctx, secret) {
				if state := r.states.find(nameOf(&resource)); state != nil && resource.TargetName() == secret.Name {
					state.gate.TargetDeleted(e.Object.GetUID(), e.Object.GetResourceVersion())
				}
			}
			return true
		},
	}
}

// concernedBy returns the resources that use the Secret as credentials or target. The echo of an own write concerns nobody.
func (r *Reconciler) concernedBy(ctx context.Context, secret client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, resource := range r.referrersOf(ctx, client.ObjectKeyFromObject(secret)) {
		state := r.states.find(nameOf(&resource))
		if state == nil || !state.gate.IsOwnWrite(secret.GetUID(), secret.GetResourceVersion()) {
			out = append(out, reconcile.Request{NamespacedName: nameOf(&resource)})
		}
	}
	return out
}

// enqueueRivals enqueues the resources that wanted the target of one that is gone.
func (r *Reconciler) enqueueRivals(
	ctx context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request],
) {
	gone, ok := e.Object.(*v1alpha1.WeChatAppToken)
	if !ok {
		return
	}
	secret := types.NamespacedName{Namespace: gone.Namespace, Name: gone.TargetName()}
	for _, resource := range r.referrersOf(ctx, secret) {
		if resource.TargetName() == secret.Name {
			queue.Add(reconcile.Request{NamespacedName: nameOf(&resource)})
		}
	}
}

// referrersOf returns the resources that use the Secret as credentials or target. Nobody may change them, because they are the cache's
// own. Event handlers run after the cache was filled, so reading it does not fail.
func (r *Reconciler) referrersOf(ctx context.Context, secret types.NamespacedName) []v1alpha1.WeChatAppToken {
	resources, err := target.Referrers(ctx, r.Client, secret)
	if err != nil {
		return nil
	}
	return resources
}

// waker lets the pass of one resource start the pass of another.
type waker chan event.GenericEvent

func (w waker) send(ctx context.Context, name types.NamespacedName) {
	token := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	select {
	case w <- event.GenericEvent{Object: token}:
	case <-ctx.Done():
	}
}
