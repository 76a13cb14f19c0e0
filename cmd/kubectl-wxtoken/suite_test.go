// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/controller"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// All tests of the package share the control plane env. kubeconfig is the path of its administrator's kubeconfig.
var (
	env        *testenv.Environment
	kubeconfig string
)

func TestMain(m *testing.M) {
	testenv.Main(m, func(_ context.Context, e *testenv.Environment) (func() error, error) {
		env = e
		dir, err := os.MkdirTemp("", "kubectl-wxtoken-")
		if err != nil {
			return nil, err
		}
		kubeconfig = filepath.Join(dir, "kubeconfig")
		return func() error { return os.RemoveAll(dir) }, os.WriteFile(kubeconfig, env.KubeConfig, 0o600)
	})
}

const (
	appSecret = "0123456789abcdef0123456789abcdef"
	patience  = 30 * time.Second
	// later is how long after the first token was issued a test looks at it. The events of the half minute after that are "12m ago" too.
	later = 12*time.Minute + 30*time.Second
)

// world is one test's namespace, its stand-in for WeChat and its operator.
type world struct {
	*testing.T

	gomega.Gomega
	client.Client

	// namespace has a random suffix. In golden files it is replaced by name.
	namespace, name string
	// appID is different in each world, because the budget of forced calls is counted for the appid.
	appID  string
	wechat *wechattest.Server
	// now is the plugin's clock.
	now func() time.Time
}

// newWorld starts an operator for a new namespace whose name begins with name.
func newWorld(t *testing.T, name string) *world {
	t.Helper()
	w := newBareWorld(t, name)
	w.startOperator()
	return w
}

func newBareWorld(t *testing.T, name string) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, Gomega: gomega.NewWithT(t), name: name, now: time.Now, appID: "wx" + strings.ToLower(rand.Text()[:16])}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	var err error
	if w.wechat, err = wechattest.NewServer(wechattest.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.wechat.Close)
	w.wechat.SetApp(wechattest.App{ID: w.appID, Secret: appSecret})
	if w.Client, err = client.New(env.Config, client.Options{Scheme: testScheme()}); err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: name + "-"}}
	w.must(w.Create(t.Context(), ns))
	w.namespace = ns.Name
	return w
}

func (w *world) startOperator() (stop func()) {
	w.Helper()
	restConfig, err := env.Operator(w.Context(), "operator-"+w.namespace)
	w.must(err)
	unchecked := true
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:     testScheme(),
		Logger:     logr.Discard(),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &unchecked},
		Cache: cache.Options{
			ByObject:                    controller.CacheOptions(labels.Everything()),
			DefaultNamespaces:           map[string]cache.Config{w.namespace: {}},
			ReaderFailOnMissingInformer: true,
		},
	})
	w.must(err)
	api, err := wechat.New(wechat.Options{Endpoints: []string{w.wechat.URL()}, Timeout: 2 * time.Second, MaxInFlight: 64})
	w.must(err)
	reconciler := controller.New(controller.Options{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), WeChat: api,
		Events: mgr.GetEventRecorder("wechat-token-operator"), MaxConcurrentReconciles: 8,
	})
	ctx, cancel := context.WithCancel(context.Background())
	w.must(reconciler.SetupWithManager(ctx, mgr))
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("the manager: %v", err)
		}
	})
	w.Cleanup(stop)
	return stop
}

func testScheme() *runtime.Scheme {
	s := newScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		panic(err)
	}
	return s
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// createToken creates the credentials Secret "<name>-wechat" and a resource that uses it, with the target "<name>-token".
func (w *world) createToken(name string, mutate ...func(*v1alpha1.WeChatAppToken)) {
	w.Helper()
	w.createSecret(name+"-wechat", map[string]string{"appSecret": appSecret})
	w.createTokenOnly(name, mutate...)
}

func (w *world) createTokenOnly(name string, mutate ...func(*v1alpha1.WeChatAppToken)) {
	w.Helper()
	t := &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID:                w.appID,
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: name + "-wechat"},
			Target:               v1alpha1.TargetSpec{Name: name + "-token"},
		},
	}
	for _, f := range mutate {
		f(t)
	}
	if t.Spec.CheckInterval.Duration == 0 {
		t.Spec.CheckInterval.Duration = 2 * time.Minute
	}
	w.must(w.Create(w.Context(), t))
}

func (w *world) createSecret(name string, data map[string]string) {
	w.Helper()
	w.must(w.Create(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, StringData: data}))
}

func (w *world) token(name string) *v1alpha1.WeChatAppToken {
	w.Helper()
	t := &v1alpha1.WeChatAppToken{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, t))
	return t
}

// value returns the token in the target Secret of a resource, or an empty string if there is none.
func (w *world) value(name string) string {
	s := &corev1.Secret{}
	if w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name + "-token"}, s) != nil {
		return ""
	}
	return string(s.Data["access_token"])
}

// eventuallyState waits for a state and reason, and returns the resource.
func (w *world) eventuallyState(name string, s state, reason string) *v1alpha1.WeChatAppToken {
	w.Helper()
	var t *v1alpha1.WeChatAppToken
	w.Eventually(func(g gomega.Gomega) {
		t = w.token(name)
		l := lookAt(t, time.Now())
		g.Expect(l.state()).To(gomega.Equal(s), "reason %s: %s", l.reason(), l.message())
		g.Expect(l.reason()).To(gomega.Equal(reason), l.message())
	}).Should(gomega.Succeed())
	return t
}

// lookLater moves the plugin's clock to some time after the token was issued, and returns that time.
func (w *world) lookLater(name string) time.Time {
	w.Helper()
	t := w.eventuallyState(name, stateReady, v1alpha1.ReasonTokenValid)
	at := t.Status.Token.IssueTime.Add(later)
	w.now = func() time.Time { return at }
	return at
}

// result is the output and exit code of a command.
type result struct {
	code     int
	out, err string
}

// wxtoken runs the plugin in this process, as the administrator.
func (w *world) wxtoken(args ...string) result {
	w.Helper()
	return w.answer("", args...)
}

// answer runs the plugin with an answer on its standard input.
func (w *world) answer(in string, args ...string) result {
	w.Helper()
	var out, errOut bytes.Buffer
	ctx, cancel := context.WithTimeout(w.Context(), 3*time.Minute)
	defer cancel()
	code := run(ctx, terminal{
		IOStreams: genericiooptions.IOStreams{In: strings.NewReader(in), Out: &out, ErrOut: &errOut},
		now:       w.now,
		getenv:    func(string) string { return "" },
	}, append([]string{"--kubeconfig", kubeconfig, "--namespace", w.namespace}, args...))
	// The flags of every command here are part of each command that is printed.
	shown := strings.NewReplacer(" --kubeconfig "+kubeconfig, "")
	r := result{code: code, out: shown.Replace(out.String()), err: shown.Replace(errOut.String())}
	w.mustNotLeak(r, args)
	w.mustBePasteable(r.out + r.err)
	return r
}

// mustNotLeak fails the test if a command other than reveal printed a token or a ticket, or any command an AppSecret.
func (w *world) mustNotLeak(r result, args []string) {
	w.Helper()
	if strings.Contains(r.out+r.err, appSecret) {
		w.Errorf("%v printed the AppSecret", args)
	}
	for _, t := range w.wechat.Tokens("") {
		if strings.Contains(r.err, t.Token) || strings.Contains(r.out, t.Token) && args[0] != "reveal" {
			w.Errorf("%v printed a token", args)
		}
	}
	if strings.Contains(r.err, jsapiTicket) || strings.Contains(r.out, jsapiTicket) && args[0] != "reveal" {
		w.Errorf("%v printed a ticket", args)
	}
}

// mustBePasteable fails the test if an output names a command that cannot be pasted as it stands: on a line of its own, without a full
// stop and with a namespace.
func (w *world) mustBePasteable(out string) {
	w.Helper()
	if strings.Contains(out, "Usage:\n") || strings.HasPrefix(out, "{") {
		return // help shows synopses, and JSON is for programs
	}
	for line := range strings.Lines(out) {
		at := strings.Index(line, "kubectl ")
		if at < 0 {
			continue
		}
		before, command := strings.Trim(line[:at], " →-"), strings.TrimSuffix(line[at:], "\n")
		switch {
		case before != "", strings.HasSuffix(command, "."), strings.Contains(command, "NAME"):
			w.Errorf("this command cannot be pasted: %q", line)
		case strings.HasPrefix(command, "kubectl config "), strings.HasSuffix(command, "--help"), strings.HasSuffix(command, " -A"):
		case !strings.Contains(command, " -n "):
			w.Errorf("this command names no namespace: %q", line)
		}
	}
}

// ok runs the plugin, which must end with exit code 0, and returns what it printed.
func (w *world) ok(args ...string) string {
	w.Helper()
	r := w.wxtoken(args...)
	if r.code != exitOK {
		w.Fatalf("%v ended with %d: %s%s", args, r.code, r.out, r.err)
	}
	return r.out
}

// Times and fingerprints differ in each run. Their replacements have the same width, so that columns stay aligned.
var (
	dateTime    = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`)
	rfc3339     = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	fingerprint = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
)

// golden compares an output with a file in testdata, after replacing pairs of old and new strings. UPDATE_GOLDEN=1 writes the file.
func (w *world) golden(name, got string, replace ...string) {
	w.Helper()
	got = strings.NewReplacer(append(replace, w.namespace, w.name, w.appID, "wx0123456789abcdef")...).Replace(got)
	got = dateTime.ReplaceAllString(got, "yyyy-mm-dd hh:mm:ss")
	got = rfc3339.ReplaceAllString(got, "yyyy-mm-ddThh:mm:ssZ")
	got = fingerprint.ReplaceAllString(got, "00112233aabbccdd")
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		w.must(os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	w.must(err)
	if got != string(want) {
		w.Errorf("%s:\n--- got\n%s--- want\n%s(UPDATE_GOLDEN=1 writes it anew)", name, got, want)
	}
}

// refreshIn returns the replacement of the countdown to the next refresh, which has jitter.
func (w *world) refreshIn(name string, now time.Time) []string {
	w.Helper()
	text := countdown(w.token(name).Status.NextRefreshTime.Sub(now))
	hidden := regexp.MustCompile(`\d\ds$`).ReplaceAllString(text, "??s")
	return []string{text, hidden}
}

func rule(group, resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
}

// grant gives a user rights in the world's namespace.
func (w *world) grant(user, name string, rules ...rbacv1.PolicyRule) {
	w.Helper()
	meta := metav1.ObjectMeta{Namespace: w.namespace, Name: name}
	w.must(w.Create(w.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: rules}))
	w.must(w.Create(w.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}))
}

// dueAgo returns the replacement of the time since a refresh was due.
func (w *world) dueAgo(name string, now time.Time) []string {
	w.Helper()
	text := ago(w.token(name).Status.NextRefreshTime.Time, now)
	hidden := regexp.MustCompile(`\d+s ago$`).ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat("?", len(s)-5) + "s ago" })
	return []string{text, hidden}
}
