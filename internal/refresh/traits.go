// SPDX-License-Identifier: Apache-2.0

package refresh

import "time"

// Traits tell how the tokens of one WeChat endpoint behave. A decision depends on them and never on the endpoint's name.
type Traits struct {
	// EndsOlder reports that each call issues a new token and ends older ones. Such a call is a mint: it is marked, paced, and
	// never made because of a clock that cannot be relied on. Otherwise a call returns the token that there is.
	EndsOlder bool
	// Overlap is how long before the expiry of a token a call begins to return the next one. Both are valid meanwhile. Zero if
	// every call returns a new token.
	Overlap time.Duration
	// Lead is how long before its expiry a token without Overlap is replaced, plus a jitter of at most LeadJitter, and at most half
	// of the token's life.
	Lead, LeadJitter time.Duration
	// ForcedSpacing is the least time between two forced calls.
	ForcedSpacing time.Duration
	// AfterMint is the least time from the account's last mint to a refresh on request, so that no token dies that a pod may hold.
	AfterMint time.Duration
}

// Stable returns the traits of POST /cgi-bin/stable_token. WeChat returns the same token until 300 s before its expiry.
func Stable() Traits {
	return Traits{Overlap: StableOverlap, ForcedSpacing: ForcedSpacing}
}

// Legacy returns the traits of GET /cgi-bin/token. WeChat documents that the newest token lives, and the one before for five
// more minutes.
func Legacy() Traits {
	return Traits{EndsOlder: true, Lead: LegacyLead, LeadJitter: legacyJitterSpan, AfterMint: RefreshAfterMint}
}
