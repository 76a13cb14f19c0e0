// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// statusWriter records patches of the status.
type statusWriter struct {
	client.SubResourceWriter
	mu      sync.Mutex
	patches []string
	times   []time.Time
	err     error
	hang    bool
}

func (w *statusWriter) Status() client.SubResourceWriter { return w }

func (w *statusWriter) Patch(ctx context.Context, o client.Object, p client.Patch, _ ...client.SubResourcePatchOption) error {
	if w.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	body, err := p.Data(o)
	if err != nil || p.Type() != types.MergePatchType {
		return fmt.Errorf("%s, %w", p.Type(), err)
	}
	w.patches = append(w.patches, o.GetNamespace()+"/"+o.GetName()+" "+string(body))
	w.times = append(w.times, time.Now())
	return w.err
}

func (w *statusWriter) count() int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.patches)
}

// started returns a Hints that writes until the test ends.
func started(t *testing.T, w *statusWriter) *Hints {
	h := NewHints(w, time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestHints: the patch, and that the same refusal is told once in ten seconds.
func TestHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &statusWriter{}
		h := started(t, w)
		for range 100 {
			h.Note(holding(staleToken), "0123456789abcdef")
		}
		const want = `shop/shop-api {"status":{"hint":{"refusedFingerprint":"0123456789abcdef","time":"2000-01-01T00:00:00Z"}}}`
		if w.count() != 1 || w.patches[0] != want {
			t.Fatalf("patches %q, want %q", w.patches, want)
		}
		h.Note(holding(staleToken), "fedcba9876543210")
		other := holding(staleToken)
		other.Account.Name.Name = "other"
		h.Note(other, "0123456789abcdef")
		if got := w.count(); got != 3 {
			t.Errorf("%d patches, want 3: another token, and another account", got)
		}
		time.Sleep(10*time.Second - 1)
		h.Note(holding(staleToken), "0123456789abcdef")
		if got := w.count(); got != 3 {
			t.Errorf("%d patches within ten seconds", got)
		}
		time.Sleep(time.Nanosecond)
		h.Note(holding(staleToken), "0123456789abcdef")
		if got := w.count(); got != 4 || len(h.noted) != 1 || h.sent.Load() != 4 {
			t.Errorf("%d patches, %d remembered", got, len(h.noted))
		}
	})
}

// TestHintsUnderLoad: Note never waits, the queue is bounded, and the API server gets five patches a second.
func TestHintsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &statusWriter{hang: true}
		h := started(t, w)
		begun := time.Now()
		of := func(i int) *Client {
			c := holding(staleToken)
			c.Name.Namespace = fmt.Sprint("shop-", i%8)
			return c
		}
		for i := range 1000 {
			h.Note(of(i), fmt.Sprintf("%016x", i))
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("Note waited for %v", took)
		}
		if got := h.dropped.Load(); got < 1000-hintQueue-1 {
			t.Errorf("%d hints were dropped", got)
		}
		time.Sleep(hintTimeout * (hintQueue + 2))
		if got := h.failed.Load(); got == 0 || got > hintQueue+1 {
			t.Errorf("%d hints failed", got)
		}
		w.hang, w.err = false, errors.New("conflict")
		for i := range 30 {
			h.Note(of(i), fmt.Sprintf("a%015x", i))
		}
		time.Sleep(time.Minute)
		if got := w.count(); got != 30 {
			t.Fatalf("%d patches, want 30", got)
		}
		if took := w.times[29].Sub(w.times[0]); took < 3*time.Second {
			t.Errorf("30 patches within %v", took)
		}
	})
}
