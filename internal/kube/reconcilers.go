// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// EnqueueConcerned returns a handler that enqueues what an object concerns. It looks only at the object as an update left it: the map
// function of controller-runtime would be asked about the old object as well, and no own write would be recognized. The objects of the
// first list concern nobody, because each resource is in the first list of its own kind, and no pass begins before all lists are read.
func EnqueueConcerned(concernedBy func(context.Context, client.Object) []reconcile.Request) handler.EventHandler {
	enqueue := func(ctx context.Context, object client.Object, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		for _, request := range concernedBy(ctx, object) {
			queue.Add(request)
		}
	}
	return handler.WithLowPriorityWhenUnchanged(handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			if !e.IsInInitialList {
				enqueue(ctx, e.Object, queue)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(ctx, e.ObjectNew, queue)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
			enqueue(ctx, e.Object, queue)
		},
	})
}

// CachedMetadata returns the metadata of a Secret from the cache, nil for none. Nobody may change it, because it is the cache's own.
func CachedMetadata(ctx context.Context, cached client.Reader, name types.NamespacedName) (*metav1.PartialObjectMetadata, error) {
	meta := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}}
	err := cached.Get(ctx, name, meta, client.UnsafeDisableDeepCopy)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading metadata of Secret %s: %w", name, err)
	}
	return meta, nil
}

// PatchStatus sends what is different between two versions of a resource's status, and asks for nothing but the metadata back. It fails
// with a conflict if the resource has changed: an older observation must not replace what another process says about a newer token or key.
func PatchStatus(
	ctx context.Context, c client.StatusClient, kind string, last, next client.Object, owner client.FieldOwner,
) (resourceVersion string, err error) {
	patch, err := client.MergeFromWithOptions(last, client.MergeFromWithOptimisticLock{}).Data(next)
	if err != nil {
		return "", fmt.Errorf("encoding the patch: %w", err)
	}
	answer := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: last.GetNamespace(), Name: last.GetName()}}
	answer.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(kind))
	err = c.Status().Patch(ctx, answer, client.RawPatch(types.MergePatchType, patch), owner)
	return answer.ResourceVersion, err
}
