// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// spread tells how far apart times lie.
type spread struct{ first, last time.Time }

func (s *spread) add(at time.Time) {
	if s.first.IsZero() || at.Before(s.first) {
		s.first = at
	}
	if at.After(s.last) {
		s.last = at
	}
}

// within fails unless all times lie in [first, last] and use up most of it.
func (s *spread) within(t *testing.T, what string, first, last time.Time) {
	t.Helper()
	if s.first.Before(first) || s.last.After(last) {
		t.Errorf("%s: %s to %s, want it between %s and %s", what, s.first, s.last, first, last)
	}
	if width, used := last.Sub(first), s.last.Sub(s.first); used < width*9/10 {
		t.Errorf("%s: spread over %s of %s only", what, used, width)
	}
}

// uids are random UUIDs, the same in each run.
func uids(seed uint64, n int) []string {
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test that must repeat itself
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", r.Uint32(), r.Uint32()>>16, r.Uint32()>>20, 0x8000|r.Uint32()>>18, r.Uint64()>>16)
	}
	return out
}

func uid(s string) edit         { return func(in *Inputs) { in.UID = s } }
func fingerprint(s string) edit { return func(in *Inputs) { in.Token.Fingerprint = s } }
func life(d time.Duration) edit {
	return func(in *Inputs) { in.Token.IssuedAt = in.Token.ExpiresAt.Add(-d) }
}

func TestDueAt(t *testing.T) {
	expiry := after(90 * time.Minute)
	var stable, long, short spread
	for _, id := range uids(1, 1000) {
		stable.add(DueAt(healthy(uid(id))))
		long.add(DueAt(healthy(uid(id), legacy)))
		short.add(DueAt(healthy(uid(id), legacy, life(1260*time.Second))))
	}
	stable.within(t, "Stable", expiry.Add(-299*time.Second), expiry.Add(-285*time.Second))
	long.within(t, "Legacy", expiry.Add(-660*time.Second), expiry.Add(-600*time.Second))
	short.within(t, "Legacy, half the life is 630 s", expiry.Add(-630*time.Second), expiry.Add(-600*time.Second))

	exact := map[string]struct {
		edits []edit
		want  time.Duration // before the expiry
	}{
		"Stable, life of 300 s":       {[]edit{life(300 * time.Second)}, 150 * time.Second},
		"Stable, life of 200 s":       {[]edit{life(200 * time.Second)}, 100 * time.Second},
		"Legacy, life of 20 min":      {[]edit{legacy, life(20 * time.Minute)}, 10 * time.Minute},
		"Legacy, life of 300 s":       {[]edit{legacy, life(300 * time.Second)}, 150 * time.Second},
		"Legacy, dead at once":        {[]edit{legacy, life(0)}, 0},
		"repeat after a due call":     {[]edit{checked(expiry.Add(-200 * time.Second))}, 195 * time.Second},
		"repeat with a short life":    {[]edit{life(200 * time.Second), checked(expiry.Add(-90 * time.Second))}, 85 * time.Second},
		"a call just before the due":  {[]edit{checked(expiry.Add(-286 * time.Second))}, 281 * time.Second},
		"Legacy checks do not defer":  {[]edit{legacy, life(20 * time.Minute), checked(expiry.Add(-599 * time.Second))}, 10 * time.Minute},
		"a call long before the due":  {[]edit{life(300 * time.Second), checked(expiry.Add(-156 * time.Second))}, 150 * time.Second},
		"a call 5 s before the due":   {[]edit{life(300 * time.Second), checked(expiry.Add(-155 * time.Second))}, 150 * time.Second},
		"a call 4.9 s before the due": {[]edit{life(300 * time.Second), checked(expiry.Add(-154900 * time.Millisecond))}, 149900 * time.Millisecond},
	}
	for name, test := range exact {
		if got := expiry.Sub(DueAt(healthy(test.edits...))); got != test.want {
			t.Errorf("%s: %s before the expiry, want %s", name, got, test.want)
		}
	}
	if early := expiry.Sub(DueAt(healthy(life(301 * time.Second)))); early < 285*time.Second || early > 299*time.Second {
		t.Errorf("a life of 301 s: %s before the expiry, want the ordinary time", early)
	}
	if at := DueAt(healthy(missing)); !at.IsZero() {
		t.Errorf("no token, but due at %s", at)
	}
}

func TestJitterBelongsToOneToken(t *testing.T) {
	type schedule struct{ due, check, first string }
	of := func(edits ...edit) schedule {
		in, started := healthy(edits...), healthy(append(edits, checked(time.Time{}))...)
		return schedule{DueAt(in).String(), CheckAt(in).String(), CheckAt(started).String()}
	}
	base := of()
	if again := of(); again != base {
		t.Errorf("the same inputs gave %v and %v", base, again)
	}
	// Nothing but UID and fingerprint may move it: a decision must not depend on how often or when it is made.
	same := of(life(3*time.Hour), unsynced, tampered, limited(after(time.Minute)), askRefresh)
	if same != base {
		t.Errorf("other inputs moved the jitter: %v and %v", base, same)
	}
	if other := of(uid("other")); other.due == base.due || other.check == base.check || other.first == base.first {
		t.Errorf("another UID has the same jitter: %v and %v", base, other)
	}
	if other := of(fingerprint("other")); other.due == base.due || other.check == base.check || other.first != base.first {
		t.Errorf("another token has the same jitter, or another first check: %v and %v", base, other)
	}
	// The parts of a hash must not run into each other.
	if DueAt(healthy(uid("ab"), fingerprint("c"))).Equal(DueAt(healthy(uid("a"), fingerprint("bc")))) {
		t.Error("UID and fingerprint run into each other")
	}
}

// A hash whose inputs differ little must differ as much as any.
func TestHashSpreads(t *testing.T) {
	for name, hash := range map[string]func(string) float64{
		"UID":         func(s string) float64 { return unit(s, "f", "p") },
		"fingerprint": func(s string) float64 { return unit("u", s, "p") },
		"purpose":     func(s string) float64 { return unit("u", "f", s) },
	} {
		var fifths [5]int
		for c := range byte(200) {
			fifths[int(5*hash("same"+string([]byte{c})))]++
		}
		for i, n := range fifths {
			if n < 20 || n > 60 {
				t.Errorf("%s: %d of 200 hashes in fifth %d", name, n, i)
			}
		}
	}
}

func TestCheckAt(t *testing.T) {
	for _, interval := range []time.Duration{time.Minute, 2 * time.Minute, time.Hour} {
		var s spread
		for _, id := range uids(2, 1000) {
			s.add(CheckAt(healthy(uid(id), every(interval), checked(now))))
		}
		s.within(t, "checked each "+interval.String(), after(interval*9/10), after(interval*11/10))
	}
	for _, id := range uids(4, 1000) { // the shortest interval that a resource may have
		if at := CheckAt(healthy(uid(id), every(30*time.Second), checked(now))); at.Before(after(27*time.Second)) || at.After(after(34*time.Second)) {
			t.Errorf("checked each 30 s: %s", at)
		}
	}
	if at := CheckAt(healthy(missing)); !at.IsZero() {
		t.Errorf("no token, but checked at %s", at)
	}
}

// Many checks share one moment, but two processes do not share their moments.
func TestChecksFallOnBeats(t *testing.T) {
	started := now.Add(-time.Hour - 300*time.Millisecond)
	for _, at := range []time.Time{now, now.Add(time.Nanosecond), now.Add(700 * time.Millisecond), started, started.Add(-time.Minute)} {
		got := beatFrom(started, at)
		if got.Sub(started)%time.Second != 0 || got.Before(at) || got.Sub(at) >= time.Second {
			t.Errorf("%s became %s", at, got)
		}
	}
	moments := map[time.Time]bool{}
	for _, id := range uids(3, 1000) {
		at := CheckAt(healthy(uid(id), every(2*time.Minute), checked(now), func(in *Inputs) { in.StartedAt = started }))
		if at.Sub(started)%time.Second != 0 {
			t.Fatalf("a check at %s after a start at %s", at, started)
		}
		moments[at] = true
	}
	if n := len(moments); n < 20 || n > 25 {
		t.Errorf("1000 checks within 24 s fall on %d moments", n)
	}
}

// The first seconds after a start are for what cannot wait, so of 200 resources at most 40 are checked in the first 9 s.
func TestFirstChecksAfterAStart(t *testing.T) {
	const sets, resources, early = 50, 200, 40
	var all spread
	most, total := 0, 0
	for set := range sets {
		count := 0
		for _, id := range uids(uint64(100+set), resources) {
			at := CheckAt(healthy(uid(id), checked(time.Time{}), func(in *Inputs) { in.StartedAt = now }))
			all.add(at)
			if at.Before(after(9 * time.Second)) {
				count++
			}
		}
		most, total = max(most, count), total+count
	}
	all.within(t, "first checks", now, after(45*time.Second))
	t.Logf("checks in the first 9 s, of %d resources: %.1f on average, %d at most, in %d sets", resources, float64(total)/sets, most, sets)
	if most > early {
		t.Errorf("%d of %d first checks within 9 s, want at most %d", most, resources, early)
	}
	// UIDs that differ in one place only are spread as well.
	count := 0
	for i := range resources {
		at := CheckAt(healthy(uid(fmt.Sprintf("00000000-0000-4000-8000-%012d", i)), checked(time.Time{}), func(in *Inputs) { in.StartedAt = now }))
		if at.Before(after(9 * time.Second)) {
			count++
		}
	}
	if count > early || count == 0 {
		t.Errorf("of consecutive UIDs, %d of %d first checks within 9 s", count, resources)
	}
}
