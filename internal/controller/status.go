// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/failpoint"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// report writes the status if it says something else than the last one.
func (p *pass) report(ctx context.Context, o report.Observation, d refresh.Decision) error {
	if p.gone {
		return nil
	}
	next := report.Status(o, d)
	if err := p.writeStatus(ctx, next); err != nil {
		return err
	}
	p.state.told = d.Verdict.Class
	return nil
}

// reportUnread tells what follows from an observation that failed: the token that the status names may end meanwhile, and a failure to
// read the API server is told once it lasts.
func (p *pass) reportUnread(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil // the process ends
	}
	now := p.WeChat.Now()
	since := &p.state.unreadSince
	if since.IsZero() || refresh.IsInFuture(*since, now) {
		*since = now
	}
	return p.writeStatus(ctx, report.Unread(p.resource, *since, now, target.DelayMessage(err)))
}

// writeStatus is the one place where a status is written.
func (p *pass) writeStatus(ctx context.Context, next v1alpha1.WeChatAppTokenStatus) error {
	last := p.resource.Status
	if equality.Semantic.DeepEqual(next, last) {
		return nil
	}
	if gone, err := p.isGone(ctx); gone || err != nil {
		return err
	}
	failpoint.Hit("before-status")
	seen := metav1.ObjectMeta{Namespace: p.resource.Namespace, Name: p.resource.Name, ResourceVersion: p.resource.ResourceVersion}
	version, err := kube.PatchStatus(ctx, p.Client, v1alpha1.Kind, &v1alpha1.WeChatAppToken{ObjectMeta: seen, Status: last},
		&v1alpha1.WeChatAppToken{ObjectMeta: seen, Status: next}, target.FieldManager)
	switch {
	case apierrors.IsNotFound(err):
		return nil // deleted meanwhile
	case apierrors.IsConflict(err):
		return errCacheBehind // the resource has changed, and so may what there is to say
	case err != nil:
		return fmt.Errorf("writing the status of WeChatAppToken %s: %w", nameOf(p.resource), err)
	}
	failpoint.Hit("after-status")
	p.state.gate.WroteStatus(version, p.WeChat.Now())
	p.resource.Status, p.resource.ResourceVersion = next, version
	for _, e := range report.Transitions(last, next) {
		p.event(e)
	}
	return nil
}

// event sends an event about the resource.
func (p *pass) event(e report.Event) {
	regarding := &v1alpha1.WeChatAppToken{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.Kind},
		ObjectMeta: p.resource.ObjectMeta,
	}
	p.Events.Eventf(regarding, nil, e.Type, e.Reason, "Reconcile", "%s", e.Note)
}
