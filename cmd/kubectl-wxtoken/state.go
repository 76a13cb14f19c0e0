// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// state sums up a WeChatAppToken in one word: the type of the condition that says most about it, or a word of this plugin where no
// condition says it.
type state string

const (
	stateReady state = v1alpha1.ConditionReady
	// stateRefreshFailing means that all is valid, but the last attempt to refresh or check the token, or to fetch a ticket, failed.
	stateRefreshFailing state = v1alpha1.ConditionRefreshFailing
	// stateReconciling means that the token or a ticket is not valid; the operator expects to get it without help.
	stateReconciling state = v1alpha1.ConditionReconciling
	// stateStalled means that the token or a ticket is not valid, and that somebody has to act.
	stateStalled state = v1alpha1.ConditionStalled

	stateSuspended  state = "Suspended"  // the operator neither refreshes nor checks the token
	stateExpired    state = "Expired"    // the status says that the token is valid, but it has expired: no operator updates the status
	stateUnanswered state = "Unanswered" // no operator has seen the resource
	stateDeleting   state = "Deleting"
)

func (s state) color() color {
	switch s {
	case stateReady:
		return green
	case stateRefreshFailing, stateSuspended, stateReconciling, stateUnanswered, stateDeleting:
		return yellow
	case stateStalled, stateExpired:
		return red
	}
	return plain
}

const (
	// lateness is how long after the token's expiry its status may still call it valid. The operator promises 5 s, and the clock of
	// this machine may be a little off. A refresh that is late by less is due now.
	lateness = 15 * time.Second
	// overdueAfter is how late a refresh may be before it is reported as overdue.
	overdueAfter = 60 * time.Second
	// unansweredAfter is how long a new resource may be without a status before that is reported.
	unansweredAfter = 30 * time.Second
)

// look is a resource at a moment, with the conditions of its status.
type look struct {
	*v1alpha1.WeChatAppToken

	now time.Time
	// ready and failing may be about the token or about a ticket; see lacking and tokenFailing.
	ready   *metav1.Condition
	failing *metav1.Condition
	// degraded is the condition that prompt delivery to pods does not work.
	degraded *metav1.Condition
	stalled  bool
}

func lookAt(t *v1alpha1.WeChatAppToken, now time.Time) look {
	return look{
		WeChatAppToken: t, now: now,
		ready:    apimeta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionReady),
		failing:  apimeta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionRefreshFailing),
		degraded: apimeta.FindStatusCondition(t.Status.Conditions, v1alpha1.ConditionDeliveryDegraded),
		stalled:  apimeta.IsStatusConditionTrue(t.Status.Conditions, v1alpha1.ConditionStalled),
	}
}

func (l look) isReady() bool { return l.ready != nil && l.ready.Status == metav1.ConditionTrue }

// left returns the time until the token expires, which is negative once it has. It returns false if there is no token.
func (l look) left() (time.Duration, bool) {
	if l.Status.Token == nil {
		return 0, false
	}
	return l.Status.Token.ExpirationTime.Sub(l.now), true
}

func (l look) state() state {
	left, has := l.left()
	switch {
	case !l.DeletionTimestamp.IsZero():
		return stateDeleting
	case l.ready == nil:
		return stateUnanswered
	case l.tokenValid() && has && left < -lateness:
		return stateExpired
	case l.tokenValid() && l.Spec.Suspend:
		return stateSuspended
	case l.isReady() && l.failing != nil:
		return stateRefreshFailing
	case l.isReady():
		return stateReady
	case l.stalled:
		return stateStalled
	case l.Spec.Suspend:
		return stateSuspended
	}
	return stateReconciling
}

// reason returns the reason of the state: one of the conditions' reasons, or one of this plugin's own.
func (l look) reason() string {
	switch s := l.state(); {
	case s == stateUnanswered:
		return "NotSeenYet"
	case s == stateExpired:
		return "NobodyRefreshes"
	case l.ready == nil:
		return "NotSeenYet"
	case l.failing != nil && (l.isReady() || l.ready.Reason == v1alpha1.ReasonTokenExpired && l.tokenFailing() != nil):
		return l.failing.Reason
	}
	return l.ready.Reason
}

// message returns a sentence that explains the state.
func (l look) message() string {
	switch s := l.state(); {
	case s == stateExpired:
		return fmt.Sprintf("the token expired %s and the status still says that it is valid, so no operator updates it",
			ago(l.Status.Token.ExpirationTime.Time, l.now))
	case l.ready == nil:
		return "no operator has seen this resource yet"
	}
	return l.ready.Message
}

// overdue reports whether the refresh was due some time ago and the status does not say why it did not happen.
func (l look) overdue() bool {
	due := l.Status.NextRefreshTime
	return due != nil && !l.Spec.Suspend && l.tokenFailing() == nil && l.tokenValid() && l.now.Sub(due.Time) > overdueAfter
}

// unseen reports whether the resource has had no status for longer than an operator needs.
func (l look) unseen() bool {
	return l.ready == nil && l.now.Sub(l.CreationTimestamp.Time) > unansweredAfter
}

// expiry returns the cell of the column EXPIRES IN.
func (l look) expiry() cell {
	left, has := l.left()
	switch {
	case !has:
		return cell{text: "-"}
	case left <= 0:
		return cell{text: "expired", color: red}
	}
	c := cell{text: countdown(left)}
	if due := l.Status.NextRefreshTime; l.state() == stateRefreshFailing && due != nil && l.now.After(due.Time) {
		c.color = yellow
	}
	return c
}

// nextAttempt returns when the operator next asks WeChat for a token or a ticket, as far as the status tells. retry is true if that
// repeats an attempt that failed. It returns false if the status names no time, or if the resource is suspended.
func (l look) nextAttempt() (at time.Time, retry, has bool) {
	due, e := l.Status.NextRefreshTime, l.Status.LastError
	switch {
	case l.Spec.Suspend:
		return time.Time{}, false, false
	case e != nil && e.RetryTime != nil && (due == nil || e.RetryTime.Before(due) || !l.now.Before(due.Time)):
		return e.RetryTime.Time, true, true
	case due != nil && (l.state() != stateStalled || e != nil):
		return due.Time, false, true
	}
	return time.Time{}, false, false
}

// attemptCell returns the cell of the column NEXT ATTEMPT.
func (l look) attemptCell() cell {
	at, retry, has := l.nextAttempt()
	switch {
	case l.Spec.Suspend:
		return cell{text: "suspended", color: yellow}
	case !has:
		return cell{text: "-"}
	case l.overdue():
		return cell{text: "overdue", color: red}
	case at.Sub(l.now) < time.Second:
		return cell{text: "now"}
	case retry:
		return cell{text: "retry in " + countdown(at.Sub(l.now))}
	}
	return cell{text: "in " + countdown(at.Sub(l.now))}
}

// forced returns the times of the forced calls that this resource made in the last 24 hours.
func (l look) forced() []time.Time {
	var out []time.Time
	for _, t := range l.Status.ForcedRefreshes {
		if l.now.Sub(t.Time) < 24*time.Hour {
			out = append(out, t.Time)
		}
	}
	return out
}
