// SPDX-License-Identifier: Apache-2.0

package account

import (
	"slices"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

func TestTurn(t *testing.T) {
	a := with("a", "b", "c")
	if a.AwaitMint(named("b")) {
		t.Error("a turn that nobody has is waited for")
	}
	if !a.BeginMint() {
		t.Fatal("the first one gets no turn")
	}
	if a.BeginMint() {
		t.Error("two members have the turn")
	}
	for _, name := range []string{"b", "c", "b"} {
		if !a.AwaitMint(named(name)) {
			t.Error("the turn is taken, and is not waited for")
		}
	}
	if got := names(a.EndMint()); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("%v waited", got)
	}
	if a.AwaitMint(named("b")) {
		t.Error("the turn is over, and is waited for")
	}
	if !a.BeginMint() {
		t.Error("the turn was given back, and is taken")
	}
	if got := a.EndMint(); len(got) != 0 {
		t.Errorf("%v waited for an earlier turn", got)
	}
}

// waits returns for how long a mint that nobody asked for has to wait at a time.
func waits(a *Account, expiresAt, at time.Time) time.Duration {
	notBefore := a.MintNotBefore(expiresAt, at)
	if notBefore.IsZero() {
		return 0
	}
	return notBefore.Sub(at)
}

// Mints that nobody asked for: a burst of three, then one in five minutes.
func TestMintBucket(t *testing.T) {
	a, at := with("a"), now
	wait := func() time.Duration { return waits(a, time.Time{}, at) }
	var undo func()
	for i := range mintBurst {
		if wait() != 0 {
			t.Fatalf("mint %d of the burst waits", i+1)
		}
		undo = a.CountMint(at, false)
	}
	if got := wait(); (got - mintEvery).Abs() > time.Second {
		t.Errorf("the next one waits %s, want %s", got, mintEvery)
	}
	if undo(); wait() != 0 {
		t.Error("a mint that did not happen counts")
	}
	a.CountMint(at, false)
	// A day of one after the other, as fast as allowed.
	mints := mintBurst
	for end := at.Add(24 * time.Hour); at.Before(end); at = at.Add(time.Second) {
		if wait() == 0 {
			a.CountMint(at, false)
			mints++
		}
	}
	if mints < 280 || mints > 300 {
		t.Errorf("%d mints in a day, want 3 and one in five minutes", mints)
	}
	// The clock ran an hour ahead.
	for wait() == 0 {
		a.CountMint(at, false)
	}
	at = at.Add(-time.Hour)
	if got := wait(); got > mintEvery {
		t.Errorf("the next one waits %s, want at most %s", got, mintEvery)
	}
	at = at.Add(mintEvery)
	if got := wait(); got != 0 {
		t.Errorf("five minutes later it waits for another %s", got)
	}
}

// Calls that WeChat did not answer may have minted and use up the pace. A token in its last minutes is replaced all the same, with
// 20 s between two attempts.
func TestMintsInTheHandover(t *testing.T) {
	for name, test := range map[string]struct {
		left, since time.Duration // of the token's life, and since the last mint
		allowed     bool
	}{
		"long before the end":            {6 * time.Minute, 30 * time.Second, false},
		"near the end":                   {5 * time.Minute, 30 * time.Second, true},
		"near the end, just after a try": {5 * time.Minute, 19 * time.Second, false},
		"a dead token keeps the pace":    {-time.Second, 30 * time.Second, false},
		"one that ends now does so, too": {0, 30 * time.Second, false},
		"no hurry, and the pace allows":  {time.Hour, mintEvery, true},
		"near the end, the pace allows":  {time.Minute, mintEvery, true},
	} {
		a := with("a")
		for range mintBurst {
			a.CountMint(now, false)
		}
		at := after(test.since)
		if got := waits(a, at.Add(test.left), at) <= 0; got != test.allowed {
			t.Errorf("%s: may mint: %t", name, got)
		}
		if got := waits(a, time.Time{}, at) <= 0; got != (test.since >= mintEvery) {
			t.Errorf("%s: may mint for no token: %t", name, got)
		}
	}
}

// Attempts of the last minutes that WeChat did not answer are not taken from those that come after the token's end.
func TestHandoverLeavesNoDebt(t *testing.T) {
	a, end, attempts := with("a"), after(2*time.Hour), 0
	for at := end.Add(-11 * time.Minute); at.Before(end); at = at.Add(time.Second) {
		if waits(a, end, at) <= 0 {
			a.CountMint(at, false)
			attempts++
		}
	}
	if attempts < 15 {
		t.Fatalf("%d attempts, so this proves nothing", attempts)
	}
	if got := waits(a, end, end.Add(time.Second)); got > mintEvery {
		t.Errorf("after the token's end the next mint waits %s", got)
	}
}

// The account's token is in its last minutes for each member, also for one whose own copy was spoilt and that mints for all.
func TestMintInTheHandoverOfTheAccount(t *testing.T) {
	const life = 2 * time.Hour
	for name, test := range map[string]struct {
		left    time.Duration // of the life of the account's token
		allowed bool
	}{
		"long before the end":       {6 * time.Minute, false},
		"near the end":              {5 * time.Minute, true},
		"a dead one keeps the pace": {0, false},
	} {
		a := with("a")
		at := after(life - test.left)
		a.NoteMinted(Confirmation{Fingerprint: "minted", At: now, ExpiresAt: after(life)})
		for range mintBurst {
			a.CountMint(at.Add(-30*time.Second), false)
		}
		if got := waits(a, time.Time{}, at) <= 0; got != test.allowed {
			t.Errorf("%s: may mint: %t", name, got)
		}
	}
}

// The handover adds few mints to the life of a token, however often they fail.
func TestMintsInAHandover(t *testing.T) {
	a, mints := with("a"), 0
	expiry := after(2 * time.Hour)
	for at := now; at.Before(expiry); at = at.Add(time.Second) {
		if waits(a, expiry, at) <= 0 {
			a.CountMint(at, false)
			mints++
		}
	}
	if most := mintBurst + int(2*time.Hour/mintEvery) + int(handover/mintInHandover) + 1; mints > most {
		t.Errorf("%d mints, want at most %d", mints, most)
	}
}

func TestLastMint(t *testing.T) {
	a := with("a")
	if !a.LastMint().IsZero() {
		t.Error("a mint before the first")
	}
	a.CountMint(now, false)
	if !a.LastMint().Equal(now) {
		t.Errorf("the last mint was at %s", a.LastMint())
	}
	a.CountMint(after(time.Minute), true)
	if !a.LastMint().Equal(after(time.Minute)) {
		t.Errorf("the last mint was at %s", a.LastMint())
	}
	// A requested mint does not come out of the bucket.
	if got := waits(a, time.Time{}, after(time.Minute)); got != 0 {
		t.Errorf("an unrequested mint waits %s", got)
	}
}

// A mark on a Secret, which may be forged, causes no mint soon after one of this process.
func TestMarkedMintNotBefore(t *testing.T) {
	minted := func(at, life time.Duration) Confirmation {
		return Confirmation{Fingerprint: "f", At: after(at), ExpiresAt: after(at + life)}
	}
	for name, test := range map[string]struct {
		minted Confirmation
		want   time.Time
	}{
		"nothing minted yet":        {Confirmation{}, time.Time{}},
		"just now":                  {minted(0, 2*time.Hour), after(markedMintAfter)},
		"a while ago":               {minted(-time.Hour, 2*time.Hour), after(markedMintAfter - time.Hour)},
		"a token with a short life": {minted(0, 4*time.Minute), after(time.Minute)},
		"noise of the clock":        {minted(2*time.Second, 2*time.Hour), after(2*time.Second + markedMintAfter)},
		"by a clock that ran ahead": {minted(time.Hour, 2*time.Hour), time.Time{}},
	} {
		if got := test.minted.MarkedMintNotBefore(now); !got.Equal(test.want) {
			t.Errorf("%s: not before %s, want %s", name, got, test.want)
		}
	}
}

func TestBeginCheck(t *testing.T) {
	for name, test := range map[string]struct {
		last time.Time // zero for none
		want time.Time // not before
	}{
		"the first one":             {time.Time{}, time.Time{}},
		"just now":                  {now, after(checkEvery)},
		"a moment too early":        {after(1 - checkEvery), after(1)},
		"late enough":               {after(-checkEvery), now},
		"a while ago":               {after(-time.Minute), after(checkEvery - time.Minute)},
		"by a clock that ran ahead": {after(time.Hour), time.Time{}},
	} {
		a := with("a")
		if !test.last.IsZero() && !a.BeginCheck(test.last) {
			t.Errorf("%s: the first check may not be made", name)
		}
		if got := a.CheckNotBefore(now); !got.Equal(test.want) {
			t.Errorf("%s: not before %s, want %s", name, got, test.want)
		}
		may := !now.Before(test.want)
		if got := a.BeginCheck(now); got != may {
			t.Errorf("%s: may be made: %t, want %t", name, got, may)
		}
		// One that may not be made does not put the next one off.
		if got, want := a.CheckNotBefore(now), after(checkEvery); may && !got.Equal(want) || !may && !got.Equal(test.want) {
			t.Errorf("%s: the next one is not before %s", name, got)
		}
	}
}

// Each forced call of an account counts, once: WeChat's spacing and its 20 a day depend on it.
func TestForced(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	last := start.Add((refresh.ForcedPerDay - 1) * refresh.ForcedSpacing)
	a := with("a", "b")
	for i := range refresh.ForcedPerDay {
		a.CountMint(start.Add(time.Duration(i)*refresh.ForcedSpacing), true)
	}
	forced := a.Forced(last)
	if len(forced) != refresh.ForcedPerDay {
		t.Errorf("%d forced calls count, want %d: %v", len(forced), refresh.ForcedPerDay, forced)
	}
	if at := refresh.ForcedAt(last.Add(time.Minute), forced, 1, refresh.ForcedSpacing); at.Sub(start) < 24*time.Hour-time.Second {
		t.Errorf("the next forced call is allowed at %s, within 24 hours of the first of %d", at, refresh.ForcedPerDay)
	}
	// Nothing is kept for longer than it counts.
	if forced := a.Forced(start.Add(24*time.Hour - 1)); len(forced) != refresh.ForcedPerDay {
		t.Errorf("%d calls a moment before the first is a day old", len(forced))
	}
	if forced := a.Forced(start.Add(24 * time.Hour)); len(forced) != refresh.ForcedPerDay-1 {
		t.Errorf("%d calls when the first is a day old", len(forced))
	}
	a.CountMint(last.Add(24*time.Hour), true)
	if n := len(a.pace.forced); n != 1 {
		t.Errorf("%d times are kept after a day", n)
	}
}

// The two calls of a revoke are both counted.
func TestForcedCallsOfARevoke(t *testing.T) {
	a := with("a")
	a.CountMint(now, true)
	a.CountMint(after(refresh.RevokeSpacing), true)
	at := after(refresh.RevokeSpacing + 5*time.Second)
	if next := refresh.ForcedAt(at, a.Forced(at), 1, refresh.ForcedSpacing); !next.Equal(after(refresh.RevokeSpacing + refresh.ForcedSpacing)) {
		t.Errorf("after a revoke the next forced call is allowed at %s", next)
	}
}

// A call that WeChat refused, or that was not sent, does not count.
func TestForcedCallThatIsTakenBack(t *testing.T) {
	a := with("a")
	a.CountMint(now, true)
	undo := a.CountMint(after(time.Minute), true)
	undo()
	if got := a.Forced(after(time.Minute)); !slices.EqualFunc(got, []time.Time{now}, time.Time.Equal) {
		t.Errorf("%v count, want the first alone", got)
	}
	if got := a.LastMint(); !got.Equal(now) {
		t.Errorf("the last mint was at %s, want %s", got, now)
	}
	// Whoever asks gets a copy.
	a.Forced(now)[0] = time.Time{}
	if got := a.Forced(now); !got[0].Equal(now) {
		t.Errorf("the list was changed from outside: %v", got)
	}
}

// A mint that did not happen ended no token, so nothing has to wait for it.
func TestUndoneMint(t *testing.T) {
	a := with("a")
	a.CountMint(after(-time.Hour), false)
	undo := a.CountMint(now, false)
	if undo(); !a.LastMint().Equal(after(-time.Hour)) {
		t.Errorf("the last mint was at %s, want %s", a.LastMint(), after(-time.Hour))
	}
}
