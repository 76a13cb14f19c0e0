// SPDX-License-Identifier: Apache-2.0

package reads

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// slowReader counts the reads that are under way.
type slowReader struct {
	now, most atomic.Int64
}

func (r *slowReader) wait(ctx context.Context) error {
	if n := r.now.Add(1); n > r.most.Load() {
		r.most.Store(n)
	}
	defer r.now.Add(-1)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
		return nil
	}
}

func (r *slowReader) Get(ctx context.Context, _ client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return r.wait(ctx)
}

func (r *slowReader) List(ctx context.Context, _ client.ObjectList, _ ...client.ListOption) error {
	return r.wait(ctx)
}

// However many passes read, only a few large answers are in memory at a time. One whose time is over does not wait for its turn.
func TestReadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowReader{}
		r := Bounded(slow)
		var done, failed atomic.Int64
		for i := range 64 {
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5500*time.Millisecond)
				defer cancel()
				var err error
				if i%2 == 0 {
					err = r.Get(ctx, client.ObjectKey{}, &corev1.Secret{})
				} else {
					err = r.List(ctx, &corev1.PodList{})
				}
				if err != nil {
					failed.Add(1)
					return
				}
				done.Add(1)
			}()
		}
		time.Sleep(10 * time.Second)
		if slow.most.Load() != atOnce || slow.now.Load() != 0 {
			t.Errorf("%d reads at a time", slow.most.Load())
		}
		if done.Load() != 5*atOnce || failed.Load() != 64-5*atOnce {
			t.Errorf("%d reads, %d gave up", done.Load(), failed.Load())
		}
	})
}
