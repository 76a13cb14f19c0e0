// SPDX-License-Identifier: Apache-2.0

// Package fence finds out whether the admission policies that confine the operator bind it.
//
// A policy matches the operator's ServiceAccount by a name that is written into it. If the name is wrong, the policy refuses nothing, and
// nothing else shows it. So the operator tries what the policy must refuse, in a dry run, which changes nothing.
package fence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ErrUnbound says that the API server did not refuse what the policy must refuse.
var ErrUnbound = errors.New("no admission policy refused it")

// These are the messages of the policies in config/prompt-delivery and config/admission-policy, which a test compares. A refusal counts
// as the policy's own only if it has one of them.
var (
	podMessages = []string{
		"the operator makes, deletes and enters no pod, and changes nothing but an annotation",
		"the operator changes no pod's spec",
		"the operator changes no label, finalizer or owner reference of a pod",
		"the operator changes no annotation of a pod but wechat.apptoken.dev/token-fingerprint",
		"the annotation wechat.apptoken.dev/token-fingerprint must be 16 hex digits",
	}
	secretMessages = []string{
		"the operator deletes no Secret; owner references do",
		"the operator writes Secrets of type Opaque only",
		"the operator writes only Secrets that carry its label wechat.apptoken.dev/managed-by: wechat-token-operator",
		"the Secret is not the operator's: its owner can consent with the annotation wechat.apptoken.dev/adopt",
	}
)

// probeAnnotation is what the operator tries to set on a pod. Nothing reads it, and no policy but the operator's should care about it.
const probeAnnotation = "wechat.apptoken.dev/policy-probe"

// Probe tries what the policies must refuse. A method returns nil if the policy refused it, ErrUnbound if nothing did, and otherwise the
// error that left the question open, such as a missing permission or the refusal of a webhook.
type Probe struct {
	// Client makes the dry runs. It should have a User-Agent of its own, because the audit log shows them as refused if all is well.
	Client client.Writer
}

// Pod tries to set a foreign annotation on a pod.
func (p Probe) Pod(ctx context.Context, name types.NamespacedName) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{probeAnnotation: "dry-run"}}})
	if err != nil {
		return fmt.Errorf("encoding an annotation: %w", err)
	}
	pod := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	err = p.Client.Patch(ctx, pod, client.RawPatch(types.MergePatchType, patch), client.DryRunAll)
	return judge(err, "pods", name.Name, podMessages)
}

// Secret tries to make a Secret without the operator's label.
func (p Probe) Secret(ctx context.Context, namespace string) error {
	// The name is random, so that nobody can make it exist.
	name := "wechat-token-operator-policy-probe-" + rand.String(10)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	err := p.Client.Create(ctx, secret, client.DryRunAll)
	return judge(err, "secrets", name, secretMessages)
}

// refusal matches what the API server says when a policy refuses a request: which object, which policy and binding, and the message.
// RBAC and webhooks say it otherwise, and cannot bring a text of their own to its beginning.
var refusal = regexp.MustCompile(
	`^(\w+) "([a-z0-9.-]+)" is forbidden: ValidatingAdmissionPolicy '[a-z0-9.-]+' with binding '[a-z0-9.-]+' denied request: (.*)$`)

func judge(err error, resource, name string, messages []string) error {
	if err == nil {
		return ErrUnbound
	}
	var answer apierrors.APIStatus
	if !apierrors.IsForbidden(err) || !errors.As(err, &answer) {
		return err
	}
	m := refusal.FindStringSubmatch(answer.Status().Message)
	if m == nil || m[1] != resource || m[2] != name || !slices.Contains(messages, m[3]) {
		return err
	}
	return nil
}
