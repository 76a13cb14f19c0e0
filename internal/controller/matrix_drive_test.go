// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/go-logr/logr"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/controller"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// clerk has what operators need of a manager, without the work queue: the test makes each pass when the one before asked
// for it, on a clock that it moves there. Hours pass so in a second, with every pass that the operator would make.
type clerk struct {
	mgr ctrl.Manager

	mu sync.Mutex
	// status and secrets count the writes, and events has the reasons, by namespace/name.
	status, secrets map[string]int
	events          map[string][]string
	// versions are those that the last writes made, of the processes and of the test.
	versions map[written]string
	// beforeData is called before each write of a Secret's data that exists, unless nil. Its error is the API server's answer.
	beforeData func() error
}

func newClerk(t *testing.T) *clerk {
	t.Helper()
	c := &clerk{status: map[string]int{}, secrets: map[string]int{}, events: map[string][]string{}, versions: map[written]string{}}
	restConfig, err := env.Operator(t.Context(), "clerk")
	if err != nil {
		t.Fatal(err)
	}
	if c.mgr, err = ctrl.NewManager(restConfig, ctrl.Options{
		Scheme: scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"}, MapperProvider: knownKinds,
		Cache: cache.Options{ByObject: controller.CacheOptions(labels.Everything()), ReaderFailOnMissingInformer: true},
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // the cleanup ends it
	if err := controller.AddIndexes(nil, ctx, c.mgr.GetFieldIndexer()); err != nil {
		t.Fatal(err)
	}
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	done := make(chan error, 1)
	go func() { done <- c.mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the manager: %v", err)
		}
	})
	for _, o := range []client.Object{&v1alpha1.WeChatAppToken{}, secret} {
		if _, err := c.mgr.GetCache().GetInformer(ctx, o); err != nil {
			t.Fatal(err)
		}
	}
	if !c.mgr.GetCache().WaitForCacheSync(ctx) {
		t.Fatal("the cache is not filled")
	}
	return c
}

func (c *clerk) count(counter map[string]int, o client.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counter[o.GetNamespace()+"/"+o.GetName()]++
}

// written names a WeChatAppToken or a Secret.
type written struct {
	token bool
	name  client.ObjectKey
}

func (c *clerk) wrote(o client.Object, err error) error {
	if err == nil && o.GetResourceVersion() != "" { // a rehearsal may have none
		_, token := o.(*v1alpha1.WeChatAppToken)
		token = token || o.GetObjectKind().GroupVersionKind().Kind == v1alpha1.Kind
		c.mu.Lock()
		defer c.mu.Unlock()
		c.versions[written{token, client.ObjectKeyFromObject(o)}] = o.GetResourceVersion()
	}
	return err
}

// notingClient tells the clerk which versions its writes made.
type notingClient struct {
	client.Client
	*clerk
}

func (c notingClient) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	return c.wrote(o, c.Client.Create(ctx, o, opts...))
}

func (c notingClient) Update(ctx context.Context, o client.Object, opts ...client.UpdateOption) error {
	return c.wrote(o, c.Client.Update(ctx, o, opts...))
}

func (c notingClient) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	return c.wrote(o, c.Client.Patch(ctx, o, p, opts...))
}

// countingClient is the operator's client. Of Secrets it counts the writes that are not rehearsed.
type countingClient struct{ notingClient }

func (c countingClient) Create(ctx context.Context, o client.Object, opts ...client.CreateOption) error {
	if !slices.Contains(opts, client.CreateOption(client.DryRunAll)) {
		c.count(c.secrets, o)
	}
	return c.notingClient.Create(ctx, o, opts...)
}

func (c countingClient) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.PatchOption) error {
	if !slices.Contains(opts, client.PatchOption(client.DryRunAll)) {
		c.count(c.secrets, o)
	}
	if body, err := p.Data(o); err == nil && c.beforeData != nil && bytes.Contains(body, []byte(`"access_token"`)) {
		if err := c.beforeData(); err != nil {
			return err
		}
	}
	return c.notingClient.Patch(ctx, o, p, opts...)
}

func (c countingClient) Status() client.SubResourceWriter {
	return countingStatus{c.Client.Status(), c.clerk}
}

type countingStatus struct {
	client.SubResourceWriter
	*clerk
}

func (c countingStatus) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	c.count(c.status, o)
	return c.wrote(o, c.SubResourceWriter.Patch(ctx, o, p, opts...))
}

// countingEvents notes the events that are sent on.
type countingEvents struct {
	events.EventRecorder
	*clerk
}

func (c countingEvents) Eventf(regarding, related runtime.Object, kind, reason, act, note string, args ...any) {
	if o, ok := regarding.(client.Object); ok {
		c.mu.Lock()
		key := o.GetNamespace() + "/" + o.GetName()
		c.events[key] = append(c.events[key], reason)
		c.mu.Unlock()
	}
	c.EventRecorder.Eventf(regarding, related, kind, reason, act, note, args...)
}

// subject is a resource with an app of its own, and the process that serves it.
type subject struct {
	*matrix

	name, app string
	process   *controller.Reconciler
	// wake is when the last pass wants the next one; zero for at once.
	wake time.Time
}

// subject makes a resource and starts a process for it.
func (m *matrix) subject(name string, checkInterval time.Duration) *subject {
	m.Helper()
	s := &subject{matrix: m, name: name, app: "wx" + (name + m.namespace[len("test-"):] + "0000000000000000")[:16]}
	m.wechat.SetApp(wechattest.App{ID: s.app, Secret: appSecret})
	m.createSecret(name+"-credentials", map[string]string{"appSecret": appSecret})
	m.createToken(name, func(t *v1alpha1.WeChatAppToken) {
		t.Spec.AppID, t.Spec.Mode, t.Spec.CheckInterval.Duration = s.app, m.mode, checkInterval
		t.Spec.CredentialsSecretRef.Name = name + "-credentials"
	})
	s.restart(10 * time.Second)
	return s
}

// restart replaces the process by one that knows nothing, once the cache knows everything.
func (s *subject) restart(timeout time.Duration) {
	s.Helper()
	s.caughtUp(s.name, &v1alpha1.WeChatAppToken{})
	for _, name := range []string{s.name, s.name + "-credentials"} {
		secret := &metav1.PartialObjectMetadata{}
		secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
		s.caughtUp(name, secret)
	}
	api, err := wechat.New(wechat.Options{Endpoints: []string{s.wechat.URL()}, Timeout: timeout, Wall: s.clock.now, Monotonic: s.clock.now})
	s.must(err)
	s.process = controller.New(controller.Options{
		Client: countingClient{notingClient{s.clerk.mgr.GetClient(), s.clerk}}, Live: s.clerk.mgr.GetAPIReader(), WeChat: api,
		Events: countingEvents{s.clerk.mgr.GetEventRecorder("matrix"), s.clerk}, MaxConcurrentReconciles: 1,
	})
	s.wake = time.Time{}
}

// caughtUp waits until the cache has what was written last.
func (s *subject) caughtUp(name string, cached client.Object) {
	s.Helper()
	key := client.ObjectKey{Namespace: s.namespace, Name: name}
	_, token := cached.(*v1alpha1.WeChatAppToken)
	s.clerk.mu.Lock()
	version := s.clerk.versions[written{token, key}]
	s.clerk.mu.Unlock()
	s.Eventually(func(g gomega.Gomega) {
		g.Expect(client.IgnoreNotFound(s.clerk.mgr.GetClient().Get(s.Context(), key, cached))).To(gomega.Succeed())
		g.Expect(cached.GetResourceVersion()).To(gomega.Equal(version))
	}).WithPolling(5 * time.Millisecond).Should(gomega.Succeed())
}

// run makes the passes of a span of time.
func (s *subject) run(d time.Duration) { s.Helper(); s.runUntil(d, func() bool { return false }) }

// runUntil makes the passes of a span of time, or until something is true after one of them.
func (s *subject) runUntil(d time.Duration, done func() bool) bool {
	s.Helper()
	ctx := log.IntoContext(s.Context(), s.logs.logger(slog.LevelDebug))
	end := s.clock.now().Add(d)
	for {
		if s.wake.After(end) {
			s.clock.advance(max(0, end.Sub(s.clock.now())))
			return false
		}
		s.clock.advance(max(0, s.wake.Sub(s.clock.now())))
		result, err := s.process.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKey{Namespace: s.namespace, Name: s.name}})
		s.must(err)
		if result.RequeueAfter <= 0 {
			s.Fatal("the operator sleeps for ever")
		}
		if result.RequeueAfter == controller.LookSoon { // the cache follows in real time
			time.Sleep(2 * time.Millisecond)
			s.wake = s.clock.now()
			continue
		}
		s.wake = s.clock.now().Add(result.RequeueAfter)
		if done() {
			return true
		}
	}
}

// calls are the token calls for the subject so far, and in Stable mode the checks.
func (s *subject) calls() []wechattest.Call {
	return s.wechat.Calls(wechattest.Filter{AppID: s.app, Endpoint: s.endpoint()})
}

func (s *subject) statusWrites() int { return s.counted(s.clerk.status) }
func (s *subject) secretWrites() int { return s.counted(s.clerk.secrets) }

func (s *subject) counted(counter map[string]int) int {
	s.clerk.mu.Lock()
	defer s.clerk.mu.Unlock()
	return counter[s.namespace+"/"+s.name]
}

// sent are the reasons of the events so far.
func (s *subject) sent() []string {
	s.clerk.mu.Lock()
	defer s.clerk.mu.Unlock()
	return slices.Clone(s.clerk.events[s.namespace+"/"+s.name])
}
