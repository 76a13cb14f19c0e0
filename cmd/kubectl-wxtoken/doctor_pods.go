// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
)

// podsAtOnce is the page size of a list of pods, which keeps the answers of large clusters small.
const podsAtOnce = 500

const (
	adviceEnv     = "Mount the Secret as a volume and read the file: a variable never changes while the container runs."
	adviceSubPath = "Mount the whole volume, without subPath: a subPath mount is never updated."
)

// checkPods reports pods that use a target Secret in a way that never shows them a new token, and those that do not run.
func (x *examination) checkPods(ctx context.Context, r *report) error {
	seen := map[string]bool{}
	running, blind := 0, false
	once := func(l level, next, text string) {
		if !seen[text] {
			seen[text] = true
			r.add(l, next, "%s", text)
		}
	}
	for _, namespace := range x.namespaces() {
		targets := map[string]bool{}
		for _, t := range x.tokens {
			if t.Namespace == namespace {
				targets[t.TargetName()] = true
			}
		}
		err := x.cluster.eachPod(ctx, namespace, func(p *corev1.Pod) {
			uses := usesOf(p, targets)
			if allRun(uses) {
				running++
			}
			for _, u := range uses {
				switch {
				case u.next != "":
					blind = true
					once(levelError, u.next, fmt.Sprintf("%s/%s: %s", namespace, workload(p), u.text))
				case u.notRunning != "":
					once(levelWarning, fmt.Sprintf("This shows why:\nkubectl describe pod %s -n %s", p.Name, namespace),
						fmt.Sprintf("%s/%s: not running (%s), so it sees no token", namespace, workload(p), u.notRunning))
				}
			}
		})
		if err != nil && ctx.Err() != nil {
			return err
		} else if err != nil {
			r.gap(explain(err, fmt.Sprintf("list pods of namespace %q", namespace)))
		}
	}
	switch {
	case blind:
	case running > 0:
		r.add(levelOK, "", "running pods that mount a token: %d; each of them sees a new one", running)
	case len(seen) == 0:
		r.add(levelNote, "", "no pod uses a token")
	}
	return nil
}

// eachPod visits the pods of a namespace that have not ended.
func (c *cluster) eachPod(ctx context.Context, namespace string, visit func(*corev1.Pod)) error {
	for next := ""; ; {
		l := &corev1.PodList{}
		if err := c.List(ctx, l, client.InNamespace(namespace), client.Limit(podsAtOnce), client.Continue(next)); err != nil {
			return err
		}
		for i := range l.Items {
			if p := &l.Items[i]; p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
				visit(p)
			}
		}
		if next = l.Continue; next == "" {
			return nil
		}
	}
}

// use is one way in which a container gets a token. If the container never sees a new token this way, next says what to do. notRunning is
// the reason for which the container does not run, and empty if it runs.
type use struct{ text, next, notRunning string }

// allRun reports whether there are uses, and all of their containers run.
func allRun(uses []use) bool {
	return len(uses) > 0 && !slices.ContainsFunc(uses, func(u use) bool { return u.notRunning != "" })
}

func usesOf(p *corev1.Pod, targets map[string]bool) []use {
	volumes := delivery.Volumes(&p.Spec, func(secret string) bool { return targets[secret] })
	containers := delivery.Lasting(&p.Spec)
	out := make([]use, 0, len(containers))
	for i := range containers {
		for _, u := range usesOfContainer(&containers[i], targets, volumes) {
			u.notRunning = clean(notRunning(&p.Status, containers[i].Name))
			out = append(out, u)
		}
	}
	return out
}

// notRunning returns the reason for which a container of a pod does not run, as kubectl get pods shows it. It returns an empty string if
// the container runs and none of the pod waits.
func notRunning(pod *corev1.PodStatus, container string) string {
	for _, c := range slices.Concat(pod.InitContainerStatuses, pod.ContainerStatuses) {
		switch s := c.State; {
		case s.Waiting != nil:
			return cmp.Or(s.Waiting.Reason, "Waiting")
		case s.Terminated != nil && c.Name == container:
			return cmp.Or(s.Terminated.Reason, "Terminated")
		}
	}
	if pod.Phase == corev1.PodRunning {
		return ""
	}
	for _, c := range pod.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason != "" {
			return c.Reason
		}
	}
	return cmp.Or(string(pod.Phase), string(corev1.PodPending))
}

func usesOfContainer(c *corev1.Container, targets map[string]bool, volumes map[string]string) []use {
	out := make([]use, 0, len(c.VolumeMounts))
	for _, e := range c.EnvFrom {
		if s := e.SecretRef; s != nil && targets[s.Name] {
			out = append(out, use{text: fmt.Sprintf("container %q has Secret %q in its environment (envFrom)", c.Name, s.Name), next: adviceEnv})
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil && targets[e.ValueFrom.SecretKeyRef.Name] {
			out = append(out, use{
				text: fmt.Sprintf("container %q has Secret %q in its environment (%s)", c.Name, e.ValueFrom.SecretKeyRef.Name, e.Name), next: adviceEnv,
			})
		}
	}
	for _, m := range c.VolumeMounts {
		secret, mounted := volumes[m.Name]
		switch {
		case mounted && !delivery.Follows(m):
			out = append(out, use{text: fmt.Sprintf("container %q mounts Secret %q by subPath", c.Name, secret), next: adviceSubPath})
		case mounted:
			out = append(out, use{text: fmt.Sprintf("container %q mounts Secret %q", c.Name, secret)})
		}
	}
	return out
}

// workload returns the name of the controller that made a pod, so that a finding is reported once for all replicas.
func workload(p *corev1.Pod) string {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return "Pod " + p.Name
	}
	if hash := p.Labels["pod-template-hash"]; owner.Kind == "ReplicaSet" && hash != "" {
		return "Deployment " + strings.TrimSuffix(owner.Name, "-"+hash)
	}
	return owner.Kind + " " + owner.Name
}
