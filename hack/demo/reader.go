// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// reader is who the promise is for: it looks into the Secret again and again, and asks WeChat's ledger about what it finds.
type reader struct {
	stop func()

	mu      sync.Mutex
	looks   int
	invalid int
}

const lookEvery = 50 * time.Millisecond

func startReader(ctx context.Context, c client.Client, wechat *wechattest.Server, key client.ObjectKey, dataKey string) *reader {
	ctx, cancel := context.WithCancel(ctx)
	r := &reader{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			r.look(ctx, c, wechat, key, dataKey)
			select {
			case <-ctx.Done():
			case <-time.After(lookEvery):
			}
		}
	}()
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	return r
}

func (r *reader) look(ctx context.Context, c client.Client, wechat *wechattest.Server, key client.ObjectKey, dataKey string) {
	secret := &corev1.Secret{}
	if err := c.Get(ctx, key, secret); err != nil && ctx.Err() != nil {
		return
	}
	valid := wechat.Valid(string(secret.Data[dataKey]))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looks++
	if !valid {
		r.invalid++
	}
}

func (r *reader) seen() (looks, invalid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.looks, r.invalid
}
