// SPDX-License-Identifier: Apache-2.0

package appclient_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// Whoever may edit a key Secret cannot make the operator keep more of it than 4 KiB.
func TestKeepsLittleOfASecret(t *testing.T) {
	w := newWorld(t)
	w.ready()
	w.update(func(c *v1alpha1.WeChatAppClient) { c.Spec.Suspend = true }) // nothing is repaired
	w.eventuallyReason("api", v1alpha1.ReasonSuspended)
	before := w.requests()
	w.updateSecret(func(s *corev1.Secret) {
		for i := range 1000 {
			s.OwnerReferences = append(s.OwnerReferences,
				metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: fmt.Sprint("c", i), UID: types.UID(fmt.Sprint("c", i))},
				metav1.OwnerReference{
					APIVersion: v1alpha1.GroupName + "/" + strings.Repeat("v", 200), Kind: v1alpha1.ClientKind, Name: strings.Repeat("n", 1000),
					UID: types.UID(strings.Repeat("u", 300)),
				})
		}
		for _, name := range []string{
			v1alpha1.AnnotationOwnerName, v1alpha1.AnnotationDeletionPolicy, v1alpha1.AnnotationAppID, v1alpha1.AnnotationMode,
			v1alpha1.AnnotationIssuedAt, v1alpha1.AnnotationExpiresAt, v1alpha1.AnnotationTokenFingerprint,
			v1alpha1.AnnotationCredentialsFingerprint, v1alpha1.AnnotationAppliedMetadata, v1alpha1.AnnotationMintStarted,
		} {
			s.Annotations[name] = strings.Repeat("x", 20<<10)
		}
	})
	w.Eventually(func() int { return w.since(before)["get secrets"] }).Should(gomega.BeNumerically(">", 0))
	w.touch()
	w.operator.stop()
	if n := w.operator.clients.Kept(nameOf(w.namespace, "api")); n > 4<<10 {
		t.Errorf("%d bytes of it are remembered", n)
	}
}

// Many clients that name one Secret cost no request each time that somebody touches it.
func TestRivalsCostNoReads(t *testing.T) {
	w := newWorld(t)
	w.ready()
	for i := range 5 {
		name := fmt.Sprint("rival-", i)
		w.createClient(name)
		w.eventuallyReason(name, v1alpha1.ReasonKeySecretConflict)
	}
	before := w.requests()
	w.updateSecret(func(s *corev1.Secret) { s.Data["theirs"] = []byte("1") })
	w.Eventually(func() int { return w.since(before)["get secrets"] }).Should(gomega.Equal(1))
	w.Consistently(func() int { return w.since(before)["get wechatappclients"] }).Should(gomega.BeZero())
}
