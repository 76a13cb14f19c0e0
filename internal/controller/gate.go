// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

const (
	// settleAfter is how long a cache may be behind a write of this process before one live GET settles the matter.
	settleAfter = 5 * time.Second
	// lookSoon is when a pass that finds a cache behind is repeated. A cache is seldom behind for longer.
	lookSoon = 50 * time.Millisecond
)

// errCacheBehind says that a cache has not seen the last write of this process. The pass ends and is repeated soon.
var errCacheBehind = errors.New("the cache is behind the last write")

// lastWrite is what this process wrote last, so that no pass decides by an older copy of a cache.
type lastWrite struct {
	// target and status are versions that the caches have to reach.
	target, status version
	// deleted is the UID of the last target that is known to be deleted. Its deletion may be seen before the answer to a write, or
	// long before the cache drops it.
	deleted types.UID
	// targetWritten is the target's resourceVersion after the last write, for the status.
	targetWritten string
}

// version is a version of an object that this process wrote or read from the API server; the zero value for none.
type version struct {
	uid             types.UID
	resourceVersion string
	at              time.Time
}

// freshness says how a cached object compares to a version.
type freshness int

const (
	current freshness = iota
	behind
	behindForLong
)

// reached compares the cached object, nil for none, to the version.
func (v version) reached(cached metav1.Object, now time.Time) freshness {
	switch {
	case v.resourceVersion == "":
		return current
	case cached != nil && !newer(v.resourceVersion, cached.GetResourceVersion()):
		return current
	case now.Sub(v.at).Abs() > settleAfter:
		return behindForLong
	}
	return behind
}

// newer reports whether resourceVersion a is newer than b. Versions that cannot be compared count as newer, so that a cache is not
// trusted for them.
func newer(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order > 0
}

// targetFreshness compares the cached target, nil for none, to the last write. It returns the target as the cache has it, without one
// that is known to be deleted.
func (s *resourceState) targetFreshness(cached *metav1.PartialObjectMetadata, now time.Time) (*metav1.PartialObjectMetadata, freshness) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cached == nil || s.lastWrite.deleted != "" && cached.UID == s.lastWrite.deleted {
		return nil, s.lastWrite.target.reached(nil, now)
	}
	f := s.lastWrite.target.reached(cached, now)
	if f == current && cached.ResourceVersion != s.lastWrite.target.resourceVersion {
		s.lastWrite.target = version{} // somebody else wrote since
	}
	return cached, f
}

// statusFreshness compares the cached resource to the last write of its status.
func (s *resourceState) statusFreshness(cached metav1.Object, now time.Time) freshness {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastWrite.status.reached(cached, now)
}

// sawTarget records a version of the target that the cache has to reach: what this process wrote, or read from the API server.
func (s *resourceState) sawTarget(meta *metav1.PartialObjectMetadata, written bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if written {
		s.lastWrite.targetWritten = meta.ResourceVersion
	}
	s.lastWrite.target = version{}
	if meta.UID != s.lastWrite.deleted { // or its deletion was seen before the answer
		s.lastWrite.target = version{uid: meta.UID, resourceVersion: meta.ResourceVersion, at: now}
	}
}

// sawNoTarget records that the API server has no target; uid is that of the one that the cache still has, or empty.
func (s *resourceState) sawNoTarget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastWrite.target = version{}
	if uid != "" {
		s.lastWrite.deleted = uid
	}
}

// targetDeleted takes the event of a target's deletion: writes before it do not count any more.
func (s *resourceState) targetDeleted(uid types.UID, resourceVersion string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastWrite.deleted = uid
	if v := s.lastWrite.target; v.resourceVersion != "" && (v.uid == uid || newer(resourceVersion, v.resourceVersion)) {
		s.lastWrite.target = version{}
	}
}

// isOwnWrite reports whether this version of the target is the last write of this process.
func (s *resourceState) isOwnWrite(uid types.UID, resourceVersion string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.lastWrite.target
	return v.resourceVersion != "" && v.resourceVersion == resourceVersion && v.uid == uid
}

// targetWritten returns the target's resourceVersion after the last write of this process; "" if it wrote none.
func (s *resourceState) targetWritten() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastWrite.targetWritten
}

// wroteStatus records the resourceVersion that the resource has after the write of its status.
func (s *resourceState) wroteStatus(resourceVersion string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastWrite.status = version{uid: s.uid, resourceVersion: resourceVersion, at: now}
}
