// SPDX-License-Identifier: Apache-2.0

package account

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// passOverFor is how long a member is not asked to mint after the API server failed it. The failure may be the member's alone,
// such as a webhook of its namespace that does not answer.
const passOverFor = time.Minute

// Member is a resource of the account, as its own last pass saw it.
type Member struct {
	UID     types.UID
	Name    types.NamespacedName
	Created time.Time
	// Fetches reports that the member can mint for all: it has a target that it may write, no standing failure to write it,
	// and an AppSecret that WeChat did not refuse.
	Fetches bool
	// Receives reports that a token may be handed to the member: it is not suspended or being deleted, and may write its target.
	Receives bool
	// Refresh is the value of a refresh request that waits; the next mint handles it. Empty without one.
	Refresh string
	// FailedAt is when the API server failed the member's last pass; zero if that pass went well. NoteOutcome sets it.
	FailedAt time.Time
}

// older orders members by age, then by namespace and name.
func (m Member) older(than Member) bool {
	if !m.Created.Equal(than.Created) {
		return m.Created.Before(than.Created)
	}
	if m.Name.Namespace != than.Name.Namespace {
		return m.Name.Namespace < than.Name.Namespace
	}
	return m.Name.Name < than.Name.Name
}

// Update adds the member, or replaces what was known of it but for FailedAt.
func (a *Account) Update(m Member) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := a.index(m.UID); i >= 0 {
		m.FailedAt = a.members[i].FailedAt
		a.members[i] = m
		return
	}
	a.members = append(a.members, m)
}

// NoteOutcome records whether the API server failed the member's last pass; then another member is asked to mint for a while.
func (a *Account) NoteOutcome(uid types.UID, failed bool, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := a.index(uid); i >= 0 {
		a.members[i].FailedAt = time.Time{}
		if failed {
			a.members[i].FailedAt = now
		}
	}
}

// Others returns the other members of the account.
func (a *Account) Others(uid types.UID) []Member {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(a.members), func(m Member) bool { return m.UID == uid })
}

// Shared reports whether the account has more than one member.
func (a *Account) Shared() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.members) > 1
}

// Fetcher returns the member that mints for all: the oldest one that can. The member that asks is always able to.
func (a *Account) Fetcher(asking types.UID, now time.Time) (types.NamespacedName, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.index(asking)
	if i < 0 {
		return types.NamespacedName{}, false
	}
	chosen := a.members[i]
	for _, m := range a.members {
		failing := now.Before(refresh.EarliestNext(m.FailedAt, passOverFor, now))
		if m.Fetches && !failing && m.older(chosen) {
			chosen = m
		}
	}
	return chosen.Name, chosen.UID != asking
}

// leave removes a member.
func (a *Account) leave(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members = slices.DeleteFunc(a.members, func(m Member) bool { return m.UID == uid })
	a.Tickets.Written(v1alpha1.TicketTypes(), uid) // its Secret is nobody's concern any more
}

// index returns the place of a member, or -1. The caller holds the mutex.
func (a *Account) index(uid types.UID) int {
	return slices.IndexFunc(a.members, func(m Member) bool { return m.UID == uid })
}
