// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"slices"
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const jsapi = v1alpha1.TicketJSAPI

// seen is a ticket that WeChat returned first and last so long ago.
func seen(fingerprint string, first, last time.Duration) TicketSight {
	s := TicketSight{}.Next(fingerprint, after(-first), token.TicketLife)
	return s.Next(fingerprint, after(-last), token.TicketLife)
}

// ticket is in the Secret as WeChat returned it last.
func ticket(s TicketSight) Ticket {
	return Ticket{Type: jsapi, Fingerprint: s.Fingerprint, FirstAt: s.FirstAt, ExpiresAt: s.ExpiresAt, Sight: s}
}

func withTicket(t Ticket) edit { return func(in *Inputs) { in.Tickets = append(in.Tickets, t) } }

func TestTicketSight(t *testing.T) {
	const life, minute = token.TicketLife, time.Minute
	first := TicketSight{}.Next("a", now, life)
	if want := (TicketSight{Fingerprint: "a", FirstAt: now, LastAt: now, ExpiresAt: after(life).Truncate(time.Second)}); first != want {
		t.Errorf("the first sight: %+v, want %+v", first, want)
	}
	for name, test := range map[string]struct {
		before    TicketSight
		returned  string
		in        time.Duration // since now
		expiresIn time.Duration
		first     time.Duration
		expires   time.Duration
		changed   bool
	}{
		"the same, young":             {first, "a", 15 * minute, life, 0, life, false},
		"the same, about to end":      {first, "a", 105 * minute, life, 0, 135 * minute, false},
		"the same, after its life":    {first, "a", 180 * minute, life, 0, 210 * minute, false},
		"an honest answer":            {first, "a", 15 * minute, 10 * minute, 0, 25 * minute, false},
		"another, at the next poll":   {first, "b", 15 * minute, life, 15 * minute, 15*minute + life, true},
		"another, after a long pause": {first, "b", 60 * minute, life, 60 * minute, 60*minute + life, false},
		"another, after a restart":    {TicketSight{Fingerprint: "a", FirstAt: now}, "b", minute, life, minute, minute + life, false},
		"doubted and returned again":  {TicketSight{Fingerprint: "a", FirstAt: now, LastAt: now, Doubted: true}, "a", minute, life, 0, life, false},
	} {
		got := test.before.Next(test.returned, after(test.in), test.expiresIn)
		want := TicketSight{
			Fingerprint: test.returned, FirstAt: after(test.first), LastAt: after(test.in), ExpiresAt: after(test.expires).Truncate(time.Second),
			ChangeSeen: test.changed,
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestTicketDue(t *testing.T) {
	const minute = time.Minute
	changed := seen("a", 20*minute, 5*minute)
	changed.ChangeSeen = true
	doubted := seen("a", 5*minute, minute)
	doubted.Doubted = true
	recalled := ticket(TicketSight{Fingerprint: "a", FirstAt: after(-30 * minute)})
	recalled.ExpiresAt = after(90 * minute)
	other := ticket(seen("a", 5*minute, minute))
	other.Fingerprint = "b"
	late := ticket(seen("a", 5*minute, minute))
	late.ExpiresAt = late.ExpiresAt.Add(-31 * time.Second)
	failing := ticket(seen("a", 20*minute, 5*minute))
	failing.Failure = &Failure{Class: token.Transient, Binds: true, RetryAt: after(7 * time.Second)}
	void := failing
	void.Failure = &Failure{Class: token.Action, RetryAt: after(time.Hour)}
	absent, told := Ticket{Type: jsapi}, Ticket{Type: jsapi, Told: true}
	first := CheckAt(healthy(checked(time.Time{}))) // whatever the checks that other members have made since
	brief := ticket(TicketSight{}.Next("a", after(-5*minute), 8*minute))
	moment := ticket(TicketSight{}.Next("a", after(-time.Second), 2*time.Second))
	ahead := ticket(seen("a", -time.Hour, -time.Hour)) // noted by a clock that ran ahead
	failedAhead := failing
	failedAhead.Failure = &Failure{Class: token.Transient, Binds: true, Time: after(time.Hour), RetryAt: after(time.Hour)}
	for name, test := range map[string]struct {
		ticket Ticket
		want   time.Time
	}{
		"it lives shorter than till the next poll": {brief, brief.ExpiresAt.Add(ticketSlack)},
		"it lives for a moment":                    {moment, after(minute - time.Second)},
		"returned in the future":                   {ahead, time.Time{}},
		"its last call failed in the future":       {failedAhead, after(10 * minute)},
		"never had":                                {absent, time.Time{}},
		"never had, and the status tells why":      {told, first},
		"known from the status alone":              {recalled, first},
		"polled five minutes ago":                  {ticket(seen("a", 20*minute, 5*minute)), after(10 * minute)},
		"its change was seen":                      {ticket(changed), after(40 * minute)},
		"WeChat has returned another":              {other, other.FirstAt.Add(ticketRest)},
		"it lives longer than the Secret says":     {late, time.Time{}},
		"doubted":                                  {ticket(doubted), time.Time{}},
		"its last call failed":                     {failing, after(7 * time.Second)},
		"a failure of another spec":                {void, after(10 * minute)},
	} {
		if got := ticketDueAt(test.ticket, healthy(), now); !got.Equal(test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// A member of an account that rests when a ticket changes for the second time must have followed in every volume, which takes up to 90 s, before
// the ticket that it holds ends.
func TestTicketRest(t *testing.T) {
	const volume = 90 * time.Second
	if late := ticketRest + volume - StableOverlap; late >= 0 {
		t.Errorf("a pod may hold a dead ticket for %v", late)
	}
}

// What is decided for tickets, and with which calls they come.
func TestTicketDecisions(t *testing.T) {
	const minute = time.Minute
	absent := withTicket(Ticket{Type: jsapi})
	fresh := withTicket(ticket(seen("a", 5*minute, minute)))
	soon := withTicket(ticket(seen("a", 20*minute, 14*minute)))
	refused := Ticket{Type: jsapi, Failure: &Failure{Class: token.Action, Binds: true, RetryAt: after(time.Hour)}}
	limited := Ticket{Type: jsapi, Failure: &Failure{Class: token.Limited, Binds: true, RetryAt: after(time.Hour)}}
	named := Ticket{Type: jsapi, Failure: &Failure{Class: token.Limited, Binds: true, Named: time.Hour, RetryAt: after(time.Hour)}}
	contested := func(in *Inputs) { in.Target.RepairNotBefore = after(minute) }
	fetched := func(in *Inputs) { in.TicketUnwritten = true }
	backingOff := func(in *Inputs) {
		in.Failure = &Failure{Class: token.Transient, Binds: true, First: now, Time: now, RetryAt: after(minute)}
	}
	const due, unwrittenTicket = TicketDue, TicketUnwritten
	for name, test := range map[string]struct {
		edits  []edit
		action Action
		reason Reason
		with   int
	}{
		"due":                              {[]edit{absent}, FetchTickets, due, 1},
		"due, Legacy":                      {[]edit{legacy, absent}, FetchTickets, due, 1},
		"not due":                          {[]edit{fresh}, Wait, UpToDate, 0},
		"two, of which one is due":         {[]edit{fresh, absent}, FetchTickets, due, 1},
		"with a check":                     {[]edit{absent, checked(after(-time.Hour))}, Check, CheckDue, 1},
		"not due yet, with a check":        {[]edit{soon, checked(after(-time.Hour))}, Check, CheckDue, 0},
		"soon due, with a rotation":        {[]edit{soon, expires(after(minute))}, Issue, RefreshDue, 1},
		"soon due, with a mint":            {[]edit{legacy, soon, expires(after(minute))}, Issue, RefreshDue, 0},
		"with the first token":             {[]edit{missing, absent}, Issue, TargetMissing, 1},
		"without a valid token, Legacy":    {[]edit{legacy, absent, expires(after(-minute)), backingOff}, Wait, BackingOff, 0},
		"refused":                          {[]edit{withTicket(refused)}, Wait, UpToDate, 0},
		"refused, and a check is asked":    {[]edit{withTicket(refused), askCheck}, Check, RequestExecutable, 1},
		"limited, and a check is asked":    {[]edit{withTicket(limited), askCheck}, Check, RequestExecutable, 1},
		"WeChat named when":                {[]edit{withTicket(named), askCheck}, Check, RequestExecutable, 0},
		"removed again and again":          {[]edit{absent, contested}, Wait, UpToDate, 0},
		"fetched, and the token is due":    {[]edit{absent, fetched, expires(after(minute))}, Issue, RefreshDue, 1},
		"the token backs off":              {[]edit{absent, backingOff}, Wait, BackingOff, 0},
		"the token backs off, Legacy":      {[]edit{legacy, absent, backingOff}, FetchTickets, due, 1},
		"fetched":                          {[]edit{absent, fetched}, Write, unwrittenTicket, 0},
		"fetched, with the token":          {[]edit{absent, fetched, unwritten}, Write, TokenUnwritten, 0},
		"fetched, and there is no Secret":  {[]edit{missing, absent, fetched}, Issue, TargetMissing, 1},
		"fetched, and somebody wrote data": {[]edit{absent, fetched, tampered}, Issue, TargetTampered, 1},
		"fetched, and writes are refused":  {[]edit{legacy, absent, fetched, backingOff, ofWrite}, Wait, BackingOff, 0},
	} {
		d := Decide(now, healthy(test.edits...))
		if d.Action != test.action || d.Reason != test.reason || len(d.Tickets) != test.with {
			t.Errorf("%s: %s %s with %v, want %s %s with %d", name, d.Action, d.Reason, d.Tickets, test.action, test.reason, test.with)
		}
	}
}

// A pass comes when a ticket is due, when one that was not renewed ends, and when a failure is to be told.
func TestTicketWakes(t *testing.T) {
	slow := func(in *Inputs) { in.CheckInterval = time.Hour }
	polled := ticket(seen("a", 20*time.Minute, 5*time.Minute))
	if d := Decide(now, healthy(slow, withTicket(polled))); !d.At.Equal(after(10 * time.Minute)) {
		t.Errorf("wakes at %s for a poll", d.At)
	}
	failing := polled
	failing.Failure = &Failure{Class: token.Transient, Binds: true, First: after(-50 * time.Second), Time: now, RetryAt: after(30 * time.Second)}
	if d := Decide(now, healthy(slow, withTicket(failing))); !d.At.Equal(after(10 * time.Second)) {
		t.Errorf("wakes at %s to tell a failure", d.At)
	}
	suspended := func(in *Inputs) { in.Suspended = true }
	if d := Decide(now, healthy(suspended, withTicket(polled), expires(after(3*time.Hour)))); !d.At.Equal(polled.ExpiresAt) {
		t.Errorf("suspended, wakes at %s, want %s", d.At, polled.ExpiresAt)
	}
}

func TestTicketVerdict(t *testing.T) {
	valid := ticket(seen("a", 5*time.Minute, time.Minute))
	expired := valid
	expired.ExpiresAt = now
	fails := func(t Ticket, class token.Class, since time.Duration) Ticket {
		t.Failure = &Failure{Class: class, First: after(-since)}
		return t
	}
	absent := Ticket{Type: "sdk"}
	told := Ticket{Type: "sdk", Told: true}
	const minute, second = time.Minute, time.Second
	none := TicketProblem{}
	for name, test := range map[string]struct {
		tickets          []Ticket
		invalid, failing TicketProblem
	}{
		"none":                         {nil, none, none},
		"valid":                        {[]Ticket{valid}, none, none},
		"expired":                      {[]Ticket{expired}, TicketProblem{Type: jsapi, Expired: true}, none},
		"absent beside a valid one":    {[]Ticket{valid, absent}, TicketProblem{Type: "sdk"}, none},
		"the first of two":             {[]Ticket{expired, absent}, TicketProblem{Type: jsapi, Expired: true}, none},
		"told by the status":           {[]Ticket{told}, TicketProblem{Type: "sdk", Told: true}, none},
		"valid, fails for a second":    {[]Ticket{fails(valid, token.Transient, second)}, none, none},
		"valid, fails for a minute":    {[]Ticket{fails(valid, token.Transient, minute)}, none, TicketProblem{Type: jsapi, Expired: true, Failed: true, Class: token.Transient}},
		"absent, fails for a second":   {[]Ticket{fails(absent, token.Transient, second)}, TicketProblem{Type: "sdk"}, none},
		"absent, needs somebody":       {[]Ticket{fails(absent, token.Action, 0)}, TicketProblem{Type: "sdk", Failed: true, Class: token.Action}, TicketProblem{Type: "sdk", Failed: true, Class: token.Action}},
		"absent, and the other limits": {[]Ticket{absent, fails(valid, token.Limited, 0)}, TicketProblem{Type: "sdk"}, TicketProblem{Type: jsapi, Expired: true, Failed: true, Class: token.Limited}},
	} {
		v := Decide(now, healthy(func(in *Inputs) { in.Tickets = slices.Clone(test.tickets) })).Verdict
		if v.Ticket != test.invalid || v.TicketFailing != test.failing {
			t.Errorf("%s: invalid %+v, failing %+v", name, v.Ticket, v.TicketFailing)
		}
		if !v.Valid {
			t.Errorf("%s: the token is not valid", name)
		}
	}
}
