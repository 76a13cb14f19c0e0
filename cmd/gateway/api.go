// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gateway"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
)

// api is how the gateway reaches the API server.
type api struct {
	config *rest.Config
	http   *http.Client
	// objects and credentials are two caches, because an informer has one label selector for all Secrets. They start together.
	objects     *kube.StartingCache
	credentials cache.Cache
	// live reads and writes without a cache.
	live    client.Client
	reviews authenticationclient.TokenReviewInterface
}

// newAPI sets up the caches and clients. It sends no request.
func newAPI(opts *options, logger logr.Logger, metrics prometheus.Registerer) (*api, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the API server: %w", err)
	}
	served, err := gateway.NewNamespaces(metrics)
	if err != nil {
		return nil, err
	}
	program.WithoutProxy(config)
	config.UserAgent = "wechat-gateway/" + version
	config.Wrap(kube.WithDeadline)
	config.Wrap(kube.WithRedial(logger))
	config.Wrap(kube.Namespaces(opts.namespaceList, cachedLists(), logger, served))
	// A warning may quote the object that it is about.
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.QPS = -1 // what may send many requests has a limit of its own
	a := &api{config: config}
	if a.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("setting up the client of the API server: %w", err)
	}
	return a, a.addClients(opts, logger)
}

// cachedLists are what the caches list in each namespace.
func cachedLists() kube.Lists {
	return kube.Lists{
		"secrets":          {Kind: "SecretList", APIVersion: "v1"},
		"wechatapptokens":  {Kind: v1alpha1.Kind + "List", APIVersion: v1alpha1.GroupVersion.String()},
		"wechatappclients": {Kind: v1alpha1.ClientKind + "List", APIVersion: v1alpha1.GroupVersion.String()},
	}
}

func (a *api) addClients(opts *options, logger logr.Logger) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("registering kinds: %w", err)
	}
	mapper, err := kube.NewMapper(nil, nil)
	if err != nil {
		return fmt.Errorf("registering kinds: %w", err)
	}
	shared := cache.Options{HTTPClient: a.http, Scheme: scheme, Mapper: mapper, ReaderFailOnMissingInformer: true}
	namespaces := opts.namespaceList
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, name := range opts.namespaceList {
		if shared.DefaultNamespaces == nil {
			shared.DefaultNamespaces = map[string]cache.Config{}
		}
		shared.DefaultNamespaces[name] = cache.Config{}
	}
	objects, credentials := shared, shared
	objects.ByObject, credentials.ByObject = gateway.ObjectCache(), gateway.CredentialsCache()
	if a.objects, err = kube.NewStartingCache(a.config, objects, namespaces, logger); err != nil {
		return fmt.Errorf("setting up the cache: %w", err)
	}
	if a.credentials, err = cache.New(a.config, credentials); err != nil {
		return fmt.Errorf("setting up the cache of credentials: %w", err)
	}
	// One that has begun to fill shows that the API server is there, so the other one begins with it.
	a.objects.Cache = twin{a.objects.Cache, a.credentials}
	if a.live, err = client.New(a.config, client.Options{HTTPClient: a.http, Scheme: scheme, Mapper: mapper}); err != nil {
		return fmt.Errorf("setting up the client of the API server: %w", err)
	}
	authentication, err := authenticationclient.NewForConfigAndClient(a.config, a.http)
	if err != nil {
		return fmt.Errorf("setting up the client of the API server: %w", err)
	}
	a.reviews = authentication.TokenReviews()
	return nil
}

// tasks fill the caches and keep them up to date.
func (a *api) tasks() []func(context.Context) error {
	return []func(context.Context) error{a.objects.Start}
}

// twin is a cache that another one starts with.
type twin struct {
	cache.Cache
	other cache.Cache
}

// Start runs both caches until ctx ends.
func (t twin) Start(ctx context.Context) error {
	other := make(chan error, 1)
	go func() { other <- t.other.Start(ctx) }()
	return errors.Join(t.Cache.Start(ctx), <-other)
}

// WaitForCacheSync waits for both caches.
func (t twin) WaitForCacheSync(ctx context.Context) bool {
	return t.Cache.WaitForCacheSync(ctx) && t.other.WaitForCacheSync(ctx)
}
