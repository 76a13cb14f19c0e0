// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// createOperatorDeployment creates a Deployment that stands for an installed operator. No controller starts pods for it.
func (w *world) createOperatorDeployment(name, image string, ready, want int32, args ...string) *appsv1.Deployment {
	w.Helper()
	labels := map[string]string{nameLabel: operatorName}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &want,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "manager", Image: image, Args: args}}},
			},
		},
	}
	w.must(w.Create(w.Context(), d))
	d.Status = appsv1.DeploymentStatus{Replicas: want, UpdatedReplicas: want, ReadyReplicas: ready}
	w.must(w.Client.Status().Update(w.Context(), d))
	return d
}

func (w *world) createLease(name, holder string, renewed time.Time) {
	w.Helper()
	at := metav1.NewMicroTime(renewed)
	w.must(w.Create(w.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &at},
	}))
}

// createPod creates two pods, as the replicas of a Deployment, which run.
func (w *world) createPod(deployment string, spec corev1.PodSpec) {
	w.Helper()
	yes := true
	for _, suffix := range []string{"a", "b"} {
		name := deployment + "-7d9f-" + suffix
		w.must(w.Create(w.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: w.namespace, Name: name, Labels: map[string]string{"pod-template-hash": "7d9f"},
				OwnerReferences: []metav1.OwnerReference{{
					APIVersion: "apps/v1", Kind: "ReplicaSet", Name: deployment + "-7d9f", UID: "1", Controller: &yes,
				}},
			},
			Spec: spec,
		}))
		w.setPodState(name, corev1.PodRunning, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
	}
}

// setPodState sets the phase of a pod and the state of its container, in the place of a kubelet.
func (w *world) setPodState(name string, phase corev1.PodPhase, state corev1.ContainerState) {
	w.Helper()
	p := &corev1.Pod{}
	w.must(w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, p))
	p.Status = podStatus(phase, state)
	w.must(w.Client.Status().Update(w.Context(), p))
}

// podStatus returns the status of a pod whose only container is called app.
func podStatus(phase corev1.PodPhase, state corev1.ContainerState) corev1.PodStatus {
	return corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{Name: "app", State: state}}}
}

func waiting(reason string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
}

func secretVolume(secret string) []corev1.Volume {
	return []corev1.Volume{{Name: "wechat", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}}
}

func container(mutate func(*corev1.Container)) []corev1.Container {
	c := corev1.Container{Name: "app", Image: "example.com/app"}
	mutate(&c)
	return []corev1.Container{c}
}

func mount(subPath string) func(*corev1.Container) {
	return func(c *corev1.Container) {
		c.VolumeMounts = []corev1.VolumeMount{{Name: "wechat", MountPath: "/var/run/wechat", SubPath: subPath}}
	}
}

// createPods creates a workload for each way to use a token.
func (w *world) createPods() {
	w.Helper()
	ref := corev1.LocalObjectReference{Name: "shop-token"}
	good := corev1.PodSpec{Volumes: secretVolume("shop-token"), Containers: container(mount(""))}
	w.createPod("good", good)
	w.createPod("ill", good)
	w.setPodState("ill-7d9f-a", corev1.PodPending, waiting("ErrImagePull"))
	w.createPod("sub-path", corev1.PodSpec{Volumes: secretVolume("shop-token"), Containers: container(mount("access_token"))})
	w.createPod("elsewhere", corev1.PodSpec{Volumes: secretVolume("another"), Containers: container(mount("access_token"))})
	w.createPod("projected", corev1.PodSpec{
		Volumes: []corev1.Volume{{Name: "wechat", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: ref}}},
		}}}},
		Containers: container(mount("access_token")),
	})
	w.createPod("variable", corev1.PodSpec{Containers: container(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "WECHAT_TOKEN", ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref, Key: "access_token"},
		}}}
	})})
	w.createPod("variables", corev1.PodSpec{Containers: container(func(c *corev1.Container) {
		c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref}}}
	})})
}

// TestDoctor follows doctor through several states. It is one test, because doctor looks for Deployments and Leases in the whole cluster.
func TestDoctor(t *testing.T) {
	w := newBareWorld(t, "doctor")
	stop := w.startOperator()
	w.createToken("shop")
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)

	w.golden("doctor-alone.txt", w.ok("doctor"))

	d := w.createOperatorDeployment("operator", "example.com/wechat-token-operator:v0.1.0", 2, 2, "--leader-elect", "--namespaces="+w.namespace)
	w.createLease(operatorName+"-00000000", "operator-a", time.Now())
	gateway := w.createOperatorDeployment("gateway", "example.com/wechat-token-operator:v0.1.0", 2, 2)
	gateway.Labels["control-plane"] = "gateway" // which serves calls, and no resources
	w.must(w.Update(w.Context(), gateway))
	w.golden("doctor-well.txt", w.ok("doctor"))

	// A Lease of other flags is left over, with the holder that it had or without.
	for name, holder := range map[string]string{"-88888888": "", "-99999999": "operator-a"} {
		w.createLease(operatorName+name, holder, time.Now().Add(-time.Hour))
		w.wants(w.wxtoken("doctor"), exitOK, "It is left over from other flags:", "kubectl delete lease "+operatorName+name+" -n "+w.namespace)
		w.must(w.Delete(w.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: operatorName + name}}))
	}

	w.makeIll()
	r := w.wxtoken("doctor")
	w.wants(r, exitBad, "error: doctor found")
	w.golden("doctor-ill.txt", r.out)

	// No operator runs any more.
	stop()
	zero := int32(0)
	d.Spec.Replicas = &zero
	w.must(w.Update(w.Context(), d))
	w.createLease(operatorName+"-11111111", "", time.Now())
	w.createLease(operatorName+"-22222222", "operator-b", time.Now().Add(-10*time.Minute))
	w.createTokenOnly("unseen")
	at := w.token("shop").Status.Token.ExpirationTime.Add(time.Hour)
	w.now = func() time.Time { return at }
	w.wants(w.wxtoken("doctor"), exitBad,
		"is scaled to 0 replicas", "→ kubectl scale deployment operator -n "+w.namespace+" --replicas=2\n",
		"nobody leads", "operator-b no longer leads",
		w.namespace+"/shop: its token expired 60m ago and the status was not updated",
		w.namespace+"/unseen: no operator has seen it since")

	w.viewerSees()
}

// TestLastRefusal checks that doctor learns of an address that WeChat refuses for a ticket alone.
func TestLastRefusal(t *testing.T) {
	r := &v1alpha1.WeChatAppToken{}
	r.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionRefreshFailing, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonIPNotAllowed,
		Message: v1alpha1.TicketPrefix(v1alpha1.TicketJSAPI) + "WeChat does not allow calls from 203.0.113.9",
	}}
	x := &examination{tokens: []look{lookAt(r, time.Now())}, told: map[string]bool{}}
	found := &report{}
	if err := x.checkAddresses(t.Context(), found); err != nil || len(found.findings) != 1 ||
		found.findings[0].level != levelError || !strings.Contains(found.findings[0].text, "203.0.113.9") {
		t.Errorf("%v, %+v", err, found.findings)
	}
	r.Status.Conditions[0].Message = "WeChat does not allow calls from 203.0.113.9" // of the token, which lastError tells
	if reason, _ := lookAt(r, time.Now()).lastRefusal(); reason != "" {
		t.Errorf("without lastError: %s", reason)
	}
}

// TestDoctorMayNotLook checks that doctor does not say that there is no operator if it was not allowed to look for one.
func TestDoctorMayNotLook(t *testing.T) {
	w := newBareWorld(t, "doctor-may-not")
	w.grant("doctor-may-not", "view-wxtoken", rule(v1alpha1.GroupName, "wechatapptokens", "get", "list"))
	r := w.wxtoken("doctor", "--as", "doctor-may-not")
	w.wants(r, exitOK, "not looked at: could not list Deployments of all namespaces", "not looked at: could not list Leases of all namespaces")
	if strings.Contains(r.out, "was found") {
		t.Errorf("doctor did not look, and says:\n%s", r.out)
	}
}

// TestDeliveryDegraded checks that doctor and status report prompt delivery that does not work, and what it lacks, while the token is
// in order.
func TestDeliveryDegraded(t *testing.T) {
	w := newWorld(t, "delivery")
	w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Delivery = v1alpha1.DeliveryPrompt })
	w.eventuallyState("shop", stateReady, v1alpha1.ReasonTokenValid)
	// The exit code is not checked, because it depends on the Deployments of other tests.
	if r := w.wxtoken("doctor"); !strings.Contains(r.out, "! "+w.namespace+"/shop: pods are not told of a new token at once:") {
		t.Errorf("doctor says nothing:\n%s", r.out)
	}
	w.wants(w.wxtoken("status", "shop"), exitOK, "Ready: TokenValid", "delivery      prompt; degraded: PromptDeliveryDisabled",
		"- Pods are not told of a new token at once: the operator runs without", "promptDelivery.enabled")
}

// makeIll creates everything that doctor finds, except an operator that is gone.
func (w *world) makeIll() {
	w.Helper()
	ill, other := "wx00000000000000ip", "wx0000000000legacy"
	w.wechat.SetApp(wechattest.App{ID: ill, Secret: appSecret, AllowedIPs: []string{"203.0.113.7"}})
	w.wechat.SetApp(wechattest.App{ID: other, Secret: appSecret})
	w.createToken("address", func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = ill })
	w.createTokenOnly("missing")
	w.createSecret("malformed-wechat", map[string]string{"appSecret": "paste me"})
	w.createTokenOnly("malformed")
	w.createToken("paused", func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = true })
	legacy := func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode, t.Spec.AppID = v1alpha1.ModeLegacy, other }
	w.createToken("legacy-a", legacy)
	w.createSecret("legacy-b-wechat", map[string]string{"appSecret": strings.Repeat("e", 32)})
	w.createTokenOnly("legacy-b", legacy)
	w.createOperatorDeployment("second", "example.com/wechat-token-operator:latest", 1, 2, "--namespaces", w.namespace, "--watch-label-selector=shard=b")
	w.createOperatorDeployment("third", "example.com/wechat-token-operator@sha256:"+strings.Repeat("0", 64), 0, 1, "--namespaces=elsewhere")
	w.createPods()
	w.eventuallyState("address", stateStalled, v1alpha1.ReasonIPNotAllowed)
	w.eventuallyState("malformed", stateStalled, v1alpha1.ReasonCredentialsMalformed)
	w.eventuallyState("missing", stateReconciling, v1alpha1.ReasonCredentialsNotFound)
	w.eventuallyState("paused", stateSuspended, v1alpha1.ReasonTokenNotIssued)
	w.eventuallyState("legacy-a", stateReady, v1alpha1.ReasonTokenValid)
	w.eventuallyState("legacy-b", stateStalled, v1alpha1.ReasonAppSecretInvalid)
}

// viewerSees checks that doctor says what a user with few rights cannot see.
func (w *world) viewerSees() {
	w.Helper()
	w.grant("doctor-viewer", "view-wxtoken", rule(v1alpha1.GroupName, "wechatapptokens", "get", "list"))
	r := w.wxtoken("doctor", "--as", "doctor-viewer")
	w.wants(r, exitBad,
		"not looked at: could not list Deployments of all namespaces", "not looked at: could not list Leases of all namespaces",
		"not looked at: could not read credentials Secret "+w.namespace+"/shop-wechat", "not looked at: could not list pods of namespace")
	if strings.Contains(r.out, "was found") {
		w.Errorf("doctor did not look for an operator, and says:\n%s", r.out)
	}
}
