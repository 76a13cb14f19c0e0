// SPDX-License-Identifier: Apache-2.0

// Package issue gets tokens from WeChat and checks them: an Issuer for each endpoint. It talks to WeChat and, where a mint must not get
// lost, to the target Secret. It decides nothing; package refresh says when to call which method.
package issue

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

// Issuer gets tokens of one WeChat endpoint. What WeChat refuses is part of the effect. An error is a *WriteError, or says that the API
// server could not be read.
type Issuer interface {
	// Traits returns how the tokens behave.
	Traits() refresh.Traits
	// Issue gets a token because of the decision's reason, without being asked to.
	Issue(ctx context.Context, s Step) (report.Effect, error)
	// Check asks WeChat about the stored token.
	Check(ctx context.Context, s Step) (report.Effect, error)
	// Tickets fetches the tickets that the decision names.
	Tickets(ctx context.Context, s Step) (report.Effect, error)
	// Refresh replaces the token on request.
	Refresh(ctx context.Context, s Step) (report.Effect, error)
	// Force makes one of the two forced calls of a revoke.
	Force(ctx context.Context, s Step) (report.Effect, error)
}

// Step is one step of a pass over a resource.
type Step struct {
	report.Observation

	Decision    refresh.Decision
	Credentials token.Credentials
	// Account is the WeChat account of the credentials, which the resource has joined.
	Account *account.Account
	// HasPending reports whether another member's mint has given the resource a token since the observation.
	HasPending func() bool
}

func (s Step) uid() types.UID { return s.Resource.UID }

// pending returns a token that WeChat issued for the resource.
func (s Step) pending(t token.Token) report.Pending {
	return report.NewPending(s.Observation, s.Decision, t, s.Credentials)
}

// Env is what issuers work with.
type Env struct {
	WeChat *wechat.Client
	Store  target.Store
	// Cache has the WeChatAppTokens, with LegacyAppIDIndex.
	Cache client.Reader
	// Wake starts a pass over a resource.
	Wake func(ctx context.Context, name types.NamespacedName)
	// Give keeps a token for another resource until that resource's next pass writes it.
	Give func(name types.NamespacedName, uid types.UID, t *report.Pending)
}

// LegacyAppIDIndex is the index of the cache that finds the Legacy resources of an appid.
const LegacyAppIDIndex = "legacyAppID"

// For returns the issuer of a mode.
func (e Env) For(mode v1alpha1.Mode) Issuer {
	if mode == v1alpha1.ModeLegacy {
		return legacy{e}
	}
	return stable{e}
}

// Traits returns how the tokens of a mode behave.
func Traits(mode v1alpha1.Mode) refresh.Traits { return Env{}.For(mode).Traits() }

func (e Env) wakeAll(ctx context.Context, names []types.NamespacedName) {
	for _, name := range names {
		e.Wake(ctx, name)
	}
}

// confirm records WeChat's answer for the account, and wakes the members whose Secrets may hold another token.
func (e Env) confirm(ctx context.Context, s Step, t token.Token) {
	c := account.Confirmation{Fingerprint: t.Value.Fingerprint(), At: t.IssuedAt, ExpiresAt: t.ExpiresAt}
	e.wakeAll(ctx, s.Account.Confirm(c, s.uid(), e.WeChat.Now()))
}

// beginCheck reports whether a check that has a pace of its own may be made now, on request or because a gateway saw WeChat refuse the
// token: another member may have begun one since the observation.
func (e Env) beginCheck(s Step) bool {
	refused := s.Decision.Reason == refresh.CheckDue && s.Token.Refused && s.Now.Before(refresh.CheckAt(s.Inputs))
	return s.Decision.Request != refresh.RequestCheck && !refused || s.Account.BeginCheck(e.WeChat.Now())
}

// WriteError says that the API server did not take a write of the target Secret.
type WriteError struct{ Err error }

// Error implements error.
func (e *WriteError) Error() string { return e.Err.Error() }

// Unwrap returns what the API server answered.
func (e *WriteError) Unwrap() error { return e.Err }

// failed adds to the effect that a call to WeChat failed. A call that ended because the process does is no failure.
func failed(ctx context.Context, e report.Effect, err error) (report.Effect, error) {
	if ctx.Err() != nil {
		return e, ctx.Err()
	}
	refused, ok := errors.AsType[*token.Error](err)
	if !ok {
		return e, err
	}
	e.Failed = &report.Failure{Failure: failureOf(refused), Message: refused.Message, RequestID: refused.RequestID}
	return e, nil
}

// failureOf returns what follows from an error of WeChat.
func failureOf(err *token.Error) refresh.Failure {
	return refresh.Failure{Class: err.Class, Reason: err.Reason, Code: err.Code, Named: err.RetryAfter}
}
