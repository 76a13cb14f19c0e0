// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// maxBudgets bounds the number of peers that are counted one by one. Those beyond it share one budget.
	maxBudgets = 4096
	// peersSweepEvery is the least time between two searches for peers who can be forgotten.
	peersSweepEvery = time.Second
)

// peerBudgets limits how often each peer may do something. It is bounded: a peer is forgotten when his budget is full again, and if there
// are too many others, all new peers share one budget. It is safe for concurrent use.
type peerBudgets struct {
	rate, burst float64

	mu     sync.Mutex
	peers  map[netip.Addr]*peerBudget
	others peerBudget
	swept  time.Time
}

// peerBudget is what is left of a budget at a time.
type peerBudget struct {
	left float64
	at   time.Time
}

// newPeerBudgets returns budgets of so many per second, of which burst can be spent at once.
func newPeerBudgets(perSecond, burst int) *peerBudgets {
	return &peerBudgets{
		rate: float64(perSecond), burst: float64(burst), peers: map[netip.Addr]*peerBudget{},
		others: peerBudget{left: float64(burst)},
	}
}

// take reports whether a peer may do it once more, and counts that.
func (b *peerBudgets) take(peer netip.Addr, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	budget := b.of(peer, now)
	b.fill(budget, now)
	if budget.left < 1 {
		return false
	}
	budget.left--
	return true
}

// giveBack undoes a take.
func (b *peerBudgets) giveBack(peer netip.Addr, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	budget := b.of(peer, now)
	b.fill(budget, now)
	budget.left = min(b.burst, budget.left+1)
}

// of returns the budget of a peer.
func (b *peerBudgets) of(peer netip.Addr, now time.Time) *peerBudget {
	if budget := b.peers[peer]; budget != nil {
		return budget
	}
	if len(b.peers) >= maxBudgets && now.Sub(b.swept) >= peersSweepEvery {
		b.swept = now
		for known, budget := range b.peers {
			if b.fill(budget, now); budget.left >= b.burst {
				delete(b.peers, known)
			}
		}
	}
	if len(b.peers) >= maxBudgets {
		return &b.others
	}
	budget := &peerBudget{left: b.burst, at: now}
	b.peers[peer] = budget
	return budget
}

// fill adds what a budget got since it was last looked at.
func (b *peerBudgets) fill(budget *peerBudget, now time.Time) {
	if passed := now.Sub(budget.at); passed > 0 {
		budget.left = min(b.burst, budget.left+passed.Seconds()*b.rate)
		budget.at = now
	}
}
