// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

const newAppSecret = "fedcba9876543210fedcba9876543210"

// What is wrong with the credentials is told, costs no call, and is over as soon as it is put right.
func TestCredentialsThatCannotBeUsed(t *testing.T) {
	for name, tc := range map[string]struct {
		create  func(*world)
		reason  string
		says    string
		kstatus status.Status
	}{
		"no Secret": {
			create: func(*world) {},
			reason: v1alpha1.ReasonCredentialsNotFound, says: `Secret "credentials" does not exist`, kstatus: status.InProgressStatus,
		},
		"no key": {
			create: func(w *world) { w.createSecret("credentials", map[string]string{"secret": appSecret}) },
			reason: v1alpha1.ReasonCredentialsNotFound, says: `has no key "appSecret"`, kstatus: status.InProgressStatus,
		},
		"another type": {
			create: func(w *world) {
				w.createSecret("credentials", map[string]string{"appSecret": appSecret, "username": "x", "password": "x"},
					func(s *corev1.Secret) { s.Type = corev1.SecretTypeBasicAuth })
			},
			reason: v1alpha1.ReasonCredentialsNotFound, says: "type Opaque", kstatus: status.InProgressStatus,
		},
		"empty": {
			create: func(w *world) { w.createCredentials("") },
			reason: v1alpha1.ReasonCredentialsMalformed, says: "is no AppSecret", kstatus: status.FailedStatus,
		},
		"not an AppSecret": {
			create: func(w *world) { w.createCredentials("paste your AppSecret here") },
			reason: v1alpha1.ReasonCredentialsMalformed, says: "is no AppSecret", kstatus: status.FailedStatus,
		},
		"an invisible character inside": {
			create: func(w *world) { w.createCredentials("\ufeff" + appSecret + "\n") },
			reason: v1alpha1.ReasonCredentialsMalformed, says: "has the invisible character U+FEFF at position 1", kstatus: status.FailedStatus,
		},
		"two lines": {
			create: func(w *world) { w.createCredentials(appSecret + "\n" + appSecret) },
			reason: v1alpha1.ReasonCredentialsMalformed, says: "has the invisible character U+000A", kstatus: status.FailedStatus,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			tc.create(w)
			w.createToken("shop")
			if got := w.eventuallyReason("shop", tc.reason); !strings.Contains(got.Message, tc.says) {
				t.Errorf("the message is %q", got.Message)
			}
			w.kstatus("shop", tc.kstatus)
			if c := w.condition("shop", v1alpha1.ConditionRefreshFailing); c.Reason != tc.reason {
				t.Errorf("RefreshFailing: %+v", c)
			}
			if n := w.wechat.Count(wechattest.Filter{}); n != 0 {
				t.Errorf("%d calls without credentials", n)
			}

			if s := (&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "credentials"}}); name != "no Secret" {
				w.must(w.Delete(w.Context(), s))
			}
			w.createCredentials(appSecret)
			w.eventuallyReady("shop")
			w.kstatus("shop", status.CurrentStatus)
			w.Eventually(func() []string { return w.events("shop") }).
				Should(gomega.ContainElements(v1alpha1.EventRefreshFailed, v1alpha1.EventRecovered))
		})
	}
}

// Whoever wakes a resource without usable credentials again and again causes no read each time, and a Secret that can be used counts as
// soon as it is there.
func TestMissingCredentialsAreReadSeldom(t *testing.T) {
	for name, tc := range map[string]struct {
		create func(*world)
		reason string
	}{
		"no Secret": {func(*world) {}, v1alpha1.ReasonCredentialsNotFound},
		"no key": {func(w *world) {
			w.createSecret("credentials", map[string]string{"secret": appSecret})
		}, v1alpha1.ReasonCredentialsNotFound},
		"malformed": {func(w *world) { w.createCredentials("paste your AppSecret here") }, v1alpha1.ReasonCredentialsMalformed},
		"not Opaque": {func(w *world) { // the cache does not have it
			w.createSecret("credentials", map[string]string{"appSecret": appSecret, "username": "x", "password": "x"},
				func(s *corev1.Secret) { s.Type = corev1.SecretTypeBasicAuth })
		}, v1alpha1.ReasonCredentialsNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tc.create(w)
			o := w.startOperator()
			w.createToken("shop")
			w.eventuallyReason("shop", tc.reason)
			reads := func() int { return w.secretRequests(o, "get")["credentials"] }
			w.settle()
			before := reads()
			for i := range 20 {
				w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, i)
				w.settle()
			}
			if n := reads() - before; n > 1 {
				t.Errorf("%d reads of a Secret that cannot be used, in 20 passes", n)
			}
			if name != "no Secret" {
				w.must(w.Delete(w.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "credentials"}}))
			}
			w.createCredentials(appSecret)
			w.eventuallyReady("shop")
		})
	}
}

// With --require-credentials-label a Secret without its owner's consent is not used, whatever is in it, and a consent that is
// withdrawn ends the calls.
func TestCredentialsLabelRequired(t *testing.T) {
	w := newWorld(t)
	w.requireLabel = true
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("shop")
	ready := w.eventuallyReason("shop", v1alpha1.ReasonCredentialsNotFound)
	if !strings.Contains(ready.Message, `lacks the label wechat.apptoken.dev/credentials: "true"`) {
		t.Errorf("Ready: %s", ready.Message)
	}
	w.kstatus("shop", status.InProgressStatus)
	label := func(value string) func(*corev1.Secret) {
		return func(s *corev1.Secret) { metav1.SetMetaDataLabel(&s.ObjectMeta, v1alpha1.LabelCredentials, value) }
	}
	w.updateSecret("credentials", label("false"))
	w.Consistently(func() int { return w.calls("") }).Should(gomega.BeZero())

	w.updateSecret("credentials", label("true"))
	value := w.eventuallyReady("shop")

	w.updateSecret("credentials", label("no"))
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionRefreshFailing).Reason }).
		Should(gomega.Equal(v1alpha1.ReasonCredentialsNotFound))
	calls := w.calls("")
	w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "now"))
	w.Consistently(func() int { return w.calls("") }).Should(gomega.Equal(calls))
	if w.value("shop") != value {
		t.Error("the token was changed")
	}
}

// Losing the credentials takes nothing from a token that is still valid.
func TestCredentialsLost(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	credentials := w.createCredentials(appSecret)
	w.createToken("shop")
	value := w.eventuallyReady("shop")
	w.must(w.Delete(w.Context(), credentials))
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionRefreshFailing).Reason }).
		Should(gomega.Equal(v1alpha1.ReasonCredentialsNotFound))
	ready := w.condition("shop", v1alpha1.ConditionReady)
	if ready.Status != metav1.ConditionTrue || !strings.Contains(ready.Message, "does not exist") {
		t.Errorf("Ready: %+v", ready)
	}
	if w.value("shop") != value {
		t.Error("the token was changed")
	}
	w.kstatus("shop", status.CurrentStatus)
}

// A new AppSecret is used at once, and the Secret says that it belongs to the token now.
func TestCredentialsReplaced(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeStable)

	w.wechat.SetSecret(appID, newAppSecret)
	w.updateSecret("credentials", func(s *corev1.Secret) { s.Data["appSecret"] = []byte(newAppSecret) })
	want := vocab.Credentials{AppID: appID, AppSecret: vocab.NewValue(newAppSecret)}.Fingerprint()
	w.Eventually(func() string {
		return w.secret("shop").Annotations[v1alpha1.AnnotationCredentialsFingerprint]
	}, atOnce).Should(gomega.Equal(want))
	w.eventuallyReady("shop")
	if n := w.calls(wechattest.EndpointStable); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}
}

// A wrong AppSecret is told with WeChat's code, keeps the valid token, and a right one is used at once, through the
// back-off of the wrong one.
func TestCredentialsWrong(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)

	w.updateSecret("credentials", func(s *corev1.Secret) { s.Data["appSecret"] = []byte(newAppSecret) })
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionRefreshFailing).Reason }).
		Should(gomega.Equal(v1alpha1.ReasonAppSecretInvalid))
	token := w.token("shop")
	if e := token.Status.LastError; e == nil || e.Code != 40125 || e.RequestID == "" || e.RetryTime == nil || e.Attempts < 1 ||
		e.Generation != token.Generation || e.CredentialsVersion == "" || e.CredentialsVersion == token.Status.CredentialsVersion {
		t.Errorf("lastError: %+v", e)
	}
	if ready := w.condition("shop", v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue || !strings.Contains(ready.Message, "AppSecret is wrong") {
		t.Errorf("Ready: %+v", ready)
	}
	if w.value("shop") != value {
		t.Error("the token was changed")
	}

	w.updateSecret("credentials", func(s *corev1.Secret) { s.Data["appSecret"] = []byte(appSecret) })
	w.Eventually(func() metav1.Condition { return w.condition("shop", v1alpha1.ConditionRefreshFailing) }, atOnce).
		Should(gomega.BeZero())
	if token := w.token("shop"); token.Status.LastError != nil {
		t.Errorf("lastError stayed: %+v", token.Status.LastError)
	}
	w.Eventually(func() []string { return w.events("shop") }).
		Should(gomega.ConsistOf(v1alpha1.EventRefreshFailed, v1alpha1.EventRecovered))
}

// Another appid or mode needs another token at once.
func TestSpecChanged(t *testing.T) {
	const other = "wxfedcba9876543210"
	w := newWorld(t)
	w.wechat.SetApp(wechattest.App{ID: other, Secret: appSecret})
	value := w.ready(v1alpha1.ModeStable)

	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.AppID = other })
	value = w.eventuallyAnother("shop", value)
	if issued, _ := w.wechat.Current(other, wechattest.Stable); issued.Token != value {
		t.Error("the token is not the new appid's")
	}
	w.Eventually(func() string { return string(w.secret("shop").Data["app_id"]) }).Should(gomega.Equal(other))

	w.update("shop", legacy)
	value = w.eventuallyAnother("shop", value)
	if issued, _ := w.wechat.Current(other, wechattest.Legacy); issued.Token != value {
		t.Error("the token is not from the Legacy endpoint")
	}
	w.Eventually(func() v1alpha1.Mode {
		if t := w.token("shop").Status.Token; t != nil {
			return t.Mode
		}
		return ""
	}).Should(gomega.Equal(v1alpha1.ModeLegacy))
	w.Consistently(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(1))
}

// While suspended nothing is called or written, and Ready still turns False when the token expires.
func TestSuspended(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)
	o := w.operators.last
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = true })
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionReady).Message }).
		Should(gomega.ContainSubstring("suspended"))
	if w.condition("shop", v1alpha1.ConditionReady).Status != metav1.ConditionTrue {
		t.Error("not Ready although the token is valid")
	}
	calls, writes := w.calls(wechattest.EndpointStable), w.requests(o)["patch secrets"]

	w.readyUntilExpiry("shop", v1alpha1.ReasonTokenExpired)
	if w.value("shop") != value {
		t.Error("the Secret was written")
	}
	if w.calls(wechattest.EndpointStable) != calls || w.requests(o)["patch secrets"] != writes {
		t.Error("something was called or written while suspended")
	}
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = false })
	w.eventuallyReady("shop")
}
