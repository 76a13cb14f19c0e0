// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"maps"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

func TestFirstIssue(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret + "\n") // an editor's newline
	w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Name = "shop-token" })
	value := w.eventuallyReady("shop")

	token, secret := w.token("shop"), w.secret("shop-token")
	issued, _ := w.wechat.Current(appID, wechattest.Stable)
	if issued.Token != value {
		t.Error("the Secret does not hold WeChat's newest token")
	}
	expiry, err := time.Parse(time.RFC3339, string(secret.Data["expires_at"]))
	if err != nil || expiry.Sub(issued.ExpiresAt).Abs() > 2*time.Second {
		t.Errorf("expires_at is %q (%v), want about %s", secret.Data["expires_at"], err, issued.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if got := string(secret.Data["app_id"]); got != appID {
		t.Errorf("app_id is %q", got)
	}
	if secret.Type != corev1.SecretTypeOpaque || len(secret.Data) != 3 {
		t.Errorf("the Secret has type %s and %d keys, want Opaque and 3", secret.Type, len(secret.Data))
	}
	if secret.Labels[v1alpha1.LabelManagedBy] != v1alpha1.ManagedByValue {
		t.Errorf("labels: %v", secret.Labels)
	}
	fingerprint := vocab.NewValue(value).Fingerprint()
	for key, want := range map[string]string{
		v1alpha1.AnnotationOwnerUID:               string(token.UID),
		v1alpha1.AnnotationOwnerName:              "shop",
		v1alpha1.AnnotationDeletionPolicy:         "Delete",
		v1alpha1.AnnotationAppID:                  appID,
		v1alpha1.AnnotationMode:                   "Stable",
		v1alpha1.AnnotationTokenFingerprint:       fingerprint,
		v1alpha1.AnnotationCredentialsFingerprint: vocab.Credentials{AppID: appID, AppSecret: vocab.NewValue(appSecret)}.Fingerprint(),
		v1alpha1.AnnotationExpiresAt:              string(secret.Data["expires_at"]),
	} {
		if got := secret.Annotations[key]; got != want {
			t.Errorf("annotation %s is %q, want %q", key, got, want)
		}
	}
	if refs := secret.OwnerReferences; len(refs) != 1 || refs[0].UID != token.UID || refs[0].Controller == nil || !*refs[0].Controller {
		t.Errorf("owner references: %v", refs)
	}

	st := token.Status
	if st.ObservedGeneration != token.Generation || st.TargetSecretName != "shop-token" || st.TargetResourceVersion != secret.ResourceVersion {
		t.Errorf("status: %+v", st)
	}
	if st.Token == nil || st.Token.Fingerprint != fingerprint || st.Token.Mode != v1alpha1.ModeStable || st.NextRefreshTime == nil {
		t.Errorf("status.token: %+v, nextRefreshTime %v", st.Token, st.NextRefreshTime)
	}
	if lead := st.Token.ExpirationTime.Sub(st.NextRefreshTime.Time); lead < 284*time.Second || lead > 300*time.Second {
		t.Errorf("the refresh is due %s before expiry, want 300 s less 1 to 15 s", lead)
	}
	if len(st.Conditions) != 1 || st.LastError != nil || st.HandledRequests != nil || st.ForcedRefreshes != nil {
		t.Errorf("a healthy status says more than Ready: %+v", st)
	}
	w.kstatus("shop", status.CurrentStatus)

	want := map[string]int{"get secrets": 1, "create secrets": 1, "patch wechatapptokens/status": 1}
	w.Eventually(func() map[string]int { return w.requests(o) }).Should(gomega.Equal(want))
	if n := w.calls(wechattest.EndpointStable); n != 1 {
		t.Errorf("%d WeChat calls, want 1", n)
	}
	if events := w.events("shop"); len(events) != 0 {
		t.Errorf("the ordinary path sent events: %v", events)
	}
}

// kstatus is what Flux and Argo CD make of the resource.
func (w *world) kstatus(name string, want status.Status) {
	w.Helper()
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, u))
	got, err := status.Compute(u)
	w.must(err)
	if got.Status != want {
		w.Errorf("kstatus says %s (%s), want %s", got.Status, got.Message, want)
	}
}

// A token is replaced while the one before is still valid, at two requests and one call each time.
func TestRotation(t *testing.T) {
	// Refreshed at half of its life, so that no check comes before.
	w := newWorld(t, func(o *wechattest.Options) { o.Life = 40 * time.Second })
	value := w.ready(v1alpha1.ModeStable)
	o := w.operators.last
	w.Eventually(func() int { return w.requests(o)["patch wechatapptokens/status"] }).Should(gomega.Equal(1))
	before, calls := w.requests(o), w.calls(wechattest.EndpointStable)

	const rotations = 2
	for range rotations {
		w.advance(19 * time.Second)
		// At each look the Secret holds a valid token.
		w.Eventually(func(g gomega.Gomega) {
			now := w.value("shop")
			if !w.wechat.Valid(now) {
				gomega.StopTrying("the Secret holds a token that WeChat does not accept").Now()
			}
			g.Expect(now).NotTo(gomega.Equal(value))
			value = now
		}).Should(gomega.Succeed())
	}
	want := map[string]int{"patch secrets": rotations, "patch wechatapptokens/status": rotations}
	w.Eventually(func() map[string]int { return minus(w.requests(o), before) }).Should(gomega.Equal(want))
	if n := w.calls(wechattest.EndpointStable) - calls; n != rotations {
		t.Errorf("%d calls for %d rotations", n, rotations)
	}
}

// A check that finds the token unchanged costs one call and no request to the API server.
func TestCheckOfAnUnchangedToken(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable)
	o := w.operators.last
	w.Eventually(func() int { return w.requests(o)["patch wechatapptokens/status"] }).Should(gomega.Equal(1))
	before := maps.Clone(w.requests(o))
	w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "now")) // writes the handled value, once
	w.Eventually(func() int { return w.calls(wechattest.EndpointStable) }).Should(gomega.Equal(2))
	w.Eventually(func() *v1alpha1.HandledRequests { return w.token("shop").Status.HandledRequests }).
		Should(gomega.HaveField("Check", "now"))
	w.Eventually(func() map[string]int { return minus(w.requests(o), before) }).
		Should(gomega.Equal(map[string]int{"patch wechatapptokens/status": 1, "create events": 1}))

	before = maps.Clone(w.requests(o))
	w.advance(40 * time.Second)
	if n := w.calls(wechattest.EndpointStable); n != 3 {
		t.Errorf("%d calls, want 3", n)
	}
	w.advance(30 * time.Second)
	w.Consistently(func() map[string]int { return minus(w.requests(o), before) }).Should(gomega.BeEmpty())
}
