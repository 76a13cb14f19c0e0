// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
)

// maxNote is the longest note of an event, in bytes. The API server refuses more than 1024.
const maxNote = 1000

// Event is an event about a resource.
type Event struct {
	// Type is corev1.EventTypeNormal or corev1.EventTypeWarning.
	Type         string
	Reason, Note string
}

// Transitions returns the events that follow from a change of status. Because they come from the status, a restart repeats none.
func Transitions(before, after v1alpha1.WeChatAppTokenStatus) []Event {
	var out []Event
	was := apimeta.FindStatusCondition(before.Conditions, v1alpha1.ConditionRefreshFailing)
	is := apimeta.FindStatusCondition(after.Conditions, v1alpha1.ConditionRefreshFailing)
	switch {
	case is != nil && (was == nil || was.Reason != is.Reason):
		out = append(out, warning(v1alpha1.EventRefreshFailed, is.Reason+": "+is.Message))
	case is == nil && was != nil:
		out = append(out, normal(v1alpha1.EventRecovered, "the cause of "+was.Reason+" is gone"))
	}
	wasReady := apimeta.FindStatusCondition(before.Conditions, v1alpha1.ConditionReady)
	ready := apimeta.FindStatusCondition(after.Conditions, v1alpha1.ConditionReady)
	if ready == nil || wasReady != nil && wasReady.Reason == ready.Reason {
		return out
	}
	switch ready.Reason {
	case v1alpha1.ReasonTargetConflict:
		out = append(out, warning(v1alpha1.EventTargetConflict, ready.Message))
	case v1alpha1.ReasonTargetContested:
		out = append(out, warning(v1alpha1.EventTargetContested, ready.Message))
	}
	return out
}

// requestDone returns the event of a request that was carried out.
func requestDone(kind refresh.RequestKind) Event {
	outcome := map[refresh.RequestKind]string{
		refresh.RequestCheck:   "WeChat was asked about the stored token",
		refresh.RequestRefresh: "the token was replaced",
		refresh.RequestRevoke:  "the leaked token was killed by two forced calls, and replaced",
	}[kind]
	return normal(request.Event(kind), outcome)
}

// refreshedNothing returns the event of a refresh whose forced call WeChat answered with the same token.
func refreshedNothing() Event {
	return warning(v1alpha1.EventRequestedRefresh, "WeChat returned the same token: it forces no new one "+
		"within 30 s of the last forced call, which may have been somebody else's; set a new value for another attempt")
}

// requestFailed returns the event of a request whose attempt failed. why must not quote an answer.
func requestFailed(kind refresh.RequestKind, why string) Event {
	return warning(request.Event(kind), "the attempt failed; set a new value for another one: "+why)
}

// ForeignFetcher returns the event of tokens that died early.
func ForeignFetcher(appID string, deaths int) Event {
	return warning(v1alpha1.EventForeignFetcher, fmt.Sprintf(
		"%d tokens died early within an hour: something else fetches tokens of appid %s with GET /cgi-bin/token; "+
			"find and stop it, or set spec.mode to Stable, which it does not disturb", deaths, appID))
}

func normal(reason, note string) Event {
	return Event{Type: corev1.EventTypeNormal, Reason: reason, Note: truncate(note, maxNote)}
}

func warning(reason, note string) Event {
	return Event{Type: corev1.EventTypeWarning, Reason: reason, Note: truncate(note, maxNote)}
}
