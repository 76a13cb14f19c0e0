// SPDX-License-Identifier: Apache-2.0

package appclient_test

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/appclient"
	"github.com/wechat-token-operator/wechat-token-operator/internal/controller"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// All tests of the package share a control plane, on which each has a namespace of its own, and the client that a person would use.
var (
	env   *testenv.Environment
	admin client.Client
)

func TestMain(m *testing.M) {
	testenv.Main(m, func(_ context.Context, e *testenv.Environment) (_ func() error, err error) {
		env = e
		admin, err = client.New(env.Config, client.Options{Scheme: scheme()})
		return judgeRights, err
	})
}

// judgeRights reads in the audit log that the operators needed each right on WeChatAppClients that config/rbac gives them, unless only some
// tests were run, and that nothing was refused but the change of an owner reference, which one test provokes.
func judgeRights() error {
	used := map[string]bool{}
	var errs []error
	requests, err := env.Requests(func(r testenv.Request) bool { return r.User.Username == testenv.OperatorUser })
	for _, r := range requests {
		what := strings.TrimSuffix(r.Verb+" "+r.Object.Resource+"/"+r.Object.Subresource, "/")
		used[what] = true
		if r.Status.Code == http.StatusForbidden && what != "patch secrets" {
			errs = append(errs, fmt.Errorf("the API server refused %s", what))
		}
	}
	if flag.Lookup("test.run").Value.String() != "" || flag.Lookup("test.skip").Value.String() != "" {
		return errors.Join(append(errs, err)...)
	}
	for _, right := range []string{"get wechatappclients", "watch wechatappclients", "patch wechatappclients/status"} {
		if !used[right] {
			errs = append(errs, fmt.Errorf("config/rbac/role.yaml has a right that no test used: %s", right))
		}
	}
	return errors.Join(append(errs, err)...)
}

const (
	appID      = "wx0123456789abcdef"
	appSecret  = "0123456789abcdef0123456789abcdef"
	gatewayURL = "https://wechat-gateway.wechat.svc"
	gatewayCA  = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
	keySecret  = "shop-key"
	patience   = 20 * time.Second
)

var key = regexp.MustCompile(`^[0-9a-f]{32}$`)

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		panic(err)
	}
	return s
}

// world is one test's namespace, clock, WeChat and operator.
type world struct {
	*testing.T
	gomega.Gomega
	client.Client

	namespace string
	wechat    *wechattest.Server
	offset    atomic.Int64
	gateway   atomic.Pointer[appclient.Gateway]
	logs      *logs
	operator  *operator
	// stale, if set, is what operators read in place of any WeChatAppClient.
	stale atomic.Pointer[v1alpha1.WeChatAppClient]
	// patching, if set, is called in place of each patch of a Secret that operators send.
	patching atomic.Pointer[patching]
	// keys are all that were seen, none of which may be in a log.
	keys map[string]bool
}

// operator is a running operator process, or nearly one.
type operator struct {
	name    string
	stop    func()
	cancel  func()
	clients *appclient.Reconciler
	// crashed makes each write of a status fail, as if the process had ended before it.
	crashed *atomic.Bool
}

func newWorld(t *testing.T, configure ...func(*world)) *world {
	t.Helper()
	t.Parallel()
	w := &world{
		T: t, Gomega: gomega.NewWithT(t), Client: admin, logs: &logs{}, keys: map[string]bool{},
	}
	w.gateway.Store(&appclient.Gateway{URL: gatewayURL, CA: gatewayCA})
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	w.SetDefaultConsistentlyDuration(time.Second)
	for _, f := range configure {
		f(w)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}
	w.must(w.Create(w.Context(), ns))
	w.namespace = ns.Name
	var err error
	w.wechat, err = wechattest.NewServer(wechattest.Options{Now: w.now})
	w.must(err)
	t.Cleanup(w.wechat.Close)
	w.wechat.SetApp(wechattest.App{ID: appID, Secret: appSecret})
	w.start()
	t.Cleanup(func() {
		w.operator.stop()
		for key := range w.keys {
			if strings.Contains(w.logs.String(), key) {
				t.Errorf("the log holds a key")
			}
		}
		if t.Failed() {
			t.Logf("the operator's log:\n%s", w.logs)
		}
	})
	return w
}

func (w *world) now() time.Time          { return time.Now().Add(time.Duration(w.offset.Load())) }
func (w *world) advance(d time.Duration) { w.offset.Add(int64(d)) }

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// start starts an operator in place of the one before, with the rights that the operator has.
func (w *world) start() {
	w.Helper()
	if w.operator != nil {
		w.operator.stop()
	}
	o := &operator{name: "operator-" + strings.ToLower(rand.Text()[:8]), crashed: &atomic.Bool{}}
	restConfig, err := env.Operator(w.Context(), o.name)
	w.must(err)
	unchecked := true
	objects := controller.CacheOptions(labels.Everything())
	objects[&v1alpha1.WeChatAppClient{}] = appclient.CacheOptions(labels.Everything())
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:         scheme(),
		MapperProvider: func(*rest.Config, *http.Client) (apimeta.RESTMapper, error) { return admin.RESTMapper(), nil },
		Logger:         logr.FromSlogHandler(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug - 10})),
		Metrics:        metricsserver.Options{BindAddress: "0"},
		Controller:     config.Controller{SkipNameValidation: &unchecked},
		Cache: cache.Options{
			ByObject: objects, DefaultNamespaces: map[string]cache.Config{w.namespace: {}}, ReaderFailOnMissingInformer: true,
		},
	})
	w.must(err)
	api, err := wechat.New(wechat.Options{
		Endpoints: []string{w.wechat.URL()}, Timeout: 2 * time.Second, MaxInFlight: 8, Wall: w.now, Monotonic: w.now,
	})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	tokens := controller.New(controller.Options{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), WeChat: api, Events: mgr.GetEventRecorder("test"), MaxConcurrentReconciles: 4,
	})
	w.must(tokens.SetupWithManager(ctx, mgr))
	clients := appclient.New(appclient.Options{
		Client: crashing{mgr.GetClient(), o.crashed, &w.stale, &w.patching}, Live: mgr.GetAPIReader(), Clock: api.Clock, Events: mgr.GetEventRecorder("test"),
		Gateway: func() appclient.Gateway { return *w.gateway.Load() }, MaxConcurrentReconciles: 4, Hint: tokens.Hint,
	})
	w.must(clients.SetupWithManager(ctx, mgr))
	o.clients, o.cancel = clients, cancel
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	o.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("the manager: %v", err)
		}
	})
	w.operator = o
}

// crashing is a client that writes no status once crashed, whose cache has this WeChatAppClient, if any, in place of the newest, and whose
// patches of Secrets pass through patching, if that is set.
type crashing struct {
	client.Client

	crashed  *atomic.Bool
	stale    *atomic.Pointer[v1alpha1.WeChatAppClient]
	patching *atomic.Pointer[patching]
}

// patching sends the patch of a Secret, or does not.
type patching func(ctx context.Context, body client.Patch, send func(client.Patch) error) error

func (c crashing) Patch(ctx context.Context, o client.Object, body client.Patch, opts ...client.PatchOption) error {
	send := func(body client.Patch) error { return c.Client.Patch(ctx, o, body, opts...) }
	if f := c.patching.Load(); f != nil {
		return (*f)(ctx, body, send)
	}
	return send(body)
}

func (c crashing) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if got, ok := o.(*v1alpha1.WeChatAppClient); ok {
		if stale := c.stale.Load(); stale != nil {
			stale.DeepCopyInto(got)
			return nil
		}
	}
	return c.Client.Get(ctx, key, o, opts...)
}

func (c crashing) Status() client.SubResourceWriter {
	return crashingStatus{c.Client.Status(), c.crashed}
}

type crashingStatus struct {
	client.SubResourceWriter

	crashed *atomic.Bool
}

func (c crashingStatus) Patch(ctx context.Context, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
	if c.crashed.Load() {
		return errors.New("crashed")
	}
	return c.SubResourceWriter.Patch(ctx, o, p, opts...)
}

// createToken makes the WeChatAppToken "shop" and its credentials Secret.
func (w *world) createToken() {
	w.Helper()
	w.must(w.Create(w.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "credentials"}, StringData: map[string]string{"appSecret": appSecret},
	}))
	w.must(w.Create(w.Context(), &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "shop"},
		Spec:       v1alpha1.WeChatAppTokenSpec{AppID: appID, CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"}},
	}))
}

func (w *world) createClient(name string, mutate ...func(*v1alpha1.WeChatAppClient)) {
	w.Helper()
	c := &v1alpha1.WeChatAppClient{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1alpha1.WeChatAppClientSpec{
			TokenRef: v1alpha1.TokenReference{Name: "shop"}, Paths: []v1alpha1.ClientPath{"/wxa/*"},
			Key: &v1alpha1.ClientKeySpec{SecretName: keySecret},
		},
	}
	for _, f := range mutate {
		f(c)
	}
	w.must(w.Create(w.Context(), c))
}

// ready makes a token and the client "api", and returns its key.
func (w *world) ready(mutate ...func(*v1alpha1.WeChatAppClient)) string {
	w.Helper()
	w.createToken()
	w.createClient("api", mutate...)
	return w.eventuallyReady()
}

func (w *world) appClient(name string) *v1alpha1.WeChatAppClient {
	w.Helper()
	c := &v1alpha1.WeChatAppClient{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, c))
	return c
}

func (w *world) update(mutate func(*v1alpha1.WeChatAppClient)) {
	w.Helper()
	c := w.appClient("api")
	base := c.DeepCopy()
	mutate(c)
	w.must(w.Patch(w.Context(), c, client.MergeFrom(base)))
}

// touch makes the operator look at the client, as its timer would if the clock had not been moved.
func (w *world) touch() {
	w.Helper()
	w.update(func(c *v1alpha1.WeChatAppClient) { c.Spec.Rate.PerReplica.Burst++ })
	w.Eventually(func() bool {
		c := w.appClient("api")
		return c.Status.ObservedGeneration == c.Generation
	}).Should(gomega.BeTrue())
}

func (w *world) ask(annotation, value string) {
	w.Helper()
	w.update(func(c *v1alpha1.WeChatAppClient) { metav1.SetMetaDataAnnotation(&c.ObjectMeta, annotation, value) })
}

// secret returns the key Secret; nil if it does not exist.
func (w *world) secret() *corev1.Secret {
	w.Helper()
	s := &corev1.Secret{}
	if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: keySecret}, s); client.IgnoreNotFound(err) != nil {
		w.Fatal(err)
	} else if err != nil {
		return nil
	}
	for _, name := range []string{"app_secret", "previous_app_secret"} {
		if v := string(s.Data[name]); key.MatchString(v) {
			w.keys[v] = true
		}
	}
	return s
}

func (w *world) updateSecret(mutate func(*corev1.Secret)) {
	w.Helper()
	s := w.secret()
	base := s.DeepCopy()
	mutate(s)
	w.must(w.Patch(w.Context(), s, client.MergeFrom(base)))
}

// keys returns the keys that a gateway would take: those of the Secret that the status names.
func (w *world) good() (current, previous string) {
	w.Helper()
	s, status := w.secret(), w.appClient("api").Status.Key
	if s == nil || status == nil {
		return "", ""
	}
	for _, name := range []string{"app_secret", "previous_app_secret"} {
		switch v := string(s.Data[name]); token.NewValue(v).Fingerprint() {
		case "":
		case status.Fingerprint:
			current = v
		case status.PreviousFingerprint:
			previous = v
		}
	}
	return current, previous
}

// eventuallyReady waits until the client is Ready, and returns its key.
func (w *world) eventuallyReady() string {
	w.Helper()
	var current string
	w.Eventually(func(g gomega.Gomega) {
		ready := w.condition("api", v1alpha1.ConditionReady)
		g.Expect(ready.Status).To(gomega.Equal(metav1.ConditionTrue), ready.Message)
		current, _ = w.good()
		g.Expect(current).To(gomega.MatchRegexp(key.String()))
		g.Expect(string(w.secret().Data["app_secret"])).To(gomega.Equal(current))
	}).Should(gomega.Succeed())
	return current
}

// eventuallyAnother waits until there is another good key than this one.
func (w *world) eventuallyAnother(than string) string {
	w.Helper()
	w.Eventually(func() string { k, _ := w.good(); return k }).ShouldNot(gomega.BeElementOf("", than))
	return w.eventuallyReady()
}

func (w *world) condition(name, kind string) metav1.Condition {
	w.Helper()
	if c := apimeta.FindStatusCondition(w.appClient(name).Status.Conditions, kind); c != nil {
		return *c
	}
	return metav1.Condition{}
}

// eventuallyReason waits for the reason of Ready, which must be False.
func (w *world) eventuallyReason(name, reason string) metav1.Condition {
	w.Helper()
	var ready metav1.Condition
	w.Eventually(func(g gomega.Gomega) {
		ready = w.condition(name, v1alpha1.ConditionReady)
		g.Expect(ready.Reason).To(gomega.Equal(reason), ready.Message)
		g.Expect(ready.Status).To(gomega.Equal(metav1.ConditionFalse))
	}).Should(gomega.Succeed())
	return ready
}

// events are the reasons of the events about the client, sorted.
func (w *world) events() []string {
	w.Helper()
	list := &eventsv1.EventList{}
	w.must(w.List(w.Context(), list, client.InNamespace(w.namespace)))
	var out []string
	for _, e := range list.Items {
		if e.Regarding.Kind == v1alpha1.ClientKind {
			out = append(out, e.Reason)
		}
		for key := range w.keys {
			if strings.Contains(e.Note, key) {
				w.Error("an event holds a key")
			}
		}
	}
	slices.Sort(out)
	return out
}

// requests counts the operator's requests about clients and their Secrets, without lists and watches.
func (w *world) requests() map[string]int {
	w.Helper()
	all, err := env.Requests(func(r testenv.Request) bool {
		return r.UserAgent == w.operator.name && r.Verb != "watch" && r.Verb != "list" &&
			(r.Object.Resource == "secrets" && r.Object.Name != "shop" && r.Object.Name != "credentials" || r.Object.Resource == "wechatappclients" || r.Object.Resource == "events")
	})
	w.must(err)
	out := map[string]int{}
	for _, r := range all {
		out[strings.TrimSuffix(r.Verb+" "+r.Object.Resource+"/"+r.Object.Subresource, "/")]++
	}
	return out
}

// since returns what was requested since an earlier count.
func (w *world) since(before map[string]int) map[string]int {
	w.Helper()
	out := maps.Clone(w.requests())
	for kind, n := range before {
		if out[kind] -= n; out[kind] == 0 {
			delete(out, kind)
		}
	}
	return out
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

// clientPatch returns a merge patch.
func clientPatch(body string) client.Patch {
	return client.RawPatch(types.MergePatchType, []byte(body))
}

func nameOf(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}
