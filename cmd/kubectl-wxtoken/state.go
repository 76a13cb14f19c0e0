// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// state sums up a WeChatAppToken in one word.
type state string

const (
	stateReady      state = "Ready"
	stateFailing    state = "Failing"    // all is valid, but the last attempt to refresh or check the token, or to fetch a ticket, failed
	stateSuspended  state = "Suspended"  // the operator neither refreshes nor checks the token
	stateWaiting    state = "Waiting"    // there is no valid token; the operator expects to get one without help
	stateNoTicket   state = "NoTicket"   // the token is valid, but a ticket that the spec asks for is not
	stateStalled    state = "Stalled"    // there is no valid token, and somebody has to act
	stateExpired    state = "Expired"    // the status says that the token is valid, but it has expired: no operator updates the status
	stateUnanswered state = "Unanswered" // no operator has seen the resource
	stateDeleting   state = "Deleting"
)

func (s state) color() color {
	switch s {
	case stateReady:
		return green
	case stateFailing, stateNoTicket, stateSuspended, stateWaiting, stateUnanswered, stateDeleting:
		return yellow
	case stateStalled, stateExpired:
		return red
	}
	return plain
}

const (
	// lateness is how long after the token's expiry its status may still call it valid. The operator promises 5 s, and the clock of
	// this machine may be a little off.
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
	case l.lacking() != "":
		return stateNoTicket
	case l.isReady() && l.failing != nil:
		return stateFailing
	case l.isReady():
		return stateReady
	case l.stalled:
		return stateStalled
	case l.Spec.Suspend:
		return stateSuspended
	}
	return stateWaiting
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
	case l.failing != nil && l.isReady():
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
	if due := l.Status.NextRefreshTime; l.state() == stateFailing && due != nil && l.now.After(due.Time) {
		c.color = yellow
	}
	return c
}

// refreshIn returns the cell of the column REFRESH IN.
func (l look) refreshIn() cell {
	due := l.Status.NextRefreshTime
	switch {
	case due == nil || l.state() == stateStalled && l.Status.LastError == nil:
		return cell{text: "-"}
	case l.Spec.Suspend:
		return cell{text: "suspended", color: yellow}
	}
	at := due.Time
	if e := l.Status.LastError; e != nil && e.RetryTime != nil && !l.now.Before(at) {
		at = e.RetryTime.Time
	}
	switch {
	case at.Sub(l.now) >= time.Second:
		return cell{text: countdown(at.Sub(l.now))}
	case l.overdue():
		return cell{text: "overdue", color: red}
	}
	return cell{text: "now"}
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
