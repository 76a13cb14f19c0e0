// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/controller"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// hourly makes the checks of a resource rare, so that a test counts only the calls that it causes.
func hourly(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour }

// legacyMembers makes resources of one Legacy account, one after the other, that are checked once an hour, and waits until each is Ready.
func (w *world) legacyMembers(names ...string) {
	w.Helper()
	w.createCredentials(appSecret)
	for _, name := range names {
		w.createToken(name, legacy, hourly)
		w.eventuallyReady(name)
	}
}

// in returns the world as seen from another namespace.
func (w *world) in(namespace string) *world {
	other := *w
	other.namespace = namespace
	return &other
}

// holdsWithin reports whether the condition becomes true within d.
func (w *world) holdsWithin(d time.Duration, condition func() bool) bool {
	w.Helper()
	for end := time.Now().Add(d); ; time.Sleep(20 * time.Millisecond) {
		if condition() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// wakeTargets makes the operator look at these targets, as any edit of a Secret does: timers run in real time, and do not notice that the
// clock was moved.
func (w *world) wakeTargets(secrets ...string) {
	w.Helper()
	for _, name := range secrets {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}}
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/touched":%q}}}`, rand.Text())
		w.must(client.IgnoreNotFound(w.Patch(w.Context(), secret, client.RawPatch(types.MergePatchType, patch))))
	}
}

// pass lets time pass on the moved clock, and makes the operator look at these targets. A pass that goes on gets a moment to end first: the
// answer to a call that the clock overtakes would count as later than it was.
func (w *world) pass(d time.Duration, secrets ...string) {
	w.Helper()
	w.holdsWithin(200*time.Millisecond, func() bool { return !w.operators.busy() })
	w.clock.advance(d)
	w.wakeTargets(secrets...)
}

// ask makes a request of a resource.
func (w *world) ask(name, annotation string, value any) {
	w.Helper()
	w.update(name, annotated(annotation, fmt.Sprint(value)))
}

// ownToken reports whether a Secret holds a valid token that WeChat issued for the appid.
func (w *world) ownToken(secret, app string) bool {
	value := w.value(secret)
	for _, issued := range w.wechat.Tokens(app) {
		if issued.Token == value {
			return w.wechat.Valid(value)
		}
	}
	return false
}

// roundTripper is a function that serves as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// startOperatorThrough is startOperator for an operator whose requests to the API server pass through a wrapped transport.
func (w *world) startOperatorThrough(wrap func(http.RoundTripper) http.RoundTripper, namespaces ...string) *operator {
	w.Helper()
	o := &operator{name: "operator-" + strings.ToLower(rand.Text()[:8])}
	namespaces = append([]string{w.namespace}, namespaces...)
	watched := map[string]cache.Config{}
	for _, ns := range namespaces {
		watched[ns] = cache.Config{}
	}
	restConfig, err := w.access(o.name, namespaces...)
	w.must(err)
	restConfig.Wrap(wrap)
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
	w.must(err)
	api, err := wechat.New(wechat.Options{
		Endpoints: []string{w.wechat.URL()}, Timeout: 2 * time.Second, MaxInFlight: 64, Wall: w.wall, Monotonic: w.clock.now,
	})
	w.must(err)
	reconciler := controller.New(controller.Options{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), WeChat: api,
		Events: mgr.GetEventRecorder("wechat-token-operator"), MaxConcurrentReconciles: cmp.Or(w.workers, 64), Recorder: w.recorder,
	})
	ctx, cancel := context.WithCancel(context.Background())
	w.must(reconciler.SetupWithManager(ctx, mgr))
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

// lag holds back what the watches of Secrets, or of the other resources named, tell an operator, from begin to end.
type lag struct {
	of   string
	mu   sync.Mutex
	over chan struct{}
}

func (l *lag) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = make(chan struct{})
}

func (l *lag) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over != nil {
		close(l.over)
		l.over = nil
	}
}

func (l *lag) wait(ctx context.Context) {
	l.mu.Lock()
	over := l.over
	l.mu.Unlock()
	if over == nil {
		return
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
}

func (l *lag) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err == nil && strings.HasSuffix(r.URL.Path, "/"+cmp.Or(l.of, "secrets")) && r.URL.Query().Has("watch") {
			response.Body = &laggingBody{ReadCloser: response.Body, ctx: r.Context(), lag: l}
		}
		return response, err
	})
}

// laggingBody is the body of a watch.
type laggingBody struct {
	io.ReadCloser

	ctx context.Context //nolint:containedctx // of the request that this is the answer to
	lag *lag
}

func (b *laggingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.lag.wait(b.ctx)
	return n, err
}
