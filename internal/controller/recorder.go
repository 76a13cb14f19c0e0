// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/internal/delivery"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// Recorder is told what happened, for metrics. Its methods are called by many goroutines and return at once.
type Recorder interface {
	delivery.Recorder

	// Refreshed: the Secret got a token that it did not hold.
	Refreshed(reason refresh.Reason)
	// RefreshFailed: an attempt brought no token, or could not store it.
	RefreshFailed(reason refresh.Reason)
	// Rotated: a token was replaced, so long after its due time.
	Rotated(late time.Duration)
	// Delivered: the Secret held a new token so long after the call for it.
	Delivered(after time.Duration)
	// ForeignFetch: a token of the resource died early, because something else fetches for its appid.
	ForeignFetch(uid types.UID)
}

// unrecorded is for those who count nothing.
type unrecorded struct{}

func (unrecorded) Refreshed(refresh.Reason)     {}
func (unrecorded) RefreshFailed(refresh.Reason) {}
func (unrecorded) Rotated(time.Duration)        {}
func (unrecorded) Delivered(time.Duration)      {}
func (unrecorded) ForeignFetch(types.UID)       {}
func (unrecorded) PodReached()                  {}
func (unrecorded) PodDeliveryFailed()           {}
func (unrecorded) PodsDelivered(time.Duration)  {}

// recordWrite tells of a token that is now in the Secret, in place of the one that was stored.
func (p *pass) recordWrite(record target.Record, token *issued) {
	if record.TokenFingerprint == p.stored.fingerprint {
		return // only its expiry was corrected, or its Secret repaired
	}
	now := p.WeChat.Now()
	p.Recorder.Refreshed(token.reason)
	if !token.copied {
		p.Recorder.Delivered(now.Sub(token.IssuedAt))
	}
	if token.reason != refresh.RefreshDue && token.reason != refresh.Expired {
		return
	}
	if p.mem.account != nil && p.mem.account.isDead(p.stored.fingerprint) {
		return // somebody ended its life: it was never due
	}
	if due := refresh.DueAt(p.storedInputs()); !due.IsZero() {
		p.Recorder.Rotated(now.Sub(due))
	}
}
