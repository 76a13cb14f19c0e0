// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// settleAfter is how long an own write may stay invisible to the informer before one live GET settles it.
const settleAfter = 5 * time.Second

// memory is what this process knows of one resource beyond the API server. Losing it costs a call or a GET, never
// a token. Passes over one resource never overlap; the mutex is for what other resources and events touch.
type memory struct {
	mu sync.Mutex

	uid types.UID
	// looks are guarded by the mutex of memories, and handed on when another resource takes the name.
	looks looks
	// inbox holds an issued token until the Secret holds it. The fetcher of a Legacy account puts one here for
	// each member.
	inbox *issued
	// own is the target as the last own write or live read left it.
	own ownTarget
	// deletedTarget is the UID of a target whose deletion was told: the answer to a write may come after it.
	deletedTarget types.UID
	// ownStatus is the status as the last own write left it.
	ownStatus writtenStatus
	// peer is the account that another member of it found this resource to belong to; nil in Stable mode.
	peer *peer
	// delivery is how far the pods were told of a token; nil without prompt delivery.
	delivery *delivery.Outcome

	// The rest belongs to the passes over the resource.
	credentials resolved
	account     *account
	accountID   accountID
	failure     *refresh.Failure
	// message and requestID belong to failure.
	message, requestID string
	failedGeneration   int64
	failedCredentials  string
	// reported is the failure that the status speaks of.
	reported      *v1alpha1.RefreshError
	reportedClass vocab.Class
	recalled      bool
	// handled are the requests that had their attempt, seen or not by the status yet.
	handled *v1alpha1.HandledRequests
	seen    bool
	// stored is the token of the last own write.
	stored *stored
	// verified is the target's resourceVersion whose data was read and found right or wrong.
	verified verification
	// refusedReferences is the generation whose change of the owner reference the API server refused.
	refusedReferences int64
	repairs           repairs
	forced            []time.Time
	// askedAt is when the fetcher of the Legacy account was last asked for a token.
	askedAt time.Time
	// copySoughtAt is when a token of the account's other members was last looked for.
	copySoughtAt time.Time
	// emptyMark is the mark of a Legacy mint that did not happen: WeChat refused it, or it was not sent.
	emptyMark target.Mint
	// ownMark is the ID of the last mark of this process. foreignMarkAt is when another one's was first seen.
	ownMark       string
	foreignMarkAt time.Time
	// mintAgain: another process may have minted at the same moment, and which token lives on is not known.
	mintAgain bool
	// writtenVersion is the target's resourceVersion after the last own write of this process.
	writtenVersion string
	// hadTarget: a target was seen, so that its absence is somebody's deletion.
	hadTarget bool
}

// ownTarget is a state of the target that this process made or read; the zero value for none. Its metadata is kept only
// until the informer has it: with thousands of resources a second copy of each counts.
type ownTarget struct {
	uid             types.UID
	resourceVersion string
	meta            *metav1.PartialObjectMetadata
	at              time.Time
}

// writtenStatus is a status and the resourceVersion that its write gave the resource. Like ownTarget, it is kept until the
// informer has it.
type writtenStatus struct {
	resourceVersion string
	status          *v1alpha1.WeChatAppTokenStatus
}

// issued is a token on its way to the Secret, with what must be written in the same update.
type issued struct {
	vocab.Token

	appID          string
	mode           v1alpha1.Mode
	credentials    string // fingerprint
	handledRefresh string
	revoke         *target.Revoke
	// unseen: nobody of this operator saw WeChat issue it.
	unseen bool
	// unmarked: minted in Legacy mode without a mark, because there was no Secret.
	unmarked bool
	// beforeLook: the Secret was looked at after WeChat gave this. No clock has to tell.
	beforeLook bool
	// reason why it was fetched; copied: from another member of the account.
	reason refresh.Reason
	copied bool
}

// verification is what a live read of the target's data showed.
type verification struct {
	resourceVersion string
	tampered        bool
	// doubtful: the data agrees with the annotations, but this operator does not know the token.
	doubtful bool
	// counted: what is to be repaired was counted.
	counted bool
	// refused tells why the Secret cannot receive a token at all.
	refused string
}

// memories are the memories of all resources, by name.
type memories struct {
	mu     sync.Mutex
	byName map[types.NamespacedName]*memory
	// lookers are the names of the resources that look at a Secret of their namespace, unless it is a target of their own name.
	lookers map[types.NamespacedName][]string
}

// looks are the names of the Secrets that a resource looks at.
type looks struct {
	credentials, target string
}

func newMemories() *memories {
	return &memories{byName: map[types.NamespacedName]*memory{}, lookers: map[types.NamespacedName][]string{}}
}

// of gives the memory of a resource. If it replaced another one of that name, that one's memory is replaced too, and returned.
func (m *memories) of(name types.NamespacedName, uid types.UID) (mem, replaced *memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mem = m.byName[name]
	switch {
	case mem == nil:
		return m.fresh(name, uid), nil
	case mem.uid == uid:
		return mem, nil
	}
	fresh := m.fresh(name, uid)
	fresh.looks = mem.looks
	return fresh, mem
}

func (m *memories) fresh(name types.NamespacedName, uid types.UID) *memory {
	mem := &memory{uid: uid}
	m.byName[name] = mem
	return mem
}

// ofMember is of for another resource than that of the pass. What is known of it may be old: it gives nil rather than replace the
// memory of a resource that took the name meanwhile.
func (m *memories) ofMember(name types.NamespacedName, uid types.UID) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	mem := m.byName[name]
	switch {
	case mem == nil:
		return m.fresh(name, uid)
	case mem.uid != uid:
		return nil
	}
	return mem
}

func (m *memories) find(name types.NamespacedName) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byName[name]
}

// drop removes the memory and returns it.
func (m *memories) drop(name types.NamespacedName) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	mem := m.byName[name]
	m.lookAway(name, mem)
	delete(m.byName, name)
	return mem
}

// lookAt notes which Secrets the resource of this name looks at. A pass does so before it reads them from the informer, which stores a
// new state before it tells of it: who looked before is told, and who looks after it sees the new state.
func (m *memories) lookAt(name types.NamespacedName, at looks) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mem := m.byName[name]
	if mem == nil || mem.looks == at {
		return
	}
	m.lookAway(name, mem)
	mem.looks = at
	for _, secret := range at.listed(name) {
		m.lookers[secret] = append(m.lookers[secret], name.Name)
	}
}

func (m *memories) lookAway(name types.NamespacedName, mem *memory) {
	if mem == nil {
		return
	}
	for _, secret := range mem.looks.listed(name) {
		others := slices.DeleteFunc(m.lookers[secret], func(looker string) bool { return looker == name.Name })
		if m.lookers[secret] = others; len(others) == 0 {
			delete(m.lookers, secret)
		}
	}
	mem.looks = looks{}
}

// lookingAt names the resources that look at a Secret.
func (m *memories) lookingAt(secret types.NamespacedName) []types.NamespacedName {
	return m.lookersOf(secret, func(looks) bool { return true })
}

// claiming names the resources whose target is this Secret.
func (m *memories) claiming(secret types.NamespacedName) []types.NamespacedName {
	return m.lookersOf(secret, func(l looks) bool { return l.target == secret.Name })
}

func (m *memories) lookersOf(secret types.NamespacedName, include func(looks) bool) []types.NamespacedName {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []types.NamespacedName
	add := func(name types.NamespacedName) {
		if mem := m.byName[name]; mem != nil && include(mem.looks) {
			out = append(out, name)
		}
	}
	if namesake := m.byName[secret]; namesake != nil && namesake.looks.target == secret.Name {
		add(secret)
	}
	for _, name := range m.lookers[secret] {
		add(types.NamespacedName{Namespace: secret.Namespace, Name: name})
	}
	return out
}

// listed are the Secrets under which a resource of this name is found in lookers.
func (l looks) listed(name types.NamespacedName) []types.NamespacedName {
	var out []types.NamespacedName
	if l.credentials != "" {
		out = append(out, types.NamespacedName{Namespace: name.Namespace, Name: l.credentials})
	}
	if l.target != "" && l.target != name.Name {
		out = append(out, types.NamespacedName{Namespace: name.Namespace, Name: l.target})
	}
	return out
}

func (r *Reconciler) forget(name types.NamespacedName) {
	if r.deliverer != nil {
		r.deliverer.Cancel(name)
	}
	r.leaveAccount(r.memories.drop(name))
}

// leaveAccount is for the memory of a resource that is gone or has another account; nil is none.
func (r *Reconciler) leaveAccount(mem *memory) {
	if mem != nil && mem.account != nil {
		r.accounts.leave(mem.accountID, mem.uid, r.WeChat.Now())
		mem.account = nil
	}
}

// freshen gives the cache's copy of the resource the status of the last own write if the cache is behind it. It tells false when that
// status is not kept any more: the cache has it by now.
func (m *memory) freshen(cached *v1alpha1.WeChatAppToken) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch own := m.ownStatus; {
	case own.resourceVersion == "":
	case !newer(own.resourceVersion, cached.ResourceVersion):
		m.ownStatus.status = nil // its event came before the answer to the write
	case own.status == nil:
		return false
	default:
		own.status.DeepCopyInto(&cached.Status)
	}
	return true
}

func (m *memory) wroteStatus(resourceVersion string, status v1alpha1.WeChatAppTokenStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ownStatus = writtenStatus{resourceVersion, &status}
}

// statusSeen drops the own status once the informer has it: with thousands of resources a second copy of each counts.
func (m *memory) statusSeen(resourceVersion string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ownStatus.status != nil && !newer(m.ownStatus.resourceVersion, resourceVersion) {
		m.ownStatus.status = nil
	}
}

// put keeps a token until it is written. The one that WeChat issued later wins.
func (m *memory) put(token issued) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inbox == nil || !token.IssuedAt.Before(m.inbox.IssuedAt) {
		m.inbox = &token
	}
}

// looked notes that the Secret was looked at.
func (m *memory) looked() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inbox != nil {
		m.inbox.beforeLook = true
	}
}

func (m *memory) unwritten() *issued {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inbox
}

// written drops the token from memory, unless another one came meanwhile.
func (m *memory) written(token *issued) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inbox == token {
		m.inbox = nil
	}
}

func (m *memory) knownPeer() peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peer == nil {
		return peer{}
	}
	return *m.peer
}

func (m *memory) rememberTarget(own *metav1.PartialObjectMetadata, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own = ownTarget{}
	if own != nil && own.UID != m.deletedTarget {
		m.own = ownTarget{uid: own.UID, resourceVersion: own.ResourceVersion, meta: own, at: now}
	}
}

// ownWrite tells whether what the informer has now is only the echo of an own write.
func (m *memory) ownWrite(uid types.UID, resourceVersion string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.own.resourceVersion == "" || m.own.resourceVersion != resourceVersion || m.own.uid != uid {
		return false
	}
	m.own.meta = nil
	return true
}

// targetGone forgets own writes of a Secret that was deleted after them.
func (m *memory) targetGone(uid types.UID, resourceVersion string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deletedTarget = uid
	if m.own.resourceVersion != "" && (m.own.uid == uid || newer(resourceVersion, m.own.resourceVersion)) {
		m.own = ownTarget{}
	}
}

// freshestTarget chooses between the informer's view (nil for none) and the last own write. unsettled asks for a live
// read, because the two have disagreed for too long.
func (m *memory) freshestTarget(cached *metav1.PartialObjectMetadata, now time.Time) (
	freshest *metav1.PartialObjectMetadata, unsettled bool,
) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.own.resourceVersion == "":
		return cached, false
	case cached != nil && !newer(m.own.resourceVersion, cached.ResourceVersion):
		if m.own.meta = nil; cached.ResourceVersion != m.own.resourceVersion {
			m.own = ownTarget{}
		}
		return cached, false
	}
	age := now.Sub(m.own.at)
	return m.own.meta, m.own.meta == nil || age.Abs() > settleAfter
}

// newer compares resourceVersions of one kind; what cannot be compared is newer, so that own writes count.
func newer(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order > 0
}

// repairs paces the repair of a target that somebody keeps rewriting.
type repairs struct {
	last  time.Time
	count int
}

const (
	repairCalm = 10 * time.Minute
	repairMax  = time.Minute
	// contestedAfter is the number of repairs in a row from which the status speaks of it.
	contestedAfter = 3
)

func (r *repairs) note(now time.Time) {
	if now.Sub(r.last) > repairCalm {
		r.count = 0
	}
	r.count++
	r.last = now
}

// notBefore is when the next repair may be made: at once the first time, then after 1 s, 2 s and so on.
func (r *repairs) notBefore(now time.Time) time.Time {
	if r.count <= 1 || refresh.NotedAhead(r.last, now) {
		return time.Time{}
	}
	return r.last.Add(min(repairMax, time.Second<<min(r.count-2, 10)))
}

func (r *repairs) contested(now time.Time) bool {
	return r.count >= contestedAfter && now.Sub(r.last) <= repairCalm
}

// startTime is that of the first pass: a standby that becomes leader starts then.
type startTime struct {
	mu sync.Mutex
	at time.Time
}

// notLater gives the time of the start. When the clock turns out to have run ahead at the first pass, that is now.
func (s *startTime) notLater(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || refresh.NotedAhead(s.at, now) {
		s.at = now
	}
	return s.at
}
