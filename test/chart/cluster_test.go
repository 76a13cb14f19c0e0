// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const (
	appID     = "wx0123456789abcdef"
	appSecret = "0123456789abcdef0123456789abcdef"
	// patience is generous, because CI is slow.
	patience = 60 * time.Second
)

// cluster is a control plane, seen as its administrator.
type cluster struct {
	client.Client

	env        *testenv.Environment
	kubeconfig string
	dir        string
}

func newCluster(env *testenv.Environment, dir string) (*cluster, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	c, err := client.New(env.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(dir, "kubeconfig-")
	if err != nil {
		return nil, err
	}
	_, err = file.Write(env.KubeConfig)
	return &cluster{Client: c, env: env, kubeconfig: file.Name(), dir: dir}, errors.Join(err, file.Close())
}

// world is one test in a cluster.
type world struct {
	*testing.T
	gomega.Gomega
	*cluster

	wechat *wechattest.Server
	// endpoint is where the operator finds it.
	endpoint string
}

func newWorld(t *testing.T, c *cluster) *world {
	t.Helper()
	w := &world{T: t, Gomega: gomega.NewWithT(t), cluster: c}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	var err error
	if w.wechat, err = wechattest.NewServer(wechattest.Options{TLS: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.wechat.Close)
	w.wechat.SetApp(wechattest.App{ID: appID, Secret: appSecret})
	w.endpoint = w.wechat.URL()
	return w
}

// helm runs helm and gives what it prints.
func (w *world) helm(args ...string) string {
	w.Helper()
	out, err := w.tryHelm(args...)
	if err != nil {
		w.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (w *world) tryHelm(args ...string) (string, error) {
	return runHelm(w.Context(), w.kubeconfig, args...)
}

func runHelm(ctx context.Context, kubeconfig string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, os.Getenv("HELM"), args...) //nolint:gosec // the helm that was built for the tests
	home := os.TempDir()
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// values are what every installation of a test needs: this test's WeChat, and ports that are free.
func (w *world) values(more string) string {
	w.Helper()
	text := fmt.Sprintf("image: {repository: %s}\nreplicaCount: 1\nwechat:\n  endpoints: [%q]\n  caBundle:\n    inline: |\n%s\n",
		image, w.endpoint, indent(string(w.wechat.CACertPEM()), "      "))
	path := filepath.Join(w.TempDir(), "values.yaml")
	w.must(os.WriteFile(path, []byte(text+more), 0o600))
	return path
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}

func (w *world) newNamespace(labels map[string]string) string {
	w.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: labels}}
	w.must(w.Create(w.Context(), ns))
	return ns.Name
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// createToken makes credentials and a WeChatAppToken "shop" that keeps its token in "shop-token".
func (w *world) createToken(namespace string, mutate ...func(*v1alpha1.WeChatAppToken)) *v1alpha1.WeChatAppToken {
	w.Helper()
	w.must(client.IgnoreAlreadyExists(w.Create(w.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop-wechat"},
		StringData: map[string]string{"appSecret": appSecret},
	})))
	t := &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "shop"},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID:                appID,
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "shop-wechat"},
			CheckInterval:        metav1.Duration{Duration: 2 * time.Minute},
			Target:               v1alpha1.TargetSpec{Name: "shop-token"},
		},
	}
	for _, f := range mutate {
		f(t)
	}
	w.must(w.Create(w.Context(), t))
	return t
}

func (w *world) token(namespace string) *v1alpha1.WeChatAppToken {
	w.Helper()
	t := &v1alpha1.WeChatAppToken{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: "shop"}, t))
	return t
}

// eventuallyReady waits until the resource is Ready and its Secret holds a token that WeChat accepts.
func (w *world) eventuallyReady(namespace string) string {
	w.Helper()
	var value string
	w.Eventually(func(g gomega.Gomega) {
		t := w.token(namespace)
		ready := apimeta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionReady)
		g.Expect(ready).NotTo(gomega.BeNil(), "nothing has looked at it yet")
		g.Expect(ready.Status).To(gomega.Equal(metav1.ConditionTrue), ready.Message)
		g.Expect(t.Status.ObservedGeneration).To(gomega.Equal(t.Generation))
		secret := &corev1.Secret{}
		g.Expect(w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: t.TargetName()}, secret)).To(gomega.Succeed())
		value = string(secret.Data["access_token"])
		g.Expect(w.wechat.Valid(value)).To(gomega.BeTrue(), "WeChat does not accept the Secret's token")
	}).Should(gomega.Succeed())
	return value
}

// annotate sets an annotation of the resource.
func (w *world) annotate(namespace, key, value string) {
	w.Helper()
	t := w.token(namespace)
	base := t.DeepCopy()
	metav1.SetMetaDataAnnotation(&t.ObjectMeta, key, value)
	w.must(w.Patch(w.Context(), t, client.MergeFrom(base)))
}

// proveServed waits until the operator that runs now has carried out a request.
func (w *world) proveServed(namespace, request string) {
	w.Helper()
	w.annotate(namespace, v1alpha1.AnnotationCheckRequestedAt, request)
	w.Eventually(func() string {
		if h := w.token(namespace).Status.HandledRequests; h != nil {
			return h.Check
		}
		return ""
	}).Should(gomega.Equal(request))
}

// refused are the requests of a ServiceAccount's operator that the API server refused, and did not accept later: it learns of a role a moment
// after Helm has created it, and this kubelet starts a pod at once.
func (w *world) refused(pod *process) []string {
	w.Helper()
	all, err := w.env.Requests(func(r testenv.Request) bool {
		return r.User.Username == pod.username && strings.HasPrefix(r.UserAgent, "wechat-token-operator/")
	})
	w.must(err)
	if len(all) == 0 {
		w.Fatalf("the audit log knows no request of %s", pod.username)
	}
	var out []string
	for i, r := range all {
		accepted := func(later testenv.Request) bool {
			return later.Verb == r.Verb && later.URI == r.URI && later.Status.Code < http.StatusBadRequest
		}
		denied := r.Status.Code == http.StatusUnauthorized || r.Status.Code == http.StatusForbidden
		if denied && !slices.ContainsFunc(all[i:], accepted) {
			out = append(out, fmt.Sprintf("%s %s: %d", r.Verb, r.URI, r.Status.Code))
		}
	}
	return out
}
