// SPDX-License-Identifier: Apache-2.0

package issue

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// ticketsTake is how long a token that waits to be written waits for tickets, so that one update writes all of them.
const ticketsTake = 3 * time.Second

// sharedFor is how long an answer about a ticket serves the other members of the account.
const sharedFor = time.Minute

// fetchTickets adds to the effect the tickets that the decision names, fetched with a token that WeChat accepts. It never fails: what
// WeChat refuses is recorded for the account, and the token is written all the same.
func (i Env) fetchTickets(ctx context.Context, s Step, tok token.Value, e *report.Effect) {
	call := ctx
	if e.Issued != nil {
		var cancel context.CancelFunc
		call, cancel = context.WithTimeout(ctx, ticketsTake)
		defer cancel()
	}
	for _, kind := range s.Decision.Tickets {
		if e.Issued != nil && s.Ticket(kind).Failure != nil {
			continue // the token does not wait for one that failed before
		}
		if sight, ok := i.justReturned(s, kind); ok {
			needTicket(s, kind, sight, token.Value{}, e)
			continue
		}
		failpoint.Hit("before-ticket")
		answer, err := s.Account.MergedTicket(kind, func() (token.Ticket, error) {
			answer, err := i.WeChat.Ticket(call, tok, kind)
			if err != nil && ctx.Err() == nil {
				i.ticketFailed(ctx, s, kind, err) // once, although several members may wait for the answer
			}
			return answer, err
		})
		failpoint.Hit("after-ticket")
		switch {
		case ctx.Err() != nil:
			return // the process ends
		case err != nil:
			e.Tickets.Failed = true
		default:
			i.ticketReturned(ctx, s, kind, answer, e)
		}
	}
}

// ticketReturned records a ticket, wakes the members whose Secrets may hold another one, and adds it to the effect if the Secret needs it.
func (i Env) ticketReturned(ctx context.Context, s Step, kind v1alpha1.TicketType, answer token.Ticket, e *report.Effect) {
	sight, changed := s.Account.Tickets.Saw(kind, answer, i.WeChat.Now())
	if changed && !failpoint.Off(failpoint.ToldMembers) {
		for _, m := range s.Account.Others(s.uid()) {
			i.Wake(ctx, m.Name)
		}
	}
	if sight.Fingerprint == answer.Value.Fingerprint() { // no later call has returned another one
		needTicket(s, kind, sight, answer.Value, e)
	}
}

// needTicket adds a ticket to the effect if the Secret needs it. The value is zero if it is known to hold the ticket.
func needTicket(s Step, kind v1alpha1.TicketType, sight refresh.TicketSight, value token.Value, e *report.Effect) {
	have := s.Ticket(kind)
	if have.Fingerprint == sight.Fingerprint && !sight.Outdates(have) {
		return
	}
	e.Tickets.Fetched = append(e.Tickets.Fetched, report.PendingTicket{
		Ticket: target.Ticket{
			Type: kind, Fingerprint: sight.Fingerprint, FirstAt: sight.FirstAt.Truncate(time.Second), ExpiresAt: sight.ExpiresAt,
		},
		Value: value, AppID: s.Credentials.AppID,
	})
}

// justReturned reports whether WeChat has returned the ticket that the Secret holds a moment ago, to another member of the account.
func (i Env) justReturned(s Step, kind v1alpha1.TicketType) (refresh.TicketSight, bool) {
	have, sight := s.Ticket(kind).Fingerprint, s.Account.Tickets.Get(kind).Sight
	recent := i.WeChat.Now().Before(refresh.EarliestNext(sight.LastAt, sharedFor, i.WeChat.Now()))
	return sight, have != "" && sight.Fingerprint == have && recent && !sight.Doubted
}

// ticketFailed records a call that failed. A token that WeChat refuses is checked soon: that, and not this call, shows whether it is dead.
func (i Env) ticketFailed(ctx context.Context, s Step, kind v1alpha1.TicketType, err error) {
	refused, ok := errors.AsType[*token.Error](err)
	if !ok {
		refused = &token.Error{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable, Message: "The call for the ticket failed."}
	}
	if refused.Reason == token.ReasonTokenRejected {
		s.Account.Doubt()
	}
	f := s.Account.Tickets.Failed(kind, account.TicketFailure{
		Failure: failureOf(refused), Message: refused.Message, RequestID: refused.RequestID,
		UID: s.uid(), Generation: s.Resource.Generation,
	}, i.WeChat.Now())
	logger := log.FromContext(ctx)
	if f.Attempts > 1 {
		logger = logger.V(1)
	}
	logger.Info("a ticket could not be fetched", "ticket", kind, "reason", f.Reason, "message", f.Message, "code", f.Code,
		"requestID", f.RequestID, "attempts", f.Attempts, "retryAt", f.RetryAt)
}
