// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/issue"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
)

// observeRequests finds the requests that are to be carried out.
func (p *observer) observeRequests(ctx context.Context, o *report.Observation) error {
	p.state.progress = p.state.progress.Current(p.resource, o.Now)
	p.observeCheck(o)
	progress := p.state.progress.After(o.Ended)
	p.state.progress, o.Progress = progress, progress
	wants := func(kind refresh.RequestKind) bool { return progress.Wants(p.resource, kind) }
	o.Requests = refresh.Requests{
		Check: wants(refresh.RequestCheck), Refresh: wants(refresh.RequestRefresh), Revoke: wants(refresh.RequestRevoke),
		Forced: progress.Forced,
	}
	if r := progress.Revocation; r != nil && r.FirstForcedTime != nil {
		o.Requests.RevokeStarted = r.FirstForcedTime.UTC()
	}
	if acct := p.state.membership.account; acct != nil {
		o.Requests.Forced = slices.Concat(o.Requests.Forced, acct.Forced(o.Now))
	}
	if o.Requests.Refresh || o.Requests.Revoke {
		if err := p.observeBudget(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// observeBudget adds what the other resources of the appid and mode have used of the account's budget, and when the last of them was
// given a token. Only the operator writes a status, and WeChat answered only to the right AppSecret, so it does not matter whether they
// have joined the account since this process started.
func (p *observer) observeBudget(ctx context.Context, o *report.Observation) error {
	var opts []client.ListOption
	if o.Traits.EndsOlder {
		opts = append(opts, client.MatchingFields{issue.LegacyAppIDIndex: p.resource.Spec.AppID})
	}
	list := &v1alpha1.WeChatAppTokenList{}
	if err := p.Client.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		return fmt.Errorf("listing WeChatAppTokens: %w", err)
	}
	for i := range list.Items {
		other := &list.Items[i]
		if other.UID == p.resource.UID || other.Spec.AppID != p.resource.Spec.AppID || other.Spec.Mode != p.resource.Spec.Mode {
			continue
		}
		for _, t := range other.Status.ForcedRefreshes {
			o.Requests.Forced = append(o.Requests.Forced, t.UTC())
		}
		if t := other.Status.Token; t != nil && t.Mode == other.Spec.Mode {
			o.Account.LastMint = refresh.Later(o.Account.LastMint, t.IssueTime.UTC())
		}
	}
	return nil
}

// observeCheck finds out whether a check request was answered already: WeChat confirmed the stored token to a member of the account after
// the request was first seen, and no ticket waits for a call of its own.
func (p *observer) observeCheck(o *report.Observation) {
	check := &p.state.check
	value := request.Value(p.resource, refresh.RequestCheck)
	switch {
	case !p.state.progress.Wants(p.resource, refresh.RequestCheck):
	case check.value != value || refresh.IsInFuture(check.seen, o.Now):
		*check = checkRequest{value: value, seen: o.Now}
	case o.Target.Exists && !o.Token.Doubtful && o.Token.CheckedAt.After(check.seen) && !o.TicketFailedBefore(check.seen):
		o.Ended = append(o.Ended, report.Outcome{Kind: refresh.RequestCheck, Value: value})
	}
}
