// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
)

// Recorder is told what happened, for metrics. Its methods are called by many goroutines and return at once.
type Recorder interface {
	delivery.Recorder

	// Refreshed records that the Secret got a token that it did not hold.
	Refreshed(reason refresh.Reason)
	// RefreshFailed records an attempt that brought no token, or could not store it.
	RefreshFailed(reason refresh.Reason)
	// Rotated records how long after its due time a token was replaced.
	Rotated(late time.Duration)
	// Delivered records how long after the call for it the Secret held a new token.
	Delivered(after time.Duration)
	// ForeignFetch records that a token of the resource died early, because something else fetches for its appid.
	ForeignFetch(uid types.UID)
	// Checked records when WeChat last confirmed the token of the resource.
	Checked(uid types.UID, at time.Time)
	// Gone records that the resource does not exist any more.
	Gone(uid types.UID)
}

// unrecorded is a Recorder that does nothing.
type unrecorded struct{}

func (unrecorded) Refreshed(refresh.Reason)     {}
func (unrecorded) RefreshFailed(refresh.Reason) {}
func (unrecorded) Rotated(time.Duration)        {}
func (unrecorded) Delivered(time.Duration)      {}
func (unrecorded) ForeignFetch(types.UID)       {}
func (unrecorded) Checked(types.UID, time.Time) {}
func (unrecorded) Gone(types.UID)               {}
func (unrecorded) PodReached()                  {}
func (unrecorded) PodDeliveryFailed()           {}
func (unrecorded) PodsDelivered(time.Duration)  {}

// recordCheck records when WeChat last confirmed the stored token, to whichever member of the account.
func (p *pass) recordCheck(o report.Observation) {
	if c := p.state.confirmation(); c.Fingerprint != "" && c.Fingerprint == o.Token.Fingerprint {
		p.Recorder.Checked(p.resource.UID, c.At)
	}
}

// recordWrite records that a token is now in the Secret, in place of the one that was stored.
func (p *pass) recordWrite(o report.Observation, t *report.Pending) {
	if t.Value.Fingerprint() == o.Stored.Fingerprint {
		return // only its expiry was corrected, or its Secret repaired
	}
	now := p.WeChat.Now()
	p.Recorder.Refreshed(t.Reason)
	if !t.Copied {
		p.Recorder.Delivered(now.Sub(t.IssuedAt))
	}
	if t.Reason != refresh.RefreshDue && t.Reason != refresh.Expired {
		return
	}
	if acct := p.state.membership.account; acct != nil {
		if _, dead := acct.DeadSince(o.Stored.Fingerprint); dead {
			return // somebody ended its life: it was never due
		}
	}
	if due := report.NextRefresh(o); !due.IsZero() {
		p.Recorder.Rotated(now.Sub(due))
	}
}
