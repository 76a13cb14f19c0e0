// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/fence"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

const (
	// pageSize is the number of pods in one answer to a list. A pod may have more than a megabyte of metadata, whoever made it.
	pageSize = 16
	// giveUpAfter is the number of failures in a row after which an attempt ends, because all pods probably fail for the same reason.
	giveUpAfter = 10
)

// Error says why a delivery is not complete. Its message does not contain the API server's own words, which may quote a pod.
type Error struct {
	// Forbidden reports whether permissions or an admission policy must change before a further attempt can work.
	Forbidden bool
	// Unbound reports that no admission policy confines what this process changes on pods.
	Unbound bool
	message string
}

func (e *Error) Error() string { return e.message }

// Forbidden reports whether err is an Error that is Forbidden.
func Forbidden(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Forbidden
}

// Unbound reports whether err is an Error that is Unbound.
func Unbound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Unbound
}

// attempt lists the pods of a namespace and annotates those that mount the Secret and do not carry the fingerprint yet.
func (d *Deliverer) attempt(ctx context.Context, job Job) Outcome {
	out := Outcome{Fingerprint: job.Fingerprint}
	names, told, err := d.pods(ctx, job)
	out.Pods, out.Reached = len(names)+told, told
	var failed error
	if err == nil && len(names) > 0 {
		failed = d.checkPolicy(ctx, types.NamespacedName{Namespace: job.Owner.Namespace, Name: names[0]})
	}
	if failed != nil {
		d.Recorder.PodDeliveryFailed()
		names = nil
	}
	inARow := 0
	for _, name := range names {
		if err != nil || inARow == giveUpAfter || d.limiter.Wait(ctx) != nil || !d.wanted(job) {
			break
		}
		switch patchErr := d.tell(ctx, job, name); {
		case patchErr == nil:
			out.Reached++
			inARow = 0
			d.Recorder.PodReached()
		case apierrors.IsNotFound(patchErr):
			out.Pods-- // the pod was deleted
		default:
			failed = patchErr
			inARow++
			d.Recorder.PodDeliveryFailed()
		}
	}
	out.At = d.Now()
	switch {
	case err != nil:
		d.Recorder.PodDeliveryFailed()
		out.Unknown, out.Err = true, listError(job, err)
	case failed != nil:
		out.Err = patchError(out, failed)
	}
	return out
}

func (d *Deliverer) checkPolicy(ctx context.Context, pod types.NamespacedName) error {
	if d.CheckPolicy == nil {
		return nil
	}
	return d.CheckPolicy(ctx, pod)
}

// pods returns the names of the pods that mount the Secret and do not carry the token's fingerprint yet, and how many carry it.
func (d *Deliverer) pods(ctx context.Context, job Job) (names []string, told int, err error) {
	// A pod that has no node yet will mount the new token anyway, and one that has finished reads nothing any more.
	active := fields.AndSelectors(
		fields.OneTermNotEqualSelector("spec.nodeName", ""),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
	)
	for next := ""; ; {
		list := &corev1.PodList{}
		err := within(ctx, func(ctx context.Context) error {
			return d.Live.List(ctx, list, client.InNamespace(job.Owner.Namespace), client.MatchingFieldsSelector{Selector: active},
				client.Limit(pageSize), client.Continue(next))
		})
		if err != nil {
			return nil, 0, err
		}
		for i := range list.Items {
			pod := &list.Items[i]
			if !Mounts(&pod.Spec, job.Secret) {
				continue
			}
			if pod.Annotations[v1alpha1.AnnotationTokenFingerprint] == job.Fingerprint {
				told++
			} else {
				names = append(names, pod.Name)
			}
		}
		if next = list.Continue; next == "" {
			return names, told, nil
		}
	}
}

// tell sets the annotation of a pod. It asks for the metadata only in the answer.
func (d *Deliverer) tell(ctx context.Context, job Job, name string) error {
	pod := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: job.Owner.Namespace, Name: name}}
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]string{v1alpha1.AnnotationTokenFingerprint: job.Fingerprint}},
	})
	if err != nil {
		return fmt.Errorf("encoding the annotation: %w", err)
	}
	return within(ctx, func(ctx context.Context) error {
		return d.Client.Patch(ctx, pod, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(target.FieldManager))
	})
}

func within(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, kube.AnswerWithin)
	defer cancel()
	return request(ctx)
}

func listError(job Job, err error) error {
	if apierrors.IsForbidden(err) {
		return &Error{Forbidden: true, message: fmt.Sprintf("the operator may not list the pods of namespace %q: install its role "+
			"for prompt delivery (promptDelivery.enabled of the chart, or config/prompt-delivery)", job.Owner.Namespace)}
	}
	return &Error{message: fmt.Sprintf("the pods of namespace %q could not be listed: %s", job.Owner.Namespace, target.AnswerMessage(err))}
}

func patchError(o Outcome, err error) error {
	if errors.Is(err, fence.ErrUnbound) {
		return &Error{Unbound: true, message: "no admission policy confines what the operator changes on pods: install the policy of " +
			"config/prompt-delivery, and let its matchConditions name the operator's ServiceAccount"}
	}
	missed := fmt.Sprintf("%d of %d pods that mount the Secret could not be told of the token: ", o.Pods-o.Reached, o.Pods)
	if apierrors.IsForbidden(err) {
		return &Error{Forbidden: true, message: missed + "the API server forbids the annotation; look for a missing permission to " +
			"patch pods, or for an admission policy or webhook"}
	}
	return &Error{message: missed + target.AnswerMessage(err)}
}
