// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// announce sends the events that follow from a change of status, so that a restart repeats none.
func (p *pass) announce(before, after v1alpha1.WeChatAppTokenStatus) {
	was := apimeta.FindStatusCondition(before.Conditions, v1alpha1.ConditionRefreshFailing)
	is := apimeta.FindStatusCondition(after.Conditions, v1alpha1.ConditionRefreshFailing)
	switch {
	case is != nil && (was == nil || was.Reason != is.Reason):
		p.event(corev1.EventTypeWarning, v1alpha1.EventRefreshFailed, is.Reason+": "+is.Message)
	case is == nil && was != nil:
		p.event(corev1.EventTypeNormal, v1alpha1.EventRecovered, "the cause of "+was.Reason+" is gone")
	}
	p.announceTarget(readyCondition(before), readyCondition(after))
	if before.ObservedGeneration >= 0 && p.mem.failure == nil {
		p.announceRequests(before, after)
	}
}

func (p *pass) announceTarget(was, is *metav1.Condition) {
	if was != nil && was.Reason == is.Reason {
		return
	}
	switch is.Reason {
	case v1alpha1.ReasonTargetConflict:
		p.event(corev1.EventTypeWarning, v1alpha1.EventTargetConflict, is.Message)
	case v1alpha1.ReasonTargetContested:
		p.event(corev1.EventTypeWarning, v1alpha1.EventTargetContested, is.Message)
	}
}

// announceRequests tells what became of a refresh and a revoke. A forced call that WeChat answers with the same token
// replaced nothing.
func (p *pass) announceRequests(before, after v1alpha1.WeChatAppTokenStatus) {
	was, is := handledOf(before), handledOf(after)
	switch old, now := before.Token, after.Token; {
	case is.Refresh == was.Refresh:
	case old != nil && now != nil && old.Fingerprint != "" && old.Fingerprint == now.Fingerprint:
		p.event(corev1.EventTypeWarning, v1alpha1.EventRequestedRefresh, "WeChat returned the same token: it forces no new one "+
			"within 30 s of the last forced call, which may have been somebody else's; set a new value for another attempt")
	default:
		p.eventRequestDone(refresh.RequestRefresh)
	}
	if is.Revoke != was.Revoke {
		p.eventRequestDone(refresh.RequestRevoke)
	}
}

func handledOf(status v1alpha1.WeChatAppTokenStatus) v1alpha1.HandledRequests {
	if h := status.HandledRequests; h != nil {
		return *h
	}
	return v1alpha1.HandledRequests{}
}

func (p *pass) eventRequestDone(kind refresh.RequestKind) {
	outcome := map[refresh.RequestKind]string{
		refresh.RequestCheck:   "WeChat was asked about the stored token",
		refresh.RequestRefresh: "the token was replaced",
		refresh.RequestRevoke:  "the leaked token was killed by two forced calls, and replaced",
	}[kind]
	p.event(corev1.EventTypeNormal, request.Event(kind), outcome)
}

func (p *pass) eventRequestFailed(kind refresh.RequestKind, err error) {
	message := "the API server or the network failed"
	if refused, ok := errors.AsType[*vocab.Error](err); ok {
		message = refused.Message
	}
	p.event(corev1.EventTypeWarning, request.Event(kind), "the attempt failed; set a new value for another one: "+message)
}

func (p *pass) eventForeignFetcher(count int) {
	p.event(corev1.EventTypeWarning, v1alpha1.EventForeignFetcher, fmt.Sprintf(
		"%d tokens died early within an hour: something else fetches tokens of appid %s with GET /cgi-bin/token; "+
			"find and stop it, or set spec.mode to Stable, which it does not disturb",
		count, p.token.Spec.AppID))
}

func (p *pass) event(kind, reason, note string) {
	ref := &v1alpha1.WeChatAppToken{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.Kind},
		ObjectMeta: p.token.ObjectMeta,
	}
	p.Events.Eventf(ref, nil, kind, reason, "Reconcile", "%s", truncate(note, 1000))
}
