// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// rotateCredentials resets the AppSecret of an account that a pod uses, as one does in WeChat's console.
func (w *world) rotateCredentials(t *testing.T) {
	g := gomega.NewWithT(t)
	standIn := w.standIn(t)
	name, appID := "kubelet-0", appIDOf("Kubelet", 0)
	if err := standIn.SetSecret(t.Context(), appID, secondSecret); err != nil {
		t.Fatal(err)
	}
	before := w.token(t, name).Status.CredentialsVersion
	start := time.Now()
	w.kubectl(t, "-n", shop, "patch", "secret", name+"-wechat", "-p", `{"stringData":{"appSecret":"`+secondSecret+`"}}`)
	g.Eventually(func(g gomega.Gomega) {
		token := w.token(t, name)
		g.Expect(token.Status.CredentialsVersion).NotTo(gomega.Equal(before))
		g.Expect(token.Status.LastError).To(gomega.BeNil())
		accepted, err := standIn.Count(t.Context(), wechattest.Filter{AppID: appID, Endpoint: wechattest.EndpointStable, Since: start})
		g.Expect(err).NotTo(gomega.HaveOccurred())
		g.Expect(accepted).To(gomega.BeNumerically(">", 0))
	}, patience).Should(gomega.Succeed())
	w.table.saw("WeChat accepted the new AppSecret after %.1f s", time.Since(start).Seconds())
}

// revoke kills a token of its own: those who use a leaked token are meant to be refused.
func (w *world) revoke(t *testing.T) {
	w.apply(t, tokenManifests("leaked", appIDOf("leaked", 0), ""))
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "wxtoken/leaked", "--timeout=60s")
	leaked, err := w.value(t.Context(), "leaked-token")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if out, err := w.wxtoken(t, "-n", shop, "revoke", "leaked", "--yes"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := time.Since(start)
	standIn := w.standIn(t)
	dead, err := standIn.Valid(t.Context(), leaked)
	if err != nil || dead {
		t.Errorf("the leaked token is valid: %t, %v", dead, err)
	}
	now, err := w.value(t.Context(), "leaked-token")
	if err != nil {
		t.Fatal(err)
	}
	if valid, err := standIn.Valid(t.Context(), now); err != nil || !valid || now == leaked {
		t.Errorf("the new token is valid: %t, %v", valid, err)
	}
	w.table.saw("the leaked token is dead after %.1f s, another one is in the Secret", took.Seconds())
}

// wxtoken runs the kubectl plugin.
func (w *world) wxtoken(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return w.command(t.Context(), nil, w.pluginPath, args...)
}

// drain evicts the operator from its node. On a cluster of one node nothing can take its place, so the budget keeps one pod.
func (w *world) drain(t *testing.T) {
	pods := w.operatorPods(t)
	node := pods[0].Spec.NodeName
	_, err := w.command(t.Context(), nil, w.kubectlPath, "drain", node, "--pod-selector="+operatorPods, "--timeout=15s")
	ready := 0
	for _, pod := range w.operatorPods(t) {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				ready++
			}
		}
	}
	if ready == 0 {
		t.Errorf("no pod of the operator was left (%v)", err)
	}
	start := time.Now()
	w.kubectl(t, "uncordon", node)
	w.kubectl(t, "-n", operatorSpace, "rollout", "status", operatorRunning, "--timeout=3m")
	kept := "the budget kept one pod"
	if err == nil {
		kept = "all were evicted"
	}
	evicted := 0
	for _, old := range pods {
		if err := w.Get(t.Context(), client.ObjectKeyFromObject(&old), &corev1.Pod{}); apierrors.IsNotFound(err) {
			evicted++
		}
	}
	if evicted == 0 {
		t.Error("no pod was evicted")
	}
	w.table.saw("%s; 2 pods again %.1f s after the node is back", kept, time.Since(start).Seconds())
}

func (w *world) deleteNamespace(t *testing.T) {
	g := gomega.NewWithT(t)
	const name = "short-lived"
	appID := appIDOf("shortlived", 0)
	w.kubectl(t, "create", "namespace", name)
	w.apply(t, strings.ReplaceAll(tokenManifests("gone", appID, ""), "namespace: "+shop, "namespace: "+name))
	w.kubectl(t, "-n", name, "wait", "--for=condition=Ready", "wxtoken/gone", "--timeout=60s")
	start := time.Now()
	w.kubectl(t, "delete", "namespace", name, "--timeout=2m")
	gone := time.Since(start)
	standIn := w.standIn(t)
	calls := func() int {
		n, err := standIn.Count(t.Context(), wechattest.Filter{AppID: appID})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := calls()
	// A check or a retry would come within seconds of the deletion.
	g.Consistently(calls, 5*time.Second, time.Second).Should(gomega.Equal(before))
	w.table.saw("gone after %.1f s, no call for its account since", gone.Seconds())
}

func (w *world) doctorHealthy(t *testing.T) {
	out, err := w.wxtoken(t, "doctor")
	if err != nil {
		t.Fatal(err)
	}
	w.table.saw("exit code 0, %d lines with a tick", strings.Count(out, "✓"))
}

// doctorBroken lacks what tokens need most: the operator, and credentials.
func (w *world) doctorBroken(t *testing.T) {
	g := gomega.NewWithT(t)
	w.kubectl(t, "-n", shop, "delete", "secret", "during-the-kill-wechat")
	g.Eventually(func() bool { return hasCondition(w.token(t, "during-the-kill"), v1alpha1.ConditionRefreshFailing) }, patience).Should(gomega.BeTrue())
	w.kubectl(t, "-n", operatorSpace, "scale", operatorRunning, "--replicas=0")
	g.Eventually(func() int { return len(w.operatorPods(t)) }, patience).Should(gomega.BeZero())
	out, err := w.wxtoken(t, "doctor")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("it ended with %v, want exit code 3", err)
	}
	for _, want := range []string{"during-the-kill-wechat", operator + "-controller-manager"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not speak of %s:\n%s", want, out)
		}
	}
	w.kubectl(t, "-n", operatorSpace, "scale", operatorRunning, "--replicas=2")
	w.kubectl(t, "-n", operatorSpace, "rollout", "status", operatorRunning, "--timeout=3m")
	w.table.saw("exit code 3, names the missing Secret and the operator that does not run")
}

func hasCondition(token *v1alpha1.WeChatAppToken, kind string) bool {
	for _, c := range token.Status.Conditions {
		if c.Type == kind {
			return c.Status == "True"
		}
	}
	return false
}

// measureDelivery waits until there were enough rotations to say how long they take to reach a pod.
func (w *world) measureDelivery(t *testing.T) {
	for _, delivery := range []string{"Kubelet", "Prompt"} {
		var took []time.Duration
		var used, unanswered int
		gomega.NewWithT(t).Eventually(func() int {
			took, used, unanswered = w.deliveries(t, delivery)
			return len(took)
		}, 5*time.Minute, 5*time.Second).Should(gomega.BeNumerically(">=", leastChanges))
		w.table.saw("%s: %d changes, p50 %.1f s, p99 %.1f s, %d uses, %d without an answer", delivery, len(took),
			quantile(took, 0.5).Seconds(), quantile(took, 0.99).Seconds(), used, unanswered)
	}
}

// uninstall leaves the resources and their Secrets to their owners, who delete them.
func (w *world) uninstall(t *testing.T) {
	g := gomega.NewWithT(t)
	// The pods must not miss what is about to be deleted.
	w.judgeUsers(t)
	w.users = nil
	w.helm(t, "uninstall", operator, "--wait", "--timeout", "2m")
	g.Eventually(func() int { return len(w.operatorPods(t)) }, patience).Should(gomega.BeZero())
	if _, err := w.value(t.Context(), "shop-token"); err != nil {
		t.Errorf("the Secret went with the operator: %v", err)
	}
	w.kubectl(t, "delete", "wechatappclients,wechatapptokens", "--all", "--all-namespaces", "--timeout=2m")
	g.Eventually(func() bool { _, err := w.value(t.Context(), "shop-token"); return apierrors.IsNotFound(err) }, patience).Should(gomega.BeTrue())
	w.kubectl(t, "delete", "crd", "wechatapptokens.wechat.apptoken.dev", "wechatappclients.wechat.apptoken.dev", "--timeout=2m")
	w.kubectl(t, "delete", "namespace", shop, operatorSpace, "wechat", "--timeout=3m")
	w.table.saw("Secrets stayed, and went with their WeChatAppTokens")
}

// judgeUsers wants that no call of any pod was refused, and that each pod made calls.
func (w *world) judgeUsers(t *testing.T) {
	t.Helper()
	for _, refusal := range w.refusals(t) {
		t.Error(refusal)
	}
	for _, u := range w.users {
		got, err := w.usage(t.Context(), u)
		if err != nil {
			t.Errorf("%s: %v", u.name, err)
			continue
		}
		if got.Used < 100 || len(got.Unanswered)*1000 > got.Used {
			t.Errorf("%s: %d uses, %d without an answer: %.300s", u.name, got.Used, len(got.Unanswered), fmt.Sprint(got.Unanswered))
		}
	}
}

// enlarged is a picture at twice its size.
type enlarged struct{ image.Image }

func (e enlarged) Bounds() image.Rectangle {
	size := e.Image.Bounds().Size()
	return image.Rect(0, 0, 2*size.X, 2*size.Y)
}

func (e enlarged) At(x, y int) color.Color { return e.Image.At(x/2, y/2) }
