// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// startInterval is the time between two attempts of a starting process to reach the API server.
const startInterval = 2 * time.Second

// InstallCRD is the command that installs the CRD. It is run in a clone of the repository.
const InstallCRD = "kubectl apply --server-side -k config/crd"

var errNoCRD = errors.New("the CRD of WeChatAppTokens is not installed; in a clone of the operator's repository, run: " + InstallCRD)

// StartingCache is a cache that begins to fill once the API server serves WeChatAppTokens.
//
// An informer retries by itself, but it waits up to a minute between two attempts, and what it logs about a missing CRD is that
// the server could not find the requested resource.
type StartingCache struct {
	cache.Cache

	log      logr.Logger
	interval time.Duration
	// list asks the API server for WeChatAppTokens.
	list func(context.Context) error
	// obstacle holds the last reason why the cache could not start, until it starts.
	obstacle atomic.Pointer[error]
}

// NewStartingCache returns a cache that asks for the WeChatAppTokens of the namespaces before it starts. metav1.NamespaceAll stands for
// all.
func NewStartingCache(config *rest.Config, opts cache.Options, namespaces []string, log logr.Logger) (*StartingCache, error) {
	inner, err := cache.New(config, opts)
	if err != nil {
		return nil, err
	}
	live, err := client.New(config, client.Options{HTTPClient: opts.HTTPClient, Scheme: opts.Scheme, Mapper: opts.Mapper})
	if err != nil {
		return nil, err
	}
	list := func(ctx context.Context) (err error) {
		for _, namespace := range namespaces { // one that may not be read does not tell whether there is a CRD
			if err = firstOf(ctx, live, namespace); !apierrors.IsForbidden(err) {
				break
			}
		}
		return err
	}
	return &StartingCache{Cache: inner, log: log, interval: startInterval, list: list}, nil
}

// firstOf asks for one WeChatAppToken of a namespace.
func firstOf(ctx context.Context, live client.Reader, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, AnswerWithin)
	defer cancel()
	tokens := &metav1.PartialObjectMetadataList{}
	tokens.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind + "List"))
	return live.List(ctx, tokens, client.InNamespace(namespace), client.Limit(1))
}

// Start waits until the API server serves WeChatAppTokens, and then fills the cache until ctx ends.
func (c *StartingCache) Start(ctx context.Context) error {
	for {
		err := obstacle(c.list(ctx))
		if err == nil {
			c.obstacle.Store(nil)
			return c.Cache.Start(ctx)
		}
		if last := c.obstacle.Swap(&err); last == nil || (*last).Error() != err.Error() {
			c.log.Error(err, "cannot start yet, trying again until it works")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.interval):
		}
	}
}

// obstacle returns the reason why a cache cannot start after its API server has answered with err, or nil. A request that was
// refused is no obstacle: the informers log it, for each namespace that refuses it.
func obstacle(err error) error {
	var answer apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return errNoCRD
	case errors.As(err, &answer) && answer.Status().Code < http.StatusInternalServerError:
		return nil
	}
	return fmt.Errorf("the API server cannot be reached: %w", err)
}

// Ready is the readiness check. A standby is ready as well once its caches are filled.
func (c *StartingCache) Ready(req *http.Request) error {
	if err := c.obstacle.Load(); err != nil {
		return *err
	}
	return cacheSynced(req.Context(), c.Cache)
}

// cacheSynced returns nil if the caches are filled, so that the process can decide from them.
func cacheSynced(ctx context.Context, c cache.Cache) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if !c.WaitForCacheSync(ctx) {
		return errors.New("the caches are not filled yet")
	}
	return nil
}
