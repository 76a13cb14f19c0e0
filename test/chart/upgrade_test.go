// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
)

const (
	release       = "wechat-token-operator"
	releaseSystem = release + "-system"
	deployment    = release + "-controller-manager"

	// olderRelease is the last state before the API changed (ee1742e). Upgrades are tested from its chart and its operator.
	olderRelease = "testdata/older-release.tar.gz"
	olderVersion = "v0.0.9"
)

// The life of an installation: an older chart is installed, upgraded, rolled back, upgraded, uninstalled and installed
// again. The token that the first operator fetched serves through all of it, although each upgrade and rollback drops what
// the other version noted of it in the status. The operator serves all namespaces and runs with the rights that the
// chart gives it.
func TestLifeOfARelease(t *testing.T) {
	env := testenv.ForTest(t, testenv.Bare())
	c, err := newCluster(env, shared.dir)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, c)
	w.must(w.Create(w.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: releaseSystem, Labels: restricted}}))
	values := func() string { return w.values(w.loopback(releaseSystem)) }

	w.helm("install", release, w.olderChart(), "-n", releaseSystem, "-f", values())
	operator := w.start(releaseSystem, deployment)
	namespace := w.newNamespace(nil)
	w.createToken(namespace)
	first := w.eventuallyReady(namespace)
	if w.crdKnowsRevocation() {
		t.Fatal("the older CRD has the new field: the test proves nothing")
	}
	w.tellsExpiry(namespace, olderExpiry)

	// rolled is what a Deployment does, one pod after the other.
	rolled := func(version, request string) {
		t.Helper()
		next := w.start(releaseSystem, deployment)
		operator.stop()
		operator = next
		w.proveServed(namespace, request)
		w.onlyToken(namespace, first)
		if !w.seen(version, operator) {
			t.Errorf("no request came from %s", version)
		}
	}
	t.Log("upgrade")
	w.helm("upgrade", release, chartDir, "-n", releaseSystem, "--reset-then-reuse-values", "-f", values())
	if !w.crdKnowsRevocation() {
		t.Fatal("the upgrade did not bring the CRD's new field")
	}
	rolled(version, "after the upgrade")
	w.tellsExpiry(namespace, expiry)

	t.Log("rollback")
	w.helm("rollback", release, "1", "-n", releaseSystem)
	if w.crdKnowsRevocation() {
		t.Error("the rollback left the newer CRD, which docs/install.md says it does not")
	}
	rolled(olderVersion, "after the rollback")
	w.tellsExpiry(namespace, olderExpiry)

	t.Log("upgrade again")
	w.helm("upgrade", release, chartDir, "-n", releaseSystem, "-f", values())
	rolled(version, "after the second upgrade")
	w.tellsExpiry(namespace, expiry)

	t.Log("uninstall")
	w.helm("uninstall", release, "-n", releaseSystem)
	operator.stop()
	w.gone(&appsv1.Deployment{}, deployment)
	w.gone(&corev1.ServiceAccount{}, deployment)
	w.onlyToken(namespace, first)
	if !w.crdKnowsRevocation() {
		t.Error("the CRD is gone")
	}

	t.Log("install again")
	w.helm("install", release, chartDir, "-n", releaseSystem, "-f", values())
	operator = w.start(releaseSystem, deployment)
	w.proveServed(namespace, "after the second installation")
	w.onlyToken(namespace, first)
	if refused := w.refused(operator); len(refused) > 0 {
		t.Errorf("the API server refused requests of the operator: %q", refused)
	}

	t.Log("uninstall without crds.keep")
	operator.stop()
	w.helm("upgrade", release, chartDir, "-n", releaseSystem, "-f", values(), "--set", "crds.keep=false")
	w.helm("uninstall", release, "-n", releaseSystem)
	w.Eventually(func() bool {
		return apierrors.IsNotFound(w.Get(w.Context(), client.ObjectKey{Name: crdName}, newCRD()))
	}).Should(gomega.BeTrue(), "the CRD stays although crds.keep is false")
}

const crdName = "wechatapptokens.wechat.apptoken.dev"

func newCRD() *unstructured.Unstructured {
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	return crd
}

// olderChart unpacks the older release, builds its operator and returns the folder of its chart. Both have today's version there,
// and get one of their own. The release is kept as an archive, so that the test needs no history of the repository:
//
//	git archive <commit> -- api cmd/operator internal charts/wechat-token-operator go.mod go.sum LICENSE | gzip -9n
func (w *world) olderChart() string {
	w.Helper()
	tree := w.TempDir()
	if out, err := exec.CommandContext(w.Context(), "tar", "-xzf", olderRelease, "-C", tree).CombinedOutput(); err != nil {
		w.Fatalf("unpacking the older release: %v\n%s", err, out)
	}
	w.must(buildImage(w.Context(), tree, w.dir, olderVersion))
	chart := filepath.Join(tree, "charts", "wechat-token-operator")
	metadata := filepath.Join(chart, "Chart.yaml")
	text, err := os.ReadFile(metadata)
	w.must(err)
	number, olderNumber := strings.TrimPrefix(version, "v"), strings.TrimPrefix(olderVersion, "v")
	w.must(os.WriteFile(metadata, bytes.ReplaceAll(text, []byte(number), []byte(olderNumber)), 0o600))
	return chart
}

// crdKnowsRevocation reports whether the CRD has the field that the older one lacks.
func (w *world) crdKnowsRevocation() bool {
	w.Helper()
	crd := newCRD()
	w.must(w.Get(w.Context(), client.ObjectKey{Name: crdName}, crd))
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	w.must(err)
	served, ok := versions[0].(map[string]any)
	if !ok {
		w.Fatal("the CRD has no version")
	}
	status, found, err := unstructured.NestedMap(served, "schema", "openAPIV3Schema", "properties", "status", "properties")
	w.must(err)
	if !found {
		w.Fatal("the CRD has no status")
	}
	_, known := status["revocation"]
	return known
}

// The field of status.token that says when the token expires, in either version.
const (
	expiry      = "expirationTime"
	olderExpiry = "expiresAt"
)

// tellsExpiry waits until the status says when the token expires, in a field that the API server dropped from what the other
// version wrote.
func (w *world) tellsExpiry(namespace, field string) {
	w.Helper()
	secret := &corev1.Secret{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: "shop-token"}, secret))
	w.Eventually(func(g gomega.Gomega) {
		token := &unstructured.Unstructured{}
		token.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
		g.Expect(w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: "shop"}, token)).To(gomega.Succeed())
		told, _, err := unstructured.NestedString(token.Object, "status", "token", field)
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(told).To(gomega.Equal(string(secret.Data[v1alpha1.ExpiresAtKey])))
	}).Should(gomega.Succeed())
	w.eventuallyReady(namespace)
}

// onlyToken: the Secret holds the token, and WeChat never made another one.
func (w *world) onlyToken(namespace, value string) {
	w.Helper()
	secret := &corev1.Secret{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: namespace, Name: "shop-token"}, secret))
	if string(secret.Data["access_token"]) != value || !w.wechat.Valid(value) {
		w.Error("the Secret does not hold the first token any more")
	}
	if n := len(w.wechat.Tokens("")); n != 1 {
		w.Errorf("WeChat made %d tokens instead of one", n)
	}
}

// seen tells whether the operator of that version made a request.
func (w *world) seen(of string, pod *process) bool {
	w.Helper()
	all, err := w.env.Requests(func(r testenv.Request) bool {
		return r.User.Username == pod.username && r.UserAgent == "wechat-token-operator/"+of
	})
	w.must(err)
	return len(all) > 0
}

func (w *world) gone(o client.Object, name string) {
	w.Helper()
	if err := w.Get(w.Context(), client.ObjectKey{Namespace: releaseSystem, Name: name}, o); !apierrors.IsNotFound(err) {
		w.Errorf("%s is still there (%v)", name, err)
	}
}
