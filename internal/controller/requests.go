// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
)

// recallHandled starts from what the status says. Values that are there when the resource is first seen are recorded
// and not carried out: GitOps and backups replay annotations when they re-create a resource.
func (p *pass) recallHandled() {
	if h := p.token.Status.HandledRequests; h != nil {
		p.handled = *h
	}
	if p.token.Status.ObservedGeneration < 0 && !p.mem.seen {
		for _, kind := range refresh.RequestKinds() {
			if value := p.requested(kind); len(value) <= v1alpha1.RequestValueMaxLength { // a longer one fits no status
				p.handle(kind, value)
			}
		}
	}
	if p.mem.handled != nil {
		p.handled = *p.mem.handled
	}
	p.mem.seen = true
}

// requested is the value of the request annotation.
func (p *pass) requested(kind refresh.RequestKind) string {
	return p.token.Annotations[request.Annotation(kind)]
}

// handle records that a request had its attempt.
func (p *pass) handle(kind refresh.RequestKind, value string) {
	*request.Handled(&p.handled, kind) = value
	handled := p.handled
	p.mem.handled = &handled
}

// handleCheck: an answer of WeChat, asked for or not, is the check that somebody waits for.
func (p *pass) handleCheck() {
	if p.wants(refresh.RequestCheck) {
		p.handle(refresh.RequestCheck, p.requested(refresh.RequestCheck))
		p.eventRequestDone(refresh.RequestCheck)
	}
}

// wants tells whether a request was made and not handled yet.
func (p *pass) wants(kind refresh.RequestKind) bool {
	value := p.requested(kind)
	if value == "" || value == *request.Handled(&p.handled, kind) {
		return false
	}
	if len(value) > v1alpha1.RequestValueMaxLength {
		p.note = "a request was ignored, because its value is longer than 64 characters: use a timestamp"
		return false
	}
	return true
}

// requests are those still to be carried out. What the Secret says was written with the token that it asked for, so a
// crash before the status was written does not force twice.
func (p *pass) requests(now time.Time) refresh.Requests {
	if value := p.record.HandledRefresh; value != "" && value == p.requested(refresh.RequestRefresh) {
		p.handled.Refresh = value
	}
	if r := p.record.Revoke; r.Value != "" && !r.InProgress() && r.Value == p.requested(refresh.RequestRevoke) {
		p.handled.Revoke = r.Value
	}
	forced := p.forcedRefreshes(now)
	if p.mem.account != nil {
		forced = p.mem.account.forcedWith(forced)
	}
	r := refresh.Requests{
		Check:   p.wants(refresh.RequestCheck),
		Refresh: p.wants(refresh.RequestRefresh),
		Revoke:  p.wants(refresh.RequestRevoke),
		Forced:  forced,
	}
	if p.revoking() {
		r.RevokeStarted = p.record.Revoke.StartedAt
	}
	return r
}

// revoking: the revoke that the resource asks for is half done. The Secret alone does not say so: more people may edit it.
func (p *pass) revoking() bool {
	r := p.record.Revoke
	return r.InProgress() && p.wants(refresh.RequestRevoke) && r.Value == p.requested(refresh.RequestRevoke)
}

// forcedRefreshes are this resource's own, from the status and from this process.
func (p *pass) forcedRefreshes(now time.Time) []time.Time {
	if p.mem.forced == nil {
		for _, t := range p.token.Status.ForcedRefreshes {
			p.mem.forced = append(p.mem.forced, t.Time)
		}
		// A crash may have left it out of the status.
		if r := p.record.Revoke; p.revoking() && !slices.ContainsFunc(p.mem.forced, r.StartedAt.Truncate(time.Second).Equal) {
			p.mem.forced = append(p.mem.forced, r.StartedAt)
		}
	}
	return recentForced(p.mem.forced, now)
}
