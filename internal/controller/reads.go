// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"

	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// readsAtOnce bounds the reads from the API server that are under way. Each may bring a Secret of a megabyte and more, whoever made it,
// and a copy of it while it is decoded.
const readsAtOnce = 8

// boundedReader lets a few reads through at a time.
type boundedReader struct {
	client.Reader

	slots *semaphore.Weighted
}

func newBoundedReader(r client.Reader) boundedReader {
	return boundedReader{Reader: r, slots: semaphore.NewWeighted(readsAtOnce)}
}

// Get implements client.Reader.
func (r boundedReader) Get(ctx context.Context, key client.ObjectKey, into client.Object, opts ...client.GetOption) error {
	if err := r.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer r.slots.Release(1)
	return r.Reader.Get(ctx, key, into, opts...)
}

// List implements client.Reader.
func (r boundedReader) List(ctx context.Context, into client.ObjectList, opts ...client.ListOption) error {
	if err := r.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer r.slots.Release(1)
	return r.Reader.List(ctx, into, opts...)
}
