// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// TestNotRunning checks that a pod counts as running only if its container runs and none of it waits, with kubectl's reason otherwise.
func TestNotRunning(t *testing.T) {
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	ended := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}
	beside := func(s corev1.PodStatus, name string, state corev1.ContainerState) corev1.PodStatus {
		s.ContainerStatuses = append(s.ContainerStatuses, corev1.ContainerStatus{Name: name, State: state})
		return s
	}
	after := func(s corev1.PodStatus, init corev1.ContainerState) corev1.PodStatus {
		s.InitContainerStatuses = []corev1.ContainerStatus{{Name: "init", State: init}}
		return s
	}
	for name, test := range map[string]struct {
		pod  corev1.PodStatus
		want string
	}{
		"it runs":                           {podStatus(corev1.PodRunning, runs), ""},
		"an image that cannot be pulled":    {podStatus(corev1.PodPending, waiting("ErrImagePull")), "ErrImagePull"},
		"a container that crashes":          {podStatus(corev1.PodRunning, waiting("CrashLoopBackOff")), "CrashLoopBackOff"},
		"a container that waits, unnamed":   {podStatus(corev1.PodRunning, waiting("")), "Waiting"},
		"a container that ended":            {podStatus(corev1.PodRunning, ended), "Completed"},
		"another container that ended":      {beside(podStatus(corev1.PodRunning, runs), "helper", ended), ""},
		"another container that waits":      {beside(podStatus(corev1.PodRunning, runs), "helper", waiting("ErrImagePull")), "ErrImagePull"},
		"an init container that ended":      {after(podStatus(corev1.PodRunning, runs), ended), ""},
		"an init container that crashes":    {after(podStatus(corev1.PodPending, waiting("PodInitializing")), waiting("CrashLoopBackOff")), "CrashLoopBackOff"},
		"an init container that runs":       {after(podStatus(corev1.PodPending, waiting("PodInitializing")), runs), "PodInitializing"},
		"no kubelet has seen it":            {corev1.PodStatus{Phase: corev1.PodPending}, "Pending"},
		"nothing is known":                  {corev1.PodStatus{}, "Pending"},
		"a node that does not answer":       {podStatus(corev1.PodUnknown, runs), "Unknown"},
		"no node has room":                  {corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "False", Reason: "Unschedulable"}}}, "Unschedulable"},
		"it has a node, but no kubelet yet": {corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "True", Reason: "x"}}}, "Pending"},
	} {
		if got := notRunning(&test.pod, "app"); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestPodsLink checks that only pods that run get a check mark.
func TestPodsLink(t *testing.T) {
	good := users{use: use{text: "mounts"}, names: []string{"a", "b"}}
	pulling := users{use: use{text: "mounts", notRunning: "ErrImagePull"}, names: []string{"c"}}
	crashing := users{use: use{text: "mounts", notRunning: "CrashLoopBackOff"}, names: []string{"d", "e"}}
	blind := users{use: use{text: "mounts by subPath", next: adviceSubPath, notRunning: "ErrImagePull"}, names: []string{"f"}}
	degraded := &metav1.Condition{Reason: v1alpha1.ReasonPodsForbidden}
	for name, test := range map[string]struct {
		pods     []users
		degraded *metav1.Condition
		level    level
		text     string
	}{
		"all run":     {[]users{good}, nil, levelOK, "2 pods with the Secret as a volume"},
		"none runs":   {[]users{pulling}, nil, levelWarning, "0 running pods with the Secret as a volume; 1 not running (ErrImagePull)"},
		"some run":    {[]users{good, pulling, crashing}, nil, levelWarning, "2 running pods with the Secret as a volume; 3 not running (CrashLoopBackOff, ErrImagePull)"},
		"a blind one": {[]users{good, blind}, nil, levelError, "1 of 3 pods will never see a new token; 1 not running (ErrImagePull)"},
		"degraded":    {[]users{good, pulling}, degraded, levelWarning, "2 running pods with the Secret, not told of a new token at once: PodsForbidden; 1 not running (ErrImagePull)"},
	} {
		s := story{look: lookAt(&v1alpha1.WeChatAppToken{}, time.Time{}), pods: test.pods}
		s.degraded = test.degraded
		if got, want := s.podsLink(), (link{linkPods, test.level, test.text}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// TestNextRefreshIsDue checks what the link to WeChat says about the next refresh around the time when it is due.
func TestNextRefreshIsDue(t *testing.T) {
	issued := time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)
	due := 2*time.Hour - 290*time.Second
	well := tokenAt("shop", "aa", issued)
	ill := failing(well, "no answer")
	ill.Status.LastError = &v1alpha1.RefreshError{RetryTime: &metav1.Time{Time: issued.Add(due)}}
	for name, test := range map[string]struct {
		token v1alpha1.WeChatAppToken
		late  time.Duration
		level level
		text  string
	}{
		"before":                    {well, -2 * time.Second, levelOK, "issued the token 115m ago, next refresh in 2s"},
		"less than a second before": {well, -time.Millisecond, levelOK, "issued the token 115m ago, next refresh due now"},
		"a second late":             {well, time.Second, levelOK, "issued the token 115m ago, next refresh due now"},
		"late":                      {well, lateness, levelWarning, "issued the token 115m ago, next refresh was due 15s ago"},
		"overdue":                   {well, overdueAfter + time.Second, levelError, "not asked: no operator looks after this resource"},
		"a retry, a second late":    {ill, time.Second, levelWarning, "Unreachable, next attempt due now"},
		"a retry, late":             {ill, overdueAfter + time.Second, levelWarning, "Unreachable, next attempt was due 61s ago"},
	} {
		s := story{look: lookAt(&test.token, issued.Add(due+test.late))}
		if got, want := s.weChatLink(), (link{linkWeChat, test.level, test.text}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
