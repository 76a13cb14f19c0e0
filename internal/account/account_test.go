// SPDX-License-Identifier: Apache-2.0

package account

import (
	"errors"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// with returns an account with these members.
func with(members ...string) *Account {
	a := &Account{}
	for _, name := range members {
		a.Update(member(name))
	}
	return a
}

func TestConfirm(t *testing.T) {
	said := func(fingerprint string, at time.Duration) Confirmation {
		return Confirmation{Fingerprint: fingerprint, At: after(at), ExpiresAt: after(2 * time.Hour)}
	}
	const second, minute, hour = time.Second, time.Minute, time.Hour
	for name, test := range map[string]struct {
		before, c Confirmation
		by        types.UID
		wakes     []string
		ignored   bool
	}{
		"the first answer":                {Confirmation{}, said("f", 0), "a", []string{"b", "c"}, false},
		"the same token":                  {said("f", -minute), said("f", 0), "a", nil, false},
		"another token":                   {said("f", -minute), said("g", 0), "b", []string{"a", "c"}, false},
		"by nobody of the account":        {said("f", -minute), said("g", 0), "d", []string{"a", "b", "c"}, false},
		"an answer to an older call":      {said("f", -minute), said("g", -minute-second), "a", nil, true},
		"to a call of the same moment":    {said("f", -minute), said("g", -minute), "a", []string{"b", "c"}, false},
		"noted by a clock that ran ahead": {said("f", hour), said("g", 0), "a", []string{"b", "c"}, false},
		"the noise of a clock":            {said("f", 4*second), said("g", 0), "a", nil, true},
	} {
		a := with("a", "b", "c")
		a.confirmed = test.before
		if got := names(a.Confirm(test.c, test.by, now)); !slices.Equal(got, test.wakes) {
			t.Errorf("%s: it wakes %v, want %v", name, got, test.wakes)
		}
		want := test.c
		if test.ignored {
			want = test.before
		}
		if got := a.Confirmed(); got != want {
			t.Errorf("%s: %+v is kept, want %+v", name, got, want)
		}
	}
}

// Members whose answers disagree do not wake each other by turns: the answer to the later call stands.
func TestConfirmationsThatDisagree(t *testing.T) {
	a := with("a", "b")
	a.Confirm(Confirmation{Fingerprint: "new", At: after(time.Second)}, "a", after(2*time.Second))
	for range 3 {
		if woken := a.Confirm(Confirmation{Fingerprint: "old", At: now}, "b", after(2*time.Second)); woken != nil {
			t.Errorf("an older answer wakes %v", woken)
		}
	}
	if got := a.Confirmed().Fingerprint; got != "new" {
		t.Errorf("the token is %q", got)
	}
}

func TestDoubt(t *testing.T) {
	a := with("a", "b")
	a.Confirm(Confirmation{Fingerprint: "f", At: now}, "a", now)
	a.Doubt()
	if c := a.Confirmed(); !c.Doubted || c.Fingerprint != "f" {
		t.Errorf("doubted: %+v", c)
	}
	if woken := a.Confirm(Confirmation{Fingerprint: "f", At: after(time.Second)}, "a", now); woken != nil || a.Confirmed().Doubted {
		t.Errorf("the same token was confirmed: it wakes %v, %+v", woken, a.Confirmed())
	}
}

func TestDeaths(t *testing.T) {
	const minute, hour = time.Minute, time.Hour
	a := &Account{}
	if _, dead := a.DeadSince("a"); dead {
		t.Error("a token is dead that WeChat never refused")
	}
	for i, step := range []struct {
		token string
		early bool
		at    time.Duration
		want  int
	}{
		{"a", true, 0, 1},
		{"a", true, time.Second, 0}, // another member saw the same
		{"b", false, minute, 0},
		{"b", true, 2 * minute, 0}, // known already
		{"c", true, 30 * minute, 2},
		{"a", true, 31 * minute, 0}, // two dead tokens do not revive each other
		{"c", true, 32 * minute, 0},
		{"a", true, 33 * minute, 0},
		{"d", true, hour, 3},
		{"e", true, 3 * hour, 1}, // the others are long ago
	} {
		if got := a.NoteDead(step.token, step.early, after(step.at)); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	for fingerprint, since := range map[string]time.Duration{"a": 0, "b": minute, "c": 30 * minute, "d": hour, "e": 3 * hour} {
		if at, dead := a.DeadSince(fingerprint); !dead || !at.Equal(after(since)) {
			t.Errorf("%s: dead %t, since %s", fingerprint, dead, at)
		}
	}
	for _, fingerprint := range []string{"", "f"} {
		if at, dead := a.DeadSince(fingerprint); dead || !at.IsZero() {
			t.Errorf("%q is dead since %s", fingerprint, at)
		}
	}
	a.NoteAlive("c")
	if _, dead := a.DeadSince("c"); dead {
		t.Error("a token that WeChat accepts again is dead")
	}
	if _, dead := a.DeadSince("b"); !dead {
		t.Error("another one is not dead any more")
	}
}

// Only so many are remembered, the latest of them.
func TestManyDeaths(t *testing.T) {
	a := &Account{}
	fingerprint := func(i int) string { return string(rune('a' + i)) }
	for i := range maxDeaths + 2 {
		a.NoteDead(fingerprint(i), true, after(time.Duration(i)*time.Second))
	}
	if len(a.deaths) != maxDeaths {
		t.Errorf("%d are remembered", len(a.deaths))
	}
	for i := range maxDeaths + 2 {
		if _, dead := a.DeadSince(fingerprint(i)); dead != (i >= 2) {
			t.Errorf("token %d: dead %t", i, dead)
		}
	}
}

func TestWanted(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*Account)
		want bool
	}{
		"nobody":                    {func(*Account) {}, false},
		"just now":                  {func(a *Account) { a.Want(now) }, true},
		"almost too long ago":       {func(a *Account) { a.Want(after(-wantedFor + 1)) }, true},
		"too long ago":              {func(a *Account) { a.Want(after(-wantedFor)) }, false},
		"asked again":               {func(a *Account) { a.Want(after(-wantedFor)); a.Want(now) }, true},
		"by a clock that ran ahead": {func(a *Account) { a.Want(after(time.Minute)) }, false},
		"served by a mint":          {func(a *Account) { a.Want(now); a.NoteMinted(Confirmation{Fingerprint: "f", At: now}) }, false},
		"a check serves nobody":     {func(a *Account) { a.Want(now); a.Confirm(Confirmation{Fingerprint: "f", At: now}, "a", now) }, true},
	} {
		a := with("a", "b")
		if test.do(a); a.Wanted(now) != test.want {
			t.Errorf("%s: wanted %t", name, !test.want)
		}
	}
}

func TestMinted(t *testing.T) {
	a := &Account{}
	if got := a.Minted(); got != (Confirmation{}) {
		t.Errorf("before the first mint: %+v", got)
	}
	c := Confirmation{Fingerprint: "f", At: now, ExpiresAt: after(time.Hour)}
	if a.NoteMinted(c); a.Minted() != c || a.Confirmed() != (Confirmation{}) {
		t.Errorf("minted %+v, confirmed %+v", a.Minted(), a.Confirmed())
	}
}

// Ordinary calls that members make at the same time are one.
func TestMerged(t *testing.T) {
	a := with("a", "b")
	started, finish := make(chan struct{}), make(chan struct{})
	want := token.Token{Value: token.NewValue("first")}
	calls := make(chan token.Token, 2)
	go func() {
		got, _ := a.Merged(func() (token.Token, error) {
			close(started)
			<-finish
			return want, nil
		})
		calls <- got
	}()
	<-started
	go func() {
		got, _ := a.Merged(func() (token.Token, error) { return token.Token{Value: token.NewValue("second")}, nil })
		calls <- got
	}()
	time.Sleep(20 * time.Millisecond) // lets the second one find the first
	close(finish)
	for range 2 {
		if got := <-calls; got != want {
			t.Error("the second member made a call of its own")
		}
	}
	failure := errors.New("no answer")
	for name, acct := range map[string]*Account{"shared": a, "one member": with("a")} {
		if _, err := acct.Merged(func() (token.Token, error) { return token.Token{}, failure }); !errors.Is(err, failure) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := acct.Merged(func() (token.Token, error) { return want, nil }); err != nil || got != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A member without a token waits for the one that was minted, if others can have it.
func TestHasNewer(t *testing.T) {
	minted := Confirmation{Fingerprint: "new", At: now}
	for name, test := range map[string]struct {
		members     []string
		fingerprint string
		issuedAt    time.Duration
		minted      Confirmation
		dead        bool
		want        bool
	}{
		"an older token":                  {[]string{"a", "b"}, "old", -time.Hour, minted, false, true},
		"an older token, no other member": {[]string{"a"}, "old", -time.Hour, minted, false, true},
		"the same token":                  {[]string{"a", "b"}, "new", 0, minted, false, false},
		"a newer token":                   {[]string{"a", "b"}, "newer", time.Minute, minted, false, false},
		"no token":                        {[]string{"a", "b"}, "", 0, minted, false, true},
		"no token, no other member":       {[]string{"a"}, "", 0, minted, false, false},
		"no token, and WeChat refused it": {[]string{"a", "b"}, "", 0, minted, true, false},
		"no token, and none was minted":   {[]string{"a", "b"}, "", 0, Confirmation{}, false, false},
	} {
		a := with(test.members...)
		a.NoteMinted(test.minted)
		if test.dead {
			a.NoteDead(test.minted.Fingerprint, true, now)
		}
		issuedAt := time.Time{}
		if test.fingerprint != "" {
			issuedAt = after(test.issuedAt)
		}
		if got := a.HasNewer(test.fingerprint, issuedAt); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	for since, want := range map[time.Duration]time.Duration{0: time.Second, CopyWithin - 1: time.Second, CopyWithin: 10 * time.Second} {
		if got := minted.SeekAfter(after(since)); got != want {
			t.Errorf("%s after a mint: %s, want %s", since, got, want)
		}
	}
}
