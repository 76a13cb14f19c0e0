// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// asGateway makes the test binary run as the gateway.
const asGateway = "TEST_RUN_AS_GATEWAY"

func TestMain(m *testing.M) {
	if os.Getenv(asGateway) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const (
	system    = "wechat-token-operator-system"
	account   = "wechat-token-operator-gateway"
	appID     = "wx0123456789abcdef"
	appSecret = "0123456789abcdef0123456789abcdef"
	clientKey = "fedcba9876543210fedcba9876543210"
)

// cluster is an API server with the objects of config/gateway, an account with its token, and WeChat.
type cluster struct {
	client.Client

	env    *testenv.Environment
	wechat *wechattest.Server
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	ctx := t.Context()
	c := &cluster{env: testenv.ForTest(t)}
	scheme := runtime.NewScheme()
	must(t, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
	var err error
	c.Client, err = client.New(c.env.Config, client.Options{Scheme: scheme})
	must(t, err)
	for _, name := range []string{system, "shop"} {
		must(t, c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	for _, file := range []string{"service_account", "role", "review_role", "role_binding", "policy", "binding"} {
		raw, err := os.ReadFile("../../config/gateway/" + file + ".yaml")
		must(t, err)
		for doc := range strings.SplitSeq(string(raw), "\n---\n") {
			o := &unstructured.Unstructured{}
			must(t, yaml.Unmarshal([]byte(doc), &o.Object))
			must(t, c.Create(ctx, o))
		}
	}
	c.wechat, err = wechattest.NewServer(wechattest.Options{})
	must(t, err)
	t.Cleanup(c.wechat.Close)
	c.wechat.SetApp(wechattest.App{ID: appID, Secret: appSecret})
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bearer returns a token of a ServiceAccount for an audience; for the API server's if that is empty.
func (c *cluster) bearer(t *testing.T, namespace, name, audience string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	of := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	must(t, c.SubResource("token").Create(t.Context(), of, request))
	return request.Status.Token
}

// as returns a config with the rights of a ServiceAccount.
func (c *cluster) as(t *testing.T, namespace, name, audience string) *rest.Config {
	t.Helper()
	config := rest.AnonymousClientConfig(c.env.Config)
	config.BearerToken = c.bearer(t, namespace, name, audience)
	return config
}

// serve makes what a client needs: the account's token in its Secret, and a key, as the operator writes them.
func (c *cluster) serve(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	wt := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop"}, Spec: v1alpha1.WeChatAppTokenSpec{
		AppID: appID, CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials"}, Target: v1alpha1.TargetSpec{Name: "token"},
	}}
	must(t, c.Create(ctx, wt))
	issued := c.wechat.RivalForceRefresh(appID)
	must(t, c.Create(ctx, managed("token", wt.UID, "", map[string]string{
		v1alpha1.AppIDKey: appID, v1alpha1.DefaultAccessTokenKey: issued.Token, v1alpha1.ExpiresAtKey: issued.ExpiresAt.Format(time.RFC3339),
	})))
	must(t, c.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}))
	wc := &v1alpha1.WeChatAppClient{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: v1alpha1.WeChatAppClientSpec{
		TokenRef:        v1alpha1.TokenReference{Name: "shop"},
		ServiceAccounts: []v1alpha1.ServiceAccountReference{{Namespace: "shop", Name: "web"}},
		Key:             &v1alpha1.ClientKeySpec{SecretName: "web-wechat"},
		Paths:           []v1alpha1.ClientPath{"/cgi-bin/get_api_domain_ip"},
	}}
	must(t, c.Create(ctx, wc))
	must(t, c.Create(ctx, managed("web-wechat", wc.UID, v1alpha1.ClientKind, map[string]string{
		v1alpha1.AppIDKey: appID, v1alpha1.AppSecretKey: clientKey,
	})))
	wc.Status.Key = &v1alpha1.ClientKeyStatus{Fingerprint: token.NewValue(clientKey).Fingerprint(), CreateTime: metav1.Now()}
	must(t, c.Status().Update(ctx, wc))
}

// managed returns a Secret as the operator writes it.
func managed(name string, owner types.UID, kind string, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name,
			Labels:      map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
			Annotations: map[string]string{v1alpha1.AnnotationOwnerUID: string(owner)},
		},
		StringData: data,
	}
	if kind != "" {
		s.Annotations[v1alpha1.AnnotationOwnerKind] = kind
	}
	return s
}

// process is a gateway that runs as a process of its own.
type process struct {
	cmd           *exec.Cmd
	ended         chan error
	calls, probes string
	audit         string
	mu            sync.Mutex
	log           bytes.Buffer
	client        *http.Client
}

// startProcess starts a gateway, which is killed at the end of the test.
func startProcess(t *testing.T, kubeconfig []byte, args ...string) *process {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "kubeconfig")
	must(t, os.WriteFile(path, kubeconfig, 0o600))
	p := &process{ended: make(chan error, 1), audit: filepath.Join(dir, "audit.log"), client: &http.Client{Timeout: 10 * time.Second}}
	for _, address := range []*string{&p.calls, &p.probes} {
		var err error
		*address, err = testenv.FreeAddress()
		must(t, err)
	}
	args = append([]string{"--bind-address=" + p.calls, "--health-probe-bind-address=" + p.probes, "--audit-log=" + p.audit}, args...)
	p.cmd = exec.Command(os.Args[0], args...) //nolint:noctx // it is ended by its signal
	p.cmd.Env = append(os.Environ(), asGateway+"=yes", "KUBECONFIG="+path)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	must(t, p.cmd.Start())
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", p.logged())
		}
	})
	return p
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// terminate sends SIGTERM and waits until the process has ended.
func (p *process) terminate(t *testing.T, within time.Duration) {
	t.Helper()
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("after SIGTERM the gateway ended with %v", err)
		}
	case <-time.After(within):
		t.Errorf("the gateway still runs %s after SIGTERM", within)
	}
}

// get returns the status and the body of a page. It sends a Bearer token, if there is one.
func (p *process) get(ctx context.Context, address, path, bearer string) (int, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

// answer is what WeChat and the gateway answer.
type answer struct {
	Token   string   `json:"access_token"`
	Errcode int      `json:"errcode"`
	Errmsg  string   `json:"errmsg"`
	IPs     []string `json:"ip_list"`
}

func (p *process) call(ctx context.Context, path, bearer string) (a answer) {
	status, body := p.get(ctx, p.calls, path, bearer)
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		a.Errmsg = fmt.Sprintf("HTTP %d: %s", status, body)
		a.Errcode = 999
	}
	return a
}

const probePath = "/cgi-bin/get_api_domain_ip"

// TestGateway runs the gateway as a process with the rights of config/gateway: programs buy tokens and call, with a key and as a
// ServiceAccount, also while the API server is away. One that starts meanwhile is not ready, says why, and goes on.
func TestGateway(t *testing.T) {
	g := gomega.NewWithT(t)
	g.SetDefaultEventuallyTimeout(30 * time.Second)
	c := newCluster(t)
	c.serve(t)
	metrics, err := testenv.FreeAddress()
	must(t, err)
	// The gateway's own way leads to an API server that is killed. One that is told to end may wait for the gateway's watches for long.
	server, err := c.env.AddAPIServer()
	must(t, err)
	must(t, server.Start(t.Context()))
	t.Cleanup(func() { _ = server.Kill() }) // it may have ended
	config := c.as(t, system, account, "")
	config.Host = server.Host
	kubeconfig, err := testenv.KubeConfigOf(config)
	must(t, err)
	p := startProcess(t, kubeconfig, "--wechat-endpoints="+c.wechat.URL(), "--metrics-bind-address="+metrics, "--metrics-secure=false")
	ready := func() string { _, body := p.get(t.Context(), p.probes, "/readyz", ""); return body }
	g.Eventually(ready).Should(gomega.Equal("ok"))

	bought := p.call(t.Context(), "/cgi-bin/token?grant_type=client_credential&appid="+appID+"&secret="+clientKey, "")
	g.Expect(bought.Token).NotTo(gomega.BeEmpty(), bought.Errmsg)
	byKey := p.call(t.Context(), probePath+"?access_token="+bought.Token, "")
	g.Expect(byKey.IPs).NotTo(gomega.BeEmpty(), byKey.Errmsg)
	bearer := c.bearer(t, "shop", "web", "wechat-gateway")
	byAccount := p.call(t.Context(), probePath, bearer)
	g.Expect(byAccount.IPs).NotTo(gomega.BeEmpty(), byAccount.Errmsg)
	g.Expect(p.call(t.Context(), "/cgi-bin/user/get?access_token="+bought.Token, "").Errcode).To(gomega.Equal(48001))
	g.Expect(p.call(t.Context(), probePath, c.bearer(t, "shop", "web", "")).Errcode).To(gomega.Equal(40001), "another audience")
	g.Expect(p.call(t.Context(), probePath+"?access_token="+c.wechat.Tokens(appID)[0].Token, "").Errcode).To(gomega.Equal(40001))

	_, scraped := p.get(t.Context(), metrics, "/metrics", "")
	g.Expect(scraped).To(gomega.ContainSubstring(`wechat_gateway_calls_total{client="shop/web",outcome="relayed"} 2`))
	checkSilence(t, c, p, scraped, bought.Token, bearer)

	// WeChat refuses the token that the store has: the gateway tells the operator, as the policy of config/gateway allows.
	c.wechat.RivalForceRefresh(appID)
	c.wechat.RivalForceRefresh(appID)
	g.Expect(p.call(t.Context(), probePath, bearer).Errcode).To(gomega.Equal(40001))
	g.Eventually(func() *v1alpha1.ClientHint {
		wc := &v1alpha1.WeChatAppClient{}
		must(t, c.Get(t.Context(), client.ObjectKey{Namespace: "shop", Name: "web"}, wc))
		return wc.Status.Hint
	}).ShouldNot(gomega.BeNil())

	must(t, server.Kill())
	g.Consistently(ready, 3*time.Second).Should(gomega.Equal("ok"))
	bought = p.call(t.Context(), "/cgi-bin/token?grant_type=client_credential&appid="+appID+"&secret="+clientKey, "")
	g.Expect(bought.Token).NotTo(gomega.BeEmpty(), bought.Errmsg)

	late := startProcess(t, kubeconfig, "--wechat-endpoints="+c.wechat.URL())
	g.Eventually(func() string { _, body := late.get(t.Context(), late.probes, "/readyz/caches", ""); return body }).
		Should(gomega.ContainSubstring("the API server cannot be reached"))
	g.Expect(late.call(t.Context(), probePath, bearer).Errcode).NotTo(gomega.BeZero(), "it knows nobody")
	status, _ := late.get(t.Context(), late.probes, "/healthz", "")
	g.Expect(status).To(gomega.Equal(http.StatusOK), "it is not to be killed")
	late.terminate(t, 10*time.Second)
	p.terminate(t, drainTime+10*time.Second)
}

// checkSilence looks for what must not be told in the log, the audit log and the metrics, which have what they should.
func checkSilence(t *testing.T, c *cluster, p *process, scraped string, more ...string) {
	t.Helper()
	var audit string
	gomega.NewWithT(t).Eventually(func() string {
		raw, _ := os.ReadFile(p.audit)
		audit = string(raw)
		return audit
	}, "10s").Should(gomega.ContainSubstring(`"client":"shop/web"`))
	needles := append([]string{appSecret, clientKey}, more...)
	for _, issued := range c.wechat.Tokens(appID) {
		needles = append(needles, issued.Token)
	}
	for where, text := range map[string]string{"log": p.logged(), "audit log": audit, "metrics": scraped} {
		for i, needle := range needles {
			if strings.Contains(text, needle) {
				t.Errorf("the %s tells secret %d", where, i)
			}
		}
	}
}

// TestPolicy holds that the gateway's ServiceAccount can write status.hint of a WeChatAppClient and nothing else, even with every right
// on that group.
func TestPolicy(t *testing.T) {
	g := gomega.NewWithT(t)
	ctx := t.Context()
	c := newCluster(t)
	c.serve(t)
	must(t, c.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "everything"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: system, Name: account}},
	}))
	gateway, err := client.New(c.as(t, system, account, ""), client.Options{Scheme: c.Scheme()})
	must(t, err)
	object := func() *v1alpha1.WeChatAppClient {
		return &v1alpha1.WeChatAppClient{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	}
	status := func(fields string) error {
		return gateway.Status().Patch(ctx, object(), client.RawPatch(types.MergePatchType, []byte(`{"status":{`+fields+`}}`)))
	}
	const now = `"2026-01-02T15:04:05Z"`
	// The API server learns of policies by a watch, with some delay.
	g.Eventually(func() error { return status(`"observedGeneration":7`) }, "30s").Should(gomega.Satisfy(apierrors.IsForbidden))
	g.Eventually(func() error { return status(`"hint":{"refusedFingerprint":"0123456789abcdef","time":` + now + `}`) }, "30s").Should(gomega.Succeed())
	g.Expect(status(`"hint":{"refusedFingerprint":"fedcba9876543210","time":` + now + `}`)).To(gomega.Succeed())
	g.Expect(status(`"hint":null`)).To(gomega.Succeed())
	for _, fields := range []string{
		`"key":{"fingerprint":"0123456789abcdef","createTime":` + now + `}`,
		`"key":null`,
		`"conditions":[{"type":"Ready","status":"True","reason":"Ready","message":"","lastTransitionTime":` + now + `}]`,
		`"handledRequests":{"rotateKey":"1"}`,
		`"hint":{"refusedFingerprint":"0123456789abcdef","time":` + now + `},"observedGeneration":8`,
	} {
		if err := status(fields); !apierrors.IsForbidden(err) {
			t.Errorf("status of {%s}: %v", fields, err)
		}
	}
	err = gateway.Patch(ctx, object(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"login":true}}`)))
	g.Expect(err).To(gomega.Satisfy(apierrors.IsForbidden))
	g.Expect(gateway.Delete(ctx, object())).To(gomega.Satisfy(apierrors.IsForbidden))
	token := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop"}}
	err = gateway.Status().Patch(ctx, token, client.RawPatch(types.MergePatchType, []byte(`{"status":{"observedGeneration":9}}`)))
	g.Expect(err).To(gomega.Satisfy(apierrors.IsForbidden))
	checkFields(t)
	// Others are not bound.
	must(t, c.Status().Patch(ctx, object(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"observedGeneration":9}}`))))
}

// checkFields holds that the policy names every field of the status but the hint, so that a new one is not forgotten.
func checkFields(t *testing.T) {
	t.Helper()
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{}
	raw, err := os.ReadFile("../../config/gateway/policy.yaml")
	must(t, err)
	must(t, yaml.Unmarshal(raw, policy))
	crd := &unstructured.Unstructured{}
	raw, err = os.ReadFile("../../config/crd/bases/wechat.apptoken.dev_wechatappclients.yaml")
	must(t, err)
	must(t, yaml.Unmarshal(raw, &crd.Object))
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	must(t, err)
	schema, _ := versions[0].(map[string]any)
	fields, found, err := unstructured.NestedMap(schema, "schema", "openAPIV3Schema", "properties", "status", "properties")
	if err != nil || !found {
		t.Fatalf("the CRD has no status: %v", err)
	}
	expression := policy.Spec.Validations[len(policy.Spec.Validations)-1].Expression
	for name := range fields {
		if named := strings.Contains(expression, "object.?status.?"+name+" =="); named == (name == "hint") {
			t.Errorf("status.%s: named by the policy: %t", name, named)
		}
	}
}
