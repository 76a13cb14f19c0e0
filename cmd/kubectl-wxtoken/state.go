// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// state is a WeChatAppToken in one word.
type state string

const (
	stateReady      state = "Ready"
	stateFailing    state = "Failing"    // the token is valid, and could not be refreshed or checked
	stateSuspended  state = "Suspended"  // the token is valid, and nobody looks after it
	stateWaiting    state = "Waiting"    // no valid token; the operator expects to get one by itself
	stateStalled    state = "Stalled"    // no valid token; somebody has to act
	stateExpired    state = "Expired"    // the status says valid, but its time is over: nobody updates it
	stateUnanswered state = "Unanswered" // no operator has seen it
	stateDeleting   state = "Deleting"
)

func (s state) color() color {
	switch s {
	case stateReady:
		return green
	case stateFailing, stateSuspended, stateWaiting, stateUnanswered, stateDeleting:
		return yellow
	case stateStalled, stateExpired:
		return red
	}
	return plain
}

const (
	// lateness is how much later than the token's end a status may still say that it is valid: the operator promises 5 s,
	// and this machine's clock may be a little off.
	lateness = 15 * time.Second
	// overdueAfter is how much later than due a refresh may be before we say that nobody refreshes.
	overdueAfter = 60 * time.Second
	// unansweredAfter is how long a new resource may be without a status.
	unansweredAfter = 30 * time.Second
)

// look is what the status of a resource says to a person at some moment.
type look struct {
	*v1alpha1.WeChatAppToken

	now     time.Time
	ready   *metav1.Condition
	failing *metav1.Condition
	// degraded: pods are not told of new tokens, and were to be.
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

// left is the time that the token has; negative when it is over, false without one.
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
	case l.isReady() && has && left < -lateness:
		return stateExpired
	case l.isReady() && l.Spec.Suspend:
		return stateSuspended
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

// reason is the word for why the state is what it is.
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

// message says more than the reason.
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

// overdue: the refresh was due some time ago, and the status does not say why it did not happen.
func (l look) overdue() bool {
	due := l.Status.NextRefreshTime
	return due != nil && !l.Spec.Suspend && l.failing == nil && l.isReady() && l.now.Sub(due.Time) > overdueAfter
}

// unseen: no operator took notice, of the resource or of its last change.
func (l look) unseen() bool {
	return l.ready == nil && l.now.Sub(l.CreationTimestamp.Time) > unansweredAfter
}

// expiry is the cell EXPIRES IN.
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

// refreshIn is the cell REFRESH IN.
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

// forced are the forced calls of the last 24 hours that this resource made.
func (l look) forced() []time.Time {
	var out []time.Time
	for _, t := range l.Status.ForcedRefreshes {
		if l.now.Sub(t.Time) < 24*time.Hour {
			out = append(out, t.Time)
		}
	}
	return out
}
