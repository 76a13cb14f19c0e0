// SPDX-License-Identifier: Apache-2.0

// Package reads bounds the reads from the API server that a process makes at a time.
package reads

import (
	"context"

	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// atOnce bounds the reads from the API server that are under way. Each may bring a Secret of a megabyte and more, whoever made it,
// and a copy of it while it is decoded.
const atOnce = 8

// bounded lets a few reads through at a time.
type bounded struct {
	client.Reader

	slots *semaphore.Weighted
}

// Bounded returns a reader that makes a few reads of r at a time; the others wait.
func Bounded(r client.Reader) client.Reader {
	return bounded{Reader: r, slots: semaphore.NewWeighted(atOnce)}
}

// Get implements client.Reader.
func (r bounded) Get(ctx context.Context, key client.ObjectKey, into client.Object, opts ...client.GetOption) error {
	if err := r.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer r.slots.Release(1)
	return r.Reader.Get(ctx, key, into, opts...)
}

// List implements client.Reader.
func (r bounded) List(ctx context.Context, into client.ObjectList, opts ...client.ListOption) error {
	if err := r.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer r.slots.Release(1)
	return r.Reader.List(ctx, into, opts...)
}
