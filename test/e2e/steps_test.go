// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/test/browser"
)

// step is a row of the table. Each builds on those before it.
type step struct {
	name string
	run  func(t *testing.T)
}

func (w *world) steps() []step {
	return []step{
		{"stand-in runs", w.startStandIn},
		{"operator installed by its chart", w.install},
		{"pod before its Secret", w.startQRCodeEarly},
		{"Mini Program code in a browser", w.openPage},
		{"page with the JS-SDK in a browser", w.openH5},
		{"pod that calls the gateway", w.startGateway},
		{"pods that use tokens", w.startTokenUsers},
		{"leader killed", w.killLeader},
		{"kubelet restarted", w.restartTheKubelet},
		{"upgraded to a second image", w.upgrade},
		{"rolled back", w.rollBack},
		{"credentials rotated", w.rotateCredentials},
		{"leaked token revoked", w.revoke},
		{"node drained", w.drain},
		{"namespace deleted", w.deleteNamespace},
		{"doctor, healthy", w.doctorHealthy},
		{"delivery", w.measureDelivery},
		{"doctor, broken", w.doctorBroken},
		{"uninstalled", w.uninstall},
	}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func (w *world) startStandIn(t *testing.T) {
	w.apply(t, read(t, "test", "e2e", "manifests", "fake-wechat.yaml"))
	w.kubectl(t, "-n", "wechat", "rollout", "status", "deployment/fake-wechat", "--timeout=3m")
	line, _, _ := strings.Cut(w.kubectl(t, "-n", "wechat", "logs", "deployment/fake-wechat"), "\n")
	var ready struct{ CA string }
	if err := json.Unmarshal([]byte(line), &ready); err != nil || ready.CA == "" {
		t.Fatalf("the stand-in printed %q: %v", line, err)
	}
	w.ca = ready.CA
	w.table.saw("HTTPS behind a Service, with a CA of its own")
}

// values are what a user would give helm.
func (w *world) values(t *testing.T, tag string) []string {
	t.Helper()
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, []byte(w.ca), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"--set", "image.repository=" + operator, "--set", "image.tag=" + tag, "--set", "image.pullPolicy=Never",
		"--set", "wechat.endpoints={" + wechatURL + "}", "--set-file", "wechat.caBundle.inline=" + ca,
		"--set", "promptDelivery.enabled=true",
	}
}

const chartDir = root + "/charts/wechat-token-operator"

func (w *world) install(t *testing.T) {
	w.kubectl(t, "create", "namespace", operatorSpace)
	w.kubectl(t, "label", "namespace", operatorSpace, "pod-security.kubernetes.io/enforce=restricted")
	w.helm(t, append([]string{"install", operator, chartDir, "--wait", "--timeout", "3m"}, w.values(t, firstTag)...)...)
	pods := w.operatorPods(t)
	if len(pods) != 2 {
		t.Fatalf("%d pods run, want 2", len(pods))
	}
	for _, pod := range pods {
		for _, shell := range []string{"/bin/sh", "/bin/bash", "/busybox/sh"} {
			if out, err := w.command(t.Context(), nil, w.kubectlPath, "-n", operatorSpace, "exec", pod.Name, "--", shell, "-c", "true"); err == nil {
				t.Errorf("%s has %s: %s", pod.Name, shell, out)
			} else if !strings.Contains(err.Error(), "no such file") {
				t.Errorf("%s: looking for %s: %v", pod.Name, shell, err)
			}
		}
	}
	w.table.saw("2 pods under the level restricted, no shell")
}

func (w *world) operatorPods(t *testing.T) []corev1.Pod {
	t.Helper()
	var list corev1.PodList
	if err := w.List(t.Context(), &list, client.InNamespace(operatorSpace), client.MatchingLabels{"control-plane": "controller-manager"}); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// startQRCodeEarly applies the example before there is a token.
func (w *world) startQRCodeEarly(t *testing.T) {
	g := gomega.NewWithT(t)
	w.kubectl(t, "create", "namespace", shop)
	w.kubectl(t, "label", "namespace", shop, "pod-security.kubernetes.io/enforce=restricted")
	w.kubectl(t, "-n", shop, "create", "configmap", "wechat-ca", "--from-literal=ca.crt="+w.ca)
	// What a user does not have to say: where the stand-in is, and that nothing is pulled.
	manifest := strings.ReplaceAll(read(t, "examples", "qrcode", "manifests", "qrcode.yaml"), "        image: qrcode:dev\n",
		"        image: qrcode:"+firstTag+"\n        imagePullPolicy: Never\n"+
			"        args: [--wechat-url="+wechatURL+", --wechat-ca-file=/etc/wechat-ca/ca.crt]\n")
	manifest = strings.ReplaceAll(manifest, "        volumeMounts:\n",
		"        volumeMounts:\n        - {name: ca, mountPath: /etc/wechat-ca, readOnly: true}\n")
	manifest = strings.ReplaceAll(manifest, "      volumes:\n", "      volumes:\n      - {name: ca, configMap: {name: wechat-ca}}\n")
	w.apply(t, manifest)
	g.Eventually(func() string {
		return w.kubectl(t, "-n", shop, "get", "events", "--field-selector=reason=FailedMount")
	}, patience).Should(gomega.ContainSubstring(`secret "shop-token" not found`))

	start := time.Now()
	w.kubectl(t, "-n", shop, "create", "secret", "generic", "shop-wechat", "--from-literal=appSecret="+firstSecret)
	w.apply(t, read(t, "examples", "qrcode", "manifests", "token.yaml"))
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "wxtoken/shop", "--timeout=60s")
	issued := time.Since(start)
	w.kubectl(t, "-n", shop, "rollout", "status", "deployment/qrcode", "--timeout=3m")
	w.table.saw("token after %.1f s, the waiting pod Ready after %.1f s", issued.Seconds(), time.Since(start).Seconds())
}

func (w *world) openPage(t *testing.T) {
	address := "http://" + w.forward(t, shop, "service/qrcode", "80")
	want := picture(t, address+"/code?scene=table%3D12")
	if other := picture(t, address+"/code?scene=table%3D13"); shows(enlarged{want}, other) {
		t.Fatal("any picture would do")
	}
	if browser.Path() == "" {
		w.table.saw("PNG served; no browser is installed")
		return
	}
	if !shows(screenshot(t, address+"/?scene=table%3D12"), want) {
		t.Fatal("the page does not show the code (E2E_SCREENSHOT=FILE keeps what it shows)")
	}
	w.table.saw("the page shows the code of its scene")
}

func (w *world) startTokenUsers(t *testing.T) {
	w.startUsers(t, "Kubelet")
	w.startUsers(t, "Prompt")
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "pod", "-l", "app.kubernetes.io/name=token-user", "--timeout=4m")
	w.table.saw("%d pods, each using its token 10 times a second", len(w.users))
}

// leader is who leads: a pod's name, and more, which differs after a restart.
func (w *world) leader(t *testing.T) string {
	t.Helper()
	leases, err := w.typed.CoordinationV1().Leases(operatorSpace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(leases.Items) != 1 || leases.Items[0].Spec.HolderIdentity == nil {
		return ""
	}
	return *leases.Items[0].Spec.HolderIdentity
}

func (w *world) killLeader(t *testing.T) {
	g := gomega.NewWithT(t)
	old := w.leader(t)
	if old == "" {
		t.Fatal("nobody leads")
	}
	start := time.Now()
	how := w.kill(t, strings.SplitN(old, "_", 2)[0])
	w.apply(t, tokenManifests("during-the-kill", appIDOf("kill", 0), ""))
	g.Eventually(func() string { return w.leader(t) }, patience).ShouldNot(gomega.BeElementOf("", old))
	led := time.Since(start)
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "wxtoken/during-the-kill", "--timeout=60s")
	w.table.saw("%s: another leads after %.1f s, a resource made at the kill has its token after %.1f s",
		how, led.Seconds(), time.Since(start).Seconds())
	w.kubectl(t, "-n", operatorSpace, "rollout", "status", operatorRunning, "--timeout=3m")
}

// kill ends a pod of the operator. Only the node can do that without a word: a deletion of the pod without grace still sends SIGTERM.
func (w *world) kill(t *testing.T, name string) (how string) {
	t.Helper()
	if len(w.nodeExec) == 0 {
		w.kubectl(t, "-n", operatorSpace, "delete", "pod", name, "--grace-period=0", "--force")
		return "deleted by force"
	}
	pod := &corev1.Pod{}
	if err := w.Get(t.Context(), client.ObjectKey{Namespace: operatorSpace, Name: name}, pod); err != nil {
		t.Fatal(err)
	}
	container := strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://")
	args := append(slices.Clone(w.nodeExec[1:]), "ctr", "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", container)
	if _, err := w.command(t.Context(), nil, w.nodeExec[0], args...); err != nil {
		t.Fatal(err)
	}
	return "SIGKILL"
}

// restarts counts the restarts of all containers.
func (w *world) restarts(t *testing.T) (n int32) {
	t.Helper()
	var pods corev1.PodList
	if err := w.List(t.Context(), &pods); err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		for _, c := range pod.Status.ContainerStatuses {
			n += c.RestartCount
		}
	}
	return n
}

func (w *world) restartTheKubelet(t *testing.T) {
	if len(w.restartKubelet) == 0 {
		w.table.saw("not done: E2E_RESTART_KUBELET does not say how")
		return
	}
	g := gomega.NewWithT(t)
	before, start := w.restarts(t), time.Now()
	if _, err := w.command(t.Context(), nil, w.restartKubelet[0], w.restartKubelet[1:]...); err != nil {
		t.Fatal(err)
	}
	// A kubelet says anew that its node is ready when it has started.
	g.Eventually(func(g gomega.Gomega) {
		var nodes corev1.NodeList
		g.Expect(w.List(t.Context(), &nodes)).To(gomega.Succeed())
		for _, node := range nodes.Items {
			for _, c := range node.Status.Conditions {
				if c.Type == corev1.NodeReady {
					g.Expect(c.Status).To(gomega.Equal(corev1.ConditionTrue))
					g.Expect(c.LastHeartbeatTime.Time).To(gomega.BeTemporally(">", start))
				}
			}
		}
	}, patience).Should(gomega.Succeed())
	back := time.Since(start)
	w.apply(t, userManifest("after-the-restart")+tokenManifests("after-the-restart", appIDOf("restart", 0), ""))
	w.kubectl(t, "-n", shop, "wait", "--for=condition=Ready", "pod/after-the-restart", "--timeout=2m")
	w.kubectl(t, "-n", shop, "delete", "pod/after-the-restart")
	if after := w.restarts(t); after != before {
		t.Errorf("%d containers were restarted with it", after-before)
	}
	w.table.saw("the node answers after %.1f s, no container restarted, a new pod has its token", back.Seconds())
}

// runsImage waits until all pods of the operator run an image.
func (w *world) runsImage(t *testing.T, tag string) {
	t.Helper()
	w.kubectl(t, "-n", operatorSpace, "rollout", "status", operatorRunning, "--timeout=3m")
	gomega.NewWithT(t).Eventually(func(g gomega.Gomega) {
		pods := w.operatorPods(t)
		g.Expect(pods).To(gomega.HaveLen(2))
		for _, pod := range pods {
			g.Expect(pod.Spec.Containers[0].Image).To(gomega.Equal(operator + ":" + tag))
		}
	}, patience).Should(gomega.Succeed())
}

func (w *world) upgrade(t *testing.T) {
	w.helm(t, "upgrade", operator, chartDir, "--reuse-values", "--set", "image.tag="+secondTag, "--wait", "--timeout", "3m")
	w.runsImage(t, secondTag)
	w.table.saw("both pods run the second image")
}

func (w *world) rollBack(t *testing.T) {
	w.helm(t, "rollback", operator, "2", "--wait", "--timeout", "3m")
	w.runsImage(t, firstTag)
	w.table.saw("both pods run the first image")
}

// token is a WeChatAppToken of the shop.
func (w *world) token(t *testing.T, name string) *v1alpha1.WeChatAppToken {
	t.Helper()
	token := &v1alpha1.WeChatAppToken{}
	if err := w.Get(t.Context(), client.ObjectKey{Namespace: shop, Name: name}, token); err != nil {
		t.Fatal(err)
	}
	return token
}

// value is the token in a Secret of the shop.
func (w *world) value(ctx context.Context, name string) (string, error) {
	secret := &corev1.Secret{}
	err := w.Get(ctx, client.ObjectKey{Namespace: shop, Name: name}, secret)
	return string(secret.Data[v1alpha1.DefaultAccessTokenKey]), err
}
