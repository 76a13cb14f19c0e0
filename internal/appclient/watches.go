// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

const (
	// secretIndex finds the clients by the name of their key Secret, and tokenIndex by that of their WeChatAppToken.
	secretIndex = "keySecret"
	tokenIndex  = "token"

	// retryBase and retryMax bound the back-off after errors of the API server.
	retryBase = 100 * time.Millisecond
	retryMax  = 30 * time.Second
	// reconcileTimeout bounds one pass, which makes a few API requests.
	reconcileTimeout = 2 * time.Minute
)

// CacheOptions returns what the manager's cache has to hold of WeChatAppClients: spec, status and requests.
func CacheOptions(selector labels.Selector) cache.ByObject {
	return cache.ByObject{
		Label: selector,
		Transform: func(in any) (any, error) {
			if c, ok := in.(*v1alpha1.WeChatAppClient); ok {
				request.Shrink(&c.ObjectMeta, requestAnnotations())
			}
			return in, nil
		},
	}
}

// SetupWithManager registers the indexes and watches. It needs the watches and indexes of the WeChatAppTokens' controller.
func (r *Reconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	for name, value := range map[string]func(*v1alpha1.WeChatAppClient) string{
		tokenIndex: func(c *v1alpha1.WeChatAppClient) string { return c.Spec.TokenRef.Name },
		secretIndex: func(c *v1alpha1.WeChatAppClient) string {
			if c.Spec.Key == nil {
				return ""
			}
			return c.Spec.Key.SecretName
		},
	} {
		err := mgr.GetFieldIndexer().IndexField(ctx, &v1alpha1.WeChatAppClient{}, name, func(o client.Object) []string {
			if c, ok := o.(*v1alpha1.WeChatAppClient); ok && value(c) != "" {
				return []string{value(c)}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("indexing WeChatAppClients by %s: %w", name, err)
		}
	}
	warm := true // a standby fills its caches and queue, so that it leads at once
	return ctrl.NewControllerManagedBy(mgr).
		Named("wechatappclient").
		For(&v1alpha1.WeChatAppClient{}, builder.WithPredicates(r.clientChanged(ctx))).
		Watches(&v1alpha1.WeChatAppClient{}, handler.Funcs{DeleteFunc: r.enqueueRivals}).
		Watches(&v1alpha1.WeChatAppToken{}, handler.EnqueueRequestsFromMapFunc(r.ofToken), builder.WithPredicates(specChanged())).
		WatchesMetadata(&corev1.Secret{}, kube.EnqueueConcerned(r.concernedBy), builder.WithPredicates(r.secretChanged(ctx))).
		WatchesRawSource(source.Channel(r.gatewayChanged, handler.EnqueueRequestsFromMapFunc(r.all))).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: r.MaxConcurrentReconciles,
			ReconciliationTimeout:   reconcileTimeout,
			EnableWarmup:            &warm,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryBase, retryMax),
		}).
		Complete(r)
}

// clientChanged lets through what people asked for, and hands the gateway's hints on. They say nothing about the client itself.
func (r *Reconciler) clientChanged(ctx context.Context) predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool {
			was, ok := e.ObjectOld.(*v1alpha1.WeChatAppClient)
			is, isClient := e.ObjectNew.(*v1alpha1.WeChatAppClient)
			if !ok || !isClient {
				return false
			}
			r.passHint(ctx, was, is)
			return request.Changed(was, is, requestAnnotations())
		},
	}
}

// passHint tells the WeChatAppToken's controller of a hint that has just been written.
func (r *Reconciler) passHint(ctx context.Context, was, is *v1alpha1.WeChatAppClient) {
	hint := is.Status.Hint
	if hint == nil || was.Status.Hint != nil && *was.Status.Hint == *hint || r.Hint == nil {
		return
	}
	r.Hint(ctx, types.NamespacedName{Namespace: is.Namespace, Name: is.Spec.TokenRef.Name}, hint.RefusedFingerprint)
}

// specChanged drops events about the status of a WeChatAppToken, and its first list, because the clients have one of their own.
func specChanged() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return !e.IsInInitialList },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
				(e.ObjectOld.GetDeletionTimestamp() == nil) != (e.ObjectNew.GetDeletionTimestamp() == nil)
		},
	}
}

// ofToken returns the clients of a WeChatAppToken, and those whose Secret it claims.
func (r *Reconciler) ofToken(ctx context.Context, o client.Object) []reconcile.Request {
	out := r.indexed(ctx, o.GetNamespace(), tokenIndex, o.GetName())
	if t, ok := o.(*v1alpha1.WeChatAppToken); ok {
		for _, name := range [...]string{t.Spec.CredentialsSecretRef.Name, t.TargetName()} {
			out = append(out, r.indexed(ctx, o.GetNamespace(), secretIndex, name)...)
		}
	}
	return out
}

// all returns every client.
func (r *Reconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.list(ctx)
}

// indexed returns the clients of a namespace that an index has under a value.
func (r *Reconciler) indexed(ctx context.Context, namespace, index, value string) []reconcile.Request {
	return r.list(ctx, client.InNamespace(namespace), client.MatchingFields{index: value})
}

// list returns the clients that the options select. The cache was filled before the first event, so reading it does not fail.
func (r *Reconciler) list(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	list := &v1alpha1.WeChatAppClientList{}
	if err := r.Client.List(ctx, list, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil
	}
	var out []reconcile.Request
	for i := range list.Items {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&list.Items[i])})
	}
	return out
}

// secretChanged drops events that say nothing new, and takes note of a key Secret's deletion.
func (r *Reconciler) secretChanged(ctx context.Context) predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: predicate.ResourceVersionChangedPredicate{}.Update,
		DeleteFunc: func(e event.DeleteEvent) bool {
			for _, c := range r.indexed(ctx, e.Object.GetNamespace(), secretIndex, e.Object.GetName()) {
				if s := r.find(c.NamespacedName); s != nil {
					s.gate.TargetDeleted(e.Object.GetUID(), e.Object.GetResourceVersion())
				}
			}
			return true
		},
	}
}

// concernedBy returns the clients whose key is in the Secret, and those whose login needs its label. The echo of an own write concerns
// nobody.
func (r *Reconciler) concernedBy(ctx context.Context, secret client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, c := range r.indexed(ctx, secret.GetNamespace(), secretIndex, secret.GetName()) {
		if s := r.find(c.NamespacedName); s == nil || !s.gate.IsOwnWrite(secret.GetUID(), secret.GetResourceVersion()) {
			out = append(out, c)
		}
	}
	tokens, err := target.Referrers(ctx, r.Client, client.ObjectKeyFromObject(secret))
	if err != nil {
		return out
	}
	for i := range tokens {
		if t := &tokens[i]; t.Spec.CredentialsSecretRef.Name == secret.GetName() {
			out = append(out, r.indexed(ctx, t.Namespace, tokenIndex, t.Name)...)
		}
	}
	return out
}

// enqueueRivals enqueues the clients that wanted the Secret of one that is gone.
func (r *Reconciler) enqueueRivals(
	ctx context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request],
) {
	if gone, ok := e.Object.(*v1alpha1.WeChatAppClient); ok && gone.Spec.Key != nil {
		for _, c := range r.indexed(ctx, gone.Namespace, secretIndex, gone.Spec.Key.SecretName) {
			queue.Add(c)
		}
	}
}
