// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
)

// apply changes the state of the resource by what a step came to.
func (p *pass) apply(ctx context.Context, o report.Observation, d refresh.Decision, e report.Effect) {
	s := p.state
	if e.Wrote != nil {
		s.gate.SawTarget(e.Wrote, true, p.WeChat.Now())
		s.target = s.target.Wrote(e.Wrote, e.DataKept)
	}
	if e.Target.Reverted {
		s.target = s.target.Reverted(p.WeChat.Now())
	}
	if e.Tickets.Held != nil {
		s.target = s.target.HoldsTickets(e.Tickets.Held)
	}
	if e.Stored != nil {
		s.target = s.target.Holds(e.Stored)
	}
	s.shared.drop(e.Landed)
	s.shared.drop(e.Dropped)
	if e.Issued != nil {
		s.shared.give(e.Issued)
	}
	if e.Intent != nil {
		s.intent = *e.Intent
	}
	s.last = s.last.Past(p.WeChat.Now()).Later(e.Times)
	if !e.Times.Called.IsZero() {
		s.shared.setRefused("")
	}
	if e.ReferencesRefused {
		s.setMetadata(s.metadata.WithRefusedReferences(p.resource.Generation))
	}
	if e.Accepted {
		s.accepted = s.credentials.Version
	}
	p.applyProgress(o, d, e)
	if last := s.failure; isOver(last, d, e) {
		if mark := o.Record.Mint; last.Answered(mark.StartedAt) {
			s.intent = s.intent.NotMinted(mark) // without the failure, the mark would look like that of a lost mint
		}
		log.FromContext(ctx).Info("the failure is over", "reason", last.Reason, "attempts", last.Attempts)
		s.failureEnds()
	}
	if e.Failed != nil {
		p.applyFailure(ctx, o, d, *e.Failed)
	}
	if e.ForeignDeaths > 0 {
		p.Recorder.ForeignFetch(p.resource.UID)
	}
	if e.ForeignDeaths > 1 {
		p.event(report.ForeignFetcher(p.resource.Spec.AppID, e.ForeignDeaths))
	}
	p.applyTickets(e.Tickets)
}

// isOver reports whether a step ended the last failure, nil for none.
func isOver(last *report.Failure, d refresh.Decision, e report.Effect) bool {
	written := d.Action == refresh.Write && e.Wrote != nil && e.Failed == nil
	return last != nil && (e.Accepted || e.FailureOver || written && last.OfWrite)
}

// applyProgress records how far requests have come.
func (p *pass) applyProgress(o report.Observation, d refresh.Decision, e report.Effect) {
	progress := p.state.progress
	if e.Revocation != nil {
		progress.Revocation = e.Revocation
	}
	if !e.Times.Forced.IsZero() {
		progress.Forced = append(progress.Forced, e.Times.Forced)
	}
	outcomes := e.Outcomes
	// A request has one attempt. A revoke that is half done goes on under back-off, or the leaked token would live.
	halfDone := d.Request == refresh.RequestRevoke && !o.Requests.RevokeStarted.IsZero()
	if e.Failed != nil && d.Reason == refresh.RequestExecutable && !halfDone {
		outcomes = append(outcomes, report.Outcome{Kind: d.Request, Value: o.Requested(d.Request), Failed: e.Failed.Message})
	}
	p.state.progress = progress.After(outcomes)
	for _, outcome := range outcomes {
		p.event(outcome.Event())
	}
}

// applyFailure records what failed.
func (p *pass) applyFailure(ctx context.Context, o report.Observation, d refresh.Decision, f report.Failure) {
	s, logger := p.state, log.FromContext(ctx)
	version := s.credentials.Version
	if version == "" { // they were not read yet
		version = o.CredentialsSecret.Version
	}
	var previous *refresh.Failure
	switch last := s.metadata.Failed; {
	case f.OfMetadata && last != nil && last.Generation == p.resource.Generation:
		previous = &last.Failure
	case !f.OfMetadata && s.failureBinds(p.resource.Generation, version):
		previous = &s.failure.Failure
	}
	f.Failure = refresh.Next(previous, f.Failure, p.WeChat.Now(), string(p.resource.UID))
	f.Generation, f.CredentialsVersion, f.Account = p.resource.Generation, version, s.credentials.Secret.Account()
	if f.OfMetadata {
		s.setMetadata(s.metadata.WithFailure(&f))
	} else {
		s.setFailure(&f)
	}
	p.Recorder.RefreshFailed(d.Reason)
	if f.Attempts > 1 {
		logger = logger.V(1) // an outage is told once for each resource
	}
	logger.Info("the attempt failed", "reason", f.Reason, "message", f.Message, "code", f.Code, "requestID", f.RequestID,
		"attempts", f.Attempts, "retryAt", f.RetryAt)
}
