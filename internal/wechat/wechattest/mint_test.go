// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestStableTimeline(t *testing.T) {
	f := newFixture(t, Options{})
	a := f.stable(appID)
	f.wantCode("first call", a, 0)
	if a.ExpiresIn != 7200 {
		t.Errorf("expires_in of a new token is %d, want 7200", a.ExpiresIn)
	}
	if a.Errcode != nil || strings.Contains(string(a.body), "errmsg") {
		t.Errorf("success carries an errcode: %s", a.body)
	}

	f.Advance(time.Hour + 600*time.Millisecond)
	if again := f.stable(appID); again.Token != a.Token || again.ExpiresIn != 3599 {
		t.Errorf("after 3600.6 s: same token %t, expires_in %d, want the same one with 3599", again.Token == a.Token, again.ExpiresIn)
	}
	f.Advance(55*time.Minute - 600*time.Millisecond)
	if again := f.stable(appID); again.Token != a.Token || again.ExpiresIn != 300 {
		t.Errorf("300 s before expiry: same token %t, expires_in %d, want the same one with 300", again.Token == a.Token, again.ExpiresIn)
	}

	f.Advance(time.Nanosecond)
	b := f.stable(appID)
	if b.Token == a.Token || b.ExpiresIn != 7200 {
		t.Fatalf("in the window: same token %t, expires_in %d, want a new one with 7200", b.Token == a.Token, b.ExpiresIn)
	}
	f.wantProbe("old token in the overlap", a.Token, 0)
	f.wantProbe("new token in the overlap", b.Token, 0)
	f.Advance(5*time.Minute - 2*time.Nanosecond)
	f.wantProbe("old token at its last moment", a.Token, 0)
	f.Advance(time.Nanosecond)
	f.wantProbe("old token after its life", a.Token, codeTokenExpired)
	f.wantProbe("new token after that", b.Token, 0)

	// Without a call nothing rotates.
	f.Advance(3 * time.Hour)
	f.wantProbe("new token after its life", b.Token, codeTokenExpired)
	if got := len(f.Tokens(appID)); got != 2 {
		t.Errorf("%d tokens were made, want 2", got)
	}
	if c := f.stable(appID); c.Token == b.Token || c.ExpiresIn != 7200 {
		t.Errorf("after expiry: same token %t, expires_in %d", c.Token == b.Token, c.ExpiresIn)
	}
}

func TestWindow(t *testing.T) {
	for _, tc := range []struct{ life, want time.Duration }{
		{2 * time.Hour, 300 * time.Second},
		{301 * time.Second, 300 * time.Second},
		{300 * time.Second, 180 * time.Second},
		{61 * time.Second, 37 * time.Second},
		{2 * time.Second, 2 * time.Second},
		{time.Second, time.Second},
	} {
		if got := windowOf(tc.life); got != tc.want {
			t.Errorf("windowOf(%v) = %v, want %v", tc.life, got, tc.want)
		}
	}
}

func TestShortLives(t *testing.T) {
	for _, life := range []time.Duration{time.Millisecond, time.Second, 1500 * time.Millisecond, 5 * time.Second, 40 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			f := newFixture(t, Options{Life: life})
			for range 40 {
				a := f.stable(appID)
				now := f.Now()
				current, _ := f.Current(appID, Stable)
				if window := int(current.window() / time.Second); a.ExpiresIn < window || a.ExpiresIn < 1 {
					t.Fatalf("expires_in is %d, less than the window of %d s", a.ExpiresIn, window)
				}
				if end := now.Add(time.Duration(a.ExpiresIn) * time.Second); end.After(current.ExpiresAt) {
					t.Fatalf("expires_in %d reaches to %v, after the token's expiry %v", a.ExpiresIn, end, current.ExpiresAt)
				}
				f.Advance(life / 7)
			}
		})
	}
}

func TestAppLife(t *testing.T) {
	f := newFixture(t, Options{Life: time.Hour})
	f.SetApp(App{ID: other, Secret: secret, Life: 30 * time.Minute})
	if got := f.stable(appID).ExpiresIn; got != 3600 {
		t.Errorf("expires_in by Options.Life is %d, want 3600", got)
	}
	if got := f.legacy(other).ExpiresIn; got != 1800 {
		t.Errorf("expires_in by App.Life is %d, want 1800", got)
	}
	f.SetApp(App{ID: other, Secret: secret})
	if got := f.legacy(other).ExpiresIn; got != 3600 {
		t.Errorf("expires_in after App.Life was dropped is %d, want 3600", got)
	}
}

func TestForce(t *testing.T) {
	f := newFixture(t, Options{})
	a := f.stable(appID)
	b := f.force(appID)
	f.wantCode("first force", b, 0)
	if b.Token == a.Token || b.ExpiresIn != 7200 {
		t.Fatalf("first force: same token %t, expires_in %d", b.Token == a.Token, b.ExpiresIn)
	}
	f.wantProbe("replaced token at once", a.Token, 0)

	f.Advance(30*time.Second - time.Nanosecond)
	if again := f.force(appID); again.Token != b.Token || again.ExpiresIn != 7170 {
		t.Errorf("force within 30 s: same token %t, expires_in %d, want the same with 7170", again.Token == b.Token, again.ExpiresIn)
	}
	f.wantProbe("replaced token after a force that did nothing", a.Token, 0)

	f.Advance(time.Nanosecond)
	c := f.force(appID)
	if c.Token == b.Token {
		t.Fatal("force after 30 s gave the same token")
	}
	f.wantProbe("leaked token after the second force", a.Token, codeInvalidCredential)
	f.wantProbe("token between both forces", b.Token, 0)
	f.wantProbe("newest token", c.Token, 0)

	f.Advance(5*time.Minute - time.Nanosecond)
	f.wantProbe("token between both forces, at the last moment", b.Token, 0)
	f.Advance(time.Nanosecond)
	f.wantProbe("token between both forces, after five minutes", b.Token, codeInvalidCredential)

	issued := f.Tokens(appID)
	if len(issued) != 3 || issued[0].Forced || !issued[1].Forced || !issued[2].Forced {
		t.Errorf("ledger: %+v, want one ordinary and two forced tokens", issued)
	}
	if want := epoch.Add(30 * time.Second); !issued[0].DiedAt.Equal(want) {
		t.Errorf("the leaked token died at %v, want %v", issued[0].DiedAt, want)
	}
	calls := f.Calls(Filter{Endpoint: EndpointStable})
	if c := calls[2]; !c.Forced || c.Minted {
		t.Errorf("a force within 30 s is written down as %+v, want forced and not minted", c)
	}
	if c := calls[3]; !c.Forced || !c.Minted {
		t.Errorf("a force is written down as %+v, want forced and minted", c)
	}
}

func TestForceNearExpiry(t *testing.T) {
	f := newFixture(t, Options{})
	a := f.stable(appID)
	f.Advance(2*time.Hour - time.Minute)
	f.force(appID)
	f.Advance(time.Minute - time.Nanosecond)
	f.wantProbe("replaced token at the end of its rest", a.Token, 0)
	f.Advance(time.Nanosecond)
	f.wantProbe("replaced token after its rest", a.Token, codeTokenExpired)
	if first := f.Tokens(appID)[0]; !first.DiedAt.IsZero() {
		t.Errorf("DiedAt is %v for a token that died at its expiry", first.DiedAt)
	}
}

// An ordinary rotation promises five minutes, which a single force does not take away.
func TestForceAfterRotation(t *testing.T) {
	f := newFixture(t, Options{})
	a := f.stable(appID)
	f.Advance(2*time.Hour - 4*time.Minute)
	b := f.stable(appID)
	f.Advance(time.Minute)
	f.force(appID)
	f.wantProbe("rotated token after a force", a.Token, 0)
	f.wantProbe("replaced token after a force", b.Token, 0)
}

func TestForceBudget(t *testing.T) {
	f := newFixture(t, Options{})
	for i := range forceBudget {
		if i == 3 {
			f.RivalForceRefresh(appID) // counts too
		} else {
			f.wantCode("force within the budget", f.force(appID), 0)
		}
		f.Advance(time.Minute)
	}
	current := f.stable(appID).Token
	over := f.force(appID)
	f.wantCode("21st force", over, codeDailyQuota)
	if now := f.stable(appID).Token; now != current {
		t.Error("a refused force changed the token")
	}
	if a := f.force(other); a.code() != 0 {
		t.Errorf("another account got %d", a.code())
	}
	if rival := f.RivalForceRefresh(appID); rival.By != byRival || !rival.Forced || f.stable(appID).Token != rival.Token {
		t.Errorf("a rival's force beyond the budget gave %+v, and it is not the current token", rival)
	}
	// The rival's force counts, so two have to fall out of the 24 hours.
	f.Advance(24*time.Hour - forceBudget*time.Minute)
	f.wantCode("force when one is 24 h old", f.force(appID), codeDailyQuota)
	f.Advance(time.Minute)
	f.wantCode("force when two are 24 h old", f.force(appID), 0)
}

// The spacing is the account's, whoever forced.
func TestForceAfterRival(t *testing.T) {
	f := newFixture(t, Options{})
	f.stable(appID)
	rival := f.RivalForceRefresh(appID)
	if a := f.force(appID); a.Token != rival.Token {
		t.Error("a force right after a rival's made a new token")
	}
}

func TestLegacyTimeline(t *testing.T) {
	for _, lives := range []bool{false, true} {
		t.Run(map[bool]string{false: "grandparent dies", true: "grandparent lives"}[lives], func(t *testing.T) {
			f := newFixture(t, Options{LegacyGrandparentLives: lives})
			a := f.legacy(appID)
			f.wantCode("first mint", a, 0)
			if a.ExpiresIn != 7200 || a.Errcode != nil {
				t.Errorf("first mint: %s", a.body)
			}
			f.Advance(time.Hour)
			b := f.legacy(appID)
			if b.Token == a.Token || b.ExpiresIn != 7200 {
				t.Fatalf("second mint: same token %t, expires_in %d", b.Token == a.Token, b.ExpiresIn)
			}
			f.wantProbe("replaced token", a.Token, 0)
			f.Advance(time.Minute)
			c := f.legacy(appID)
			grandparent := codeInvalidCredential
			if lives {
				grandparent = 0
			}
			f.wantProbe("token before the replaced one", a.Token, grandparent)
			f.wantProbe("replaced token", b.Token, 0)
			f.wantProbe("newest token", c.Token, 0)

			f.Advance(4*time.Minute - time.Nanosecond)
			f.wantProbe("token before the replaced one, at the last moment", a.Token, grandparent)
			f.Advance(time.Nanosecond)
			f.wantProbe("token before the replaced one, after five minutes", a.Token, codeInvalidCredential)
			f.wantProbe("replaced token after four minutes", b.Token, 0)
			f.Advance(time.Minute)
			f.wantProbe("replaced token after five minutes", b.Token, codeInvalidCredential)
			f.wantProbe("newest token after that", c.Token, 0)
			f.Advance(2 * time.Hour)
			f.wantProbe("newest token after its life", c.Token, codeTokenExpired)
		})
	}
}

func TestRivalMint(t *testing.T) {
	f := newFixture(t, Options{})
	ours := f.legacy(appID)
	rival := f.RivalMint(appID)
	if rival.By != byRival || rival.Mode != Legacy {
		t.Errorf("a rival's token is %+v", rival)
	}
	f.wantProbe("our token after one mint", ours.Token, 0)
	f.RivalMint(appID)
	f.wantProbe("our token after two mints", ours.Token, codeInvalidCredential)
	if current, _ := f.Current(appID, Legacy); current.By != byRival {
		t.Errorf("the newest token is by %q", current.By)
	}
}

func TestIsolation(t *testing.T) {
	f := newFixture(t, Options{})
	stable, legacy, foreign := f.stable(appID), f.legacy(appID), f.stable(other)
	for range 3 {
		f.legacy(appID)
	}
	f.wantProbe("Stable token after Legacy mints", stable.Token, 0)
	stable2 := f.stable(appID)
	if stable2.Token != stable.Token {
		t.Error("Legacy mints changed the Stable token")
	}
	newest, _ := f.Current(appID, Legacy)
	f.force(appID)
	f.Advance(time.Minute)
	f.force(appID)
	f.wantProbe("Stable token after two forces", stable.Token, codeInvalidCredential)
	f.wantProbe("newest Legacy token after two forces", newest.Token, 0)
	f.wantProbe("first Legacy token", legacy.Token, codeInvalidCredential)
	f.wantProbe("another account's token", foreign.Token, 0)
}

func TestTokenValues(t *testing.T) {
	pattern := regexp.MustCompile(`^92_[0-9A-Za-z_-]{133,147}$`)
	seen, lengths := map[string]bool{}, map[int]bool{}
	for range 2000 {
		value := newTokenValue()
		if !pattern.MatchString(value) {
			t.Fatalf("a token of %d characters is not like WeChat's: %q", len(value), value)
		}
		if seen[value] {
			t.Fatal("a token came twice")
		}
		seen[value], lengths[len(value)] = true, true
	}
	if len(lengths) < 10 {
		t.Errorf("only %d different lengths", len(lengths))
	}
}

func TestClockSetBack(t *testing.T) {
	f := newFixture(t, Options{})
	a := f.stable(appID)
	f.Advance(-time.Hour)
	f.wantProbe("token before its issue", a.Token, codeInvalidToken)
	b := f.stable(appID)
	if b.Token == a.Token || b.ExpiresIn != 7200 {
		t.Errorf("same token %t, expires_in %d, want a new one with 7200", b.Token == a.Token, b.ExpiresIn)
	}
	f.wantProbe("new token", b.Token, 0)
	if c := f.force(appID); c.code() != 0 || c.Token == b.Token {
		t.Errorf("a force gave errcode %d", c.code())
	}
}
