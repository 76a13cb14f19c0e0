// SPDX-License-Identifier: Apache-2.0

package account

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// now is WeChat's time in all tests of this package.
var now = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

// after returns the time so much after now; before it, if the duration is negative.
func after(d time.Duration) time.Time { return now.Add(d) }

func named(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "shop", Name: name}
}

// member returns one whose name and UID are the same.
func member(name string) Member { return Member{UID: types.UID(name), Name: named(name)} }

func legacyID(appID, key string) ID { return ID{Mode: v1alpha1.ModeLegacy, AppID: appID, Key: key} }

// names returns the names of members, in order.
func names(of []types.NamespacedName) []string {
	out := make([]string, 0, len(of))
	for _, n := range of {
		out = append(out, n.Name)
	}
	slices.Sort(out)
	return out
}

func TestJoin(t *testing.T) {
	r := NewRegistry()
	id := legacyID("wx1", "k")
	a := r.Join(id, member("a"))
	if a.Shared() {
		t.Error("one member shares with nobody")
	}
	if b := r.Join(id, member("b")); b != a || !a.Shared() {
		t.Error("the same AppSecret is another account")
	}
	renamed := member("a")
	renamed.Name = named("renamed")
	if r.Join(id, renamed); len(a.Others("b")) != 1 || a.Others("b")[0].Name != named("renamed") {
		t.Errorf("joined twice: %+v", a.Others("b"))
	}
	for name, other := range map[string]ID{
		"another AppSecret": legacyID("wx1", "other"), "another appid": legacyID("wx2", "k"), "the other mode": {Mode: v1alpha1.ModeStable, AppID: "wx1", Key: "k"},
	} {
		if r.Join(other, member("c")) == a {
			t.Errorf("%s is the same account", name)
		}
	}
}

func TestKnows(t *testing.T) {
	r := NewRegistry()
	first, second := legacyID("wx1", "k1"), legacyID("wx1", "k2")
	expect := func(step string, want bool) {
		t.Helper()
		if got := r.Knows(v1alpha1.ModeLegacy, "wx1"); got != want {
			t.Errorf("%s: known is %t", step, got)
		}
		if r.Knows(v1alpha1.ModeStable, "wx1") || r.Knows(v1alpha1.ModeLegacy, "wx2") {
			t.Errorf("%s: another mode or appid is known", step)
		}
	}
	expect("nobody joined", false)
	r.Join(first, member("a"))
	expect("one joined", true)
	r.Join(second, member("b"))
	r.Leave(first, "a", now)
	expect("one with another AppSecret is there", true)
	r.Leave(second, "b", now)
	expect("all left", false)
	r.Leave(second, "b", now)
	r.Leave(legacyID("wx3", "k"), "b", now)
	expect("left twice", false)
	if len(r.byID)+len(r.shared)+len(r.abandoned) != 0 {
		t.Errorf("left over: %v, %v, %v", r.byID, r.shared, r.abandoned)
	}
}

// An account without members is kept for as long as its pacing, and no longer.
func TestAbandonedAccounts(t *testing.T) {
	at := now
	r := NewRegistry()
	for _, app := range []string{"minted", "forced", "returned", "unused"} {
		a := r.Join(legacyID(app, "k"), member(app))
		switch app {
		case "minted", "returned":
			a.CountMint(at, false)
		case "forced":
			a.CountMint(at, true)
		}
		r.Leave(legacyID(app, "k"), types.UID(app), at)
	}
	r.Join(legacyID("returned", "k"), member("returned"))
	check := func(step string, passed time.Duration, want ...string) {
		t.Helper()
		at = at.Add(passed)
		r.Join(legacyID("other", "k"), member("other"))
		r.Leave(legacyID("other", "k"), "other", at)
		var got []string
		for id := range r.byID {
			got = append(got, id.AppID)
			if !r.Knows(id.Mode, id.AppID) {
				t.Errorf("%s: %s is not known", step, id.AppID)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: there are %v, want %v", step, got, want)
		}
	}
	check("at once", 0, "forced", "minted", "returned")
	check("the bucket is full, a refresh has to wait for the last mint", 5*time.Minute, "forced", "minted", "returned")
	check("nothing has to wait for the mint", 30*time.Second, "forced", "returned")
	check("the day of the budget is not over", 18*time.Hour, "forced", "returned")
	check("the day is over", 6*time.Hour, "returned")
	if len(r.abandoned) != 0 {
		t.Errorf("still to be looked at: %v", r.abandoned)
	}
}

// Leaving is cheap and still shrinks the list of abandoned accounts.
func TestSweep(t *testing.T) {
	r := NewRegistry()
	id := func(i int) ID { return legacyID(fmt.Sprint("wx", i), "k") }
	for i := range 100 {
		r.Join(id(i), member("m")).CountMint(now, true)
	}
	for i := range 100 {
		r.Leave(id(i), "m", now)
	}
	if len(r.byID) != 100 || len(r.abandoned) != 100 {
		t.Fatalf("%d accounts, %d abandoned", len(r.byID), len(r.abandoned))
	}
	later := after(25 * time.Hour)
	for i := range 34 {
		r.Join(id(1000), member("m"))
		r.Leave(id(1000), "m", later)
		if want := max(0, 100-3*(i+1)); len(r.byID) > want+sweepPerLeave {
			t.Fatalf("after %d: %d accounts are left", i+1, len(r.byID))
		}
	}
	if len(r.byID) > 1 || len(r.abandoned) != len(r.byID) {
		t.Errorf("left: %v, abandoned: %v", r.byID, r.abandoned)
	}
	// A member that leaves while others stay puts the account on the list once.
	r = NewRegistry()
	for _, name := range []string{"a", "b", "c"} {
		r.Join(id(1), member(name))
	}
	for _, name := range []string{"a", "b"} {
		r.Leave(id(1), types.UID(name), now)
		if len(r.byID) != 1 || len(r.abandoned) > 1 {
			t.Errorf("%s left: %v, abandoned: %v", name, r.byID, r.abandoned)
		}
	}
	if r.Leave(id(1), "c", now); len(r.byID) != 0 {
		t.Error("the last one left, and the account is there")
	}
}

// A resource that is made anew again and again does not get a fresh pace each time.
func TestPaceOutlivesMembers(t *testing.T) {
	r, id := NewRegistry(), legacyID("wx1", "k")
	for range mintBurst {
		a := r.Join(id, member("a"))
		if at := a.MintNotBefore(time.Time{}, now); !at.IsZero() {
			t.Fatalf("a mint of the burst waits until %s", at)
		}
		a.CountMint(now, false)
		r.Leave(id, "a", now)
	}
	if at := r.Join(id, member("b")).MintNotBefore(time.Time{}, now); at.Sub(now) < 4*time.Minute {
		t.Errorf("the next mint may be made at %s", at)
	}
}
