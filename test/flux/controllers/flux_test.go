// SPDX-License-Identifier: Apache-2.0

// Package controllers tests what Flux says of the operator and of WeChatAppTokens: its source-controller and its kustomize-controller run
// as processes on a real API server, and apply config/ and resources from an OCI artifact by the Kustomizations of examples/gitops/flux.
// There is no node, so the operator runs as a process too, and its Deployment has no replicas.
package controllers

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// operatorOverlay is what a user writes to install config/default. Without a node, only a Deployment without replicas can become healthy.
const operatorOverlay = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../config/default
images:
- name: controller
  newName: registry.example.com/wechat-token-operator
  newTag: v0.1.0
replicas:
- name: controller-manager
  count: 0
`

// TestFlux goes through the situations in which a WeChatAppToken can be, in an order in which each begins where the last one ended.
func TestFlux(t *testing.T) {
	w := newWorld(t)
	defer w.print()
	for _, step := range []func(*world){
		(*world).install, (*world).credentialsComeLater, (*world).ipNotAllowed, (*world).wrongSecret, (*world).suspended, (*world).noDrift,
		(*world).pruned,
	} {
		if step(w); t.Failed() {
			return // the next step begins where this one should have ended
		}
	}
}

// install lets Flux apply everything to an empty cluster, and starts the operator when there is a ServiceAccount for it.
func (w *world) install() {
	for _, name := range []string{"shop", "later", "ip", "wrong", "asleep", "gone", "kept"} {
		w.account(name)
	}
	w.files["wechat-token-operator/kustomization.yaml"] = operatorOverlay
	w.files["shop/shop.yaml"] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop}\n"
	w.credentials("shop", secretOf("shop"))
	w.declare("shop", "")
	w.upload()
	w.configureFlux()
	w.startOperator()
	w.says("all is new: the operator", operatorKustomization, ready)
	w.says("all is new: the tokens", tokensKustomization, ready)
	w.says("all is new: what needs the tokens", shopKustomization, ready)
}

func (w *world) credentialsComeLater() {
	w.declare("later", "")
	w.push()
	w.says("a new resource without a credentials Secret", tokensKustomization, unhealthy("later", "InProgress"))
	w.since = time.Now()
	w.credentials("later", secretOf("later"))
	w.recovers("the Secret was made")
	w.withdraw("later")
}

func (w *world) ipNotAllowed() {
	w.account("ip", "203.0.113.1")
	w.credentials("ip", secretOf("ip"))
	w.declare("ip", "")
	w.push()
	w.says("a new resource, WeChat does not allow the IP address", tokensKustomization, unhealthy("ip", "Failed"))
	w.says("the same: what needs the tokens", shopKustomization,
		said{"False", "DependencyNotReady", "dependency 'flux-system/wechat-tokens' is not ready"})
	w.since = time.Now()
	w.account("ip")
	w.request(w.resource("ip"), v1alpha1.AnnotationCheckRequestedAt)
	w.recovers("the allowlist was repaired and a check requested")
	w.says("the same: what needs the tokens", shopKustomization, ready)
	w.withdraw("ip")
}

func (w *world) wrongSecret() {
	w.credentials("wrong", strings.Repeat("f", 32))
	w.declare("wrong", "")
	w.push()
	w.says("a new resource with a wrong AppSecret", tokensKustomization, unhealthy("wrong", "Failed"))
	w.since = time.Now()
	w.credentials("wrong", secretOf("wrong"))
	w.recovers("the AppSecret was corrected")

	// With a valid token, a refresh that fails is no reason to stop a deployment.
	w.credentials("wrong", strings.Repeat("e", 32))
	w.request(w.resource("wrong"), v1alpha1.AnnotationCheckRequestedAt)
	w.await("the condition RefreshFailing", func() (bool, string) {
		c := w.condition(w.resource("wrong"), v1alpha1.ConditionRefreshFailing)
		return c.Status == metav1.ConditionTrue, c.Message
	})
	w.files["wechat-tokens/unrelated.yaml"] = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: unrelated}\n"
	w.push()
	w.says("the AppSecret becomes wrong while the token is valid", tokensKustomization, ready)
	w.withdraw("wrong")
}

func (w *world) suspended() {
	w.declare("shop", "  suspend: true\n")
	w.push()
	w.says("suspended while the token is valid", tokensKustomization, ready)
	w.declare("shop", "")

	w.credentials("asleep", secretOf("asleep"))
	w.declare("asleep", "  suspend: true\n")
	w.push()
	w.says("a new resource that is suspended", tokensKustomization, unhealthy("asleep", "InProgress"))
	w.declare("asleep", "")
	w.push()
	w.says("resumed in Git", tokensKustomization, ready)
	w.withdraw("asleep")
}

// noDrift reconciles ten times. Nothing that Flux applied may change, and Flux may not say that it changed anything. After a change by hand
// it must say so, which shows that the test would see it.
func (w *world) noDrift() {
	before := w.versions()
	if len(before) < 15 {
		w.Fatalf("Flux has only %d objects", len(before))
	}
	w.since = time.Now()
	old := map[string]int{}
	for _, k := range []string{operatorKustomization, tokensKustomization} {
		old[k] = len(w.heard(k, 0))
		for range 10 {
			w.reconcile(k)
		}
	}
	for k, n := range old {
		heard := w.heard(k, n)
		if len(heard) < 10 || slices.ContainsFunc(heard, changes.MatchString) {
			w.Errorf("in ten reconciles Flux said of %s: %q", k, heard)
		}
	}
	for id, version := range w.versions() {
		if version != before[id] {
			w.Errorf("%s changed from %q to %q", id, before[id], version)
		}
	}
	unchanged := fmt.Sprintf("no change of %d objects, no event that says so", len(before))
	w.rows = append(w.rows, row{"ten reconciles without a change", "both", unchanged, time.Since(w.since)})

	w.since = time.Now()
	n := len(w.heard(tokensKustomization, 0))
	byHand := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"checkInterval":"1h"}}`))
	w.must(w.Patch(w.Context(), w.resource("shop"), byHand, client.FieldOwner("kubectl-edit")))
	w.reconcile(tokensKustomization)
	w.hears("a field changed by hand", n, "WeChatAppToken/shop/shop configured")
}

// pruned takes resources out of Git and puts them back.
func (w *world) pruned() {
	w.credentials("gone", secretOf("gone"))
	w.credentials("kept", secretOf("kept"))
	w.declare("gone", "")
	w.declare("kept", "  target: {deletionPolicy: Retain}\n")
	w.push()
	w.says("two more resources, one with Retain", tokensKustomization, ready)
	kept := w.token("kept")

	n := len(w.heard(tokensKustomization, 0))
	w.withdraw("gone", "kept")
	w.hears("taken out of Git", n, "WeChatAppToken/shop/gone deleted")
	w.await("the end of the Secret gone", func() (bool, string) {
		err := w.Get(w.Context(), client.ObjectKey{Namespace: shopNamespace, Name: "gone"}, &corev1.Secret{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
	if w.token("kept") != kept {
		w.Error("with Retain the Secret has another token")
	}

	w.declare("gone", "")
	w.declare("kept", "  target: {deletionPolicy: Retain}\n")
	w.push()
	w.says("put back", tokensKustomization, ready)
	if !w.wechat.Valid(w.token("gone")) {
		w.Error("the Secret that was made again has a token that is not valid")
	}
	if n := len(w.wechat.Tokens(appIDOf("kept"))); w.token("kept") != kept || n != 1 {
		w.Errorf("with Retain the resource that was made again did not take over the token; WeChat issued %d", n)
	}
}

// said is what Flux says in the condition Ready. The message is a regular expression.
type said struct{ status, reason, message string }

var (
	ready   = said{"True", "ReconciliationSucceeded", "^Applied revision: "}
	changes = regexp.MustCompile(`(?m) (created|configured|deleted)$`)
)

// unhealthy is what Flux says if it waits for a resource in vain. It stops waiting when kstatus says Failed.
func unhealthy(name, kstatus string) said {
	message := "timeout waiting for: "
	if kstatus == "Failed" {
		message = "failed early due to stalled resources: "
	}
	return said{"False", "HealthCheckFailed", regexp.QuoteMeta(fmt.Sprintf("%s[WeChatAppToken/shop/%s status: '%s'", message, name, kstatus))}
}

// says waits for what Flux says of the last push, and notes it. It must be what is expected, and nothing else before.
func (w *world) says(situation, kustomization string, want said) {
	w.Helper()
	var got metav1.Condition
	w.await(fmt.Sprintf("%s to be %s, %s", kustomization, want.status, want.reason), func() (bool, string) {
		k := w.kustomization(kustomization)
		got = w.condition(k, "Ready")
		attempted, _, _ := unstructured.NestedString(k.Object, "status", "lastAttemptedRevision")
		settled := attempted == w.revision && got.Status != metav1.ConditionUnknown
		if want.reason == "DependencyNotReady" {
			settled = got.Reason == want.reason && regexp.MustCompile(want.message).MatchString(got.Message)
		}
		return settled, fmt.Sprintf("%s, %s: %s", got.Status, got.Reason, got.Message)
	})
	if string(got.Status) != want.status || got.Reason != want.reason || !regexp.MustCompile(want.message).MatchString(got.Message) {
		w.Errorf("%s: Flux says %s, %s: %s\nwant %v", situation, got.Status, got.Reason, got.Message, want)
	}
	w.note(situation, kustomization, got)
}

// recovers waits until Flux says by itself that the tokens are ready, without another push.
func (w *world) recovers(situation string) {
	w.Helper()
	var got metav1.Condition
	w.await(tokensKustomization+" to be ready", func() (bool, string) {
		got = w.condition(w.kustomization(tokensKustomization), "Ready")
		return got.Status == metav1.ConditionTrue, got.Message
	})
	w.note(situation, tokensKustomization, got)
}

// hears waits for an event about the tokens that contains the text.
func (w *world) hears(situation string, without int, text string) {
	w.Helper()
	var heard []string
	w.await("the event "+text, func() (bool, string) {
		heard = w.heard(tokensKustomization, without)
		return slices.ContainsFunc(heard, func(m string) bool { return strings.Contains(m, text) }), strings.Join(heard, "\n")
	})
	w.rows = append(w.rows, row{situation, tokensKustomization, text, time.Since(w.since)})
}

// reconcile does what "flux reconcile kustomization" does, and waits until it is done.
func (w *world) reconcile(kustomization string) {
	w.Helper()
	value := w.request(w.kustomization(kustomization), "reconcile.fluxcd.io/requestedAt")
	w.await("a reconcile of "+kustomization, func() (bool, string) {
		k := w.kustomization(kustomization)
		c := w.condition(k, "Ready")
		handled, _, _ := unstructured.NestedString(k.Object, "status", "lastHandledReconcileAt")
		return handled == value && c.Status == metav1.ConditionTrue, c.Message
	})
}

// versions returns the version of each object in Flux's inventories, and when Flux last wrote it.
func (w *world) versions() map[string]string {
	w.Helper()
	out := map[string]string{}
	for _, name := range []string{operatorKustomization, tokensKustomization} {
		k := w.kustomization(name)
		w.must(w.Get(w.Context(), client.ObjectKeyFromObject(k), k))
		entries, _, _ := unstructured.NestedSlice(k.Object, "status", "inventory", "entries")
		for _, e := range entries {
			entry := e.(map[string]any)
			id := strings.Split(entry["id"].(string), "_") // namespace, name, group, kind
			o := w.object(strings.TrimPrefix(id[2]+"/"+entry["v"].(string), "/"), id[3], id[1])
			o.SetNamespace(id[0])
			w.must(w.Get(w.Context(), client.ObjectKeyFromObject(o), o))
			out[entry["id"].(string)] = fmt.Sprint(o.GetResourceVersion(), managed(o))
		}
	}
	return out
}

// managed returns when Flux last wrote the object.
func managed(o client.Object) (written []string) {
	for _, m := range o.GetManagedFields() {
		if m.Manager == "kustomize-controller" {
			written = append(written, m.Time.String())
		}
	}
	return written
}

// condition reads the object and returns a condition of its status, which is empty if it is not there.
func (w *world) condition(o *unstructured.Unstructured, kind string) metav1.Condition {
	w.Helper()
	w.must(client.IgnoreNotFound(w.Get(w.Context(), client.ObjectKeyFromObject(o), o)))
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		var out metav1.Condition
		w.must(runtime.DefaultUnstructuredConverter.FromUnstructured(c.(map[string]any), &out))
		if out.Type == kind {
			return out
		}
	}
	return metav1.Condition{Status: metav1.ConditionUnknown}
}

// token returns the token in the Secret of a resource.
func (w *world) token(name string) string {
	w.Helper()
	secret := &corev1.Secret{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: shopNamespace, Name: name}, secret))
	return string(secret.Data["access_token"])
}

// appIDOf and secretOf return the account of a resource.
func appIDOf(name string) string  { return fmt.Sprintf("wx%016x", name)[:18] }
func secretOf(name string) string { return fmt.Sprintf("%032x", name) }

// account makes an account at WeChat, or says from which addresses it may be used.
func (w *world) account(name string, allowed ...string) {
	w.wechat.SetApp(wechattest.App{ID: appIDOf(name), Secret: secretOf(name), AllowedIPs: allowed})
}

// credentials writes the Secret with the AppSecret, which is not in Git.
func (w *world) credentials(name, appSecret string) {
	w.Helper()
	o := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: shopNamespace, Name: name + "-wechat"},
		Data:       map[string][]byte{"appSecret": []byte(appSecret)},
	}
	if err := w.Create(w.Context(), o); apierrors.IsAlreadyExists(err) {
		w.must(w.Update(w.Context(), o))
	} else {
		w.must(err)
	}
}

// declare puts a resource into Git.
func (w *world) declare(name, more string) {
	w.files["wechat-tokens/"+name+".yaml"] = fmt.Sprintf(`apiVersion: wechat.apptoken.dev/v1alpha1
kind: WeChatAppToken
metadata:
  name: %s
spec:
  appID: %s
  credentialsSecretRef: {name: %s-wechat}
  checkInterval: 30m
%s`, name, appIDOf(name), name, more)
}

// withdraw takes resources out of Git, and waits until Flux has deleted them.
func (w *world) withdraw(names ...string) {
	w.Helper()
	for _, name := range names {
		delete(w.files, "wechat-tokens/"+name+".yaml")
	}
	w.push()
	for _, name := range names {
		w.await("the end of "+name, func() (bool, string) {
			err := w.Get(w.Context(), client.ObjectKeyFromObject(w.resource(name)), w.resource(name))
			return apierrors.IsNotFound(err), fmt.Sprint(err)
		})
	}
}

type row struct {
	situation, kustomization, said string
	after                          time.Duration
}

var (
	digest   = regexp.MustCompile(`@sha256:[0-9a-f]{64}`)
	fraction = regexp.MustCompile(`\.(\d)\d*(m?s)`)
)

func (w *world) note(situation, kustomization string, c metav1.Condition) {
	message := fraction.ReplaceAllString(digest.ReplaceAllString(c.Message, "@sha256:…"), ".$1$2")
	text := fmt.Sprintf("%s, %s: %s", c.Status, c.Reason, message)
	w.rows = append(w.rows, row{situation, kustomization, text, time.Since(w.since)})
	w.Logf("%s: %s", situation, text)
}

// print prints what Flux said as a table in Markdown.
func (w *world) print() {
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(out, "| Situation\t| Kustomization\t| What Flux said\t| After\t|")
	fmt.Fprintln(out, "|---\t|---\t|---\t|---\t|")
	for _, r := range w.rows {
		fmt.Fprintf(out, "| %s\t| %s\t| %s\t| %.1f s\t|\n", r.situation, r.kustomization, r.said, r.after.Seconds())
	}
	_ = out.Flush()
}
