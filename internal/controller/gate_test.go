// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestReached(t *testing.T) {
	const long = settleAfter + 1
	for name, test := range map[string]struct {
		written string // resourceVersion, "" for none
		cached  string // resourceVersion, "" for none
		age     time.Duration
		want    freshness
	}{
		"nothing is known":                  {"", "", 0, current},
		"never written here":                {"", "7", 0, current},
		"the cache has the own write":       {"7", "7", time.Hour, current},
		"the cache is ahead":                {"9", "10", 0, current},
		"the cache is ahead, longer digits": {"99", "100", long, current},
		"the cache is behind":               {"10", "9", time.Second, behind},
		"the cache has not seen it at all":  {"10", "", time.Second, behind},
		"behind until it is settled":        {"10", "9", settleAfter, behind},
		"behind for too long":               {"10", "9", long, behindForLong},
		"unseen for too long":               {"10", "", long, behindForLong},
		"the clock went back":               {"10", "", -long, behindForLong},
		"two clock readings cross":          {"10", "", -time.Microsecond, behind},
		"versions that are no numbers":      {"x", "9", time.Second, behind},
		"no numbers, for too long":          {"x", "9", long, behindForLong},
	} {
		s := &resourceState{uid: "r"}
		if test.written != "" {
			s.sawTarget(secretAt("shop", "a", test.written), true, unitNow.Add(-test.age))
			s.wroteStatus(test.written, unitNow.Add(-test.age))
		}
		var secret *metav1.PartialObjectMetadata
		if test.cached != "" {
			secret = secretAt("shop", "a", test.cached)
		}
		got, f := s.targetFreshness(secret, unitNow)
		if f != test.want || got != secret {
			t.Errorf("target, %s: %d, %v", name, f, got)
		}
		if test.cached == "" {
			continue // the cache has the resource, or there is no pass
		}
		resource := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{ResourceVersion: test.cached}}
		if f := s.statusFreshness(resource, unitNow); f != test.want {
			t.Errorf("status, %s: %d", name, f)
		}
	}
}

// A target that is known to be deleted is none, however long the cache offers it.
func TestDeletedTarget(t *testing.T) {
	old, written := secretAt("shop", "a", "10"), secretAt("shop", "b", "12")
	for name, test := range map[string]struct {
		do     func(*resourceState)
		cached *metav1.PartialObjectMetadata
		want   bool // the cached one counts
		f      freshness
	}{
		"the API server has none":               {func(s *resourceState) { s.sawNoTarget("a") }, old, false, current},
		"and the cache neither":                 {func(s *resourceState) { s.sawNoTarget("a") }, nil, false, current},
		"none, and none in the cache then":      {func(s *resourceState) { s.sawNoTarget("") }, old, true, current},
		"its event came":                        {func(s *resourceState) { s.targetDeleted("a", "11") }, old, false, current},
		"deleted after the own write":           {func(s *resourceState) { s.sawTarget(old, true, unitNow); s.targetDeleted("a", "11") }, old, false, current},
		"deleted, and the answer came later":    {func(s *resourceState) { s.targetDeleted("a", "11"); s.sawTarget(old, true, unitNow) }, old, false, current},
		"deleted, and made anew":                {func(s *resourceState) { s.targetDeleted("a", "11"); s.sawTarget(written, true, unitNow) }, old, false, behind},
		"made anew, and the cache has it":       {func(s *resourceState) { s.targetDeleted("a", "11"); s.sawTarget(written, true, unitNow) }, written, true, current},
		"made anew, the event of the old late":  {func(s *resourceState) { s.sawTarget(written, true, unitNow); s.targetDeleted("a", "11") }, written, true, current},
		"made anew, old event late, cache old":  {func(s *resourceState) { s.sawTarget(written, true, unitNow); s.targetDeleted("a", "11") }, old, false, behind},
		"made anew, and deleted by another one": {func(s *resourceState) { s.sawTarget(written, true, unitNow); s.targetDeleted("c", "13") }, nil, false, current},
		"made anew, behind for long":            {func(s *resourceState) { s.sawNoTarget("a"); s.sawTarget(written, true, ago(time.Minute)) }, old, false, behindForLong},
		"another one than the deleted":          {func(s *resourceState) { s.sawNoTarget("a") }, written, true, current},
		"the API server had it after all":       {func(s *resourceState) { s.sawNoTarget(""); s.sawTarget(old, false, unitNow) }, old, true, current},
	} {
		s := &resourceState{}
		test.do(s)
		got, f := s.targetFreshness(test.cached, unitNow)
		if (got != nil) != test.want || got != nil && got != test.cached || f != test.f {
			t.Errorf("%s: %v, %d", name, got, f)
		}
	}
}

func TestIsOwnWrite(t *testing.T) {
	s := &resourceState{}
	if s.isOwnWrite("", "") || s.isOwnWrite("a", "10") {
		t.Error("an own write before the first")
	}
	s.sawTarget(secretAt("shop", "a", "10"), true, unitNow)
	for _, test := range []struct {
		uid     types.UID
		version string
		want    bool
	}{{"a", "10", true}, {"a", "9", false}, {"a", "11", false}, {"b", "10", false}} {
		if got := s.isOwnWrite(test.uid, test.version); got != test.want {
			t.Errorf("%s at %s: %t", test.uid, test.version, got)
		}
	}
	// A pass between the write and its event must not make the event somebody else's.
	if _, f := s.targetFreshness(secretAt("shop", "a", "10"), unitNow); f != current || !s.isOwnWrite("a", "10") {
		t.Error("the echo is not known any more")
	}
	// Somebody else wrote since: nothing waits for the own write any more.
	if _, f := s.targetFreshness(secretAt("shop", "a", "12"), unitNow); f != current || s.isOwnWrite("a", "10") {
		t.Error("the own write still counts")
	}
	if _, f := s.targetFreshness(secretAt("shop", "a", "11"), unitNow); f != current {
		t.Errorf("freshness %d although nothing was written since", f)
	}
}

// The status names the version of the last write, and not that of a read.
func TestTargetWritten(t *testing.T) {
	s := &resourceState{}
	s.sawTarget(secretAt("shop", "a", "9"), false, unitNow)
	if got := s.targetWritten(); got != "" {
		t.Errorf("a read is taken for a write: %s", got)
	}
	s.sawTarget(secretAt("shop", "a", "10"), true, unitNow)
	s.sawTarget(secretAt("shop", "a", "11"), false, unitNow)
	s.targetDeleted("a", "12")
	s.sawNoTarget("a")
	if got := s.targetWritten(); got != "10" {
		t.Errorf("the last write is %q", got)
	}
}
