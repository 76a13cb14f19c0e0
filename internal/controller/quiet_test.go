// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// lineCounter counts log lines by whether the default level shows them.
type lineCounter struct {
	slog.Handler

	shown, hidden *atomic.Int64
	last          *atomic.Value
}

func newLineCounter() lineCounter {
	return lineCounter{Handler: slog.DiscardHandler, shown: &atomic.Int64{}, hidden: &atomic.Int64{}, last: &atomic.Value{}}
}

func (lineCounter) Enabled(context.Context, slog.Level) bool { return true }

func (c lineCounter) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c lineCounter) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		c.hidden.Add(1)
		return nil
	}
	c.shown.Add(1)
	c.last.Store(r.Message)
	return nil
}

// onlyOne answers each list in a namespace with its one resource: the fake client would walk through all objects there are.
func onlyOne(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
	tokens, ok := list.(*v1alpha1.WeChatAppTokenList)
	in := (&client.ListOptions{}).ApplyOptions(opts).Namespace
	if !ok || in == "" {
		return fmt.Errorf("an unexpected list of %T in namespace %q", list, in)
	}
	tokens.Items = make([]v1alpha1.WeChatAppToken, 1)
	return c.Get(ctx, client.ObjectKey{Namespace: in, Name: "shop"}, &tokens.Items[0])
}

// Ten minutes of 100 healthy resources between rotations: each is checked again and again, and the log says nothing. The
// clock of the operator and of WeChat is moved, and each resource is reconciled when it asked to be.
func TestHealthyResourcesAreQuiet(t *testing.T) {
	t.Parallel()
	const (
		resources = 100
		interval  = 2 * time.Minute
		span      = 10 * time.Minute
		step      = 5 * time.Second
	)
	var offset atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	server, err := wechattest.NewServer(wechattest.Options{Now: now, AutoApps: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	lines := newLineCounter()
	ctx := log.IntoContext(t.Context(), logr.FromSlogHandler(lines))
	r, names := fakeReconciler(t, server.URL(), now, resources, interval)

	due := make([]time.Time, resources)
	pass := func() {
		for i, name := range names {
			if now().Before(due[i]) {
				continue
			}
			result, err := r.Reconcile(ctx, ctrl.Request{NamespacedName: name})
			if err != nil {
				t.Fatal(err)
			}
			due[i] = now().Add(result.RequeueAfter)
		}
	}
	pass()
	if issued, shown := len(server.Tokens("")), lines.shown.Load(); issued != resources || shown < resources {
		t.Fatalf("%d tokens were issued, of which %d lines tell", issued, shown)
	}
	shown, hidden, calls := lines.shown.Load(), lines.hidden.Load(), server.Count(wechattest.Filter{})
	for range span / step {
		offset.Add(int64(step))
		pass()
	}
	if n := lines.shown.Load() - shown; n != 0 {
		t.Errorf("%d lines at the default level, the last one %q", n, lines.last.Load())
	}
	checks := server.Count(wechattest.Filter{}) - calls
	if least := resources * int(span/interval-1); checks < least {
		t.Errorf("only %d checks were made, want at least %d", checks, least)
	}
	if n := lines.hidden.Load() - hidden; n < int64(checks) {
		t.Errorf("%d lines below the default level for %d checks: are they counted?", n, checks)
	}
	if n := len(server.Tokens("")); n != resources {
		t.Errorf("%d tokens were issued: this was no time between rotations", n)
	}
}

// fakeReconciler works on this many resources that nobody has looked at yet.
func fakeReconciler(t *testing.T, endpoint string, now func() time.Time, n int, interval time.Duration) (*Reconciler, []types.NamespacedName) {
	t.Helper()
	scheme := runtime.NewScheme()
	// The fake client walks through the whole scheme at each write.
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.WeChatAppToken{}).
		WithInterceptorFuncs(interceptor.Funcs{List: onlyOne})
	names := make([]types.NamespacedName, n)
	for i := range n {
		names[i] = types.NamespacedName{Namespace: fmt.Sprintf("shop-%d", i), Name: "shop"}
		builder.WithObjects(
			&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: names[i].Namespace, Name: "credentials", UID: types.UID(fmt.Sprintf("c%d", i))},
				Type:       corev1.SecretTypeOpaque,
				Data:       map[string][]byte{"appSecret": []byte("0123456789abcdef0123456789abcdef")},
			},
			&v1alpha1.WeChatAppToken{
				ObjectMeta: metav1.ObjectMeta{Namespace: names[i].Namespace, Name: names[i].Name, UID: types.UID(fmt.Sprintf("t%d", i)), Generation: 1},
				Spec: v1alpha1.WeChatAppTokenSpec{
					AppID:                fmt.Sprintf("wx%016d", i),
					Mode:                 v1alpha1.ModeStable,
					CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials", Key: "appSecret"},
					CheckInterval:        metav1.Duration{Duration: interval},
					Target:               v1alpha1.TargetSpec{AccessTokenKey: "access_token", DeletionPolicy: v1alpha1.DeletionDelete},
				},
				Status: v1alpha1.WeChatAppTokenStatus{ObservedGeneration: -1},
			})
	}
	api, err := wechat.New(wechat.Options{Endpoints: []string{endpoint}, Wall: now, Monotonic: now})
	if err != nil {
		t.Fatal(err)
	}
	c := builder.Build()
	r := New(Options{Client: c, Live: c, WeChat: api, Events: &events.FakeRecorder{}, MaxConcurrentReconciles: 1})
	return r, names
}
