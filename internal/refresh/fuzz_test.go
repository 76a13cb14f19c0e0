// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// source deals out the fuzzer's bytes.
type source []byte

func (s *source) byte() byte {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return b
}

func (s *source) bool() bool { return s.byte()&1 == 1 }

// time is zero, or up to about two days before or after now.
func (s *source) time() time.Time {
	n := time.Duration(int16(uint16(s.byte())<<8 | uint16(s.byte()))) //nolint:gosec // any value will do
	switch s.byte() % 4 {
	case 0:
		return time.Time{}
	case 1:
		return after(n * 5 * time.Second)
	case 2:
		return after(n * time.Second / 4)
	default:
		return after(n * time.Millisecond)
	}
}

func (s *source) failure() *Failure {
	if s.bool() {
		return nil
	}
	f := &Failure{
		Class: []token.Class{token.Transient, token.Limited, token.Action}[s.byte()%3],
		Code:  int(s.byte() % 2), OfWrite: s.bool(), Binds: s.bool(), Attempts: int(s.byte()),
		First: s.time(), Time: s.time(), RetryAt: s.time(),
	}
	if s.bool() {
		f.Named = time.Duration(s.byte()) * time.Minute
	}
	return f
}

func (s *source) traits() Traits {
	if s.bool() {
		return Legacy()
	}
	return Stable()
}

func (s *source) inputs() Inputs {
	in := Inputs{
		Traits: s.traits(), CheckInterval: time.Duration(30+int(s.byte())*14) * time.Second, StartedAt: s.time(), ClockSynced: s.bool(),
		Deleting: s.byte()%16 == 1, Suspended: s.byte()%16 == 1,
		Credentials: Credentials{Missing: s.byte()%16 == 1, Changed: s.byte()%8 == 1, Malformed: s.byte()%16 == 1},
		Target: Target{
			Conflict: s.byte()%32 == 1, Terminating: s.byte()%32 == 1,
			Exists: s.byte()%8 != 1, AppIDChanged: s.byte()%8 == 1, ModeChanged: s.byte()%8 == 1,
			Tampered: s.byte()%4 == 1, Outdated: s.byte()%4 == 1, RepairNotBefore: s.time(), Contested: s.bool(), MintStarted: s.time(),
		},
		Token: Token{
			IssuedAt: s.time(), ExpiresAt: s.time(), CheckedAt: s.time(), ReplaceBy: s.time(), Doubtful: s.byte()%4 == 1,
			CheckNotBefore: s.time(), Unbelievable: s.byte()%8 == 1, Unwritten: s.byte()%8 == 1, Had: s.bool(),
		},
		Account: Account{
			MemberWaiting: s.byte()%4 == 1, FetcherAsked: s.bool(), MintNotBefore: s.time(), LastMint: s.time(), CheckNotBefore: s.time(),
		},
		Failure:  s.failure(),
		Requests: Requests{Check: s.byte()%4 == 1, Refresh: s.byte()%4 == 1, Revoke: s.byte()%4 == 1, RevokeStarted: s.time()},
	}
	if n := s.byte(); n != 1 {
		in.Token.Fingerprint = string('a' + rune(n%16))
	}
	if s.byte()%4 == 1 {
		in.Account.MintEndsBy = s.time()
	}
	if s.bool() {
		in.Told = Told{Class: []token.Class{token.Transient, token.Limited, token.Action}[s.byte()%3], SameCause: s.bool()}
	}
	for range s.byte() % 25 {
		in.Requests.Forced = append(in.Requests.Forced, s.time())
	}
	kinds := v1alpha1.TicketTypes()
	for _, kind := range kinds[:s.byte()%4] {
		in.Tickets = append(in.Tickets, s.ticket(kind))
	}
	in.TicketUnwritten = len(in.Tickets) > 0 && s.byte()%8 == 1
	in.UID = hex.EncodeToString(*s)
	return in
}

func (s *source) ticket(kind v1alpha1.TicketType) Ticket {
	t := Ticket{Type: kind, FirstAt: s.time(), ExpiresAt: s.time(), Failure: s.failure(), Told: s.byte()%8 == 1}
	if s.bool() {
		t.Fingerprint = string('a' + rune(s.byte()%2))
	}
	if s.byte()%4 != 1 {
		t.Sight = TicketSight{
			Fingerprint: string('a' + rune(s.byte()%2)), FirstAt: s.time(), LastAt: s.time(), ExpiresAt: s.time(), ChangeSeen: s.bool(), Doubted: s.byte()%8 == 1,
		}
	}
	return t
}

// stopped reports whether nothing may be done for the resource at all.
func stopped(in Inputs) bool {
	return in.Deleting || in.Suspended || in.Credentials.Missing || in.Target.Conflict || in.Target.Terminating
}

func FuzzDecide(f *testing.F) {
	f.Add([]byte{})
	r := rand.New(rand.NewPCG(5, 0)) //nolint:gosec // a test that must repeat itself
	for range 2000 {
		data := make([]byte, 280)
		for i := range data {
			data[i] = byte(r.Uint32()) //nolint:gosec // any value will do
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		src := source(data)
		in := src.inputs()
		given := in
		given.Requests.Forced = slices.Clone(in.Requests.Forced)
		d := Decide(now, in)
		if again := Decide(now, in); !reflect.DeepEqual(again, d) {
			t.Errorf("not deterministic: %+v and %+v", d, again)
		}
		if !reflect.DeepEqual(in, given) {
			t.Error("the inputs were changed")
		}
		checkSilence(t, in, d)
		checkWake(t, in, d)
		checkPromise(t, in, d)
		checkLimits(t, in, d)
		checkMonotone(t, in, d, time.Duration(src.byte())*time.Duration(src.byte())*time.Second)
		checkMark(t, in)
		checkTickets(t, in, d)
		if t.Failed() {
			t.Logf("%+v\n%+v\nfailure: %+v", in, d, in.Failure)
		}
	})
}

// checkSilence: some states never act, and whatever waits has a time.
func checkSilence(t *testing.T, in Inputs, d Decision) {
	t.Helper()
	if stopped(in) && d.Action != Wait {
		t.Errorf("%s although %s", d.Action, d.Reason)
	}
	if d.Action != Wait && !d.At.IsZero() {
		t.Error("an action with a time")
	}
	if d.Action == Wait && d.At.IsZero() && !in.Deleting && !in.Suspended {
		t.Error("waits for ever")
	}
	if (d.Request != "") != (d.Reason == RequestExecutable) || d.Reason == "" {
		t.Errorf("request %q with reason %q", d.Request, d.Reason)
	}
}

// checkTickets: tickets are fetched only with a token that may be valid, and neither they nor what is wrong with them changes what is done
// for the token.
func checkTickets(t *testing.T, in Inputs, d Decision) {
	t.Helper()
	if d.Action == FetchTickets && (!in.Target.Exists || in.Token.Fingerprint == "" || !now.Before(in.Token.ExpiresAt) || len(d.Tickets) == 0) {
		t.Errorf("%s for %v without a token", d.Action, d.Tickets)
	}
	for _, kind := range d.Tickets {
		if in.Ticket(kind).Type == "" {
			t.Errorf("a ticket %q that nobody asked for", kind)
		}
	}
	without := in
	without.Tickets, without.TicketUnwritten = nil, false
	bare := Decide(now, without)
	ofTicket := d.Reason == TicketDue || d.Reason == TicketUnwritten
	if !ofTicket && (bare.Action != d.Action || bare.Reason != d.Reason) {
		t.Errorf("%s %s, without tickets %s %s", d.Action, d.Reason, bare.Action, bare.Reason)
	}
	if d.Reason == TicketDue && bare.Action != Wait {
		t.Errorf("a ticket goes before %s %s", bare.Action, bare.Reason)
	}
	if bare.Verdict.Valid != d.Verdict.Valid || !bare.DueAt.Equal(d.DueAt) || !bare.RetryAt.Equal(d.RetryAt) {
		t.Errorf("%+v, without tickets %+v", d, bare)
	}
}

// checkWake: the time of the next decision is in the future, not too far, and nothing changes before it.
func checkWake(t *testing.T, in Inputs, d Decision) {
	t.Helper()
	if d.Action != Wait || in.Deleting {
		return
	}
	end := d.At
	if end.IsZero() {
		end = after(time.Hour)
	}
	if !end.After(now) {
		t.Errorf("wakes at %s, which is past", end)
	}
	horizon := after(in.CheckInterval)
	if d.Reason == UpToDate {
		horizon = Later(horizon, CheckAt(in))
	}
	if !in.Suspended && end.After(horizon) {
		t.Errorf("wakes at %s, after the check interval and the next check", end)
	}
	if expiry := in.Token.ExpiresAt; in.Token.Fingerprint != "" && now.Before(expiry) && end.After(expiry) {
		t.Errorf("wakes at %s, after the token expired at %s", end, expiry)
	}
	const steps = 16
	for i := range time.Duration(steps) {
		at := now.Add(end.Sub(now) * i / steps)
		if i == steps-1 {
			at = end.Add(-1)
		}
		before := Decide(at, in)
		if before.Action == Decline && untrue(in) {
			return // WeChat's wait begins to count when the time of the failure comes
		}
		if before.Action != Wait {
			t.Errorf("sleeps until %s, but %s %s was possible at %s", end, before.Action, before.Reason, at)
			return
		}
	}
}

// checkPromise: nothing but a recorded failure or the pace of mints keeps a token that is due from being replaced.
func checkPromise(t *testing.T, in Inputs, d Decision) {
	t.Helper()
	if stopped(in) || !in.Target.Exists || in.Token.Fingerprint == "" {
		return
	}
	paced := in.Traits.EndsOlder && (now.Before(in.Account.MintNotBefore) || now.Before(in.Account.MintEndsBy))
	if d.Action != Wait || in.Failure != nil && in.Failure.Binds || paced {
		return
	}
	if !now.Before(in.Token.ExpiresAt) {
		t.Error("an expired token waits")
	}
	if !now.Before(d.DueAt) {
		t.Error("a due token waits")
	}
}

// checkLimits: forced calls keep WeChat's limits, and no mint is made on a guess.
func checkLimits(t *testing.T, in Inputs, d Decision) {
	t.Helper()
	r := in.Requests
	if d.Action == Force && !r.Refresh || d.Action == Revoke && !r.Revoke && r.RevokeStarted.IsZero() {
		t.Errorf("%s, but nobody asked", d.Action)
	}
	if in.Token.Unwritten && d.Action != Wait && d.Action != Write && d.Reason == RequestExecutable {
		t.Error("a request before the token at hand is written")
	}
	canAsk := in.Target.Exists && in.Token.Fingerprint != "" && !in.Target.Tampered &&
		(in.Failure == nil || in.Failure.Code != 0 || in.Failure.OfWrite || now.Sub(in.Failure.First) < 2*time.Minute || now.Sub(in.StartedAt) < 2*time.Minute)
	byTheClock := canAsk && (d.Reason == Expired || d.Reason == RefreshDue || d.Reason == MintUnfinished)
	if in.Traits.EndsOlder && !in.ClockSynced && d.Action == Issue && byTheClock {
		t.Error("a mint because of a clock that nobody confirmed")
	}
	if in.Traits.EndsOlder && d.Action == Issue && now.Before(in.Account.MintNotBefore) {
		t.Error("an unrequested mint before its time")
	}
	if mints := d.Action == Issue || d.Action == Force || d.Action == Revoke; in.Traits.EndsOlder && mints && now.Before(in.Account.MintEndsBy) {
		t.Error("a mint while another member of the account mints")
	}
	if in.Traits.EndsOlder && d.Action == Force {
		if since := now.Sub(in.Account.LastMint); since < 330*time.Second && !IsInFuture(in.Account.LastMint, now) {
			t.Errorf("a Legacy refresh %s after the account's last mint", since)
		}
	}
	if d.Action == Decline && (in.Failure == nil || in.Failure.Named <= 0 || !now.Before(in.Failure.RetryAt)) {
		t.Error("declined a request although WeChat named no wait")
	}
	if d.Action == Decline && d.Request == RequestRevoke && !r.RevokeStarted.IsZero() {
		t.Error("declined a revoke that is half done")
	}
	if d.Action != Force && d.Action != Revoke {
		return
	}
	today := 0
	calls := slices.SortedFunc(slices.Values(r.Forced), time.Time.Compare)
	// Times within a second of each other are one call.
	for _, at := range slices.CompactFunc(calls, func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Second }) {
		if now.Sub(at) < 31*time.Second && !in.Traits.EndsOlder && !IsInFuture(at, now) {
			t.Errorf("%s although the last forced call was at %s", d.Action, at)
		}
		if now.Sub(at) < 24*time.Hour {
			today++
		}
	}
	if today >= 20 {
		t.Errorf("%s although %d calls were forced today", d.Action, today)
	}
}

// checkMonotone: as time goes by and nothing else, the time to wake does not come nearer, and what could be done can still
// be done. A check alone gives way to a rotation that is due and held back.
func checkMonotone(t *testing.T, in Inputs, d Decision, ahead time.Duration) {
	t.Helper()
	then := now.Add(ahead)
	next := Decide(then, in)
	if !next.DueAt.Equal(d.DueAt) {
		t.Errorf("due at %s, and %s later at %s", d.DueAt, ahead, next.DueAt)
	}
	if untrue(in) {
		return
	}
	if d.Action == Wait {
		if !d.At.IsZero() && then.Before(d.At) && next.Action == Wait && next.At.Before(d.At) {
			t.Errorf("wakes at %s, but %s later wants to wake at %s", d.At, ahead, next.At)
		}
		return
	}
	if d.Action != Check && d.Action != Decline && next.Action == Wait {
		t.Errorf("%s %s was possible, and %s later nothing is", d.Action, d.Reason, ahead)
	}
}

// untrue reports whether a time lies ahead that was noted as the present. Nothing is put off because of it, until it comes.
func untrue(in Inputs) bool {
	future := func(at time.Time) bool { return IsInFuture(at, now) }
	return in.Requests.RevokeStarted.After(now) || in.Failure != nil && future(in.Failure.Time) ||
		slices.ContainsFunc(in.Requests.Forced, future) || future(in.Account.LastMint)
}

// checkMark: a mark is worth one mint. It is over when its answer came, an errcode or a token, whenever that is looked at.
func checkMark(t *testing.T, in Inputs) {
	t.Helper()
	mark := in.Target.MintStarted
	ends := map[string]func(*Inputs){
		"no mark":          func(in *Inputs) { in.Target.MintStarted = time.Time{} },
		"the other mode":   func(in *Inputs) { in.Traits = Stable() },
		"a token at hand":  func(in *Inputs) { in.Token.Unwritten = true },
		"an errcode":       func(in *Inputs) { in.Failure = answered(in.Failure, mark) },
		"a later errcode":  func(in *Inputs) { in.Failure = answered(in.Failure, mark.Add(time.Hour)) },
		"a recalled error": func(in *Inputs) { in.Failure = answered(in.Failure, mark.Truncate(time.Second)) },
	}
	for name, end := range ends {
		over := in
		if end(&over); mark.IsZero() && over.Failure != in.Failure {
			continue
		}
		for _, at := range [...]time.Time{now, mark, mark.Add(time.Second), now.Add(24 * time.Hour)} {
			if d := Decide(at, over); d.Reason == MintUnfinished {
				t.Errorf("%s, and yet %s because of the mark at %s", name, d.Action, at)
			}
		}
	}
}

// answered is a failure with WeChat's answer at that time.
func answered(f *Failure, at time.Time) *Failure {
	out := Failure{Class: token.Action}
	if f != nil {
		out = *f
	}
	out.Code, out.Time = 40164, at
	return &out
}

// FuzzMints plays a Legacy resource through random times and answers, as the controller does: each mint has a mark of its
// own, and each mark is worth at most one mint more.
func FuzzMints(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 0)) //nolint:gosec // a test that must repeat itself
	for range 200 {
		data := make([]byte, 120)
		for i := range data {
			data[i] = byte(r.Uint32()) //nolint:gosec // any value will do
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		src := source(data[:min(len(data), 400)])
		life := time.Duration(600+int(src.byte())*30) * time.Second
		in := Inputs{UID: "u", Traits: Legacy(), CheckInterval: 2 * time.Minute, ClockSynced: true, StartedAt: now}
		at, n := now, byte(0)
		// lost is the mark whose answer never came; followed: a mint followed it already.
		lost, followed := time.Time{}, false
		for len(src) > 0 {
			d := Decide(at, in)
			if d.Action == Wait {
				if d.At.IsZero() || !d.At.After(at) {
					t.Fatalf("waits until %s at %s", d.At, at)
				}
				at = d.At.Add(time.Duration(src.byte()) * time.Millisecond)
				continue
			}
			if d.Reason == MintUnfinished {
				if lost.IsZero() || followed || !in.Target.MintStarted.Equal(lost) {
					t.Fatalf("mints for the mark %s, lost %s, followed %t", in.Target.MintStarted, lost, followed)
				}
				followed = true
			}
			if d.Action == Check {
				in.Token.CheckedAt, in.Failure = at, nil
				at = at.Add(time.Second)
				continue
			}
			if in.Target.Exists {
				in.Target.MintStarted = at
			}
			at = at.Add(time.Duration(src.byte()) * 40 * time.Millisecond)
			switch src.byte() % 4 {
			case 0: // WeChat refuses
				next := Next(in.Failure, Failure{Class: token.Action, Reason: "IPNotAllowed", Code: 40164}, at, in.UID)
				in.Failure = &next
			case 1: // the answer is lost with the process: the next one knows the mark alone
				lost, followed, in.Failure = in.Target.MintStarted, false, nil
			default:
				n++
				in.Target.Exists, in.Target.MintStarted, in.Failure = true, time.Time{}, nil
				in.Token = Token{Fingerprint: string('a' + rune(n%16)), IssuedAt: at, ExpiresAt: at.Add(life), CheckedAt: at}
				lost = time.Time{}
			}
			if in.Target.MintStarted.IsZero() {
				lost = time.Time{}
			}
		}
	})
}
