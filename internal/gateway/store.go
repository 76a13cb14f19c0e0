// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const (
	// gatherFor is how long a change waits for others, and gatherMost how long at most. Where building takes long, changes wait for four
	// times as long, so that it takes no more than a fifth of one CPU.
	gatherFor  = 50 * time.Millisecond
	gatherMost = time.Second
	gatherMore = 4
)

// StoreOptions are what a Store works with.
type StoreOptions struct {
	// Objects has the informers that ObjectCache describes, and Credentials those of CredentialsCache.
	Objects, Credentials cache.Informers
}

// Store keeps the policy that follows from the API server's objects. It goes on with the last one while that is away. It is a Source, and
// a Runnable of a manager.
type Store struct {
	StoreOptions

	mu sync.Mutex
	// in has the objects. The maps are changed under the mutex; the objects are the cache's, and nobody changes them.
	in Inputs
	// last built the current policy.
	last *builder
	// changed has a value when something changed that no policy has yet.
	changed chan struct{}
	current atomic.Pointer[snapshot]
}

// snapshot is a policy, and a channel that is closed when another one takes its place.
type snapshot struct {
	policy   *Policy
	replaced chan struct{}
}

// NewStore returns a Store that allows nothing until Start has seen all objects.
func NewStore(o StoreOptions) *Store {
	s := &Store{
		StoreOptions: o,
		in: Inputs{
			Clients:     map[types.NamespacedName]*v1alpha1.WeChatAppClient{},
			Tokens:      map[types.NamespacedName]*v1alpha1.WeChatAppToken{},
			Managed:     map[types.NamespacedName]*corev1.Secret{},
			Credentials: map[types.NamespacedName]*corev1.Secret{},
		},
		changed: make(chan struct{}, 1),
	}
	s.current.Store(&snapshot{policy: &Policy{}, replaced: make(chan struct{})})
	return s
}

// Policy implements Source.
func (s *Store) Policy() (current *Policy, replaced <-chan struct{}) {
	now := s.current.Load()
	return now.policy, now.replaced
}

// Ready reports whether the caches were filled and the policy that follows is in force.
func (s *Store) Ready() bool { return s.current.Load().policy.isKnown() }

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica serves.
func (*Store) NeedLeaderElection() bool { return false }

// Start watches the objects until ctx ends. It waits for the caches for as long as it takes.
func (s *Store) Start(ctx context.Context) error {
	synced, err := s.watch(ctx)
	if err != nil {
		return err
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	for {
		pause := min(max(gatherFor, gatherMore*s.publish()), gatherMost)
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// publish builds a policy and puts it in force. It returns how long that took.
func (s *Store) publish() time.Duration {
	started := time.Now()
	select {
	case <-s.changed: // this one has it
	default:
	}
	s.mu.Lock()
	s.last = build(s.in, s.last)
	policy := s.last.policy()
	s.mu.Unlock()
	before := s.current.Swap(&snapshot{policy: policy, replaced: make(chan struct{})})
	close(before.replaced)
	return time.Since(started)
}

// watch registers with the informers, and returns what reports that the first objects are there.
func (s *Store) watch(ctx context.Context) ([]toolscache.InformerSynced, error) {
	var synced []toolscache.InformerSynced
	var failed error
	add := func(from cache.Informers, kind client.Object, handler toolscache.ResourceEventHandler) {
		informer, err := from.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("watching %T: %w", kind, err))
			return
		}
		registration, err := informer.AddEventHandler(handler)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("watching %T: %w", kind, err))
			return
		}
		synced = append(synced, registration.HasSynced)
	}
	add(s.Objects, &v1alpha1.WeChatAppClient{}, handlerFor(s, s.in.Clients, clientDiffers))
	add(s.Objects, &v1alpha1.WeChatAppToken{}, handlerFor(s, s.in.Tokens, specDiffers))
	add(s.Objects, &corev1.Secret{}, handlerFor(s, s.in.Managed, secretDiffers))
	add(s.Credentials, &corev1.Secret{}, handlerFor(s, s.in.Credentials, secretDiffers))
	return synced, failed
}

// handlerFor returns a handler that keeps a map of a Store up to date, and that asks for another policy if that makes a difference.
func handlerFor[T client.Object](
	s *Store, objects map[types.NamespacedName]T, differs func(was, is T) bool,
) toolscache.ResourceEventHandler {
	set := func(o any) {
		is, ok := o.(T)
		if !ok {
			return
		}
		name := client.ObjectKeyFromObject(is)
		s.mu.Lock()
		was, known := objects[name]
		objects[name] = is
		s.mu.Unlock()
		if !known || differs(was, is) {
			s.touch()
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    set,
		UpdateFunc: func(_, is any) { set(is) },
		DeleteFunc: func(o any) {
			if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			was, ok := o.(T)
			if !ok {
				return
			}
			s.mu.Lock()
			delete(objects, client.ObjectKeyFromObject(was))
			s.mu.Unlock()
			s.touch()
		},
	}
}

// touch asks for another policy.
func (s *Store) touch() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// specDiffers leaves out the writes of a status.
func specDiffers[T client.Object](was, is T) bool {
	return was.GetUID() != is.GetUID() || was.GetGeneration() != is.GetGeneration() ||
		(was.GetDeletionTimestamp() == nil) != (is.GetDeletionTimestamp() == nil)
}

func clientDiffers(was, is *v1alpha1.WeChatAppClient) bool {
	return specDiffers(was, is) || !equality.Semantic.DeepEqual(was.Status.Key, is.Status.Key)
}

func secretDiffers(was, is *corev1.Secret) bool {
	return was.UID != is.UID || (was.DeletionTimestamp == nil) != (is.DeletionTimestamp == nil) || was.Type != is.Type ||
		!equality.Semantic.DeepEqual(was.Data, is.Data) || !equality.Semantic.DeepEqual(was.Labels, is.Labels)
}
