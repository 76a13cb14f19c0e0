// SPDX-License-Identifier: Apache-2.0

package account

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// sweepPerLeave is how many abandoned accounts are examined when a member leaves one. It is more than one, so the set of
// abandoned accounts shrinks even while every call of Leave adds to it.
const sweepPerLeave = 4

// ID identifies a WeChat account. Key is the HMAC of the live AppSecret (token.Credentials.Account), so that nobody joins an
// account without holding its AppSecret. Modes are accounts of their own, because their tokens have nothing in common.
type ID struct {
	Mode  v1alpha1.Mode
	AppID string
	Key   string
}

// Registry holds the accounts that resources have joined. The zero value is not usable; call NewRegistry.
type Registry struct {
	mu   sync.Mutex
	byID map[ID]*Account
	// shared counts the accounts of each mode and appid.
	shared map[ID]int
	// abandoned are accounts that a member left. They stay while their pacing matters.
	abandoned map[ID]bool
}

// NewRegistry returns an empty Registry.
func NewRegistry() *Registry {
	return &Registry{byID: map[ID]*Account{}, shared: map[ID]int{}, abandoned: map[ID]bool{}}
}

// Join adds a member to an account and returns the account. It replaces an earlier entry with the same UID.
func (r *Registry) Join(id ID, m Member) *Account {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.byID[id]
	if a == nil {
		a = &Account{}
		r.byID[id] = a
		r.shared[ID{Mode: id.Mode, AppID: id.AppID}]++
	}
	a.Update(m)
	return a
}

// Knows reports whether a resource has joined an account of this mode and appid, whatever its AppSecret.
func (r *Registry) Knows(mode v1alpha1.Mode, appID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shared[ID{Mode: mode, AppID: appID}] > 0
}

// Leave removes a member. The account itself is kept while its pacing matters: deleting and re-creating a resource in a loop
// must not refill the account's bucket each time.
func (r *Registry) Leave(id ID, uid types.UID, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.byID[id]; a != nil {
		a.leave(uid)
		r.abandoned[id] = true
		r.sweep(now)
	}
}

// sweep examines some of the abandoned accounts, and drops those that have no member and no pacing left. The caller holds the mutex.
func (r *Registry) sweep(now time.Time) {
	left := sweepPerLeave
	for id := range r.abandoned {
		if left--; left < 0 {
			return
		}
		inUse, paced := r.byID[id].standing(now)
		if inUse || !paced {
			delete(r.abandoned, id)
		}
		if !inUse && !paced {
			delete(r.byID, id)
			app := ID{Mode: id.Mode, AppID: id.AppID}
			if r.shared[app]--; r.shared[app] == 0 {
				delete(r.shared, app)
			}
		}
	}
}
