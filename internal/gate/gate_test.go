// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// now is the moment of all tests.
var now = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

// ago returns the time so much before now.
func ago(d time.Duration) time.Time { return now.Add(-d) }

// secretAt returns the metadata of the target with this UID and resourceVersion.
func secretAt(uid types.UID, version string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "shop", UID: uid, ResourceVersion: version}}
}

func TestFreshness(t *testing.T) {
	const long = settleAfter + 1
	for name, test := range map[string]struct {
		written string // resourceVersion, "" for none
		cached  string // resourceVersion, "" for none
		age     time.Duration
		want    Freshness
	}{
		"nothing is known":                  {"", "", 0, Current},
		"never written here":                {"", "7", 0, Current},
		"the cache has the own write":       {"7", "7", time.Hour, Current},
		"the cache is ahead":                {"9", "10", 0, Current},
		"the cache is ahead, longer digits": {"99", "100", long, Current},
		"the cache is behind":               {"10", "9", time.Second, Behind},
		"the cache has not seen it at all":  {"10", "", time.Second, Behind},
		"behind until it is settled":        {"10", "9", settleAfter, Behind},
		"behind for too long":               {"10", "9", long, BehindForLong},
		"unseen for too long":               {"10", "", long, BehindForLong},
		"the clock went back":               {"10", "", -long, BehindForLong},
		"two clock readings cross":          {"10", "", -time.Microsecond, Behind},
		"versions that are no numbers":      {"x", "9", time.Second, Behind},
		"no numbers, for too long":          {"x", "9", long, BehindForLong},
	} {
		g := &Gate{}
		if test.written != "" {
			g.SawTarget(secretAt("a", test.written), true, now.Add(-test.age))
			g.WroteStatus(test.written, now.Add(-test.age))
		}
		var secret *metav1.PartialObjectMetadata
		if test.cached != "" {
			secret = secretAt("a", test.cached)
		}
		got, f := g.Target(secret, now)
		if f != test.want || got != secret {
			t.Errorf("target, %s: %d, %v", name, f, got)
		}
		if test.cached == "" {
			continue // the cache has the resource, or there is no pass
		}
		resource := &metav1.ObjectMeta{UID: "r", ResourceVersion: test.cached}
		if f := g.Status(resource, now); f != test.want {
			t.Errorf("status, %s: %d", name, f)
		}
	}
}

// A target that is known to be deleted is none, however long the cache offers it.
func TestDeletedTarget(t *testing.T) {
	old, written := secretAt("a", "10"), secretAt("b", "12")
	for name, test := range map[string]struct {
		do     func(*Gate)
		cached *metav1.PartialObjectMetadata
		want   bool // the cached one counts
		f      Freshness
	}{
		"the API server has none":               {func(g *Gate) { g.TargetDeleted("a", "") }, old, false, Current},
		"and the cache neither":                 {func(g *Gate) { g.TargetDeleted("a", "") }, nil, false, Current},
		"none, and none in the cache then":      {func(g *Gate) { g.TargetDeleted("", "") }, old, true, Current},
		"its event came":                        {func(g *Gate) { g.TargetDeleted("a", "11") }, old, false, Current},
		"deleted after the own write":           {func(g *Gate) { g.SawTarget(old, true, now); g.TargetDeleted("a", "11") }, old, false, Current},
		"deleted, and the answer came later":    {func(g *Gate) { g.TargetDeleted("a", "11"); g.SawTarget(old, true, now) }, old, false, Current},
		"deleted, and made anew":                {func(g *Gate) { g.TargetDeleted("a", "11"); g.SawTarget(written, true, now) }, old, false, Behind},
		"made anew, and the cache has it":       {func(g *Gate) { g.TargetDeleted("a", "11"); g.SawTarget(written, true, now) }, written, true, Current},
		"made anew, the event of the old late":  {func(g *Gate) { g.SawTarget(written, true, now); g.TargetDeleted("a", "11") }, written, true, Current},
		"made anew, old event late, cache old":  {func(g *Gate) { g.SawTarget(written, true, now); g.TargetDeleted("a", "11") }, old, false, Behind},
		"made anew, and deleted by another one": {func(g *Gate) { g.SawTarget(written, true, now); g.TargetDeleted("c", "13") }, nil, false, Current},
		"made anew, behind for long":            {func(g *Gate) { g.TargetDeleted("a", ""); g.SawTarget(written, true, ago(time.Minute)) }, old, false, BehindForLong},
		"another one than the deleted":          {func(g *Gate) { g.TargetDeleted("a", "") }, written, true, Current},
		"the API server had it after all":       {func(g *Gate) { g.TargetDeleted("", ""); g.SawTarget(old, false, now) }, old, true, Current},
	} {
		g := &Gate{}
		test.do(g)
		got, f := g.Target(test.cached, now)
		if (got != nil) != test.want || got != nil && got != test.cached || f != test.f {
			t.Errorf("%s: %v, %d", name, got, f)
		}
	}
}

func TestIsOwnWrite(t *testing.T) {
	g := &Gate{}
	if g.IsOwnWrite("", "") || g.IsOwnWrite("a", "10") {
		t.Error("an own write before the first")
	}
	g.SawTarget(secretAt("a", "10"), true, now)
	for _, test := range []struct {
		uid     types.UID
		version string
		want    bool
	}{{"a", "10", true}, {"a", "9", false}, {"a", "11", false}, {"b", "10", false}} {
		if got := g.IsOwnWrite(test.uid, test.version); got != test.want {
			t.Errorf("%s at %s: %t", test.uid, test.version, got)
		}
	}
	// A pass between the write and its event must not make the event somebody else's.
	if _, f := g.Target(secretAt("a", "10"), now); f != Current || !g.IsOwnWrite("a", "10") {
		t.Error("the echo is not known any more")
	}
	if _, f := g.Target(secretAt("a", "12"), now); f != Current || g.IsOwnWrite("a", "12") {
		t.Error("somebody else's write is taken for the own one")
	}
}

// The status names the version of the last write, and not that of a read.
func TestWritten(t *testing.T) {
	g := &Gate{}
	g.SawTarget(secretAt("a", "9"), false, now)
	if got := g.Written(); got != "" {
		t.Errorf("a read is taken for a write: %s", got)
	}
	g.SawTarget(secretAt("a", "10"), true, now)
	g.SawTarget(secretAt("a", "11"), false, now)
	g.TargetDeleted("a", "12")
	g.TargetDeleted("a", "")
	if got := g.Written(); got != "10" {
		t.Errorf("the last write is %q", got)
	}
}
