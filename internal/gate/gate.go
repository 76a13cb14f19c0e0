// SPDX-License-Identifier: Apache-2.0

// Package gate keeps a controller from deciding by a cache that has not seen the controller's own writes yet. A Gate remembers the
// versions that a process wrote or read from the API server. While the cache is behind them, the pass is repeated soon; if that lasts,
// one live read settles the matter.
package gate

import (
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// settleAfter is how long a cache may be behind before a live read settles the matter.
const settleAfter = 5 * time.Second

// Freshness says how a cached object compares to what is known of it.
type Freshness int

const (
	// Current means that the cache has seen the last write.
	Current Freshness = iota
	// Behind means that it has not, and will soon.
	Behind
	// BehindForLong means that a live read has to settle the matter.
	BehindForLong
)

// version is a version of an object that this process wrote or read from the API server; the zero value for none.
type version struct {
	uid             types.UID
	resourceVersion string
	at              time.Time
}

// reached compares the cached object, nil for none, to the version.
func (v version) reached(cached metav1.Object, now time.Time) Freshness {
	switch {
	case v.resourceVersion == "":
		return Current
	case cached != nil && !newer(v.resourceVersion, cached.GetResourceVersion()):
		return Current
	case now.Sub(v.at).Abs() > settleAfter:
		return BehindForLong
	}
	return Behind
}

// newer reports whether resourceVersion a is newer than b. Versions that cannot be compared count as newer, so that a cache is not
// trusted for them.
func newer(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order > 0
}

// Gate is what a process knows about the versions of a resource and its target. The zero value knows nothing. It is safe for concurrent
// use. Losing it costs a conflict.
type Gate struct {
	mu sync.Mutex
	// target and status are versions that the caches have to reach.
	target, status version
	// deleted is the UID of the last target that is known to be deleted. Its deletion may be seen before the answer to a write, or
	// long before the cache drops it.
	deleted types.UID
	// written is the target's resourceVersion after the last write.
	written string
}

// Target compares the cached target, nil for none, to the last write. It returns the target as the cache has it, without one that is
// known to be deleted.
func (g *Gate) Target(cached *metav1.PartialObjectMetadata, now time.Time) (*metav1.PartialObjectMetadata, Freshness) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cached == nil || g.deleted != "" && cached.UID == g.deleted {
		return nil, g.target.reached(nil, now)
	}
	return cached, g.target.reached(cached, now)
}

// Status compares the cached resource to the last write of its status.
func (g *Gate) Status(cached metav1.Object, now time.Time) Freshness {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status.reached(cached, now)
}

// SawTarget records a version of the target that the cache has to reach: what this process wrote, or read from the API server.
func (g *Gate) SawTarget(meta metav1.Object, written bool, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if written {
		g.written = meta.GetResourceVersion()
	}
	g.target = version{}
	if meta.GetUID() != g.deleted { // or its deletion was seen before the answer
		g.target = version{uid: meta.GetUID(), resourceVersion: meta.GetResourceVersion(), at: now}
	}
}

// TargetDeleted records that the target with this UID is gone, empty for one that the cache does not have either. It was deleted at
// resourceVersion, and writes before that do not count any more; without one, no write counts, because the API server was read.
func (g *Gate) TargetDeleted(uid types.UID, resourceVersion string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if uid != "" {
		g.deleted = uid
	}
	if v := g.target; resourceVersion == "" || v.uid == uid || newer(resourceVersion, v.resourceVersion) {
		g.target = version{}
	}
}

// IsOwnWrite reports whether this version of the target is the last write of this process.
func (g *Gate) IsOwnWrite(uid types.UID, resourceVersion string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.target
	return v.resourceVersion != "" && v.resourceVersion == resourceVersion && v.uid == uid
}

// Written returns the target's resourceVersion after the last write of this process; "" if it wrote none.
func (g *Gate) Written() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.written
}

// WroteStatus records the resourceVersion that the resource has after the write of its status.
func (g *Gate) WroteStatus(resourceVersion string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status = version{resourceVersion: resourceVersion, at: now}
}
