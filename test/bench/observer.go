// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// observer sees what a reader of the cluster sees, and when: which token each target Secret holds, and which resources
// are Ready. It costs two watches, the same for the operator and the plain loop.
type observer struct {
	mu     sync.Mutex
	tokens map[types.NamespacedName][]sighting
	ready  map[types.NamespacedName]time.Time
	uids   map[types.NamespacedName]types.UID
	failed error
	stop   func()
}

// sighting: from this time on the Secret held the token of this fingerprint.
type sighting struct {
	at          time.Time
	fingerprint string
}

func (s *stage) observe(ctx context.Context) (*observer, error) {
	ctx, cancel := context.WithCancel(ctx)
	o := &observer{
		tokens: map[types.NamespacedName][]sighting{}, ready: map[types.NamespacedName]time.Time{}, uids: map[types.NamespacedName]types.UID{},
	}
	metas, err := metadata.NewForConfig(s.rest)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connecting for metadata: %w", err)
	}
	secrets := func(ctx context.Context) (watch.Interface, error) {
		return metas.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Watch(ctx,
			metav1.ListOptions{LabelSelector: v1alpha1.LabelManagedBy})
	}
	resources := func(ctx context.Context) (watch.Interface, error) {
		return s.client.Watch(ctx, &v1alpha1.WeChatAppTokenList{})
	}
	var running sync.WaitGroup
	running.Go(func() { o.follow(ctx, secrets, o.secret) })
	running.Go(func() { o.follow(ctx, resources, o.resource) })
	o.stop = func() { cancel(); running.Wait() }
	return o, nil
}

// follow watches until the context ends. The API server ends watches now and then, for a CRD soon after its creation; the
// next one begins with all that there is, and what was seen before keeps its time.
func (o *observer) follow(ctx context.Context, begin func(context.Context) (watch.Interface, error), note func(watch.Event, time.Time)) {
	for ctx.Err() == nil {
		w, err := begin(ctx)
		if err != nil {
			o.fail(ctx, err)
			return
		}
		for e := range w.ResultChan() {
			note(e, time.Now())
		}
		w.Stop()
	}
}

func (o *observer) fail(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = fmt.Errorf("watching the API server: %w", err)
}

func (o *observer) secret(e watch.Event, now time.Time) {
	meta, ok := e.Object.(*metav1.PartialObjectMetadata)
	if !ok || e.Type == watch.Deleted {
		return
	}
	name, fingerprint := client.ObjectKeyFromObject(meta), meta.Annotations[v1alpha1.AnnotationTokenFingerprint]
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := o.tokens[name]
	if len(seen) == 0 || seen[len(seen)-1].fingerprint != fingerprint {
		o.tokens[name] = append(seen, sighting{at: now, fingerprint: fingerprint})
	}
}

func (o *observer) resource(e watch.Event, now time.Time) {
	token, ok := e.Object.(*v1alpha1.WeChatAppToken)
	if !ok || e.Type == watch.Deleted {
		return
	}
	name := client.ObjectKeyFromObject(token)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.uids[name] = token.UID
	if !apimeta.IsStatusConditionTrue(token.Status.Conditions, v1alpha1.ConditionReady) {
		delete(o.ready, name)
	} else if _, known := o.ready[name]; !known {
		o.ready[name] = now
	}
}

// until waits for something to be true of what was seen.
func (o *observer) until(ctx context.Context, p *process, within time.Duration, what string, done func() bool) error {
	deadline := time.Now().Add(within)
	for {
		o.mu.Lock()
		ok, failed := done(), o.failed
		have := fmt.Sprintf("%d Secrets with a token, %d resources Ready", len(o.tokens), len(o.ready))
		o.mu.Unlock()
		switch {
		case failed != nil:
			return failed
		case ok:
			return nil
		case time.Now().After(deadline):
			return errors.Join(fmt.Errorf("waited %s in vain until %s: %s", within, what, have), p.tail())
		}
		select {
		case err := <-p.exited:
			p.exited <- err
			return errors.Join(fmt.Errorf("%s ended: %w", p.name, err), p.tail())
		default:
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// untilReady waits for n resources that are Ready and as many Secrets with a token.
func (o *observer) untilReady(ctx context.Context, p *process, n int, within time.Duration) error {
	return o.until(ctx, p, within, fmt.Sprintf("%d resources are Ready", n), func() bool {
		return len(o.ready) >= n && len(o.tokens) >= n
	})
}

// firstTokens are the times of the first token of each Secret since a time, in order.
func (o *observer) firstTokens(since time.Time) []time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]time.Time, 0, len(o.tokens))
	for _, seen := range o.tokens {
		if !seen[0].at.Before(since) {
			out = append(out, seen[0].at)
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

// writtenSince counts the tokens that came into a Secret since a time.
func (o *observer) writtenSince(since time.Time) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, seen := range o.tokens {
		for _, s := range seen {
			if !s.at.Before(since) {
				n++
			}
		}
	}
	return n
}

// lastReady is when the last resource became Ready.
func (o *observer) lastReady() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	var last time.Time
	for _, at := range o.ready {
		if at.After(last) {
			last = at
		}
	}
	return last
}

// writtenAt tells when a Secret first held this token; false for never.
func (o *observer) writtenAt(name types.NamespacedName, fingerprint string) (time.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, seen := range o.tokens[name] {
		if seen.fingerprint == fingerprint {
			return seen.at, true
		}
	}
	return time.Time{}, false
}

func (o *observer) uid(name types.NamespacedName) types.UID {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.uids[name]
}
