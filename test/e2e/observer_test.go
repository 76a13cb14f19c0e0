// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// observer remembers when the API server told of each token in a Secret.
type observer struct {
	mu      sync.Mutex
	written map[string]time.Time // by fingerprint
}

func observe(t *testing.T, typed *kubernetes.Clientset) *observer {
	t.Helper()
	o := &observer{written: map[string]time.Time{}}
	factory := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithTweakListOptions(func(l *metav1.ListOptions) {
		l.LabelSelector = v1alpha1.LabelManagedBy + "=" + v1alpha1.ManagedByValue
	}))
	informer := factory.Core().V1().Secrets().Informer()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: o.note, UpdateFunc: func(_, now any) { o.note(now) },
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	factory.Start(ctx.Done())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	return o
}

func (o *observer) note(object any) {
	now := time.Now()
	secret, ok := object.(*corev1.Secret)
	if !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	fingerprint := secret.Annotations[v1alpha1.AnnotationTokenFingerprint]
	if _, known := o.written[fingerprint]; !known {
		o.written[fingerprint] = now
	}
}

func (o *observer) at(fingerprint string) (time.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	at, known := o.written[fingerprint]
	return at, known
}

// quantile is the value below which this share of the samples is.
func quantile(samples []time.Duration, share float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}
