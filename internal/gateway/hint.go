// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const (
	// hintInterval is how long the same refusal of the same account is not told again.
	hintInterval = 10 * time.Second
	// hintQueue is how many hints wait to be written at most.
	hintQueue = 64
	// hintsPerNamespace is how many of them may be of one namespace, whose owner can have many accounts with tokens that are none.
	hintsPerNamespace = 16
	// hintRate and hintBurst bound the writes to the API server.
	hintRate  = 5
	hintBurst = 10
	// hintTimeout limits each write.
	hintTimeout = 5 * time.Second
)

// Hints tells the operator, in the status of a WeChatAppClient, that WeChat refused the token that the store has. It writes beside the
// calls: Note never waits, and what finds no place is left out, because the next refusal comes soon.
type Hints struct {
	writer client.StatusClient
	now    func() time.Time
	queue  chan hint
	pace   *rate.Limiter

	// Sent, failed and dropped hints, for the metrics.
	sent, failed, dropped atomic.Uint64

	mu    sync.Mutex // guards the fields below
	noted map[hintKey]time.Time
	// waiting counts the hints in the queue by namespace.
	waiting map[string]int
}

type hintKey struct {
	account types.NamespacedName
	refused string
}

type hint struct {
	client  types.NamespacedName
	refused string
	at      time.Time
}

// NewHints returns a Hints that writes nothing before Start.
func NewHints(writer client.StatusClient, now func() time.Time) *Hints {
	return &Hints{
		writer: writer, now: now, queue: make(chan hint, hintQueue), pace: rate.NewLimiter(hintRate, hintBurst), noted: map[hintKey]time.Time{},
		waiting: map[string]int{},
	}
}

// Note tells that WeChat refused the token with this fingerprint, which the store has for the client's account. It does so at most once in
// ten seconds for each account and fingerprint.
func (h *Hints) Note(c *Client, refused string) {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	key := hintKey{c.Account.Name, refused}
	if h.isNoted(key, now) {
		return
	}
	if h.waiting[c.Name.Namespace] >= hintsPerNamespace {
		h.dropped.Add(1)
		return
	}
	select {
	case h.queue <- hint{c.Name, refused, now}:
		h.noted[key] = now
		h.waiting[c.Name.Namespace]++
	default:
		h.dropped.Add(1)
	}
}

// isNoted reports whether a refusal was told a while ago. The caller holds the mutex.
func (h *Hints) isNoted(key hintKey, now time.Time) bool {
	for known, at := range h.noted { // a handful, as only what was told in the last ten seconds is kept
		if now.Sub(at) >= hintInterval {
			delete(h.noted, known)
		}
	}
	_, told := h.noted[key]
	return told
}

// taken notes that a hint has left the queue.
func (h *Hints) taken(namespace string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting[namespace]--; h.waiting[namespace] <= 0 {
		delete(h.waiting, namespace)
	}
}

// Start writes hints until ctx is done. It implements manager.Runnable.
func (h *Hints) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case next := <-h.queue:
			h.taken(next.client.Namespace)
			if h.pace.Wait(ctx) != nil {
				return nil // ctx is done
			}
			if h.patch(ctx, next) != nil {
				h.failed.Add(1)
			} else {
				h.sent.Add(1)
			}
		}
	}
}

// NeedLeaderElection implements manager.LeaderElectionRunnable: every replica tells what it sees.
func (h *Hints) NeedLeaderElection() bool { return false }

func (h *Hints) patch(ctx context.Context, n hint) error {
	ctx, cancel := context.WithTimeout(ctx, hintTimeout)
	defer cancel()
	body, err := json.Marshal(map[string]any{"status": map[string]any{
		"hint": v1alpha1.ClientHint{RefusedFingerprint: n.refused, Time: metav1.NewTime(n.at)},
	}})
	if err != nil {
		return err
	}
	object := &v1alpha1.WeChatAppClient{ObjectMeta: metav1.ObjectMeta{Namespace: n.client.Namespace, Name: n.client.Name}}
	return h.writer.Status().Patch(ctx, object, client.RawPatch(types.MergePatchType, body))
}
