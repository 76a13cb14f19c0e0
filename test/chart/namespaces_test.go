// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// installed is a release of the chart in the shared control plane that serves two namespaces.
type installed struct {
	*world

	system, shop, blog string
	operator           *process
	// notes are what helm printed.
	notes string
}

func install(t *testing.T, moreValues string) *installed {
	t.Helper()
	return newWorld(t, shared).install(moreValues)
}

// install calls before, which may make what the values name, with the namespace of the release.
func (w *world) install(moreValues string, before ...func(namespace string)) *installed {
	w.Helper()
	i := &installed{world: w, system: w.newNamespace(restricted), shop: w.newNamespace(nil), blog: w.newNamespace(nil)}
	values := w.loopback(i.system) + fmt.Sprintf("crds: {enabled: false}\nwatch: {namespaces: [%s, %s]}\n", i.shop, i.blog) + moreValues
	for _, f := range before {
		f(i.system)
	}
	i.notes = w.helm("install", release, chartDir, "-n", i.system, "-f", w.values(values))
	w.Cleanup(func() {
		// The context of the test is over.
		if out, err := runHelm(context.WithoutCancel(w.Context()), w.kubeconfig, "uninstall", release, "-n", i.system); err != nil {
			w.Errorf("helm uninstall: %v: %s", err, out)
		}
	})
	i.operator = w.start(i.system, deployment)
	return i
}

// asOperator is a client with the rights of the operator's ServiceAccount, under another name in the audit log.
func (i *installed) asOperator() client.Client {
	i.Helper()
	config := i.operator.config
	config.UserAgent = "thief"
	c, err := client.New(config, client.Options{Scheme: i.Scheme()})
	i.must(err)
	return c
}

// With a list of namespaces the operator serves these and can read no Secret of another.
func TestListOfNamespaces(t *testing.T) {
	i := install(t, "")
	other := i.newNamespace(nil)
	for _, namespace := range []string{other, i.shop, i.blog} {
		i.createToken(namespace)
	}
	i.eventuallyReady(i.shop)
	i.eventuallyReady(i.blog)
	if status := i.token(other).Status; len(status.Conditions) > 0 {
		t.Errorf("a resource of another namespace was served: %v", status.Conditions)
	}

	thief := i.asOperator()
	key := client.ObjectKey{Namespace: i.shop, Name: "shop-wechat"}
	i.must(thief.Get(t.Context(), key, &corev1.Secret{}))
	key.Namespace = other
	for what, err := range map[string]error{
		"get":        thief.Get(t.Context(), key, &corev1.Secret{}),
		"list":       thief.List(t.Context(), &corev1.SecretList{}, client.InNamespace(other)),
		"list all":   thief.List(t.Context(), &corev1.SecretList{}),
		"create":     thief.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: other, Name: "stolen"}}),
		"own system": thief.List(t.Context(), &corev1.SecretList{}, client.InNamespace(i.system)),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: the API server did not say Forbidden but %v", what, err)
		}
	}
	if rules := i.clusterWideRules(); !slices.Equal(rules, []string{"create subjectaccessreviews", "create tokenreviews"}) {
		t.Errorf("the operator may do in the whole cluster: %q", rules)
	}

	i.scrape()
	i.proveServed(i.shop, "one")
	i.operator.stop()
	if refused := i.refused(i.operator); len(refused) > 0 {
		t.Errorf("the API server refused requests of the operator: %q", refused)
	}
}

// clusterWideRules are what ClusterRoleBindings grant to the operator.
func (i *installed) clusterWideRules() []string {
	i.Helper()
	bindings := &rbacv1.ClusterRoleBindingList{}
	i.must(i.List(i.Context(), bindings))
	var out []string
	for _, b := range bindings.Items {
		if !slices.ContainsFunc(b.Subjects, func(s rbacv1.Subject) bool { return s.Namespace == i.system }) {
			continue
		}
		role := &rbacv1.ClusterRole{}
		i.must(i.Get(i.Context(), client.ObjectKey{Name: b.RoleRef.Name}, role))
		for _, r := range role.Rules {
			out = append(out, strings.Join(r.Verbs, ",")+" "+strings.Join(r.Resources, ","))
		}
	}
	slices.Sort(out)
	return out
}

// scrape reads the metrics as Prometheus does: refused first, and then with the role that the chart made for it.
func (i *installed) scrape() {
	i.Helper()
	i.must(i.Create(i.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: i.shop, Name: "prometheus"}}))
	token := i.podConfig(i.shop, "prometheus").BearerToken
	//nolint:gosec // the operator's certificate is self-signed at each start
	scraper := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	get := func(g gomega.Gomega) (int, string) {
		req, err := http.NewRequestWithContext(i.Context(), http.MethodGet, "https://"+i.operator.flag("--metrics-bind-address")+"/metrics", nil)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := scraper.Do(req)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		defer res.Body.Close() //nolint:errcheck // read to its end
		body, err := io.ReadAll(res.Body)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		return res.StatusCode, string(body)
	}
	// The metrics are served some moments after the first tokens are written: their certificate is made at the start.
	var code int
	i.Eventually(func(g gomega.Gomega) { code, _ = get(g) }).Should(gomega.Succeed())
	if code != http.StatusForbidden {
		i.Errorf("a scraper without the role got HTTP %d", code)
	}
	i.letScrape(i.shop, "prometheus")
	i.Eventually(func(g gomega.Gomega) {
		code, body := get(g)
		g.Expect(code).To(gomega.Equal(http.StatusOK))
		g.Expect(body).To(gomega.ContainSubstring("controller_runtime_reconcile_total"))
	}).Should(gomega.Succeed())
}

// Kubernetes' own garbage collector deletes the Secret of a resource with Delete, and leaves that of one with Retain. A
// resource that is made again, as by a GitOps tool, finds its token there.
func TestDeletionPolicies(t *testing.T) {
	i := install(t, "")
	stop, err := shared.env.StartControllers("garbage-collector-controller")
	i.must(err)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	retain := func(r *v1alpha1.WeChatAppToken) { r.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain }
	i.createToken(i.shop)
	i.createToken(i.blog, retain)
	first := i.eventuallyReady(i.shop)
	i.eventuallyReady(i.blog)

	i.must(i.Delete(t.Context(), i.token(i.shop)))
	i.must(i.Delete(t.Context(), i.token(i.blog)))
	i.Eventually(func() bool {
		err := i.Get(t.Context(), client.ObjectKey{Namespace: i.shop, Name: "shop-token"}, &corev1.Secret{})
		return apierrors.IsNotFound(err)
	}, 2*time.Minute).Should(gomega.BeTrue(), "the Secret of the deleted resource was not collected")
	kept := &corev1.Secret{}
	i.must(i.Get(t.Context(), client.ObjectKey{Namespace: i.blog, Name: "shop-token"}, kept))

	i.createToken(i.blog, retain)
	if again := i.eventuallyReady(i.blog); again != first {
		t.Error("the resource that was made again has another token")
	}
	after := &corev1.Secret{}
	i.must(i.Get(t.Context(), client.ObjectKeyFromObject(kept), after))
	if after.UID != kept.UID {
		t.Error("the Secret was replaced")
	}
	i.createToken(i.shop)
	if again := i.eventuallyReady(i.shop); again != first {
		t.Error("in Stable mode WeChat gives the same token again, and the Secret has another one")
	}
	if refused := i.refused(i.operator); len(refused) > 0 {
		t.Errorf("the API server refused requests of the operator: %q", refused)
	}
}
