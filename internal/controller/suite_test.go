// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/controller"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/quiet"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// All tests of the package share a control plane, on which each has a namespace of its own, and the client that a person would use.
var (
	env   *testenv.Environment
	admin client.Client
)

func TestMain(m *testing.M) {
	testenv.Main(m, func(ctx context.Context, e *testenv.Environment) (_ func() error, err error) {
		env = e
		if admin, err = client.New(env.Config, client.Options{Scheme: scheme()}); err != nil {
			return nil, err
		}
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
	// atOnce is patience for what must not wait for the next check, which is 27 s away.
	atOnce = 10 * time.Second
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
	// selector is --watch-label-selector; nil for everything.
	selector labels.Selector
	// operators are those that were started, the last one of which is the operator.
	operators *operators
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
	w := &world{
		T: t, Gomega: gomega.NewWithT(t), Client: admin, clock: &clock{}, skew: &atomic.Int64{}, logs: &logs{},
		recorder: &recorder{counts: map[string]int{}}, operators: &operators{},
	}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	w.SetDefaultConsistentlyDuration(time.Second)
	w.SetDefaultConsistentlyPollingInterval(100 * time.Millisecond)

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

	w.namespace = w.newNamespace()
	t.Cleanup(func() {
		// The whole log of each test is searched for what must never be in it.
		for _, token := range w.wechat.Tokens("") {
			w.logs.mustNotHold(t, token.Token)
		}
		for _, kind := range v1alpha1.TicketTypes() {
			for _, ticket := range w.wechat.Tickets(appID, kind) {
				w.logs.mustNotHold(t, ticket.Ticket)
			}
		}
		w.logs.mustNotHold(t, appSecret)
		if t.Failed() {
			t.Logf("the operator's log:\n%s", w.logs)
		}
	})
	return w
}

// readyWorld is a world whose operator has given the resource "shop" its first token, which is the second result.
func readyWorld(t *testing.T, mode v1alpha1.Mode, mutate ...func(*v1alpha1.WeChatAppToken)) (*world, string) {
	t.Helper()
	w := newWorld(t)
	return w, w.ready(mode, mutate...)
}

// ready starts an operator and waits until it has given the resource "shop" its first token.
func (w *world) ready(mode v1alpha1.Mode, mutate ...func(*v1alpha1.WeChatAppToken)) string {
	w.Helper()
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("shop", append([]func(*v1alpha1.WeChatAppToken){func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode }}, mutate...)...)
	return w.eventuallyReady("shop")
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

// knownKinds spares an operator the question what the API server serves.
func knownKinds(*rest.Config, *http.Client) (apimeta.RESTMapper, error) {
	return admin.RESTMapper(), nil
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
	restConfig.Wrap(kube.WithDeadline)
	unchecked := true
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:         scheme(),
		MapperProvider: knownKinds,
		Logger:         w.logs.logger(slog.LevelDebug - 10),
		Metrics:        metricsserver.Options{BindAddress: "0"},
		Controller:     config.Controller{SkipNameValidation: &unchecked},
		Cache: cache.Options{
			ByObject:                    controller.CacheOptions(cmp.Or(w.selector, labels.Everything())),
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
	if err := reconciler.SetupWithManager(ctx, timedManager{mgr, w}); err != nil {
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
	w.operators.mu.Lock()
	defer w.operators.mu.Unlock()
	w.operators.last = o
	w.operators.started++
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
