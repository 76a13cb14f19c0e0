// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/credentials"
	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/gate"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// resourceState is what this process knows of one resource beyond the API server. Passes over one resource never overlap.
type resourceState struct {
	uid types.UID
	// gate knows what the caches have to reach. Losing it costs a conflict.
	gate gate.Gate
	// shared is what other goroutines than the resource's own pass touch.
	shared shared

	// credentials is the last live read of the credentials Secret. Losing it costs a GET.
	credentials credentials.Credentials
	// membership is the WeChat account that the AppSecret belongs to. Losing it costs a GET.
	membership membership
	// accepted is the version of the credentials Secret with which WeChat last issued a token. The status keeps it over a restart.
	accepted string
	// target is what was found out about the target. Losing it costs a GET and a check, and makes the next repair prompt.
	target target.Knowledge
	// tickets were fetched and are not in the target yet. Losing them costs a call.
	tickets []report.PendingTicket
	// failure is what the last attempt ended with; nil when it worked. The status keeps it over a restart.
	failure *report.Failure
	// told is the class of the failure that the status tells. It is derived from the reason after a restart.
	told token.Class
	// progress is how far requests have come. The status keeps it over a restart.
	progress report.Progress
	// intent is what is known of the marks of Legacy mints. Losing it costs at most one mint.
	intent account.Intent
	// last are the times of attempts that have a pace of their own. Losing them makes the next attempt prompt.
	last report.Times
	// check is the check request that waits. Losing it costs a call.
	check checkRequest
	// unreadSince is when observations began to fail; zero while they work. Losing it delays what the status tells by a minute.
	unreadSince time.Time
	// metadata is what became of the writes of labels, annotations and owner reference alone. Losing it costs a request.
	metadata report.Metadata
}

// shared is the part of a resourceState that the passes of other resources and the deliverer touch.
type shared struct {
	mu sync.Mutex
	// pending is a token that WeChat issued and the target does not hold yet. Losing it costs a call in Stable mode; in Legacy mode it
	// is a lost mint, of which the mark on the Secret tells.
	pending *report.Pending
	// readSince reports that the Secret was read after the pending token was issued.
	readSince bool
	// delivered is what the last attempt to tell pods of a token came to; nil before the first. Losing it costs a list of pods.
	delivered *delivery.Outcome
	// refused is the fingerprint of a token that a gateway saw WeChat refuse since WeChat was asked last. It is no proof, because whoever
	// may write the status of a client may give it. Losing it makes the next check wait for its time.
	refused string
}

// checkRequest is a check request that waits: its value, and when that was first seen.
type checkRequest struct {
	value string
	seen  time.Time
}

// membership is the account that a resource has joined; the zero value for none.
type membership struct {
	id      account.ID
	account *account.Account
}

// newState returns the state of a resource that this process has not seen before, as far as its status tells it.
func newState(resource *v1alpha1.WeChatAppToken) *resourceState {
	s := &resourceState{
		uid: resource.UID, failure: report.RecallFailure(resource.Status.LastError), progress: report.RecallProgress(resource),
		accepted: resource.Status.CredentialsVersion,
	}
	if s.failure != nil {
		s.told = s.failure.Class
	}
	return s
}

// states are the states of all resources, by name.
type states struct {
	mu     sync.Mutex
	byName map[types.NamespacedName]*resourceState
}

func newStates() *states { return &states{byName: map[types.NamespacedName]*resourceState{}} }

// of returns the state of a resource, and whether it is new. If another UID held the name, its state is discarded and returned.
func (s *states) of(resource *v1alpha1.WeChatAppToken) (state, discarded *resourceState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := nameOf(resource)
	if known := s.byName[name]; known != nil && known.uid == resource.UID {
		return known, nil
	} else if known != nil {
		discarded = known
	}
	state = newState(resource)
	s.byName[name] = state
	return state, discarded
}

// find returns the state for a name, or nil.
func (s *states) find(name types.NamespacedName) *resourceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byName[name]
}

// give keeps a token for a resource until its next pass writes it.
func (s *states) give(name types.NamespacedName, uid types.UID, t *report.Pending) {
	if state := s.find(name); state != nil && state.uid == uid {
		state.shared.give(t)
	}
}

// drop removes the state for a name and returns it; nil if there is none.
func (s *states) drop(name types.NamespacedName) *resourceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.byName[name]
	delete(s.byName, name)
	return state
}

// give keeps a token until it is written. Of two, the one that WeChat issued later is kept.
func (s *shared) give(t *report.Pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil || !t.IssuedAt.Before(s.pending.IssuedAt) {
		s.pending, s.readSince = t, false
	}
}

// pendingNow returns the token that waits to be written, nil for none, and whether the Secret was read after it was issued.
func (s *shared) pendingNow() (t *report.Pending, readSince bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending, s.readSince
}

// drop drops a token that was written or has become useless, unless another one came meanwhile. t may be nil.
func (s *shared) drop(t *report.Pending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t != nil && s.pending == t {
		s.pending = nil
	}
}

// noteRead records that the Secret was read from the API server, after whatever token is pending was issued.
func (s *shared) noteRead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readSince = s.pending != nil
}

// setDelivered records what an attempt to tell pods of a token came to.
func (s *shared) setDelivered(o delivery.Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delivered = &o
}

// deliveredOf returns what the last attempt to tell pods of the token with this fingerprint came to, and whether there was one.
func (s *shared) deliveredOf(fingerprint string) (delivery.Outcome, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.delivered == nil || fingerprint == "" || s.delivered.Fingerprint != fingerprint {
		return delivery.Outcome{}, false
	}
	return *s.delivered, true
}

// setRefused records the token that a gateway saw WeChat refuse; empty once WeChat was asked.
func (s *shared) setRefused(fingerprint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = fingerprint
}

// isRefused reports whether a gateway saw WeChat refuse the token with this fingerprint since WeChat was asked last.
func (s *shared) isRefused(fingerprint string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fingerprint != "" && s.refused == fingerprint
}

// confirmation returns WeChat's latest answer about the account's token; the zero value for none.
func (s *resourceState) confirmation() account.Confirmation {
	if s.membership.account == nil {
		return account.Confirmation{}
	}
	return s.membership.account.Confirmed()
}

// failureEnds forgets the last failure.
func (s *resourceState) failureEnds() { s.setFailure(nil) }

func (s *resourceState) setFailure(f *report.Failure) { s.failure = f }

func (s *resourceState) setMetadata(m report.Metadata) { s.metadata = m }

// observeMetadata describes what became of the writes of metadata alone, once it is known whether the target's is as wanted.
func (s *resourceState) observeMetadata(o *report.Observation) {
	m := s.metadata
	// The status does not tell what a failed write was of. A new process takes it for one of metadata if there is nothing else to write.
	if f := s.failure; f != nil && f.OfWrite && f.Account == "" && o.Target.Outdated && !o.Token.Unwritten && o.Target.MintStarted.IsZero() {
		m = m.WithFailure(f)
		s.failureEnds()
		o.Failed, o.Failure = nil, nil
	}
	if !o.Target.Outdated && (o.Secret == nil || !target.Incomplete(o.Secret)) {
		m = m.WithFailure(nil) // nobody wants that write any more
	}
	s.setMetadata(m)
	o.NoteMetadata(m)
}

// nameAccount completes a wait that WeChat named, and that the status kept over a restart, by the account that has to wait, if spec and
// credentials are still those: the status does not tell it.
func (s *resourceState) nameAccount(generation int64, credentialsVersion string) {
	f := s.failure
	if f == nil || f.Named == 0 || f.Account != "" || s.membership.account == nil {
		return
	}
	if f.Generation == generation && f.CredentialsVersion == credentialsVersion {
		s.setFailure(f.WithAccount(s.membership.id.Key))
	}
}

// failureBinds reports whether the back-off of the last failure holds. A change of spec or credentials ends it, except for a wait that
// WeChat named: that is the account's, however often the credentials Secret is touched.
func (s *resourceState) failureBinds(generation int64, credentialsVersion string) bool {
	f := s.failure
	if f == nil {
		return false
	}
	if f.Named > 0 && (f.Account == "" || f.Account == s.credentials.Secret.Account()) {
		return true
	}
	return f.Generation == generation && f.CredentialsVersion == credentialsVersion
}
