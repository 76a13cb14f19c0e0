// SPDX-License-Identifier: Apache-2.0

// Command operator keeps a valid token in the target Secret of every WeChatAppToken.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/appclient"
	"github.com/wechat-token-operator/wechat-token-operator/internal/controller"
	"github.com/wechat-token-operator/wechat-token-operator/internal/fence"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/metrics"
	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/program"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// version is set by the linker.
var version = "dev"

// The times of leader election are short, because the handover window of a token is short, and long enough for a busy API server.
const (
	leaseDuration = 10 * time.Second
	renewDeadline = 7 * time.Second
	retryPeriod   = 1500 * time.Millisecond
)

// cacheSyncTimeout is how long the controller waits for its caches, which is for ever in effect. An outage or a missing right is no
// reason to end the process; the readiness probe reports it.
const cacheSyncTimeout = 10 * 365 * 24 * time.Hour

func main() {
	opts := &options{}
	opts.bind(flag.CommandLine)
	err := errors.Join(program.CleanEnvironment(),
		program.ParseFlags(flag.CommandLine, os.Args[1:], flagEndpoints, flagNamespaces, flagSelector))
	if opts.version {
		fmt.Println(version)
		return
	}
	logger := program.SetUp(&opts.zap)
	if err == nil {
		err = run(ctrl.SetupSignalHandler(), opts, logger, ctrlmetrics.Registry)
	}
	if err != nil {
		logger.Error(errors.New(plain.Show(err.Error())), "the operator stops")
		os.Exit(1)
	}
}

// run runs the operator until ctx ends. It registers its metrics with the registry, and serves what that one has.
func run(ctx context.Context, opts *options, logger logr.Logger, registry program.Registry) error {
	if err := opts.complete(); err != nil {
		return err
	}
	userAgent := "wechat-token-operator/" + version
	calls, err := metrics.NewCalls(registry)
	if err != nil {
		return err
	}
	api, err := wechat.New(opts.wechat(userAgent, calls.Observe))
	if err != nil {
		return fmt.Errorf("setting up WeChat's client: %w", err)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("finding the API server: %w", err)
	}
	program.WithoutProxy(config)
	config.UserAgent = userAgent
	served, err := metrics.NewNamespaces(registry)
	if err != nil {
		return err
	}
	config.Wrap(kube.WithDeadline)
	config.Wrap(kube.WithRedial(logger))
	config.Wrap(kube.Namespaces(opts.namespaceList, cachedLists(), logger, served))
	// Warnings are dropped, because an admission policy's warning may quote the Secret that it is about.
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.QPS, config.Burst = float32(opts.kubeAPIQPS), opts.kubeAPIBurst
	mgr, starting, err := newManager(config, opts, logger)
	if err != nil {
		return err
	}
	recorder, err := addMetrics(registry, mgr.GetCache(), api)
	if err != nil {
		return err
	}
	guard, err := addGuard(mgr, config, opts, logger)
	if err != nil {
		return err
	}
	events := mgr.GetEventRecorder("wechat-token-operator")
	reconciler := controller.New(controller.Options{
		Client:                  mgr.GetClient(),
		Live:                    mgr.GetAPIReader(),
		WeChat:                  api,
		Events:                  events,
		Recorder:                recorder,
		RequireCredentialsLabel: opts.requireCredentialsLabel,
		PromptDelivery:          opts.promptDelivery,
		CheckPodPolicy:          guard.CheckPod,
		MaxConcurrentReconciles: opts.maxConcurrentReconciles,
	})
	if err := reconciler.SetupWithManager(ctx, mgr); err != nil {
		return fmt.Errorf("setting up the controller: %w", err)
	}
	clients := appclient.New(appclient.Options{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: api.Clock, Events: events, Gateway: opts.gateway.Current, Hint: reconciler.Hint,
		MaxConcurrentReconciles: opts.maxConcurrentReconciles,
	})
	if err := addClients(mgr, opts, logger, clients); err != nil {
		return err
	}
	if err := addServers(ctx, mgr, opts, registry, starting.Ready); err != nil {
		return err
	}
	if err := addCAWatches(mgr, opts, logger, api.ReloadCA, opts.gateway.reloader(clients.GatewayChanged)); err != nil {
		return err
	}
	logger.Info("starting", "version", version, "namespaces", opts.namespaceList, "selector", opts.selector.String(),
		"leaderElection", opts.leaderElect, "leaderElectionID", opts.leaderElectionID)
	if err := serve(ctx, mgr, logger); err != nil {
		return fmt.Errorf("running the manager: %w", err)
	}
	return nil
}

// addCAWatches adds what reads the files of --wechat-ca-file and --gateway-ca-file again.
func addCAWatches(mgr ctrl.Manager, opts *options, log logr.Logger, reloadWeChat, reloadGateway func() (bool, error)) error {
	for _, watch := range [...]struct {
		file  string
		watch program.CAWatch
	}{
		{opts.wechatCAFile, program.CAWatch{Flag: "--wechat-ca-file", Reload: reloadWeChat, Log: log}},
		{opts.gatewayCAFile, program.CAWatch{Flag: "--gateway-ca-file", Reload: reloadGateway, Log: log}},
	} {
		if watch.file == "" {
			continue
		}
		if err := mgr.Add(watch.watch); err != nil {
			return fmt.Errorf("adding to the manager: %w", err)
		}
	}
	return nil
}

// newManager returns a manager and its cache.
func newManager(config *rest.Config, opts *options, logger logr.Logger) (ctrl.Manager, *kube.StartingCache, error) {
	// The scheme has only the kinds that are used, because client-go's own takes megabytes.
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, nil, fmt.Errorf("registering kinds: %w", err)
	}
	var starting *kube.StartingCache
	newCache := func(config *rest.Config, o cache.Options) (cache.Cache, error) {
		namespaces := opts.namespaceList
		if len(namespaces) == 0 {
			namespaces = []string{metav1.NamespaceAll}
		}
		var err error
		starting, err = kube.NewStartingCache(config, o, namespaces, logger)
		return starting, err
	}
	grace := shutdownTimeout
	lease, renew, retry := leaseDuration, renewDeadline, retryPeriod
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Logger:                        logger,
		Cache:                         cacheOptions(opts),
		NewCache:                      newCache,
		Controller:                    ctrlconfig.Controller{CacheSyncTimeout: cacheSyncTimeout},
		Client:                        client.Options{Cache: &client.CacheOptions{}},
		MapperProvider:                kube.NewMapper,
		Metrics:                       metricsserver.Options{BindAddress: program.Disabled},
		HealthProbeBindAddress:        program.Disabled,
		LeaderElection:                opts.leaderElect,
		LeaderElectionID:              opts.leaderElectionID,
		LeaderElectionNamespace:       opts.leaderElectionNamespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &lease,
		RenewDeadline:                 &renew,
		RetryPeriod:                   &retry,
		GracefulShutdownTimeout:       &grace,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("setting up the manager: %w", err)
	}
	return mgr, starting, nil
}

func cacheOptions(opts *options) cache.Options {
	out := cache.Options{
		ByObject: controller.CacheOptions(opts.selector),
		// A read of a kind without an informer fails instead of starting one that caches every object of that kind.
		ReaderFailOnMissingInformer: true,
	}
	out.ByObject[&v1alpha1.WeChatAppClient{}] = appclient.CacheOptions(opts.selector)
	if len(opts.namespaceList) > 0 {
		out.DefaultNamespaces = map[string]cache.Config{}
		for _, name := range opts.namespaceList {
			out.DefaultNamespaces[name] = cache.Config{}
		}
	}
	return out
}

// cachedLists are what the caches list in each namespace.
func cachedLists() kube.Lists {
	return kube.Lists{
		"secrets":          {Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"},
		"wechatapptokens":  {Kind: v1alpha1.Kind + "List", APIVersion: v1alpha1.GroupVersion.String()},
		"wechatappclients": {Kind: v1alpha1.ClientKind + "List", APIVersion: v1alpha1.GroupVersion.String()},
	}
}

// addMetrics registers the metrics that are computed from the cache, and those that the returned Recorder counts.
func addMetrics(registry prometheus.Registerer, cached client.Reader, api *wechat.Client) (*metrics.Recorder, error) {
	recorder, err := metrics.NewRecorder(registry)
	if err != nil {
		return nil, err
	}
	collector := metrics.NewCollector(metrics.Options{Cache: cached, Now: api.Now, Recorder: recorder, Version: version})
	if err := registry.Register(collector); err != nil {
		return nil, fmt.Errorf("registering the metrics of resources: %w", err)
	}
	return recorder, nil
}

// addGuard adds what finds out whether the admission policies bind this operator. Its requests have a User-Agent of their own, because
// the audit log shows them as refused if all is well.
func addGuard(mgr ctrl.Manager, config *rest.Config, opts *options, logger logr.Logger) (*fence.Guard, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "wechat-token-operator-policy-probe/" + version
	probe, err := client.New(config, client.Options{Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return nil, fmt.Errorf("setting up the dry runs of policies: %w", err)
	}
	guard := &fence.Guard{Client: probe, Namespaces: opts.namespaceList, PromptDelivery: opts.promptDelivery, Log: logger}
	if err := mgr.Add(guard); err != nil {
		return nil, fmt.Errorf("adding to the manager: %w", err)
	}
	return guard, nil
}
