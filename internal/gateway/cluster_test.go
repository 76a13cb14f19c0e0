// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/access"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

// cluster is an API server with a world in it.
type cluster struct {
	client.Client

	config *rest.Config
	scheme *runtime.Scheme
	world  *world
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	env := testenv.ForTest(t, testenv.Bare(filepath.Join("..", "..", "config", "crd", "bases")), testenv.WithoutAuditLog())
	c := &cluster{config: env.Config, scheme: runtime.NewScheme(), world: newWorld()}
	err := errors.Join(corev1.AddToScheme(c.scheme), v1alpha1.AddToScheme(c.scheme), authenticationv1.AddToScheme(c.scheme))
	if err != nil {
		t.Fatal(err)
	}
	if c.Client, err = client.New(c.config, client.Options{Scheme: c.scheme}); err != nil {
		t.Fatal(err)
	}
	c.fill(t)
	return c
}

// fill creates the objects of the world, and Secrets that concern nobody.
func (c *cluster) fill(t *testing.T) {
	t.Helper()
	w, ctx := c.world, t.Context()
	create := func(o client.Object) {
		t.Helper()
		o.SetUID("")
		if err := c.Create(ctx, o); err != nil {
			t.Fatalf("creating %s: %v", o.GetName(), err)
		}
	}
	create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front"}})
	w.token.Spec.CheckInterval = metav1.Duration{Duration: time.Minute}
	w.client.Spec.ServiceAccounts = []v1alpha1.ServiceAccountReference{{Namespace: "shop", Name: "front"}}
	w.client.Spec.Key.Overlap = metav1.Duration{Duration: time.Hour}
	status := w.client.Status
	status.Key.CreateTime = metav1.Now()
	status.Key.PreviousFingerprint, status.Key.PreviousUntilTime = "", nil
	create(w.token)
	create(w.client)
	w.client.Status = status
	if err := c.Status().Update(ctx, w.client); err != nil {
		t.Fatal(err)
	}
	w.keys.Annotations[v1alpha1.AnnotationOwnerUID] = string(w.client.UID)
	w.target.Annotations[v1alpha1.AnnotationOwnerUID] = string(w.token.UID)
	w.target.Data["expires_at"] = []byte(time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	for _, s := range []*corev1.Secret{w.keys, w.target, w.appCreds} {
		create(s)
	}
	create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "unrelated"}, Data: map[string][]byte{"a": []byte(appSecret)}})
}

// follow starts a Store and its caches.
func (c *cluster) follow(t *testing.T) (*Store, cache.Cache) {
	t.Helper()
	var caches []cache.Cache
	for _, objects := range []map[client.Object]cache.ByObject{ObjectCache(), CredentialsCache()} {
		from, err := cache.New(c.config, cache.Options{Scheme: c.scheme, ByObject: objects})
		if err != nil {
			t.Fatal(err)
		}
		caches = append(caches, from)
	}
	store := NewStore(StoreOptions{Objects: caches[0], Credentials: caches[1]})
	for _, start := range []func(context.Context) error{caches[0].Start, caches[1].Start, store.Start} {
		go func() {
			if err := start(t.Context()); err != nil {
				t.Errorf("starting: %v", err)
			}
		}()
	}
	return store, caches[0]
}

// bearer returns a token of the ServiceAccount.
func (c *cluster) bearer(t *testing.T, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	of := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front"}}
	if err := c.SubResource("token").Create(t.Context(), of, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// forgetful is a Reviewer that remembers nothing.
type forgetful struct{ ReviewsOptions }

func (f forgetful) Review(
	ctx context.Context, bearer string, peer netip.Addr, named func(types.NamespacedName) bool,
) (types.NamespacedName, error) {
	return NewReviews(f.ReviewsOptions).Review(ctx, bearer, peer, named)
}

// A gateway serves what a real API server tells it, and stops within seconds when that says so.
func TestWithAnAPIServer(t *testing.T) {
	g := gomega.NewWithT(t)
	g.SetDefaultEventuallyTimeout(20 * time.Second)
	c := newCluster(t)
	store, objects := c.follow(t)
	g.Eventually(store.Ready).Should(gomega.BeTrue())

	httpClient, err := rest.HTTPClientFor(c.config)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	tokens, err := access.TokenReviews(c.config, httpClient)
	g.Expect(err).NotTo(gomega.HaveOccurred())
	reviews := forgetful{ReviewsOptions{Tokens: tokens, Audience: audience}}
	f := newFront(t, nil, func(o *Options) { o.Source, o.Reviewer, o.Now = store, reviews, time.Now })

	by := "?grant_type=client_credential&appid=" + appID + "&secret=" + theKey
	g.Expect(f.send(t, request("GET /cgi-bin/token"+by)).body).To(gomega.ContainSubstring("access_token"))
	login := f.send(t, request("GET /sns/jscode2session"+by+"&js_code=c")).relayed
	g.Expect(login).NotTo(gomega.BeNil())
	g.Expect(login.query).To(gomega.ContainSubstring("&secret=" + appSecret))

	good := c.bearer(t, audience)
	call := func(bearer string) reply { return f.send(t, request("GET /wxa/x", bearerHeader(bearer))) }
	got := call(good)
	g.Expect(got.relayed).NotTo(gomega.BeNil(), got.body)
	g.Expect(got.relayed.query).To(gomega.Equal("access_token=" + realToken))
	g.Expect(call(c.bearer(t)).errcode).To(gomega.Equal(codeTokenInvalid), "a token of the API server's audience")
	forged := good[:len(good)-5] + "AAAAA"
	g.Expect(call(forged).errcode).To(gomega.Equal(codeTokenInvalid), "a forged token")

	var secrets corev1.SecretList
	g.Expect(objects.List(t.Context(), &secrets)).To(gomega.Succeed())
	g.Expect(secrets.Items).To(gomega.HaveLen(2), "the cache has other Secrets than the operator's")

	g.Expect(c.Delete(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "front"}})).To(gomega.Succeed())
	g.Eventually(func() int { return call(good).errcode }).Should(gomega.Equal(codeTokenInvalid), "the token of a ServiceAccount that is deleted")

	c.world.client.Spec.Suspend = true
	g.Expect(c.Update(t.Context(), c.world.client)).To(gomega.Succeed())
	g.Eventually(func() int { return f.send(t, request("GET /cgi-bin/token"+by)).errcode }).WithTimeout(5*time.Second).
		Should(gomega.Equal(codeUnknownApp), "a client that is suspended")
}
