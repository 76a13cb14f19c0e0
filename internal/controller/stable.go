// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// expirySlack is how far the stored expiry may be off before it is written again. Readers have no use for less.
const expirySlack = 30 * time.Second

// issueStable makes a normal Stable call. It issues, checks and heals alike: WeChat answers with the token that is
// valid now.
func (p *pass) issueStable(ctx context.Context) error {
	ok, err := p.needCredentials(ctx)
	if err != nil || !ok {
		return err
	}
	acct, credentials := p.mem.account, p.credentials.value
	token, err := acct.merged(func() (vocab.Token, error) {
		failpoint.Hit("before-wechat")
		return p.WeChat.StableToken(ctx, credentials, false)
	})
	failpoint.Hit("after-wechat")
	if err != nil {
		return p.failRequest(ctx, err)
	}
	p.succeeded(ctx, acct, token)
	p.handleCheck()
	p.take(p.issued(token))
	return nil
}

// succeeded records an answer and wakes the members of the account whose Secrets hold another token.
func (p *pass) succeeded(ctx context.Context, acct *account, token vocab.Token) {
	p.recovered(ctx)
	others := acct.observe(sighting{fingerprint: token.Value.Fingerprint(), at: token.IssuedAt, expiresAt: token.ExpiresAt})
	for _, name := range others {
		if name != nameOf(p.token) {
			p.wake.send(ctx, name)
		}
	}
}

// issued is a token of the account that the spec and the live credentials name.
func (p *pass) issued(token vocab.Token) issued {
	return issued{
		Token: token, appID: p.token.Spec.AppID, mode: p.token.Spec.Mode,
		credentials: p.credentials.value.Fingerprint(), reason: p.decision.Reason,
	}
}

// unwritten is the token that waits to be written; nil for none. One for an appid or mode that the spec has left is
// dropped.
func (p *pass) unwritten() *issued {
	token := p.mem.unwritten()
	if token != nil && (token.appID != p.token.Spec.AppID || token.mode != p.token.Spec.Mode) {
		p.mem.written(token)
		return nil
	}
	return token
}

// take keeps the token for writing if the Secret needs it, and otherwise notes that the stored one is right.
func (p *pass) take(token issued) {
	if !p.mustWrite(token) {
		if p.mem.stored == nil || p.mem.verified.doubtful {
			s := p.stored
			s.credentials, s.unseen = token.credentials, false
			p.mem.stored = &s
			p.mem.verified.doubtful = false
		}
		return
	}
	if token.Value.Fingerprint() == p.stored.fingerprint && !p.stored.issuedAt.IsZero() {
		token.IssuedAt = earlier(p.stored.issuedAt, token.IssuedAt) // a clock that was ahead may have noted it
	}
	p.mem.put(token)
}

func (p *pass) mustWrite(token issued) bool {
	s := p.stored
	return token.Value.Fingerprint() != s.fingerprint || p.mem.verified.tampered ||
		s.appID != p.token.Spec.AppID || s.mode != p.token.Spec.Mode || p.credentialsChanged() ||
		token.ExpiresAt.Sub(s.expiresAt).Abs() > expirySlack || token.handledRefresh != "" || token.revoke != nil
}

// force carries out a refresh or one of the two calls of a revoke.
func (p *pass) force(ctx context.Context) error {
	ok, err := p.needCredentials(ctx)
	if err != nil || !ok {
		return err
	}
	token := p.issued(vocab.Token{})
	switch p.decision.Action {
	case refresh.Revoke:
		token.Token, err = p.forcedCall(ctx)
		token.revoke = p.revokeAfter(token.Value.Fingerprint())
	default:
		token.handledRefresh = p.requested(refresh.RequestRefresh)
		token.Token, err = p.refreshed(ctx)
	}
	if err != nil {
		if refused, ok := errors.AsType[*vocab.Error](err); ok && refused.MaybeSent {
			p.mem.account.doubt() // in Legacy mode the mark on the Secret says so
		}
		return p.failRequest(ctx, err)
	}
	p.succeeded(ctx, p.mem.account, token.Token)
	p.mem.put(token)
	return nil
}

// refreshed asks WeChat first: if it has another token than the Secret already, perhaps because a crash lost the answer
// to our own forced call, nothing needs to be forced. Two forced calls in a row would kill a token that pods still use.
func (p *pass) refreshed(ctx context.Context) (vocab.Token, error) {
	token, err := p.WeChat.StableToken(ctx, p.credentials.value, false)
	if err != nil || token.Value.Fingerprint() != p.stored.fingerprint {
		return token, err
	}
	return p.forcedCall(ctx)
}

func (p *pass) forcedCall(ctx context.Context) (vocab.Token, error) {
	now := p.WeChat.Now()
	p.mem.account.noteForced(now)
	p.mem.forced = append(recentForced(p.mem.forced, now), now)
	log.FromContext(ctx).Info("forcing a new token on request", "request", p.decision.Request)
	failpoint.Hit("before-force")
	defer failpoint.Hit("after-force")
	return p.WeChat.StableToken(ctx, p.credentials.value, true)
}

// revokeAfter is the progress of a revoke after a forced call that returned a token of this fingerprint. It is done
// when the second call returned yet another token.
func (p *pass) revokeAfter(fingerprint string) *target.Revoke {
	progress := p.record.Revoke
	if !p.revoking() {
		return &target.Revoke{StartedAt: p.WeChat.Now(), Victim: p.stored.fingerprint, Value: p.requested(refresh.RequestRevoke)}
	}
	if fingerprint == p.stored.fingerprint || fingerprint == progress.Victim {
		progress.StartedAt = p.WeChat.Now() // WeChat did not refresh: once more
	} else {
		progress.StartedAt = time.Time{}
	}
	return &progress
}

// failRequest is failCall that ends the one attempt of a request, if there was one. A revoke that is half done goes on,
// or the leaked token would live.
func (p *pass) failRequest(ctx context.Context, err error) error {
	revoking := p.decision.Request == refresh.RequestRevoke && p.revoking()
	if p.decision.Reason == refresh.RequestExecutable && !revoking && ctx.Err() == nil {
		p.handle(p.decision.Request, p.requested(p.decision.Request))
		p.eventRequestFailed(p.decision.Request, err)
	}
	return p.failCall(ctx, err)
}

// failCall records what WeChat answered. A call that ended because the process does is no failure.
func (p *pass) failCall(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var refused *vocab.Error
	if !errors.As(err, &refused) {
		return err
	}
	p.fail(ctx, refresh.Failure{
		Class: refused.Class, Reason: refused.Reason, Code: refused.Code, Named: refused.RetryAfter,
	}, refused.Message, refused.RequestID)
	return nil
}

// fail records a failure; the next decision follows its back-off.
func (p *pass) fail(ctx context.Context, f refresh.Failure, message, requestID string) {
	previous := p.mem.failure
	if p.failureIsOld() {
		previous = nil
	}
	next := refresh.Next(previous, f, p.WeChat.Now(), string(p.token.UID))
	p.mem.failure, p.mem.message, p.mem.requestID = &next, message, requestID
	p.mem.failedGeneration, p.mem.failedCredentials = p.token.Generation, p.credentials.version
	p.Recorder.RefreshFailed(p.decision.Reason)
	logger := log.FromContext(ctx)
	if next.Attempts > 1 {
		logger = logger.V(1) // an outage is told once for each resource
	}
	logger.Info("the attempt failed", "reason", next.Reason, "message", message, "code", next.Code, "requestID", requestID,
		"attempts", next.Attempts, "retryAt", next.RetryAt)
}

// failureIsOld: spec or credentials are others than those that failed.
func (p *pass) failureIsOld() bool {
	return p.mem.failure != nil &&
		(p.mem.failedGeneration != p.token.Generation || p.mem.failedCredentials != p.credentials.version)
}

// recovered: WeChat answered with what was asked for.
func (p *pass) recovered(ctx context.Context) {
	if f := p.mem.failure; f != nil {
		log.FromContext(ctx).Info("the failure is over", "reason", f.Reason, "attempts", f.Attempts)
	}
	p.clearFailure()
}

// clearFailure forgets the last failure. If it was the errcode that answered the mark on the Secret, that is remembered
// in its place: a mark without an answer is a lost mint.
func (p *pass) clearFailure() {
	if f, mark := p.mem.failure, p.record.Mint; f.Answered(mark.StartedAt) {
		p.mem.emptyMark = mark
	}
	p.mem.failure = nil
}
