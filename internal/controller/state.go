// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// resourceState is what this process knows of one resource beyond the API server. Passes over one resource never overlap. The mutex
// guards what other passes and events touch: pending, delivered and lastWrite.
type resourceState struct {
	uid types.UID

	mu sync.Mutex
	// pending is a token that WeChat issued and the target does not hold yet. Losing it costs a call in Stable mode; in Legacy mode it
	// is a lost mint, of which the mark on the Secret tells.
	pending *pendingToken
	// delivered is what the last attempt to tell pods of a token came to; nil before the first. Losing it costs a list of pods.
	delivered *delivery.Outcome
	// lastWrite tells whether the caches have seen what this process wrote. Losing it costs a conflict.
	lastWrite lastWrite

	// credentials is the last live read of the credentials Secret. Losing it costs a GET.
	credentials credentials
	// membership is the WeChat account that the AppSecret belongs to. Losing it costs a GET.
	membership membership
	// stored is the token that this process wrote last, or that WeChat confirmed to it. Losing it costs a GET and a check.
	stored *target.Token
	// verdict is what the target's data was found to be. Losing it costs a GET.
	verdict target.Verdict
	// failure is what the last attempt ended with; nil when it worked. The status keeps it over a restart.
	failure *report.Failure
	// told is the class of the failure that the status tells. It is derived from the reason after a restart.
	told token.Class
	// progress is how far requests have come. The status keeps it over a restart.
	progress report.Progress
	// intent is what is known of the marks of Legacy mints. Losing it costs at most one mint.
	intent account.Intent
	// repairs paces the repair of a target that somebody keeps rewriting. Losing it makes the next repair prompt.
	repairs repairs
	// attempts are the times of attempts that have a pace of their own. Losing them makes the next attempt prompt.
	attempts attempts
	// refusedReferences is the generation whose change of the owner reference the API server refused. Losing it costs a request.
	refusedReferences int64
}

// attempts are times of last attempts.
type attempts struct {
	// asked is when the fetcher of the Legacy account was asked for a token.
	asked time.Time
	// copySought is when the token of another member was looked for.
	copySought time.Time
	// called is when this resource last called WeChat.
	called time.Time
	// check is the value of the check request that waits, and checkSeen when it was first seen.
	check     string
	checkSeen time.Time
	// unreadSince is when observations began to fail; zero while they work.
	unreadSince time.Time
}

// membership is the account that a resource has joined; the zero value for none.
type membership struct {
	id      account.ID
	account *account.Account
}

// pendingToken is a token on its way to the Secret, with what is handled once it is there.
type pendingToken struct {
	token.Token

	appID       string
	mode        v1alpha1.Mode
	credentials string // fingerprint
	// reason is why it was fetched.
	reason refresh.Reason
	// refresh and revoke are the values of the requests that are handled once the Secret holds the token; empty for none.
	refresh, revoke string
	// replaces is the fingerprint of the token that the Secret held when this one was issued; empty for none, or if another member
	// minted this one.
	replaces string
	// forced reports that a forced call returned it, so that no other answer may take its place.
	forced bool
	// copied reports that it comes from another member of the account.
	copied bool
	// unmarked reports that it was minted in Legacy mode without a mark, because there was no Secret.
	unmarked bool
	// readSinceIssued reports that the Secret was read after WeChat issued this token, so no timestamps need to be compared.
	readSinceIssued bool
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

// drop removes the state for a name and returns it; nil if there is none.
func (s *states) drop(name types.NamespacedName) *resourceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.byName[name]
	delete(s.byName, name)
	return state
}

// newState returns the state of a resource that this process has not seen before, as far as its status tells it.
func newState(resource *v1alpha1.WeChatAppToken) *resourceState {
	status := &resource.Status
	s := &resourceState{uid: resource.UID, failure: recallFailure(status.LastError)}
	if s.failure != nil {
		s.told = s.failure.Class
	}
	s.credentials.accepted = status.CredentialsVersion
	s.progress.Revocation = status.Revocation.DeepCopy()
	for _, t := range status.ForcedRefreshes {
		s.progress.Forced = append(s.progress.Forced, t.UTC())
	}
	if h := status.HandledRequests; h != nil {
		s.progress.Handled = *h
	}
	if status.ObservedGeneration < 0 {
		// GitOps and backups replay annotations when they re-create a resource: such values are recorded and not carried out.
		for _, kind := range refresh.RequestKinds() {
			if value := requested(resource, kind); len(value) <= v1alpha1.RequestValueMaxLength { // a longer one fits no status
				*request.Handled(&s.progress.Handled, kind) = value
			}
		}
	}
	return s
}

// recallFailure returns the failure that a status speaks of; nil for none. The back-off of a transient one is not worth keeping.
func recallFailure(e *v1alpha1.RefreshError) *report.Failure {
	if e == nil {
		return nil
	}
	f := refresh.Failure{
		Class: classOf(e), Reason: token.Reason(e.Reason), Code: int(e.Code), OfWrite: e.Reason == v1alpha1.ReasonTargetWriteFailed,
		First: e.Time.UTC(), Time: e.Time.UTC(), Attempts: int(e.Attempts),
	}
	if e.RetryTime != nil && f.Class != token.Transient {
		f.RetryAt = e.RetryTime.UTC()
	}
	if f.Reason == v1alpha1.ReasonIPBlocked {
		f.Named = f.RetryAt.Sub(f.Time)
	}
	return &report.Failure{
		Failure: f, Message: e.Message, RequestID: e.RequestID, Generation: e.Generation, CredentialsVersion: e.CredentialsVersion,
	}
}

// classOf returns the class of a failure that a status speaks of.
func classOf(e *v1alpha1.RefreshError) token.Class {
	switch e.Reason {
	case v1alpha1.ReasonSystemBusy, v1alpha1.ReasonUnreachable, v1alpha1.ReasonBadResponse:
		return token.Transient
	case v1alpha1.ReasonRateLimited, v1alpha1.ReasonDailyQuotaExhausted, v1alpha1.ReasonIPBlocked:
		return token.Limited
	case v1alpha1.ReasonRequestRejected:
		if e.Attempts < refresh.RejectionsUntilAction {
			return token.Transient
		}
	}
	return token.Action
}

// give keeps a token until it is written. Of two, the one that WeChat issued later is kept.
func (s *resourceState) give(t *pendingToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil || !t.IssuedAt.Before(s.pending.IssuedAt) {
		s.pending = t
	}
}

// pendingNow returns the token that waits to be written; nil for none.
func (s *resourceState) pendingNow() *pendingToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

// take drops a token that was written or has become useless, unless another one came meanwhile.
func (s *resourceState) take(t *pendingToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == t {
		s.pending = nil
	}
}

// noteRead records that the Secret was read from the API server, after whatever token is pending was issued.
func (s *resourceState) noteRead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil {
		s.pending.readSinceIssued = true
	}
}
