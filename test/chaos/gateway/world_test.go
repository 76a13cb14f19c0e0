// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	systemNamespace = "wechat-token-operator-system"
	gatewayAccount  = "wechat-token-operator-gateway"
	namespace       = "shop"
	clientName      = "web"
	keySecretName   = "web-wechat"
	appID           = "wx0123456789abcdef"
	appSecret       = "0123456789abcdef0123456789abcdef" //nolint:gosec // of the stand-in

	// rotatingLife is the life of a token that the operator replaces after 3 to 17 s. The token lives for 285 s more.
	rotatingLife = 302 * time.Second
	// longLife is that of a token that is not replaced during the test.
	longLife = 2 * time.Hour
	// wechatTimeout is how long the gateway waits for a host that says nothing.
	wechatTimeout = 2 * time.Second
	// comes is how long the test waits for what must come. The machine may be busy, and the operator follows an API server that was away
	// only after a minute or more.
	comes = 3 * time.Minute
)

// world is an API server that can be killed, WeChat behind two hosts, an operator, two gateways behind a balancer, and callers.
type world struct {
	*testing.T
	client.WithWatch

	dir    string
	env    *testenv.Environment
	server *testenv.APIServer
	wechat *wechattest.Server
	hosts  [2]*door
	// up is the host that the control calls.
	up       atomic.Int32
	balancer *balancer
	load     *load
	sdks     []*sdk
	// programs are the running programs of the SDKs, in the same order.
	programs []*program
	callers  []string

	binaries    map[string]string
	operator    *process
	operatorCmd []string
	replicas    []*backend
	gatewayFile string
	started     int
	bearer      string

	mu sync.Mutex
	// held is the token in the target Secret, and versions how many it has had.
	held     token.Value
	versions int
	attacks  []*attack
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctrllog.SetLogger(logr.Discard())
	w := &world{T: t, env: testenv.ForTest(t, testenv.WithoutAuditLog()), binaries: map[string]string{}}
	w.dir = os.Getenv("CHAOS_DIR")
	if w.dir == "" {
		w.dir = t.TempDir()
	}
	w.sdks = prepareSDKs(t)
	var err error
	for _, name := range []string{"operator", "gateway"} {
		w.binaries[name], err = build(t.Context(), w.dir, name)
		w.must(err)
	}
	w.wechat, err = wechattest.NewServer(wechattest.Options{})
	w.must(err)
	t.Cleanup(w.wechat.Close)
	w.setLife(rotatingLife)
	to := &backend{address: strings.TrimPrefix(w.wechat.URL(), "http://")}
	for i := range w.hosts {
		w.hosts[i] = newDoor(t, func() *backend { return to })
	}
	w.balancer = newBalancer(t)
	w.load = &load{wechat: w.wechat}
	w.install()
	w.server, err = w.env.AddAPIServer()
	w.must(err)
	w.must(w.server.Start(t.Context()))
	t.Cleanup(func() { _ = w.server.Kill() })
	w.operate()
	w.replicas = []*backend{w.startGateway(), w.startGateway()}
	w.resources()
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// await waits for something that must come.
func (w *world) await(what string, met func() bool) {
	w.Helper()
	for end := time.Now().Add(comes); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("%s did not come within %s; the logs are in CHAOS_DIR, if that is set", what, comes)
		}
	}
}

// setLife sets the life of the tokens that WeChat issues from now on.
func (w *world) setLife(life time.Duration) {
	w.wechat.SetApp(wechattest.App{ID: appID, Secret: appSecret, Life: life})
}

// install connects to the API server that is never killed, and creates the objects of config/gateway.
func (w *world) install() {
	w.Helper()
	scheme := runtime.NewScheme()
	w.must(errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
	config := rest.CopyConfig(w.env.Config)
	config.QPS = -1
	var err error
	w.WithWatch, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	w.must(err)
	for _, name := range []string{systemNamespace, namespace} {
		w.must(w.Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	for _, file := range []string{"service_account", "role", "review_role", "role_binding", "policy", "binding"} {
		raw, err := os.ReadFile("../../../config/gateway/" + file + ".yaml")
		w.must(err)
		for doc := range strings.SplitSeq(string(raw), "\n---\n") {
			o := &unstructured.Unstructured{}
			w.must(yaml.Unmarshal([]byte(doc), &o.Object))
			w.must(w.Create(w.Context(), o))
		}
	}
	go w.observe(w.Context())
}

// kubeconfig writes one whose only way leads to the API server that is killed.
func (w *world) kubeconfig(name string, config *rest.Config) (path string) {
	w.Helper()
	config.Host = w.server.Host
	raw, err := testenv.KubeConfigOf(config)
	w.must(err)
	path = filepath.Join(w.dir, name+".kubeconfig")
	w.must(os.WriteFile(path, raw, 0o600))
	return path
}

// tokenOf returns a token of a ServiceAccount.
func (w *world) tokenOf(namespace, name string, audiences ...string) string {
	w.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: audiences, ExpirationSeconds: new(int64(4 * 60 * 60)),
	}}
	of := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	w.must(w.SubResource("token").Create(w.Context(), of, request))
	return request.Status.Token
}

func (w *world) endpoints() string {
	return "--wechat-endpoints=" + w.hosts[0].url() + "," + w.hosts[1].url()
}

// operate starts the operator, for the first time or again.
func (w *world) operate() {
	w.Helper()
	if w.operatorCmd == nil {
		config, err := w.env.Operator(w.Context(), "")
		w.must(err)
		w.operatorCmd = []string{
			w.binaries["operator"], "--kubeconfig=" + w.kubeconfig("operator", config), "--leader-elect=false", "--metrics-bind-address=0",
			"--health-probe-bind-address=0", w.endpoints(), "--gateway-url=" + w.balancer.url(),
		}
	}
	w.operator = start(w.T, filepath.Join(w.dir, "operator.log"), "", os.Environ(), false, w.operatorCmd...)
}

// startGateway starts one more replica of the gateway. The balancer uses it as soon as it is ready.
func (w *world) startGateway() *backend {
	w.Helper()
	if w.gatewayFile == "" {
		config := rest.AnonymousClientConfig(w.env.Config)
		config.BearerToken = w.tokenOf(systemNamespace, gatewayAccount)
		w.gatewayFile = w.kubeconfig("gateway", config)
	}
	r := &backend{}
	for _, address := range []*string{&r.address, &r.probes} {
		var err error
		*address, err = testenv.FreeAddress()
		w.must(err)
	}
	name := filepath.Join(w.dir, fmt.Sprintf("gateway-%d", w.started))
	w.started++
	r.process = start(w.T, name+".log", "", os.Environ(), false, w.binaries["gateway"], "--kubeconfig="+w.gatewayFile,
		"--bind-address="+r.address, "--health-probe-bind-address="+r.probes, "--metrics-bind-address=0", "--audit-log="+name+".audit",
		"--wechat-timeout="+wechatTimeout.String(), w.endpoints())
	w.balancer.add(r)
	return r
}

// awaitReady waits until the balancer uses a replica.
func (w *world) awaitReady(r *backend) {
	w.Helper()
	w.await("a ready gateway", func() bool {
		if r.hasEnded() {
			w.Fatalf("a gateway has ended by itself: %s", r.cmd.ProcessState)
		}
		return w.balancer.isReady(r)
	})
}

// resources makes the account and its client, and waits until calls can be made with the key and as a ServiceAccount by each replica.
func (w *world) resources() {
	w.Helper()
	ctx := w.Context()
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: namespace, Name: name} }
	credentials := &corev1.Secret{ObjectMeta: meta("credentials"), StringData: map[string]string{"appSecret": appSecret}}
	credentials.Labels = map[string]string{v1alpha1.LabelCredentials: "true"}
	w.must(w.Create(ctx, credentials))
	w.must(w.Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta(clientName)}))
	w.must(w.Create(ctx, &v1alpha1.WeChatAppToken{ObjectMeta: meta("shop"), Spec: v1alpha1.WeChatAppTokenSpec{
		AppID: appID, CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: credentials.Name},
		CheckInterval: metav1.Duration{Duration: 30 * time.Second}, Target: v1alpha1.TargetSpec{Name: "token"},
	}}))
	w.must(w.Create(ctx, &v1alpha1.WeChatAppClient{ObjectMeta: meta(clientName), Spec: v1alpha1.WeChatAppClientSpec{
		TokenRef:        v1alpha1.TokenReference{Name: "shop"},
		ServiceAccounts: []v1alpha1.ServiceAccountReference{{Namespace: namespace, Name: clientName}},
		Key:             &v1alpha1.ClientKeySpec{SecretName: keySecretName},
		Paths:           []v1alpha1.ClientPath{"/cgi-bin/*", "/wxa/*"}, Login: true,
		Rate: v1alpha1.ClientRate{PerReplica: v1alpha1.RateLimit{RequestsPerSecond: 10000, Burst: 10000}},
	}}))
	w.bearer = w.tokenOf(namespace, clientName, "wechat-gateway")
	w.await("the first token", func() bool { t, _ := w.token(); return !t.IsZero() })
	w.await("the key", func() bool { return w.key()[v1alpha1.AppSecretKey] != nil })
	key := string(w.key()[v1alpha1.AppSecretKey])
	for _, r := range w.replicas {
		w.awaitReady(r)
		host := func() string { return "http://" + r.address }
		as := &direct{client: newHTTPClient(false), host: host, bearer: func() string { return w.bearer }}
		w.await("a call as a ServiceAccount", func() bool { return as.do(ctx, kindCall, "") == nil })
		w.await("a token for the key", func() bool {
			answer, err := fetch(ctx, as.client, "GET", host()+"/cgi-bin/token?grant_type=client_credential&appid="+appID+"&secret="+key, "", "")
			return err == nil && strings.Contains(string(answer), "access_token")
		})
	}
}

// key returns the data of the Secret that programs mount.
func (w *world) key() map[string][]byte {
	s := &corev1.Secret{}
	if w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: keySecretName}, s) != nil {
		return nil
	}
	return s.Data
}

// observe follows the target Secret by a watch of its own until ctx ends.
func (w *world) observe(ctx context.Context) {
	for ctx.Err() == nil {
		events, err := w.Watch(ctx, &corev1.SecretList{}, client.InNamespace(namespace))
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		for e := range events.ResultChan() {
			if s, ok := e.Object.(*corev1.Secret); ok && s.Name == "token" {
				w.note(token.NewValue(string(s.Data[v1alpha1.DefaultAccessTokenKey])))
			}
		}
		events.Stop()
	}
}

func (w *world) note(seen token.Value) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !seen.IsZero() && seen != w.held {
		w.held = seen
		w.versions++
	}
}

// token returns what the target Secret holds, and how many tokens it has held.
func (w *world) token() (token.Value, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held, w.versions
}

// left returns for how long the token in the Secret lives.
func (w *world) left() time.Duration {
	held, _ := w.token()
	for _, t := range w.wechat.Tokens(appID) {
		if t.Token == held.Reveal() {
			return t.ExpiresAt.Sub(w.wechat.Now())
		}
	}
	return 0
}

// startSDK starts a program of an SDK with the files that a pod would mount now.
func (w *world) startSDK(s *sdk) *process {
	w.Helper()
	volume := w.TempDir()
	for name, value := range w.key() {
		w.must(os.WriteFile(filepath.Join(volume, name), value, 0o600))
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "WECHAT_DIR=" + volume, "LISTEN=127.0.0.1:0", "HOST=127.0.0.1", "PORT=0",
	}
	return start(w.T, filepath.Join(w.dir, s.name+".log"), s.dir, env, true, s.command...)
}

// callAll starts all callers. They call until the returned function is called.
func (w *world) callAll() (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	all := map[string][]caller{}
	for _, s := range w.sdks {
		p := &program{client: newHTTPClient(true)}
		p.current.Store(w.startSDK(s))
		w.programs = append(w.programs, p)
		all[s.name] = []caller{p, p}
	}
	// One keeps its connections and one does not, so that each replica of the gateway has seen the ServiceAccount's token.
	for _, keep := range []bool{true, false} {
		all["ServiceAccount"] = append(all["ServiceAccount"], &direct{
			client: newHTTPClient(keep), host: w.balancer.url, bearer: func() string { return w.bearer },
		})
	}
	for range workers {
		all[control] = append(all[control], &direct{
			client: newHTTPClient(false), host: func() string { return w.hosts[w.up.Load()].url() }, secret: appSecret,
			token: func() string { t, _ := w.token(); return t.Reveal() },
		})
	}
	var running sync.WaitGroup
	for name, callers := range all {
		for _, c := range callers {
			running.Go(func() { w.load.run(ctx, name, c) })
		}
	}
	delete(all, control)
	for name := range maps.Keys(all) {
		w.callers = append(w.callers, name)
	}
	return func() {
		cancel()
		running.Wait()
	}
}
