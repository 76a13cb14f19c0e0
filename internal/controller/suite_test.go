// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/controller"
	"github.com/wechat-token-operator/wechat-token-operator/internal/quiet"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// env is the control plane that all tests of the package share. Each has a namespace of its own.
var env *testenv.Environment

func TestMain(m *testing.M) {
	testenv.Main(m, func(ctx context.Context, e *testenv.Environment) (func() error, error) {
		env = e
		statuses, err := observeStatuses(ctx)
		if err != nil {
			return nil, err
		}
		return func() error { return errors.Join(statuses.finish(), judgeRights()) }, nil
	})
}

const (
	appID     = "wx0123456789abcdef"
	appSecret = "0123456789abcdef0123456789abcdef"
	// patience is how long a test waits for what should take well under a second.
	patience = 20 * time.Second
)

// world is one test's namespace, WeChat and clock.
type world struct {
	*testing.T

	gomega.Gomega
	client.Client

	namespace string
	wechat    *wechattest.Server
	clock     *clock
	// skew is what the operators' wall clocks are ahead of the clock.
	skew *atomic.Int64
	logs *logs
	// requireLabel is --require-credentials-label of the operators that are started.
	requireLabel bool
	// prompt is --prompt-delivery.
	prompt bool
	// workers is --max-concurrent-reconciles of the operators that are started; 0 for 64.
	workers  int
	recorder *recorder
}

// clock is the time of WeChat and the operators, which a test may let pass.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// wall is the wall clock of the operators.
func (w *world) wall() time.Time { return w.clock.now().Add(time.Duration(w.skew.Load())) }

func newWorld(t *testing.T, configure ...func(*wechattest.Options)) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, Gomega: gomega.NewWithT(t), clock: &clock{}, skew: &atomic.Int64{}, logs: &logs{}, recorder: &recorder{counts: map[string]int{}}}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	w.SetDefaultConsistentlyDuration(2 * time.Second)
	w.SetDefaultConsistentlyPollingInterval(50 * time.Millisecond)

	opts := wechattest.Options{Now: w.clock.now}
	for _, f := range configure {
		f(&opts)
	}
	var err error
	if w.wechat, err = wechattest.NewServer(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.wechat.Close)
	w.wechat.SetApp(wechattest.App{ID: appID, Secret: appSecret})

	if w.Client, err = client.New(env.Config, client.Options{Scheme: scheme()}); err != nil {
		t.Fatal(err)
	}
	w.namespace = w.newNamespace()
	t.Cleanup(func() {
		// The whole log of each test is searched for what must never be in it.
		for _, token := range w.wechat.Tokens("") {
			w.logs.mustNotHold(t, token.Token)
		}
		w.logs.mustNotHold(t, appSecret)
		if t.Failed() {
			t.Logf("the operator's log:\n%s", w.logs)
		}
	})
	return w
}

func (w *world) newNamespace() string {
	w.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	if err := w.Create(w.Context(), ns); err != nil {
		w.Fatal(err)
	}
	return ns.Name
}

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		panic(err)
	}
	return s
}

// operator is a running operator process, or nearly one.
type operator struct {
	// name is the operator's User-Agent in the audit log.
	name string
	stop func()
}

// startOperator starts an operator for the world's namespaces, with the identity and the rights that the operator has.
func (w *world) startOperator(namespaces ...string) *operator {
	w.Helper()
	o := &operator{name: "operator-" + strings.ToLower(rand.Text()[:8])}
	watched := map[string]cache.Config{w.namespace: {}}
	for _, ns := range namespaces {
		watched[ns] = cache.Config{}
	}
	restConfig, err := w.access(o.name, slices.Collect(maps.Keys(watched))...)
	if err != nil {
		w.Fatal(err)
	}
	unchecked := true
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:     scheme(),
		Logger:     w.logs.logger(slog.LevelDebug - 10),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &unchecked},
		Cache: cache.Options{
			ByObject:                    controller.CacheOptions(labels.Everything()),
			DefaultNamespaces:           watched,
			ReaderFailOnMissingInformer: true,
		},
	})
	if err != nil {
		w.Fatal(err)
	}
	api, err := wechat.New(wechat.Options{
		Endpoints: []string{w.wechat.URL()}, Timeout: 2 * time.Second, MaxInFlight: 64, Wall: w.wall, Monotonic: w.clock.now,
	})
	if err != nil {
		w.Fatal(err)
	}
	reconciler := controller.New(controller.Options{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), WeChat: api,
		Events: mgr.GetEventRecorder("wechat-token-operator"), MaxConcurrentReconciles: cmp.Or(w.workers, 64),
		RequireCredentialsLabel: w.requireLabel, PromptDelivery: w.prompt, Recorder: w.recorder,
	})
	ctx, cancel := context.WithCancel(context.Background())
	if err := reconciler.SetupWithManager(ctx, mgr); err != nil {
		w.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	o.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("the manager: %v", err)
		}
	})
	w.Cleanup(o.stop)
	return o
}

// logs collects what an operator logs.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logs) logger(level slog.Level) logr.Logger {
	return quiet.Logger(logr.FromSlogHandler(slog.NewTextHandler(l, &slog.HandlerOptions{Level: level})))
}

func (l *logs) mustNotHold(t *testing.T, secret string) {
	t.Helper()
	if strings.Contains(l.String(), secret) {
		t.Errorf("the log holds %s…", secret[:8])
	}
}
