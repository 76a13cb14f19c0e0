// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"crypto/rand"
	"crypto/sha1" // WeChat's JS-SDK signs with it
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const (
	// ticketLife is the life of a ticket that WeChat documents. It returns it as expires_in with every call, whatever the age of the
	// ticket is.
	ticketLife = 2 * time.Hour
	// ticketOverlap is how long a replaced ticket stays valid by default. WeChat documents five minutes for a replaced token, and nothing
	// for a ticket.
	ticketOverlap = 5 * time.Minute
)

// NoOverlap is the value of TicketRules.Overlap with which a replaced ticket is invalid at once.
const NoOverlap time.Duration = -1

// TicketChange is what makes WeChat issue a new ticket. A ticket never changes before it is TicketRules.Age old.
type TicketChange string

const (
	// ChangeByCall issues a new ticket with the first call at or after that age. Until then the old one stays valid.
	ChangeByCall TicketChange = "call"
	// ChangeByTime issues a new ticket each time when that age is reached, counted from the issue of the first one, whether somebody calls
	// or not. The next call returns the present one.
	ChangeByTime TicketChange = "time"
)

// TicketRules says what WeChat does not document about the tickets of an account. The zero value is for an account that has all types of
// tickets, which change by a call after 7200 s and stay valid for 300 s more. New rules apply from the next call.
type TicketRules struct {
	// Change is ChangeByCall, the default, or ChangeByTime.
	Change TicketChange `json:"change,omitempty"`
	// Age is the age at which a ticket changes. The default is 7200 s.
	Age time.Duration `json:"age,omitempty"`
	// Overlap is how long a replaced ticket stays valid, counted from when it was replaced. The default is 300 s. See NoOverlap.
	Overlap time.Duration `json:"overlap,omitempty"`
	// DailyQuota limits the calls for tickets of all types in a day. The default is 10,000.
	DailyQuota int `json:"dailyQuota,omitempty"`
	// Without lists the types that the account has no tickets of. Calls for them fail with 48001.
	Without []v1alpha1.TicketType `json:"without,omitempty"`
	// RemainingLife makes expires_in the time that is left until Age, as for tokens, and at least 1 s. By default it is always 7200 s.
	RemainingLife bool `json:"remainingLife,omitempty"`
}

// age returns the age at which a ticket changes.
func (r *TicketRules) age() time.Duration {
	if r.Age <= 0 {
		return ticketLife
	}
	return r.Age
}

// replaced marks a ticket as replaced at the given time.
func (r *TicketRules) replaced(t *IssuedTicket, at time.Time) {
	overlap := r.Overlap
	switch {
	case overlap == 0:
		overlap = ticketOverlap
	case overlap < 0:
		overlap = 0
	}
	t.ReplacedAt, t.DeadAt = at, at.Add(overlap)
}

// expiresIn returns the expires_in of an answer in seconds.
func (r *TicketRules) expiresIn(t *IssuedTicket, now time.Time) int64 {
	if !r.RemainingLife {
		return int64(ticketLife / time.Second)
	}
	return max(1, int64(t.IssuedAt.Add(r.age()).Sub(now)/time.Second))
}

// IssuedTicket is an entry of the ledger of tickets. Its times are those of the server's clock.
type IssuedTicket struct {
	Ticket   string              `json:"ticket"`
	AppID    string              `json:"appID"`
	Type     v1alpha1.TicketType `json:"type"`
	IssuedAt time.Time           `json:"issuedAt"`
	// ReplacedAt is when another ticket replaced this one, and DeadAt when it stopped being valid for that reason. With ChangeByTime both
	// are known from the beginning and may be in the future. With ChangeByCall both are zero for the present ticket, which is valid
	// until it is replaced.
	ReplacedAt time.Time `json:"replacedAt,omitzero"`
	DeadAt     time.Time `json:"deadAt,omitzero"`
}

func (t *IssuedTicket) validAt(at time.Time) bool {
	return !at.Before(t.IssuedAt) && (t.DeadAt.IsZero() || at.Before(t.DeadAt))
}

// answerTicket answers a call for a ticket with a valid token.
func (p *platform) answerTicket(q request, a *account, now time.Time) reply {
	kind, rules := v1alpha1.TicketType(q.query.Get("type")), &a.Tickets
	a.ticketUse.roll(now)
	switch {
	case !slices.Contains(v1alpha1.TicketTypes(), kind):
		return q.fail(codeInvalidArgs, "", now)
	case slices.Contains(rules.Without, kind):
		return q.fail(codeUnauthorized, "", now)
	case a.ticketUse.inDay >= orDefault(rules.DailyQuota, defaultDailyTicket):
		return q.fail(codeDailyQuota, "", now)
	}
	a.ticketUse.count(now)
	t := p.ticket(a, kind, now)
	body := []byte(`{"errcode":0,"errmsg":"ok","ticket":"` + t.Ticket + `","expires_in":`)
	return success(append(strconv.AppendInt(body, rules.expiresIn(t, now), 10), '}'))
}

// ticket returns the present ticket of an account, and issues it if there is none or if it has to change.
func (p *platform) ticket(a *account, kind v1alpha1.TicketType, now time.Time) *IssuedTicket {
	rules, list, at := &a.Tickets, a.issuedTickets[kind], now
	byTime, age := rules.Change == ChangeByTime, rules.age()
	if n := len(list); n > 0 {
		last := list[n-1]
		old := now.Sub(last.IssuedAt) // negative if the clock was set back to before the issue
		if old >= 0 && old < age {
			return last
		}
		replacedAt := now
		if byTime && old >= 0 {
			// The tickets between the two were returned to nobody, so they are not recorded.
			at, replacedAt = last.IssuedAt.Add(old.Truncate(age)), last.IssuedAt.Add(age)
		}
		rules.replaced(last, replacedAt)
	}
	raw := make([]byte, 64)
	_, _ = rand.Read(raw) // never fails
	t := &IssuedTicket{Ticket: base64.RawURLEncoding.EncodeToString(raw), AppID: a.ID, Type: kind, IssuedAt: at}
	if byTime {
		rules.replaced(t, at.Add(age))
	}
	p.tickets[t.Ticket] = t
	a.issuedTickets[kind] = append(list, t)
	return t
}

// RivalTicket simulates a call for a ticket by another program, which found one that WeChat had issued some time ago: it sets the age of
// the present ticket, and issues that ticket if there is none or if it has to change. The call counts towards the quota, but is never
// refused. With an age of TicketRules.Age or more the next call returns another ticket.
func (s *Server) RivalTicket(appID string, kind v1alpha1.TicketType, age time.Duration) IssuedTicket {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, now := s.platform.account(appID), s.platform.now()
	a.ticketUse.count(now)
	t := s.platform.ticket(a, kind, now)
	t.IssuedAt = now.Add(-age)
	if a.Tickets.Change == ChangeByTime {
		a.Tickets.replaced(t, t.IssuedAt.Add(a.Tickets.age()))
	}
	return *t
}

// Tickets returns the tickets of an appid and type in the order in which they were issued.
func (s *Server) Tickets(appID string, kind v1alpha1.TicketType) []IssuedTicket {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.platform.apps[appID]
	if !ok {
		return nil
	}
	var list []IssuedTicket
	for _, t := range a.issuedTickets[kind] {
		list = append(list, *t)
	}
	return list
}

// TicketValid reports whether WeChat would accept what is signed with the ticket now.
func (s *Server) TicketValid(ticket string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.platform.ticketValidAt(ticket, s.platform.now())
}

// TicketValidAt reports whether the ticket was valid, or will be valid unless it is replaced, at time t of the server's clock. A ticket is
// valid from IssuedAt until before DeadAt.
func (s *Server) TicketValidAt(ticket string, t time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.platform.ticketValidAt(ticket, t)
}

func (p *platform) ticketValidAt(ticket string, t time.Time) bool {
	issued, ok := p.tickets[ticket]
	return ok && issued.validAt(t)
}

// SignatureValid reports whether WeChat would accept the signature of wx.config now: whether it was made with a jsapi ticket of the appid
// that is valid. page is the address of the web page, of which the part from # on does not count. See
// https://developers.weixin.qq.com/doc/offiaccount/OA_Web_Apps/JS-SDK.html.
func (s *Server) SignatureValid(appID, noncestr, timestamp, page, signature string) bool {
	page, _, _ = strings.Cut(page, "#")
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.platform.apps[appID]
	now := s.platform.now()
	return ok && slices.ContainsFunc(a.issuedTickets[v1alpha1.TicketJSAPI], func(t *IssuedTicket) bool {
		return t.validAt(now) && signature == sign(t.Ticket, noncestr, timestamp, page)
	})
}

// sign returns the signature of wx.config.
func sign(ticket, noncestr, timestamp, page string) string {
	sum := sha1.Sum([]byte("jsapi_ticket=" + ticket + "&noncestr=" + noncestr + "&timestamp=" + timestamp + "&url=" + page))
	return hex.EncodeToString(sum[:])
}
