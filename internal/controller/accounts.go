// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// mintBurst and mintEvery pace the Legacy mints of an account that nobody asked for, so that nothing can burn
	// WeChat's 2,000 a day.
	mintBurst = 3
	mintEvery = 5 * time.Minute
	// markedMintAfter is the least time from a mint of this process to one that only a mark on a Secret asks for, and at most
	// a quarter of the token's life. Whoever may edit a member's Secret can forge marks, and two mints in a row would end the
	// token that the pods of other members still hold; so long after a mint, a lost one has not ended it yet.
	markedMintAfter = 2 * time.Minute
	// mintInHandover paces them in the last minutes of a token instead, when the bucket was used up by calls that WeChat did
	// not answer: the promise wants an attempt in any 30 s of reachability. It adds at most 15 mints to a token's life.
	mintInHandover = 20 * time.Second
	// legacyHandover is how long these minutes are.
	legacyHandover = 5 * time.Minute
	// passOverFor is how long a member is not asked to mint after the API server failed it, perhaps it alone: a webhook may be down
	// that guards its namespace.
	passOverFor = time.Minute
	// sweepAtOnce is how many of the accounts that were left are looked at when one more is.
	sweepAtOnce = 4
	// foreignWithin: a second token that dies early within it is reported as somebody else's fetching.
	foreignWithin = time.Hour
)

// accountID names a WeChat account as this operator sees it. credentials is the fingerprint of a live AppSecret, so
// that nobody joins an account without holding its AppSecret.
type accountID struct {
	legacy      bool
	appID       string
	credentials string
}

// account is what the members of one account share.
type account struct {
	mu sync.Mutex
	// flights merges the Stable calls of members that come at the same time.
	flights singleflight.Group
	// minting: a pass has the turn to mint a Legacy token. waiting are the members to wake when it ends.
	minting bool
	waiting map[types.NamespacedName]bool
	// members are few, and mostly one.
	members []accountMember
	// seen is WeChat's last answer about the account's token.
	seen sighting
	// dead is the fingerprint of a Legacy token that WeChat refused, and deadSince when it did so first.
	dead      string
	deadSince time.Time
	// mints is the bucket of unrequested Legacy mints.
	mints *rate.Limiter
	// minted is the last token that this process minted, without its value.
	minted sighting
	// lastMint is the time of the last one.
	lastMint time.Time
	// early are the times at which tokens died early.
	early  []time.Time
	wanted bool
	forced []time.Time
	// left: the account is in accounts.left, whose mutex guards this.
	left bool
}

type accountMember struct {
	uid  types.UID
	name types.NamespacedName
	// failedAt is when its last pass ended with an error of the API server; zero if it did not.
	failedAt time.Time
}

// sighting: at this time WeChat confirmed the token of this fingerprint.
type sighting struct {
	fingerprint   string
	at, expiresAt time.Time
	// doubted: a call that may have replaced it since brought no answer.
	doubted bool
}

type accounts struct {
	mu   sync.Mutex
	byID map[accountID]*account
	// left are accounts that a member left. Some of them stay for their pacing.
	left []accountID
}

func newAccounts() *accounts {
	return &accounts{byID: map[accountID]*account{}}
}

func (a *accounts) join(id accountID, uid types.UID, name types.NamespacedName) *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	acct := a.byID[id]
	if acct == nil {
		acct = &account{mints: rate.NewLimiter(rate.Every(mintEvery), mintBurst)}
		a.byID[id] = acct
	}
	acct.mu.Lock()
	defer acct.mu.Unlock()
	acct.members = append(slices.DeleteFunc(acct.members, isMember(uid)), accountMember{uid: uid, name: name})
	return acct
}

// noteOutcome tells how the last pass of a member ended.
func (a *account) noteOutcome(uid types.UID, failed bool, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.members, isMember(uid))
	if i < 0 {
		return
	}
	a.members[i].failedAt = time.Time{}
	if failed {
		a.members[i].failedAt = now
	}
}

// fails: the API server failed this member a short time ago.
func (a *account) fails(uid types.UID, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.members, isMember(uid))
	return i >= 0 && now.Before(pacedAt(a.members[i].failedAt, passOverFor, now))
}

// shared: the account has other members.
func (a *account) shared() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.members) > 1
}

// leave removes a member. The account itself stays while its pacing matters: who deletes and re-creates a resource
// in a loop must not get a fresh bucket each time.
func (a *accounts) leave(id accountID, uid types.UID, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	acct := a.byID[id]
	if acct == nil {
		return
	}
	acct.remove(uid)
	if !acct.left {
		acct.left, a.left = true, append(a.left, id)
	}
	a.sweep(now)
}

// sweep looks at some of the accounts that were left, more of them than are left at once, and drops those that nobody is in and whose
// pacing is over. The mutex is held.
func (a *accounts) sweep(now time.Time) {
	for range min(sweepAtOnce, len(a.left)) {
		id := a.left[0]
		a.left = a.left[1:]
		switch acct := a.byID[id]; {
		case acct.inUse():
			acct.left = false
		case acct.paced(now):
			a.left = append(a.left, id)
		default:
			delete(a.byID, id)
		}
	}
}

func (a *account) remove(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.members = slices.DeleteFunc(a.members, isMember(uid))
}

func (a *account) inUse() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.members) > 0
}

// paced: a member that came now would not find the account as a fresh one.
func (a *account) paced(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mints.TokensAt(now) < mintBurst || len(recentForced(a.forced, now)) > 0
}

func isMember(uid types.UID) func(accountMember) bool {
	return func(m accountMember) bool { return m.uid == uid }
}

// beginMint takes the turn to mint a Legacy token; false while another pass has it. Nobody waits for it inside of a pass: WeChat
// may take its 10 s, and the members of a large account would hold all workers.
func (a *account) beginMint() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.minting {
		return false
	}
	a.minting, a.waiting = true, map[types.NamespacedName]bool{}
	return true
}

// endMint gives the turn back and names those who waited for it.
func (a *account) endMint() (waited []types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.minting = false
	return slices.Collect(maps.Keys(a.waiting))
}

// awaitMint tells whether another pass has the turn to mint. The member is woken when it ends.
func (a *account) awaitMint(member types.NamespacedName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.minting {
		a.waiting[member] = true
	}
	return a.minting
}

// observe records an answer and names the members whose Secrets hold another token.
func (a *account) observe(s sighting) (others []types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := a.seen.fingerprint != s.fingerprint
	a.seen = s
	if !changed {
		return nil
	}
	for _, m := range a.members {
		others = append(others, m.name)
	}
	return others
}

func (a *account) lastSeen() sighting {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen
}

// doubt: WeChat may have replaced the account's token since its last answer.
func (a *account) doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen.doubted = true
}

// mintNotBefore is when the next unrequested mint may be made; zero for now.
func (a *account) mintNotBefore(now time.Time) time.Time {
	a.mu.Lock()
	if refresh.NotedAhead(a.lastMint, now) {
		a.lastMint = now
		a.mints.ReserveN(now, 0) // it fills up from now on, and not only when that time has come
	}
	a.mu.Unlock()
	missing := 1 - a.mints.TokensAt(now)
	if missing <= 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(missing * float64(mintEvery)))
}

// mintNotBeforeIn is mintNotBefore for the replacement of a valid token whose last minutes begin at handover.
func (a *account) mintNotBeforeIn(handover, now time.Time) time.Time {
	paced := a.mintNotBefore(now)
	a.mu.Lock()
	defer a.mu.Unlock()
	return earlier(paced, refresh.Later(handover, a.lastMint.Add(mintInHandover)))
}

// noteMint takes a mint out of the bucket. undo puts it back, when WeChat said that there was none.
func (a *account) noteMint(now time.Time) (undo func()) {
	a.mu.Lock()
	a.lastMint = now
	a.mu.Unlock()
	taken := a.mints.ReserveN(now, 1)
	return func() { taken.CancelAt(now) }
}

// noteMinted records a mint.
func (a *account) noteMinted(s sighting) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.minted = s
}

// markedMintNotBefore is when a mint may be made that only a mark on a Secret asks for; zero before the first mint of this
// process.
func (a *account) markedMintNotBefore(now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.minted.fingerprint == "" || refresh.NotedAhead(a.minted.at, now) {
		return time.Time{}
	}
	return a.minted.at.Add(min(markedMintAfter, a.minted.expiresAt.Sub(a.minted.at)/4))
}

// noteDead records that WeChat refuses a Legacy token and tells how many died early within the hour.
func (a *account) noteDead(fingerprint string, now time.Time, early bool) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead == fingerprint {
		return 0 // another member saw it already
	}
	a.dead, a.deadSince = fingerprint, now
	if !early {
		return 0
	}
	a.early = append(slices.DeleteFunc(a.early, func(t time.Time) bool { return now.Sub(t) > foreignWithin }), now)
	return len(a.early)
}

func (a *account) isDead(fingerprint string) bool {
	_, dead := a.death(fingerprint)
	return dead
}

// death is when WeChat first refused the token.
func (a *account) death(fingerprint string) (since time.Time, dead bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.deadSince, fingerprint != "" && a.dead == fingerprint
}

func (a *account) want(wanted bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted = wanted
}

func (a *account) isWanted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wanted
}

func (a *account) noteForced(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forced = append(recentForced(a.forced, now), now)
}

// forcedWith are the forced calls of the account, those of one member's status included.
func (a *account) forcedWith(more []time.Time) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := append(slices.Clone(a.forced), more...)
	slices.SortFunc(all, time.Time.Compare)
	// Status keeps whole seconds: the same call may be there twice.
	return slices.CompactFunc(all, func(x, y time.Time) bool { return x.Sub(y).Abs() < time.Second })
}

func recentForced(forced []time.Time, now time.Time) []time.Time {
	return slices.DeleteFunc(slices.Clone(forced), func(t time.Time) bool { return now.Sub(t) >= 24*time.Hour })
}

// merged makes the call, or shares the answer to the one that another member is making.
func (a *account) merged(call func() (vocab.Token, error)) (vocab.Token, error) {
	if !a.shared() {
		return call()
	}
	answer, err, _ := a.flights.Do("", func() (any, error) { return call() })
	token, _ := answer.(vocab.Token)
	return token, err
}
