// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"strings"
	"testing"

	"github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	applyv1alpha1 "github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// Flux and Argo CD apply what they have in Git again and again, with labels and annotations of their own. It changes
// nothing: no new version of the resource, no pass of the operator, no call. And what they use for tracking never reaches
// the Secret, where it would make them prune it.
func TestAppliedAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.must(w.apply("kustomize-controller", "shop"))
	w.must(w.apply("argocd-controller", "shop"))
	w.eventuallyReady("shop")

	before, requests, calls := w.token("shop"), w.requests(o), w.calls(wechattest.EndpointStable)
	for range 20 {
		w.must(w.apply("kustomize-controller", "shop"))
		w.must(w.apply("argocd-controller", "shop"))
	}
	if after := w.token("shop"); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the resource was changed from version %s to %s", before.ResourceVersion, after.ResourceVersion)
	}
	// A change of tracking alone is a new version, and nothing that concerns the operator.
	w.update("shop", annotated("argocd.argoproj.io/tracking-id", "other:wechat.apptoken.dev/WeChatAppToken:shop/shop"))
	w.Consistently(func() map[string]int { return minus(w.requests(o), requests) }).Should(gomega.BeEmpty())
	if n := w.calls(wechattest.EndpointStable) - calls; n > 0 {
		t.Errorf("%d calls to WeChat", n)
	}

	secret := w.secret("shop")
	for _, keys := range []map[string]string{secret.Labels, secret.Annotations} {
		for key := range keys {
			if !strings.HasPrefix(key, v1alpha1.AnnotationPrefix) {
				t.Errorf("the Secret carries %s", key)
			}
		}
	}
	// The operator owns nothing of the spec, so a tool that looks for drift finds none.
	for _, m := range w.token("shop").ManagedFields {
		if m.Subresource == "" && strings.Contains(m.Manager, "wechat-token-operator") {
			t.Errorf("the operator owns %s", m.FieldsV1)
		}
	}
}

// apply is server-side apply, as both tools use it.
func (w *world) apply(manager, name string) error {
	w.Helper()
	token := applyv1alpha1.WeChatAppToken(name, w.namespace).
		WithLabels(map[string]string{
			"app.kubernetes.io/instance":            "shop",
			"kustomize.toolkit.fluxcd.io/name":      "shop",
			"kustomize.toolkit.fluxcd.io/namespace": "flux-system",
		}).
		WithAnnotations(map[string]string{"argocd.argoproj.io/tracking-id": "shop:wechat.apptoken.dev/WeChatAppToken:shop/shop"}).
		WithSpec(applyv1alpha1.WeChatAppTokenSpec().
			WithAppID(appID).
			WithCredentialsSecretRef(applyv1alpha1.CredentialsSecretReference().WithName("credentials")).
			WithTarget(applyv1alpha1.TargetSpec().WithName("shop")))
	return w.Apply(w.Context(), token, client.FieldOwner(manager), client.ForceOwnership)
}
