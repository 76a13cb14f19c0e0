// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// samplesDir, if set, receives one resource of each kind of status, for the tests of config/argocd.
const samplesDir = "STATUS_SAMPLES"

// observer watches every status that the tests of this package bring about, and judges it as GitOps tools do.
type observer struct {
	stop func()

	mu         sync.Mutex
	seen       int
	violations []string
	samples    map[string]*v1alpha1.WeChatAppToken
}

func observeStatuses(ctx context.Context) (*observer, error) {
	c, err := client.NewWithWatch(env.Config, client.Options{Scheme: scheme()})
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	events, err := c.Watch(ctx, &v1alpha1.WeChatAppTokenList{})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("watching statuses: %w", err)
	}
	o := &observer{samples: map[string]*v1alpha1.WeChatAppToken{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range events.ResultChan() {
			if t, ok := e.Object.(*v1alpha1.WeChatAppToken); ok && e.Type != watch.Deleted {
				o.judge(t)
			}
		}
	}()
	o.stop = func() { cancel(); <-done }
	return o, nil
}

// finish tells what was wrong.
func (o *observer) finish() error {
	o.stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	if dir := os.Getenv(samplesDir); dir != "" {
		for name, t := range o.samples {
			raw, err := yaml.Marshal(t)
			if err != nil {
				return fmt.Errorf("encoding a sample: %w", err)
			}
			if err := os.WriteFile(filepath.Join(dir, name+".yaml"), raw, 0o600); err != nil {
				return fmt.Errorf("writing a sample: %w", err)
			}
		}
	}
	if len(o.violations) > 0 {
		return fmt.Errorf("%d of %d statuses break the rules of kstatus, among them:\n%s",
			len(o.violations), o.seen, strings.Join(o.violations[:min(len(o.violations), 10)], "\n"))
	}
	return nil
}

func (o *observer) judge(t *v1alpha1.WeChatAppToken) {
	problems := statusProblems(t)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen++
	for _, p := range problems {
		o.violations = append(o.violations, fmt.Sprintf("%s/%s: %s: %v", t.Namespace, t.Name, p, t.Status.Conditions))
	}
	kinds := make([]string, 0, len(t.Status.Conditions))
	for _, c := range t.Status.Conditions {
		kinds = append(kinds, c.Type+string(c.Status)+c.Reason)
	}
	slices.Sort(kinds)
	if t.Spec.Suspend {
		kinds = append(kinds, "Suspended")
	}
	if name := strings.Join(kinds, "-"); o.samples[name] == nil {
		sample := t.DeepCopy()
		sample.ManagedFields = nil
		sample.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
		o.samples[name] = sample
	}
}

// statusProblems are the rules of the API's conditions and kstatus that a resource breaks.
func statusProblems(t *v1alpha1.WeChatAppToken) []string {
	var out []string
	rule := func(holds bool, text string, args ...any) {
		if !holds {
			out = append(out, fmt.Sprintf(text, args...))
		}
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(t)
	if err != nil {
		return []string{err.Error()}
	}
	result, err := status.Compute(&unstructured.Unstructured{Object: object})
	if err != nil {
		return []string{err.Error()}
	}
	judged := t.DeletionTimestamp == nil && t.Status.ObservedGeneration == t.Generation
	rule(t.Status.ObservedGeneration <= t.Generation, "it observed a generation that does not exist yet")
	if len(t.Status.Conditions) == 0 {
		rule(result.Status != status.CurrentStatus, "without a condition kstatus says Current")
		return out
	}
	is := func(kind string) bool { return apimeta.IsStatusConditionTrue(t.Status.Conditions, kind) }
	rule(apimeta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionReady) != nil, "there is no Ready")
	for _, c := range t.Status.Conditions {
		rule(c.Type == v1alpha1.ConditionReady || c.Status == metav1.ConditionTrue, "%s is present without being True", c.Type)
		rule(c.ObservedGeneration == t.Status.ObservedGeneration, "%s is about another generation", c.Type)
		rule(c.Message != "", "%s has no message", c.Type)
	}
	ready, stalled, reconciling := is(v1alpha1.ConditionReady), is(v1alpha1.ConditionStalled), is(v1alpha1.ConditionReconciling)
	rule(!stalled || !ready, "it is Ready and Stalled")
	rule(!reconciling || !ready, "it is Ready and Reconciling")
	rule(!stalled || !reconciling, "it is Reconciling and Stalled")
	if judged {
		rule(ready || stalled || reconciling || t.Spec.Suspend, "it is not Ready, and nothing says whether somebody must act")
		want := status.InProgressStatus
		switch {
		case ready:
			want = status.CurrentStatus
		case stalled:
			want = status.FailedStatus
		}
		rule(result.Status == want, "kstatus says %s instead of %s", result.Status, want)
	}
	return out
}
