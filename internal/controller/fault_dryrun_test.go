// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"net/http"
	"testing"
	"time"

	reviewv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// dryRunUnsupported is what the API server answers to a dry run that a webhook with side effects would see.
func dryRunUnsupported() *metav1.Status {
	return &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest,
		Message: `admission webhook "secrets.example.com" does not support dry run`,
	}
}

// Where a webhook with side effects guards Secrets, the API server answers a dry run with 400, although the write itself works.
// That a Legacy write cannot be rehearsed must not keep the resource from its first token.
func TestRehearsalThatIsNotSupported(t *testing.T) {
	refuseDryRuns := func(r *reviewv1.AdmissionRequest) *metav1.Status {
		if r.DryRun != nil && *r.DryRun {
			return dryRunUnsupported()
		}
		return nil
	}
	for name, prepare := range map[string]func(*world){
		"a Secret that is created": func(w *world) {
			w.refuseByWebhook(http.StatusBadRequest, refuseDryRuns)
			w.createToken("shop", legacy)
		},
		"a Secret that is adopted": func(w *world) {
			w.createSecret("shop", map[string]string{"theirs": "stays"})
			w.createToken("shop", legacy)
			consent := w.consent("shop")
			w.refuseByWebhook(http.StatusBadRequest, refuseDryRuns)
			w.updateSecret("shop", func(s *corev1.Secret) { s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: consent} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			w.createCredentials(appSecret)
			prepare(w)
			w.eventuallyReady("shop")
			if n := len(w.wechat.Tokens(appID)); n != 1 {
				t.Errorf("%d tokens were minted", n)
			}
		})
	}
}

// A webhook that refuses the write too, with the same status code, costs at most one mint: its token waits.
func TestRehearsalThatIsRefusedLikeTheWrite(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	lift := w.refuseByWebhook(http.StatusBadRequest, func(*reviewv1.AdmissionRequest) *metav1.Status { return dryRunUnsupported() })
	w.createToken("shop", legacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour })
	w.eventuallyReason("shop", v1alpha1.ReasonTargetWriteFailed)
	time.Sleep(3 * time.Second)
	if n := w.calls(wechattest.EndpointLegacy); n > 1 {
		t.Errorf("%d mints for a Secret that cannot be written", n)
	}
	lift()
	w.touch("shop")
	w.eventuallyReady("shop")
	if n := w.calls(wechattest.EndpointLegacy); n != 1 {
		t.Errorf("%d mints in all", n)
	}
}
