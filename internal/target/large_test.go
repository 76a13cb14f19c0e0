// SPDX-License-Identifier: Apache-2.0

package target

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
)

// slowWrites takes a second for each patch, and counts those that are under way.
type slowWrites struct {
	client.Client
	now, most atomic.Int64
}

func (w *slowWrites) Patch(ctx context.Context, _ client.Object, _ client.Patch, _ ...client.PatchOption) error {
	if n := w.now.Add(1); n > w.most.Load() {
		w.most.Store(n)
	}
	defer w.now.Add(-1)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
		return nil
	}
}

// Whatever makes the metadata of a Secret large, the cache and a read tell, and few such Secrets are updated at a time. Others are updated
// as ever, and an update whose time is over does not wait for its turn.
func TestLargeSecretsAreUpdatedInTurn(t *testing.T) {
	const large = largeFrom/20 + 1
	for name, edit := range map[string]func(*metav1.PartialObjectMetadata){
		"": func(*metav1.PartialObjectMetadata) {},
		"labels": func(m *metav1.PartialObjectMetadata) {
			for i := range large {
				m.Labels[fmt.Sprintf("label-%015d", i)] = ""
			}
		},
		"an annotation": func(m *metav1.PartialObjectMetadata) { m.Annotations["x"] = strings.Repeat("x", largeFrom) },
		"references of others": func(m *metav1.PartialObjectMetadata) {
			for i := range large {
				m.OwnerReferences = append(m.OwnerReferences, metav1.OwnerReference{UID: types.UID(fmt.Sprintf("%020d", i))})
			}
		},
		"finalizers": func(m *metav1.PartialObjectMetadata) { m.Finalizers = []string{strings.Repeat("x", largeFrom)} },
		"keys of the data": func(m *metav1.PartialObjectMetadata) {
			m.ManagedFields = []metav1.ManagedFieldsEntry{{}, {FieldsV1: metav1.NewFieldsV1(strings.Repeat("x", largeFrom))}}
		},
	} {
		m := secret(labelled(v1alpha1.LabelManagedBy, v1alpha1.ManagedByValue), holder(ownUID))
		edit(m)
		most := int64(largeAtOnce)
		if name == "" {
			most = 64
		}
		for source, existing := range map[string]*metav1.PartialObjectMetadata{
			"cached": NewStripper(nil).Strip(m), "read": metadataOf(*m.ObjectMeta.DeepCopy()),
		} {
			t.Run(name+" "+source, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					writes := &slowWrites{}
					store := Store{Client: writes, Large: NewLarge()}
					var done, failed atomic.Int64
					for range 64 {
						go func() {
							ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
							defer cancel()
							if _, err := store.Mark(ctx, existing, account.Mark{}); err != nil {
								failed.Add(1)
								return
							}
							done.Add(1)
						}()
					}
					time.Sleep(10 * time.Second)
					if writes.most.Load() != most || done.Load() != min(64, 2*most) || done.Load()+failed.Load() != 64 {
						t.Errorf("%d at a time, want %d; %d were made, %d gave up", writes.most.Load(), most, done.Load(), failed.Load())
					}
				})
			})
		}
	}
}
