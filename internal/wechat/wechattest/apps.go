// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"net/netip"
	"strings"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// WeChat's quotas for an ordinary account. See
// https://developers.weixin.qq.com/doc/offiaccount/Message_Management/API_Call_Limits.html and the page
// of stable_token.
const (
	defaultDailyLegacy = 2_000
	defaultDailyStable = 500_000
	defaultMinute      = 10_000
	defaultDailyTicket = 10_000
)

// App is an account at WeChat.
type App struct {
	ID string `json:"id"`
	// Secret is the AppSecret. If it is empty and Options.AutoApps is set, the AppSecret of the first call is used.
	Secret string `json:"secret"`
	// Life is the life of the account's tokens. The default is Options.Life.
	Life time.Duration `json:"life,omitempty"`
	// DailyLegacyQuota and DailyStableQuota limit the calls in a day. The defaults are 2,000 and 500,000.
	DailyLegacyQuota int `json:"dailyLegacyQuota,omitempty"`
	DailyStableQuota int `json:"dailyStableQuota,omitempty"`
	// MinuteQuota limits the calls to each of the two endpoints in a minute. The default is 10,000.
	MinuteQuota int `json:"minuteQuota,omitempty"`
	// AllowedIPs lists addresses, CIDR blocks and patterns like 203.0.113.*. If it is empty, every address is allowed. Malformed entries
	// allow nothing.
	AllowedIPs []string `json:"allowedIPs,omitempty"`
	// Frozen makes token calls fail with 40243, as if the AppSecret were frozen.
	Frozen bool `json:"frozen,omitempty"`
	// NeedsAdminConfirmation makes token calls fail with 89503, as if the administrator had to confirm them.
	NeedsAdminConfirmation bool `json:"needsAdminConfirmation,omitempty"`
	// Tickets says how the account's tickets behave.
	Tickets TicketRules `json:"tickets,omitzero"`
}

// account is an App and its history.
type account struct {
	App
	allowed []netip.Prefix
	issued  []*IssuedToken

	// stable and legacy are the newest tokens. legacyBefore is the token that legacy replaced, and forcedOut is the
	// one that the last forced refresh replaced.
	stable, legacy, legacyBefore, forcedOut *IssuedToken
	// forcedAt holds the times of the forced refreshes that count towards the budget.
	forcedAt []time.Time

	stableUse, legacyUse usage
	ticketUse            usage
	// issuedTickets holds the tickets of each type in the order in which they were issued. The last one is the present one.
	issuedTickets map[v1alpha1.TicketType][]*IssuedTicket
}

// account returns the account of an appid and creates it if necessary.
func (p *platform) account(appID string) *account {
	a, ok := p.apps[appID]
	if !ok {
		a = &account{App: App{ID: appID}, issuedTickets: make(map[v1alpha1.TicketType][]*IssuedTicket)}
		p.apps[appID] = a
	}
	return a
}

// SetApp adds an account or replaces its settings. An existing account keeps its tokens and used quotas.
func (s *Server) SetApp(a App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.platform.account(a.ID)
	known.App = a
	known.allowed = known.allowed[:0]
	for _, entry := range a.AllowedIPs {
		if prefix, ok := parseAllowed(entry); ok {
			known.allowed = append(known.allowed, prefix)
		}
	}
}

// SetSecret changes the AppSecret of an account. The previous one is rejected from now on, but the tokens stay valid.
func (s *Server) SetSecret(appID, secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform.account(appID).Secret = secret
}

// parseAllowed parses an entry of an IP allowlist. It returns false if the entry is malformed.
func parseAllowed(entry string) (netip.Prefix, bool) {
	if head, ok := strings.CutSuffix(entry, ".*"); ok {
		entry = head + ".0/24"
	}
	if !strings.Contains(entry, "/") {
		ip, err := netip.ParseAddr(entry)
		if err != nil {
			return netip.Prefix{}, false
		}
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), true
	}
	prefix, err := netip.ParsePrefix(entry)
	return prefix, err == nil
}

// allows reports whether an address may use the AppSecret.
func (a *account) allows(ip netip.Addr) bool {
	if len(a.AllowedIPs) == 0 {
		return true
	}
	for _, prefix := range a.allowed {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// admit checks the credentials of a token call and counts it. It returns the account, or the errcode of a refusal.
func (p *platform) admit(q request, mode Mode, now time.Time) (*account, int) {
	a, code := p.authenticate(q)
	switch {
	case code == codeInvalidAppSecret && mode == Legacy:
		return nil, codeInvalidCredential
	case code != 0:
		return nil, code
	case !a.allows(q.ip):
		return nil, codeIPNotAllowed
	case a.Frozen:
		return nil, codeAppSecretFrozen
	case a.NeedsAdminConfirmation:
		return nil, codeAdminConfirmation
	}
	return a, a.spend(mode, now)
}

// authenticate returns the account whose appid and AppSecret a call carries, or the errcode of a refusal.
func (p *platform) authenticate(q request) (*account, int) {
	a, ok := p.apps[q.appID]
	if !ok && p.options.AutoApps && IsAppID(q.appID) {
		a, ok = p.account(q.appID), true
	}
	if !ok {
		return nil, codeInvalidAppID
	}
	if a.Secret == "" && p.options.AutoApps {
		a.Secret = q.secret
	}
	if q.secret != a.Secret {
		return nil, codeInvalidAppSecret
	}
	return a, 0
}

// spend counts a call and returns 0, or returns the errcode of the quota that is used up.
func (a *account) spend(mode Mode, now time.Time) int {
	u, daily := &a.stableUse, orDefault(a.DailyStableQuota, defaultDailyStable)
	if mode == Legacy {
		u, daily = &a.legacyUse, orDefault(a.DailyLegacyQuota, defaultDailyLegacy)
	}
	u.roll(now)
	switch {
	case u.inMinute >= orDefault(a.MinuteQuota, defaultMinute):
		return codeMinuteQuota
	case u.inDay >= daily:
		return codeDailyQuota
	}
	u.count(now)
	return 0
}

func orDefault(n, otherwise int) int {
	if n > 0 {
		return n
	}
	return otherwise
}

// usage counts the calls to one endpoint.
type usage struct {
	minute, day     int64 // the minute and day that the counters refer to
	inMinute, inDay int
}

// roll resets the counters if a new minute or day has begun.
func (u *usage) roll(now time.Time) {
	const beijing = 8 * 60 // offset in minutes; WeChat's days are assumed to be those of Beijing
	minute := now.Unix() / 60
	day := (minute + beijing) / (24 * 60)
	if minute != u.minute {
		u.minute, u.inMinute = minute, 0
	}
	if day != u.day {
		u.day, u.inDay = day, 0
	}
}

func (u *usage) count(now time.Time) {
	u.roll(now)
	u.inMinute++
	u.inDay++
}

// IsAppID reports whether id matches ^wx[0-9a-z]{16}$.
func IsAppID(id string) bool {
	if len(id) != 18 || !strings.HasPrefix(id, "wx") {
		return false
	}
	return strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
