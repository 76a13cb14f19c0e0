// SPDX-License-Identifier: Apache-2.0

package appclient

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestPlanKey(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) *metav1.Time { return new(metav1.NewTime(now.Add(d))) }
	// status is that of the key "a", made an hour ago.
	status := func(mutate ...func(*v1alpha1.ClientKeyStatus)) *v1alpha1.ClientKeyStatus {
		s := &v1alpha1.ClientKeyStatus{Fingerprint: "a", CreateTime: *at(-time.Hour)}
		for _, f := range mutate {
			f(s)
		}
		return s
	}
	// before adds the key "z", which stops to buy tokens after d.
	before := func(d time.Duration) func(*v1alpha1.ClientKeyStatus) {
		return func(s *v1alpha1.ClientKeyStatus) { s.PreviousFingerprint, s.PreviousUntilTime = "z", at(d) }
	}
	const day, weeks = 24 * time.Hour, 1000 * time.Hour
	for _, c := range []struct {
		name     string
		known    *v1alpha1.ClientKeyStatus
		holds    [2]string
		interval time.Duration
		rotate   bool
		revoke   bool
		unsynced bool
		want     change
		previous string
		until    time.Duration
		lost     bool
		waits    bool
		at       time.Duration // 0 for never
	}{
		{name: "no key", want: issue},
		{name: "a value in the Secret is no key", holds: [2]string{"x", "y"}, want: issue},
		{name: "a key", known: status(), holds: [2]string{"a"}},
		{name: "a key with an interval", known: status(), holds: [2]string{"a"}, interval: weeks, at: weeks - time.Hour},
		{name: "the interval is over", known: status(), holds: [2]string{"a"}, interval: time.Hour, want: rotate, previous: "a", until: day, at: day + 4*time.Hour},
		{name: "a moment before", known: status(), holds: [2]string{"a"}, interval: time.Hour + time.Second, at: time.Second},
		{name: "on request", known: status(), holds: [2]string{"a"}, rotate: true, want: rotate, previous: "a", until: day, at: day + 4*time.Hour},
		{name: "the overlap", known: status(before(time.Minute)), holds: [2]string{"a", "z"}, previous: "z", until: time.Minute, at: 4*time.Hour + time.Minute},
		{name: "its tokens", known: status(before(-time.Minute)), holds: [2]string{"a", "z"}, previous: "z", until: -time.Minute, at: 4*time.Hour - time.Minute},
		{name: "their end", known: status(before(-4 * time.Hour)), holds: [2]string{"a", "z"}},
		{
			name: "a second rotation waits", known: status(before(-time.Minute)), holds: [2]string{"a", "z"}, rotate: true,
			previous: "z", until: -time.Minute, waits: true, at: 4*time.Hour - time.Minute,
		},
		{
			name: "an interval waits", known: status(before(-time.Minute)), holds: [2]string{"a", "z"}, interval: time.Hour,
			previous: "z", until: -time.Minute, at: 4*time.Hour - time.Minute,
		},
		{name: "a second rotation", known: status(before(-4 * time.Hour)), holds: [2]string{"a", "z"}, rotate: true, want: rotate, previous: "a", until: day, at: day + 4*time.Hour},
		{name: "the key before is gone", known: status(before(time.Minute)), holds: [2]string{"a"}, lost: true},
		{name: "another value in its place", known: status(before(time.Minute)), holds: [2]string{"a", "x"}, lost: true},
		{name: "somebody added one", known: status(), holds: [2]string{"a", "x"}},
		{name: "an edited key", known: status(), holds: [2]string{"x"}, want: repair},
		{name: "no Secret", known: status(), want: repair},
		{name: "an edited key beside the one before", known: status(before(time.Minute)), holds: [2]string{"x", "z"}, want: repair, previous: "z", until: time.Minute, at: 4*time.Hour + time.Minute},
		{name: "a crash in a rotation", known: status(), holds: [2]string{"b", "a"}, rotate: true, want: rotate, previous: "a", until: day, at: day + 4*time.Hour},
		{name: "a crash in one that nobody wants any more", known: status(), holds: [2]string{"b", "a"}, want: repair, previous: "a", until: day, at: day + 4*time.Hour},
		{name: "a revoke", known: status(before(time.Minute)), holds: [2]string{"a", "z"}, revoke: true, want: revoke},
		{name: "a revoke and a rotation", known: status(), holds: [2]string{"a"}, revoke: true, rotate: true, interval: weeks, want: revoke, at: weeks},
		{name: "a crash in a revoke", known: status(), holds: [2]string{"b"}, revoke: true, want: revoke},
		{name: "a revoke without a key", revoke: true, want: revoke},
		{name: "a clock that ran ahead", known: status(before(9000 * time.Hour)), holds: [2]string{"a", "z"}, previous: "z", until: day, at: day + 4*time.Hour},
		{
			name: "a clock that may be behind", known: status(before(9000 * time.Hour)), holds: [2]string{"a", "z"}, unsynced: true,
			previous: "z", until: 9000 * time.Hour, at: syncedLater,
		},
		{
			name: "a clock that may be ahead", known: status(before(-9000 * time.Hour)), holds: [2]string{"a", "z"}, unsynced: true, interval: time.Hour,
			previous: "z", until: -9000 * time.Hour, at: syncedLater,
		},
		{name: "the key before is gone, and its end is over by such a clock", known: status(before(-9000 * time.Hour)), holds: [2]string{"a"}, unsynced: true},
		{name: "an interval by a clock that may be ahead", known: status(), holds: [2]string{"a"}, unsynced: true, interval: time.Hour, at: syncedLater},
		{name: "a key alone by such a clock", known: status(), holds: [2]string{"a"}, unsynced: true},
		{name: "a revoke by such a clock", known: status(before(time.Minute)), holds: [2]string{"a", "z"}, unsynced: true, revoke: true, want: revoke},
		{name: "on request by such a clock", known: status(), holds: [2]string{"a"}, unsynced: true, rotate: true, want: rotate, previous: "a", until: day, at: syncedLater},
		{name: "half of a status", known: status(func(s *v1alpha1.ClientKeyStatus) { s.PreviousFingerprint = "z" }), holds: [2]string{"a", "z"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := keyInputs{
				now: now, synced: !c.unsynced, known: c.known, current: c.holds[0], previous: c.holds[1], rotate: c.rotate, revoke: c.revoke,
				spec: v1alpha1.ClientKeySpec{Overlap: metav1.Duration{Duration: day}},
			}
			if c.interval > 0 {
				in.spec.RotationInterval = &metav1.Duration{Duration: c.interval}
			}
			p := planKey(in)
			var until, next time.Time
			if c.previous != "" {
				until = now.Add(c.until)
			}
			if c.at != 0 {
				next = now.Add(c.at)
			}
			if p.change != c.want || p.previous != c.previous || !p.until.Time.Equal(until) || p.lost != c.lost || p.rotationWaits != c.waits || !p.at.Equal(next) {
				t.Errorf("got %+v", p)
			}
			created := now
			if c.want == keep {
				created = now.Add(-time.Hour)
			}
			if s := p.next("n"); s.Fingerprint != "n" || !s.CreateTime.Time.Equal(created) || s.PreviousFingerprint != c.previous || (s.PreviousUntilTime != nil) != (c.previous != "") {
				t.Errorf("the status would be %+v", s)
			}
			// What the plan leads to is stable: another pass changes nothing.
			in.current, in.previous, in.known, in.rotate, in.revoke = "n", p.previous, p.next("n"), false, false
			if again := planKey(in); again.change != keep || again.previous != p.previous || !again.at.Equal(p.at) {
				t.Errorf("the next pass would %+v", again)
			}
		})
	}
}

func TestNewKey(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		k := newKey().Reveal()
		if !wellFormedKey.MatchString(k) || seen[k] || parseKey([]byte(k)).Reveal() != k {
			t.Errorf("%s is no new key", k)
		}
		seen[k] = true
	}
	for _, v := range []string{"", "0123456789ABCDEF0123456789abcdef", "0123456789abcdef0123456789abcdef\n", "0123456789abcdef0123456789abcde", "../0123456789abcdef0123456789abc"} {
		if !parseKey([]byte(v)).IsZero() {
			t.Errorf("%q is a key", v)
		}
	}
}
