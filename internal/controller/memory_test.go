// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func secretAt(version string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{UID: "a", ResourceVersion: version}}
}

func TestFreshestTarget(t *testing.T) {
	now := time.Unix(1_000, 0)
	for name, tc := range map[string]struct {
		own, cached *metav1.PartialObjectMetadata
		age         time.Duration
		want        string // resourceVersion, "" for none
		unsettled   bool
	}{
		"nothing is known":                    {nil, nil, 0, "", false},
		"never written here":                  {nil, secretAt("7"), 0, "7", false},
		"the informer has the own write":      {secretAt("7"), secretAt("7"), time.Hour, "7", false},
		"the informer is ahead":               {secretAt("9"), secretAt("10"), 0, "10", false},
		"the informer is behind":              {secretAt("10"), secretAt("9"), time.Second, "10", false},
		"the informer has not seen it at all": {secretAt("10"), nil, time.Second, "10", false},
		"behind for too long":                 {secretAt("10"), secretAt("9"), settleAfter + 1, "10", true},
		"unseen for too long":                 {secretAt("10"), nil, settleAfter + 1, "10", true},
		"the clock went back":                 {secretAt("10"), nil, -settleAfter - 1, "10", true},
		"two clock readings cross":            {secretAt("10"), nil, -time.Microsecond, "10", false},
		"versions that cannot be compared":    {secretAt("x"), secretAt("9"), time.Second, "x", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			m.rememberTarget(tc.own, now.Add(-tc.age))
			got, unsettled := m.freshestTarget(tc.cached, now)
			version := ""
			if got != nil {
				version = got.ResourceVersion
			}
			if version != tc.want || unsettled != tc.unsettled {
				t.Errorf("got %q, unsettled %t", version, unsettled)
			}
		})
	}
}

// What the informer has is not kept twice, and is read again should the informer lose it.
func TestOwnTargetIsDroppedOnceTheInformerHasIt(t *testing.T) {
	for name, has := range map[string]func(*memory){
		"by its event": func(m *memory) { m.ownWrite("a", "10") },
		"by its cache": func(m *memory) { m.freshestTarget(secretAt("10"), time.Time{}) },
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			m.rememberTarget(secretAt("10"), time.Time{})
			if m.ownWrite("a", "9") || m.ownWrite("b", "10") || m.own.meta == nil {
				t.Error("an older event is taken for the echo")
			}
			has(m)
			if m.own.meta != nil || !m.ownWrite("a", "10") {
				t.Error("the metadata is kept, or the own write is not known any more")
			}
			if got, unsettled := m.freshestTarget(secretAt("9"), time.Time{}); got != nil || !unsettled {
				t.Errorf("the informer went back: got %v, unsettled %t", got, unsettled)
			}
		})
	}
}

// A Secret that was deleted after the own write must not live on in memory.
func TestTargetGone(t *testing.T) {
	for name, tc := range map[string]struct {
		uid, version string
		forgotten    bool
	}{
		"the same Secret":           {"a", "11", true},
		"one made later":            {"b", "12", true},
		"one that was there before": {"b", "9", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			m.rememberTarget(secretAt("10"), time.Time{})
			gone := secretAt(tc.version)
			gone.UID = "a"
			if tc.uid != "a" {
				gone.UID = "b"
			}
			m.targetGone(gone.UID, gone.ResourceVersion)
			if forgotten := m.own == (ownTarget{}); forgotten != tc.forgotten {
				t.Errorf("forgotten: %t", forgotten)
			}
		})
	}
}

// The deletion may be told before the answer to the write.
func TestTargetGoneBeforeTheAnswer(t *testing.T) {
	m := &memory{}
	written := secretAt("10")
	m.targetGone(written.UID, "11")
	m.rememberTarget(written, time.Time{})
	if m.own != (ownTarget{}) {
		t.Errorf("it is taken to be there: %+v", m.own)
	}
	again := secretAt("12")
	again.UID = "b"
	if m.rememberTarget(again, time.Time{}); m.own.uid != "b" {
		t.Error("the one that was made after it is not remembered")
	}
}

// A time of confirmation that lies ahead, because the clock did, puts off no check.
func TestConfirmedAhead(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for ahead, want := range map[time.Duration]time.Time{
		time.Second: now.Add(time.Second), // whole seconds of WeChat's Date
		time.Hour:   {},
	} {
		acct := newAccounts().join(accountID{appID: "wx1"}, "u", types.NamespacedName{})
		acct.observe(sighting{fingerprint: "f", at: now.Add(ahead), expiresAt: now.Add(2 * time.Hour)})
		p := &pass{token: &v1alpha1.WeChatAppToken{}, mem: &memory{account: acct}, stored: stored{fingerprint: "f"}}
		if got := p.tokenInput(now).CheckedAt; !got.Equal(want) {
			t.Errorf("confirmed %s ahead: checked at %s, want %s", ahead, got, want)
		}
	}
}

// A resource that takes the name of another one leaves the other's account for it, and keeps what is registered by name.
func TestReplacedMemory(t *testing.T) {
	name := types.NamespacedName{Namespace: "shop", Name: "shop"}
	m := newMemories()
	first, replaced := m.of(name, "a")
	if replaced != nil {
		t.Error("the first one replaces something")
	}
	m.lookAt(name, looks{credentials: "credentials"})
	if again, replaced := m.of(name, "a"); again != first || replaced != nil {
		t.Error("the same resource has another memory")
	}
	second, replaced := m.of(name, "b")
	if replaced != first || second == first || second.looks != first.looks {
		t.Errorf("it replaces %v and looks at %+v", replaced, second.looks)
	}
}

// An account without members is kept for as long as its pacing, and no longer.
func TestAccountsThatAreLeft(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	a := newAccounts()
	id := func(app string) accountID { return accountID{legacy: true, appID: app} }
	for _, app := range []string{"minted", "forced", "back", "unused"} {
		acct := a.join(id(app), "u", types.NamespacedName{Name: app})
		switch app {
		case "minted", "back":
			acct.noteMint(now)
		case "forced":
			acct.noteForced(now)
		}
		a.leave(id(app), "u", now)
	}
	a.join(id("back"), "u", types.NamespacedName{Name: "back"})
	check := func(after time.Duration, want ...string) {
		t.Helper()
		now = now.Add(after)
		a.join(id("other"), "u", types.NamespacedName{})
		a.leave(id("other"), "u", now)
		var got []string
		for left := range a.byID {
			got = append(got, left.appID)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("after %s there are %v, want %v", after, got, want)
		}
	}
	check(0, "back", "forced", "minted")
	check(mintEvery, "back", "forced")
	check(24*time.Hour, "back")
	if len(a.left) != 0 {
		t.Errorf("still to be looked at: %v", a.left)
	}
}

// A member that the API server fails is passed over for a while, and not after a pass that went well.
func TestMemberThatFails(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	acct := newAccounts().join(accountID{legacy: true}, "u", types.NamespacedName{})
	fails := func() [2]bool { return [2]bool{acct.fails("u", now), acct.fails("other", now)} }
	for _, step := range []struct {
		do    func()
		fails bool
	}{
		{func() {}, false},
		{func() { acct.noteOutcome("u", true, now) }, true},
		{func() { now = now.Add(passOverFor - time.Second) }, true},
		{func() { now = now.Add(time.Second) }, false},
		{func() { acct.noteOutcome("u", true, now) }, true},
		{func() { acct.noteOutcome("u", false, now) }, false},
		{func() { acct.noteOutcome("u", true, now.Add(time.Hour)) }, false}, // by a clock that was ahead
	} {
		if step.do(); fails() != [2]bool{step.fails, false} {
			t.Errorf("fails: %v, want %v", fails(), step.fails)
		}
	}
}

// The token that WeChat issued later wins, whoever comes last.
func TestInbox(t *testing.T) {
	at := func(second int64, value string) issued {
		return issued{Token: vocab.Token{Value: vocab.NewValue(value), IssuedAt: time.Unix(second, 0)}}
	}
	m := &memory{}
	m.put(at(10, "first"))
	m.put(at(5, "older"))
	if got := m.unwritten(); got.Value != vocab.NewValue("first") {
		t.Error("an older token displaced a newer one")
	}
	writing := m.unwritten()
	m.put(at(11, "second"))
	m.written(writing)
	if got := m.unwritten(); got == nil || got.Value != vocab.NewValue("second") {
		t.Error("a token that came during the write was lost")
	}
	m.written(m.unwritten())
	if m.unwritten() != nil {
		t.Error("a written token was kept")
	}
}

func TestRepairs(t *testing.T) {
	start := time.Unix(1_000, 0)
	r := repairs{}
	if !r.notBefore(start).IsZero() {
		t.Error("the first repair waits")
	}
	now := start
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
		r.note(now)
		var wait time.Duration
		if at := r.notBefore(now); !at.IsZero() {
			wait = at.Sub(now)
		}
		if wait != want*time.Second {
			t.Errorf("repair %d waits %s, want %d s", i+1, wait, want)
		}
		if got, want := r.contested(now), i+1 >= contestedAfter; got != want {
			t.Errorf("contested after %d: %t", i+1, got)
		}
		now = now.Add(wait)
	}
	if r.contested(now.Add(repairCalm + 1)) {
		t.Error("contested although it has been calm")
	}
	now = now.Add(repairCalm + 1)
	r.note(now)
	if !r.notBefore(now).IsZero() {
		t.Error("a repair waits because of long ago")
	}
	r.note(now)
	if !r.notBefore(now.Add(-time.Hour)).IsZero() {
		t.Error("a repair waits for a time that was noted by a clock an hour ahead")
	}
}

// Mints that nobody asked for: a burst of three, then one in five minutes.
func TestMintBucket(t *testing.T) {
	a := newAccounts().join(accountID{}, "u", types.NamespacedName{})
	now := time.Unix(1_000, 0)
	wait := func() time.Duration {
		at := a.mintNotBefore(now)
		if at.IsZero() {
			return 0
		}
		return at.Sub(now)
	}
	var undo func()
	for i := range mintBurst {
		if wait() != 0 {
			t.Fatalf("mint %d of the burst waits", i+1)
		}
		undo = a.noteMint(now)
	}
	if got := wait(); (got - mintEvery).Abs() > time.Second {
		t.Errorf("the next one waits %s, want %s", got, mintEvery)
	}
	undo()
	if wait() != 0 {
		t.Error("a mint that did not happen counts")
	}
	a.noteMint(now)
	// A day of one after the other, as fast as allowed.
	mints := mintBurst
	for end := now.Add(24 * time.Hour); now.Before(end); now = now.Add(time.Second) {
		if wait() == 0 {
			a.noteMint(now)
			mints++
		}
	}
	if mints < 280 || mints > 300 {
		t.Errorf("%d mints in a day, want 3 and one in five minutes", mints)
	}
	// The clock ran an hour ahead.
	for wait() == 0 {
		a.noteMint(now)
	}
	now = now.Add(-time.Hour)
	if got := wait(); got > mintEvery {
		t.Errorf("the next one waits %s, want at most %s", got, mintEvery)
	}
	now = now.Add(mintEvery)
	if got := wait(); got != 0 {
		t.Errorf("five minutes later it waits for another %s", got)
	}
}

func TestEarlyDeaths(t *testing.T) {
	a := &account{}
	now := time.Unix(100_000, 0)
	for i, tc := range []struct {
		token string
		early bool
		after time.Duration
		want  int
	}{
		{"a", true, 0, 1},
		{"a", true, time.Second, 0}, // another member saw the same
		{"b", false, time.Minute, 0},
		{"c", true, 30 * time.Minute, 2},
		{"d", true, 2 * time.Hour, 1}, // the others are long ago
	} {
		if got := a.noteDead(tc.token, now.Add(tc.after), tc.early); got != tc.want {
			t.Errorf("step %d: %d, want %d", i, got, tc.want)
		}
	}
	if !a.isDead("d") || a.isDead("a") || a.isDead("") {
		t.Error("the wrong token is dead")
	}
}

// Each forced call of an account counts, once: WeChat's spacing and its 20 a day depend on it.
func TestForcedCallsOfAnAccount(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	a := &account{}
	var status []time.Time
	for i := range refresh.ForcedPerDay {
		at := start.Add(time.Duration(i) * refresh.ForcedSpacing)
		a.noteForced(at)
		status = append(status, at.Truncate(time.Second)) // as the status of one member has it
	}
	forced := a.forcedWith(status)
	if len(forced) != refresh.ForcedPerDay {
		t.Errorf("%d forced calls count, want %d: %v", len(forced), refresh.ForcedPerDay, forced)
	}
	last := start.Add((refresh.ForcedPerDay - 1) * refresh.ForcedSpacing)
	if at := refresh.ForcedAt(last.Add(time.Minute), forced, 1); at.Sub(start) < 24*time.Hour-time.Second {
		t.Errorf("the next forced call is allowed at %s, within 24 hours of the first of %d", at, refresh.ForcedPerDay)
	}
	b := &account{}
	b.noteForced(start)
	b.noteForced(start.Add(refresh.RevokeSpacing))
	after := start.Add(refresh.RevokeSpacing + 5*time.Second)
	if at := refresh.ForcedAt(after, b.forcedWith(nil), 1); at.Before(start.Add(refresh.RevokeSpacing + refresh.ForcedSpacing)) {
		t.Errorf("after a revoke the next forced call is allowed at %s", at)
	}
}

// Calls that WeChat did not answer may have minted and use up the pace. A token in its last minutes is replaced all the same,
// with 20 s between two attempts.
func TestMintsInTheHandover(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	acct := newAccounts().join(accountID{legacy: true}, "u", types.NamespacedName{})
	for range mintBurst {
		acct.noteMint(now)
	}
	for name, tc := range map[string]struct {
		left, since time.Duration // of the token's life, and since the last mint
		now         bool
	}{
		"long before the end":            {6 * time.Minute, 30 * time.Second, false},
		"near the end":                   {5 * time.Minute, 30 * time.Second, true},
		"near the end, just after a try": {5 * time.Minute, 19 * time.Second, false},
		"a dead token keeps the pace":    {-time.Second, 30 * time.Second, false},
		"no hurry, and the pace allows":  {time.Hour, mintEvery, true},
		"near the end, the pace allows":  {time.Minute, mintEvery, true},
	} {
		t.Run(name, func(t *testing.T) {
			at := now.Add(tc.since)
			token := &v1alpha1.WeChatAppToken{Spec: v1alpha1.WeChatAppTokenSpec{Mode: v1alpha1.ModeLegacy}}
			p := &pass{token: token, mem: &memory{account: acct}, stored: stored{fingerprint: "f", expiresAt: at.Add(tc.left)}}
			if got := !at.Before(p.mintNotBefore(at)); got != tc.now {
				t.Errorf("may mint: %v", got)
			}
			p.mem.verified.doubtful = true
			if got := !at.Before(p.mintNotBefore(at)); got != (tc.since >= mintEvery) {
				t.Errorf("may mint for what somebody else wrote: %v", got)
			}
		})
	}
}

// A process that was stopped, or whose mark took long to write, must not mint when another one thinks that its mint is over.
func TestMintStartBy(t *testing.T) {
	marked := time.Unix(1_000_000, 0)
	for name, tt := range map[string]struct {
		mark string
		now  time.Duration // since the mark
		want time.Duration // from now
	}{
		"no mark":                 {"", time.Minute, mintWithin},
		"at once":                 {"own", 0, mintWithin},
		"the mark took 4 s":       {"own", 4 * time.Second, time.Second},
		"stopped after the mark":  {"own", time.Minute, startAfterMark - time.Minute},
		"another process's mark":  {"other", time.Minute, mintWithin},
		"a clock that was ahead":  {"own", -time.Hour, mintWithin},
		"its end, for the others": {"own", mintTakes, startAfterMark - mintTakes},
	} {
		p := &pass{mem: &memory{ownMark: "own"}, record: target.Record{Mint: target.Mint{StartedAt: marked, ID: tt.mark}}}
		now := marked.Add(tt.now)
		if got := p.mintStartBy(now).Sub(now); got != tt.want {
			t.Errorf("%s: to be started within %s, want %s", name, got, tt.want)
		}
	}
}

// A mint that a clock that was ahead has noted keeps no mark from its mint.
func TestMintedAhead(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	acct := newAccounts().join(accountID{legacy: true}, "u", types.NamespacedName{})
	for ahead, want := range map[time.Duration]time.Time{0: now.Add(markedMintAfter), time.Hour: {}} {
		acct.noteMinted(sighting{fingerprint: "f", at: now.Add(ahead), expiresAt: now.Add(ahead + 2*time.Hour)})
		if got := acct.markedMintNotBefore(now); !got.Equal(want) {
			t.Errorf("noted %s ahead: not before %s, want %s", ahead, got, want)
		}
	}
}

// Another process's mark is waited for, in each rotation anew; those that follow each other, as forged ones do, only once.
func TestMarksOfAnotherProcess(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	token := &v1alpha1.WeChatAppToken{Spec: v1alpha1.WeChatAppTokenSpec{Mode: v1alpha1.ModeLegacy}}
	p := &pass{token: token, mem: &memory{account: newAccounts().join(accountID{legacy: true}, "u", types.NamespacedName{})}}
	for _, tc := range []struct {
		after, want time.Duration // since the start, and how long a mark of that moment is waited for
	}{
		{0, mintTakes},
		{10 * time.Second, mintTakes - 10*time.Second},
		{time.Minute, 0},
		{waitAgainAfter, 0},
		{waitAgainAfter + time.Second, mintTakes},
		{waitAgainAfter + time.Minute, 0},
	} {
		now := start.Add(tc.after)
		p.record.Mint = target.Mint{StartedAt: now, ID: tc.after.String()}
		if got := max(0, p.markedMintAt(now).Sub(now)); got != tc.want {
			t.Errorf("a mark %s after the first is waited for %s, want %s", tc.after, got, tc.want)
		}
	}
}

func TestLookers(t *testing.T) {
	m := newMemories()
	named := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "shop", Name: name} }
	look := func(name string, uid types.UID, at looks) {
		m.of(named(name), uid)
		m.lookAt(named(name), at)
	}
	expect := func(step, secret string, want ...types.NamespacedName) {
		t.Helper()
		if got := m.lookingAt(named(secret)); !slices.Equal(got, want) {
			t.Errorf("%s: %s is looked at by %v, want %v", step, secret, got, want)
		}
	}
	look("a", "1", looks{credentials: "secrets", target: "a"})
	look("b", "2", looks{credentials: "secrets", target: "a"})
	look("b", "2", looks{credentials: "secrets", target: "a"})
	expect("two with one AppSecret", "secrets", named("a"), named("b"))
	expect("two that want one target", "a", named("a"), named("b"))
	expect("a resource with another target", "b")
	if got := m.lookingAt(types.NamespacedName{Namespace: "other", Name: "secrets"}); got != nil {
		t.Errorf("a Secret of another namespace is looked at by %v", got)
	}
	look("a", "1", looks{credentials: "secrets", target: "c"})
	expect("the target changed", "a", named("b"))
	expect("the target changed", "c", named("a"))
	look("b", "3", looks{credentials: "others", target: "b"})
	expect("another resource of the name", "secrets", named("a"))
	expect("another resource of the name", "b", named("b"))
	// Another member's pass knows an older resource of the name, or an older state.
	if m.ofMember(named("b"), "2") != nil || m.ofMember(named("a"), "1") != m.find(named("a")) {
		t.Error("the memory of a resource was replaced by that of an older one")
	}
	m.of(named("b"), "4")
	expect("another resource that had no pass yet", "others", named("b"))
	if got := m.claiming(named("others")); got != nil {
		t.Errorf("credentials are the target of %v", got)
	}
	m.drop(named("a"))
	m.lookAt(named("a"), looks{credentials: "secrets", target: "a"})
	expect("gone", "secrets")
	m.drop(named("b"))
	if len(m.byName) != 0 || len(m.lookers) != 0 {
		t.Errorf("left: %v, %v", m.byName, m.lookers)
	}
}
