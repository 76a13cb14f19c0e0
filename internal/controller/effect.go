// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/log"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// effect is what a step came to. The step itself leaves the state of the resource alone; apply changes it.
type effect struct {
	// target is what the step left of the target Secret.
	target knownTarget
	// wrote is the version of the target that the step wrote; nil for none. dataKept reports that its data was left alone.
	wrote    *metav1.PartialObjectMetadata
	dataKept bool
	// issued is a token that has to be written; nil for none.
	issued *pendingToken
	// stored is the token that the target is known to hold from now on; nil if that is not news.
	stored *target.Token
	// landed and dropped are the pending token that was written, and the one that turned out useless; nil for none.
	landed, dropped *pendingToken
	// intent is the next state of the marks; nil if it stays.
	intent *account.Intent
	// accepted reports that WeChat issued a token for these credentials. It ends every failure.
	accepted bool
	// failure is what failed; nil for nothing. failureOver reports that the last failure is over.
	failure     *failure
	failureOver bool
	// outcomes are requests that had their attempt.
	outcomes []outcome
	// revocation is the next state of the revoke; nil if it stays.
	revocation *v1alpha1.RevocationStatus
	// forcedAt is when a forced call or a requested mint was begun; zero for none.
	forcedAt time.Time
	// reportFirst asks for the status to be written before the next step.
	reportFirst bool
	// askedAt and soughtAt are when the fetcher was asked, and when the token of another member was looked for; zero for never.
	askedAt, soughtAt time.Time
	// calledAt is when WeChat was called; zero for never.
	calledAt time.Time
	// referencesRefused reports that the API server refused to change the owner references.
	referencesRefused bool
}

// failure is a failed attempt as the step saw it.
type failure struct {
	refresh.Failure

	message, requestID string
}

// outcome is how a request ended.
type outcome struct {
	kind  refresh.RequestKind
	value string
	// failed says why the attempt failed; empty if it worked. same reports that WeChat returned the token that there was.
	failed string
	same   bool
}

// lookAgain is the effect of a step that found something else than the observation says.
func lookAgain() effect { return effect{target: knownTarget{lookAgain: true}} }

// apply changes the state of the resource by what a step came to.
func (p *pass) apply(ctx context.Context, o report.Observation, d refresh.Decision, e effect) {
	s, now := p.state, p.WeChat.Now()
	if e.wrote != nil {
		s.sawTarget(e.wrote, true, now)
		v := target.Verdict{UID: e.wrote.UID, ResourceVersion: e.wrote.ResourceVersion, Holding: target.HoldsKnown}
		if e.dataKept {
			v = s.verdict
			v.ResourceVersion = e.wrote.ResourceVersion
		}
		s.verdict = v
	}
	if e.stored != nil {
		s.stored = e.stored
		s.verdict.Holding = target.HoldsKnown
	}
	for _, t := range [...]*pendingToken{e.landed, e.dropped} {
		if t != nil {
			s.take(t)
		}
	}
	if e.issued != nil {
		s.give(e.issued)
	}
	if e.intent != nil {
		s.intent = *e.intent
	}
	s.attempts.asked = refresh.Later(s.attempts.asked, e.askedAt)
	s.attempts.copySought = refresh.Later(s.attempts.copySought, e.soughtAt)
	s.attempts.called = refresh.Later(s.attempts.called, e.calledAt)
	if e.referencesRefused {
		s.refusedReferences = p.resource.Generation
	}
	p.applyProgress(o, d, e)
	p.applyFailure(ctx, o, d, e)
}

// applyProgress records how far requests have come.
func (p *pass) applyProgress(o report.Observation, d refresh.Decision, e effect) {
	progress := &p.state.progress
	if e.revocation != nil {
		progress.Revocation = e.revocation
	}
	if !e.forcedAt.IsZero() {
		progress.Forced = append(progress.Forced, e.forcedAt)
	}
	for _, done := range e.outcomes {
		p.endRequest(done)
	}
	// A request has one attempt. A revoke that is half done goes on under back-off, or the leaked token would live.
	if e.failure != nil && d.Reason == refresh.RequestExecutable && (d.Request != refresh.RequestRevoke || o.Requests.RevokeStarted.IsZero()) {
		p.endRequest(outcome{kind: d.Request, value: requested(p.resource, d.Request), failed: e.failure.message})
	}
}

// endRequest records that a request had its attempt, and tells how it ended.
func (p *pass) endRequest(done outcome) {
	progress := &p.state.progress
	*request.Handled(&progress.Handled, done.kind) = done.value
	if done.kind == refresh.RequestRevoke {
		progress.Revocation = nil
	}
	switch {
	case done.failed != "":
		p.event(report.RequestFailed(done.kind, done.failed))
	case done.same:
		p.event(report.RefreshedNothing())
	default:
		p.event(report.RequestDone(done.kind))
	}
}

// applyFailure records what failed, or that the last failure is over.
func (p *pass) applyFailure(ctx context.Context, o report.Observation, d refresh.Decision, e effect) {
	s := p.state
	if e.accepted {
		s.credentials.accepted = s.credentials.version
	}
	if last := s.failure; last != nil && (e.accepted || e.failureOver || e.landed != nil && last.OfWrite) {
		log.FromContext(ctx).Info("the failure is over", "reason", last.Reason, "attempts", last.Attempts)
		if mark := o.Record.Mint; last.Answered(mark.StartedAt) {
			s.intent = s.intent.NotMinted(mark) // without the failure, the mark would look like that of a lost mint
		}
		s.failure = nil
	}
	if e.failure == nil {
		return
	}
	var previous *refresh.Failure
	if s.failure != nil && p.failureBinds(&o) {
		previous = &s.failure.Failure
	}
	next := refresh.Next(previous, e.failure.Failure, p.WeChat.Now(), string(p.resource.UID))
	s.failure = &report.Failure{
		Failure: next, Message: e.failure.message, RequestID: e.failure.requestID,
		Generation: p.resource.Generation, CredentialsVersion: p.credentialsVersion(o), Account: s.credentials.secret.Account(),
	}
	p.Recorder.RefreshFailed(d.Reason)
	logger := log.FromContext(ctx)
	if next.Attempts > 1 {
		logger = logger.V(1) // an outage is told once for each resource
	}
	logger.Info("the attempt failed", "reason", next.Reason, "message", e.failure.message, "code", next.Code,
		"requestID", e.failure.requestID, "attempts", next.Attempts, "retryAt", next.RetryAt)
}

// credentialsVersion returns the version of the credentials that a step used: it may have read them itself.
func (p *pass) credentialsVersion(o report.Observation) string {
	if v := p.state.credentials.version; v != "" {
		return v
	}
	return o.CredentialsVersion
}

// failed returns the effect of a call to WeChat that failed. A call that ended because the process does is no failure.
func failed(ctx context.Context, e effect, err error) (effect, error) {
	if ctx.Err() != nil {
		return e, ctx.Err()
	}
	refused, ok := errors.AsType[*token.Error](err)
	if !ok {
		return e, err
	}
	e.failure = &failure{
		Failure: refresh.Failure{Class: refused.Class, Reason: refused.Reason, Code: refused.Code, Named: refused.RetryAfter},
		message: refused.Message, requestID: refused.RequestID,
	}
	return e, nil
}
