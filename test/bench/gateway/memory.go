// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// mostMemory is the goal for 10,000 clients and tokens.
	mostMemory = 120 << 20
	// perNamespace is how many clients a namespace has.
	perNamespace = 100
	// warmCalls are made while requests to the API server are counted.
	warmCalls = 1000
)

// measureMemory makes n WeChatAppTokens with a WeChatAppClient each, as they are when the operator has served them. It starts the gateway's
// program and measures its memory, and how many requests it sends to the API server while it serves calls.
func measureMemory(ctx context.Context, program, upstream, caFile, dir string, n int) (err error) {
	env, err := testenv.Start(ctx, testenv.WithoutAuditLog(), testenv.WithEtcdQuota(4<<30))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, env.Stop()) }()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	config := rest.CopyConfig(env.Config)
	config.QPS = -1
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	begin := time.Now()
	key, err := populate(ctx, c, n)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d clients and tokens were made in %v\n", n, time.Since(begin).Round(time.Second))
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, env.KubeConfig, 0o600); err != nil {
		return err
	}
	return judgeMemory(ctx, n, key, program, "--kubeconfig="+kubeconfig, "--wechat-endpoints="+upstream, "--wechat-ca-file="+caFile,
		"--metrics-secure=false", "--audit-log="+filepath.Join(dir, "audit.log"))
}

// judgeMemory starts the program and judges it.
func judgeMemory(ctx context.Context, n int, key string, command ...string) error {
	var addresses [3]string
	for i := range addresses {
		var err error
		if addresses[i], err = testenv.FreeAddress(); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], "--bind-address="+addresses[0], //nolint:gosec // the gateway
		"--health-probe-bind-address="+addresses[1], "--metrics-bind-address="+addresses[2])...)
	cmd.Stderr = os.Stderr
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &proxy{cmd: cmd, url: "http://" + addresses[0]}
	defer p.stop()
	if err := awaitReady(ctx, "http://"+addresses[1]+"/readyz"); err != nil {
		return err
	}
	ready := time.Since(started)
	bought, err := p.tokenOf(ctx, ownKind, key)
	if err != nil {
		return err
	}
	call := newCaller(p.url+callPath+bought, message)
	if err := call.call(ctx); err != nil {
		return err
	}
	before, err := requestsOf(ctx, "http://"+addresses[2]+"/metrics")
	if err != nil {
		return err
	}
	for range warmCalls {
		if err := call.call(ctx); err != nil {
			return err
		}
	}
	after, err := requestsOf(ctx, "http://"+addresses[2]+"/metrics")
	if err != nil {
		return err
	}
	time.Sleep(5 * time.Second) // what the start allocated is collected
	resident, err := p.memory("VmRSS")
	if err != nil {
		return err
	}
	fmt.Printf("%d clients and tokens: %.1f MiB resident (goal %d), ready after %v; %d calls, %.0f requests to the API server\n",
		n, float64(resident)/(1<<20), mostMemory>>20, ready.Round(100*time.Millisecond), warmCalls, after-before)
	if resident > mostMemory || after != before {
		return errors.New("a goal was missed")
	}
	return nil
}

// probe returns a client for the gateway's own pages.
func probe() *http.Client { return &http.Client{Timeout: 10 * time.Second} }

// awaitReady waits until the gateway's caches are full.
func awaitReady(ctx context.Context, url string) error {
	for range 600 {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		res, err := probe().Do(r)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("the gateway is not ready after a minute")
}

// requestsOf returns how many requests the gateway has sent to the API server.
func requestsOf(ctx context.Context, url string) (n float64, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := probe().Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	found := false
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if series, ok := strings.CutPrefix(lines.Text(), "rest_client_requests_total{"); ok {
			value, err := strconv.ParseFloat(series[strings.LastIndexByte(series, ' ')+1:], 64)
			if err != nil {
				return 0, err
			}
			n, found = n+value, true
		}
	}
	if !found {
		return 0, errors.New("the gateway does not count its requests to the API server")
	}
	return n, lines.Err()
}

// populate makes the objects, and returns the key of the first client.
func populate(ctx context.Context, c client.Client, n int) (key string, err error) {
	for i := 0; i < n; i += perNamespace {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("bench-%04d", i/perNamespace)}}
		if err := c.Create(ctx, ns); err != nil {
			return "", err
		}
	}
	keys := make([]string, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range n {
		group.Go(func() (err error) {
			keys[i], err = addClient(ctx, c, i)
			return err
		})
	}
	return keys[0], group.Wait()
}

// addClient makes a WeChatAppToken and its Secret, a WeChatAppClient and its key.
func addClient(ctx context.Context, c client.Client, i int) (key string, err error) {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	key = hex.EncodeToString(raw)
	meta := metav1.ObjectMeta{Namespace: fmt.Sprintf("bench-%04d", i/perNamespace), Name: fmt.Sprintf("app-%06d", i)}
	id := appID
	if i > 0 {
		id = fmt.Sprintf("wx%016x", i)
	}
	app := &v1alpha1.WeChatAppToken{ObjectMeta: meta, Spec: v1alpha1.WeChatAppTokenSpec{
		AppID: id, CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: meta.Name + "-wechat"},
		CheckInterval: metav1.Duration{Duration: 2 * time.Minute},
	}}
	of := &v1alpha1.WeChatAppClient{ObjectMeta: meta, Spec: v1alpha1.WeChatAppClientSpec{
		TokenRef: v1alpha1.TokenReference{Name: meta.Name}, Paths: []v1alpha1.ClientPath{"/cgi-bin/*", "/wxa/*"},
		Rate: v1alpha1.ClientRate{PerReplica: v1alpha1.RateLimit{RequestsPerSecond: 10_000, Burst: 10_000}},
		Key:  &v1alpha1.ClientKeySpec{SecretName: meta.Name + "-key", Overlap: metav1.Duration{Duration: 24 * time.Hour}},
	}}
	if err := errors.Join(c.Create(ctx, app), c.Create(ctx, of)); err != nil {
		return "", err
	}
	of.Status = v1alpha1.WeChatAppClientStatus{ObservedGeneration: 1, Key: &v1alpha1.ClientKeyStatus{
		Fingerprint: token.NewValue(key).Fingerprint(), CreateTime: metav1.Now(),
	}}
	return key, errors.Join(
		c.Status().Update(ctx, of),
		c.Create(ctx, secretOf(app, app.Name, v1alpha1.Kind, map[string]string{
			v1alpha1.DefaultAccessTokenKey: strings.Repeat("t", 130) + fmt.Sprintf("%06d", i), v1alpha1.AppIDKey: id,
			v1alpha1.ExpiresAtKey: time.Now().Add(2 * time.Hour).UTC().Format(time.RFC3339),
		})),
		c.Create(ctx, secretOf(of, meta.Name+"-key", v1alpha1.ClientKind, map[string]string{
			v1alpha1.AppIDKey: id, "app_secret": key, "host": "https://wechat-gateway.wechat-token-operator-system.svc",
		})),
	)
}

// secretOf returns a Secret as the operator writes it for an owner.
func secretOf(owner client.Object, name, kind string, data map[string]string) *corev1.Secret {
	annotations := map[string]string{
		v1alpha1.AnnotationOwnerUID: string(owner.GetUID()), v1alpha1.AnnotationOwnerName: owner.GetName(),
		v1alpha1.AnnotationDeletionPolicy: string(v1alpha1.DeletionDelete),
	}
	if kind != v1alpha1.Kind {
		annotations[v1alpha1.AnnotationOwnerKind] = kind
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: owner.GetNamespace(), Name: name, Annotations: annotations,
			Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue},
		},
		StringData: data,
	}
}
