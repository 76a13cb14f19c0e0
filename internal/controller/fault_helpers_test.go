// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onsi/gomega"
	reviewv1 "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/controller"
	"github.com/wechat-token-operator/wechat-token-operator/internal/testenv"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// These helpers make the API server refuse writes of the Secrets of the world's namespace. Each waits until the refusal is in
// force, and returns a function that ends it and waits until Secrets can be written again.

// refuseByPolicy refuses every write by a ValidatingAdmissionPolicy. The reason decides the status code of the refusal.
func (w *world) refuseByPolicy(reason metav1.StatusReason, code int32) (lift func()) {
	w.Helper()
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: w.itsNamespace(),
				ResourceRules:     []admissionv1.NamedRuleWithOperations{{RuleWithOperations: secretWrites()}},
			},
			Validations: []admissionv1.Validation{{Expression: "false", Reason: &reason}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	return w.refuse(code, policy, binding)
}

// refuseByQuota refuses the creation of Secrets with 403. Existing Secrets can still be changed.
func (w *world) refuseByQuota() (lift func()) {
	w.Helper()
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "full"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("0")}},
	}
	w.must(w.Create(w.Context(), quota))
	quota.Status.Hard = quota.Spec.Hard
	w.must(w.Client.Status().Update(w.Context(), quota)) // this control plane has no quota controller
	w.awaitWriteCode(http.StatusForbidden)
	return w.lift(quota)
}

// refuseByDeadWebhook registers a webhook at which nobody listens, so that the API server answers every write with 500.
func (w *world) refuseByDeadWebhook() (lift func()) {
	w.Helper()
	return w.refuse(http.StatusInternalServerError, w.webhook(admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1:1")}))
}

// refuseByWebhook registers a webhook that gives the answer to each write: nil allows it. code is the one with which a dry run is
// refused.
func (w *world) refuseByWebhook(code int32, answer func(*reviewv1.AdmissionRequest) *metav1.Status) (lift func()) {
	w.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		review := &reviewv1.AdmissionReview{}
		if err := json.NewDecoder(in.Body).Decode(review); err != nil || review.Request == nil {
			http.Error(out, "not an AdmissionReview", http.StatusBadRequest)
			return
		}
		refused := answer(review.Request)
		review.Response = &reviewv1.AdmissionResponse{UID: review.Request.UID, Allowed: refused == nil, Result: refused}
		review.Request = nil
		_ = json.NewEncoder(out).Encode(review) // it fails when the API server is gone
	}))
	w.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return w.refuse(code, w.webhook(admissionv1.WebhookClientConfig{URL: &server.URL, CABundle: ca}))
}

func (w *world) webhook(config admissionv1.WebhookClientConfig) client.Object {
	// The API server still knows the class Some, but has not accepted it in new objects since admissionregistration.k8s.io/v1.
	sideEffects := admissionv1.SideEffectClassNoneOnDryRun
	return &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "secrets.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &sideEffects, ClientConfig: config,
			NamespaceSelector: w.itsNamespace(), Rules: []admissionv1.RuleWithOperations{secretWrites()},
		}},
	}
}

func (w *world) itsNamespace() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace}}
}

func secretWrites() admissionv1.RuleWithOperations {
	return admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
		Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
	}
}

func (w *world) refuse(code int32, objects ...client.Object) (lift func()) {
	w.Helper()
	for _, o := range objects {
		w.must(w.Create(w.Context(), o))
	}
	w.awaitWriteCode(code)
	return w.lift(objects...)
}

// lift returns a function that deletes the objects once. The end of the test does it otherwise.
func (w *world) lift(objects ...client.Object) func() {
	remove := sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), patience)
		defer cancel()
		var errs []error
		for _, o := range objects {
			errs = append(errs, w.Delete(ctx, o))
		}
		return errors.Join(errs...)
	})
	w.Cleanup(func() { _ = remove() }) // a test that lifts it has seen the error
	return func() {
		w.Helper()
		w.must(remove())
		w.awaitWriteCode(0)
	}
}

// awaitWriteCode waits until the creation of a Secret is refused with this status code, or accepted if it is 0.
func (w *world) awaitWriteCode(code int32) {
	w.Helper()
	w.Eventually(func() int32 {
		probe := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, GenerateName: "probe-"}}
		err := w.Create(w.Context(), probe, client.DryRunAll)
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			return status.Status().Code
		}
		w.must(err)
		return 0
	}).Should(gomega.Equal(code))
}

// secretRequests counts an operator's requests for Secrets so far by the Secret's name, dry runs included.
func (w *world) secretRequests(o *operator, verbs ...string) map[string]int {
	w.Helper()
	all, err := env.Requests(func(r testenv.Request) bool {
		return r.UserAgent == o.name && r.Object.Resource == "secrets" && r.Object.Namespace == w.namespace
	})
	w.must(err)
	out := map[string]int{}
	for _, r := range all {
		for _, verb := range verbs {
			if r.Verb == verb {
				out[r.Object.Name]++
			}
		}
	}
	return out
}

// touch changes the spec in a way that matters to nobody, so that the operator decides anew.
func (w *world) touch(name string) {
	w.Helper()
	w.update(name, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration -= time.Minute })
}

// consent waits until the operator names the annotation by which a Secret's owner consents, and returns its value.
func (w *world) consent(name string) string {
	w.Helper()
	message := w.eventuallyReason(name, v1alpha1.ReasonTargetConflict).Message
	named := regexp.MustCompile(regexp.QuoteMeta(v1alpha1.AnnotationAdopt) + `: "([^"]+)"`).FindStringSubmatch(message)
	if named == nil {
		w.Fatalf("the message names no consent: %q", message)
	}
	return named[1]
}

// tokensIn returns a function that returns every token that a Secret has held since.
func (w *world) tokensIn(secret string) func() []string {
	w.Helper()
	c, err := client.NewWithWatch(env.Config, client.Options{Scheme: scheme()})
	w.must(err)
	watcher, err := c.Watch(w.Context(), &corev1.SecretList{},
		client.InNamespace(w.namespace), client.MatchingFields{"metadata.name": secret})
	w.must(err)
	w.Cleanup(watcher.Stop)
	var mu sync.Mutex
	var held []string
	go func() {
		for e := range watcher.ResultChan() {
			if s, ok := e.Object.(*corev1.Secret); ok && e.Type != watch.Deleted {
				mu.Lock()
				held = append(held, string(s.Data["access_token"]))
				mu.Unlock()
			}
		}
	}()
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), held...)
	}
}

// liveReads are a process's reads from the API server, which a test can make fail.
type liveReads struct {
	client.Reader

	failing atomic.Bool
	// failed counts the reads that failed.
	failed atomic.Int32
}

func (r *liveReads) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if r.failing.Load() {
		r.failed.Add(1)
		return apierrors.NewInternalError(errors.New("the test makes live reads fail"))
	}
	return r.Reader.Get(ctx, key, o, opts...)
}

// restartWith is restart for a process whose local clock is ahead of WeChat's, and whose live reads a test can make fail.
func (s *subject) restartWith(ahead time.Duration) *liveReads {
	s.Helper()
	s.decideAnew()
	api, err := wechat.New(wechat.Options{
		Endpoints: []string{s.wechat.URL()}, Timeout: 10 * time.Second, Monotonic: s.clock.now,
		Wall: func() time.Time { return s.clock.now().Add(ahead) },
	})
	s.must(err)
	live := &liveReads{Reader: s.clerk.mgr.GetAPIReader()}
	s.process = controller.New(controller.Options{
		Client: countingClient{notingClient{s.clerk.mgr.GetClient(), s.clerk}}, Live: live, WeChat: api,
		Events: countingEvents{s.clerk.mgr.GetEventRecorder("matrix"), s.clerk}, MaxConcurrentReconciles: 1,
	})
	return live
}

// decideAnew waits until the cache knows what the test has changed, and makes the next pass due.
func (s *subject) decideAnew() {
	s.Helper()
	key := client.ObjectKey{Namespace: s.namespace, Name: s.name}
	s.caughtUpLive(key, &v1alpha1.WeChatAppToken{}, &v1alpha1.WeChatAppToken{})
	for _, name := range []string{s.name, s.name + "-credentials"} {
		key.Name = name
		s.caughtUpLive(key, secretMetadata(), secretMetadata())
	}
	s.wake = time.Time{}
}

// caughtUpLive waits until the cache has what the API server has.
func (s *subject) caughtUpLive(key client.ObjectKey, cached, live client.Object) {
	s.Helper()
	s.Eventually(func(g gomega.Gomega) {
		g.Expect(client.IgnoreNotFound(s.Get(s.Context(), key, live))).To(gomega.Succeed())
		g.Expect(client.IgnoreNotFound(s.clerk.mgr.GetClient().Get(s.Context(), key, cached))).To(gomega.Succeed())
		g.Expect(cached.GetResourceVersion()).To(gomega.Equal(live.GetResourceVersion()))
	}).Should(gomega.Succeed())
}

func secretMetadata() *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return o
}
