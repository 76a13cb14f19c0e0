// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// Whatever WeChat answers instead of a token ends in a condition, never in a Secret, and is over by itself or as soon
// as the cause is gone.
func TestAnswersWithoutAToken(t *testing.T) {
	for name, tc := range map[string]struct {
		fault   wechattest.Fault
		reason  string
		says    string
		kstatus status.Status
	}{
		"a web page":           {wechattest.Fault{Body: "<html>maintenance</html>", ContentType: "text/html"}, v1alpha1.ReasonBadResponse, "web page", status.InProgressStatus},
		"a cut JSON":           {wechattest.Fault{Body: `{"access_token":"abc","expires`}, v1alpha1.ReasonBadResponse, "was cut", status.InProgressStatus},
		"garbage":              {wechattest.Fault{Garbage: true}, v1alpha1.ReasonBadResponse, "JSON", status.InProgressStatus},
		"a cut connection":     {wechattest.Fault{Cut: wechattest.CutBefore}, v1alpha1.ReasonUnreachable, "cut", status.InProgressStatus},
		"no answer":            {wechattest.Fault{Hang: true}, v1alpha1.ReasonUnreachable, "time", status.InProgressStatus},
		"HTTP 502":             {wechattest.Fault{Status: 502}, v1alpha1.ReasonUnreachable, "502", status.InProgressStatus},
		"expires_in of 0":      {wechattest.Fault{Body: `{"access_token":"abc","expires_in":0}`}, v1alpha1.ReasonBadResponse, "expires_in", status.InProgressStatus},
		"expires_in of -1":     {wechattest.Fault{Body: `{"access_token":"abc","expires_in":-1}`}, v1alpha1.ReasonBadResponse, "expires_in", status.InProgressStatus},
		"expires_in in quotes": {wechattest.Fault{Body: `{"access_token":"abc","expires_in":"7200"}`}, v1alpha1.ReasonBadResponse, "expires_in", status.InProgressStatus},
		"busy":                 {wechattest.Fault{Errcode: -1}, v1alpha1.ReasonSystemBusy, "busy", status.InProgressStatus},
		"45009":                {wechattest.Fault{Errcode: 45009}, v1alpha1.ReasonDailyQuotaExhausted, "used up", status.InProgressStatus},
		"40164":                {wechattest.Fault{Errcode: 40164}, v1alpha1.ReasonIPNotAllowed, "127.0.0.1", status.FailedStatus},
		"89503":                {wechattest.Fault{Errcode: 89503}, v1alpha1.ReasonAdminConfirmationRequired, "administrator", status.FailedStatus},
		"40243":                {wechattest.Fault{Errcode: 40243}, v1alpha1.ReasonAppSecretFrozen, "frozen", status.FailedStatus},
		"50007":                {wechattest.Fault{Errcode: 50007}, v1alpha1.ReasonAccountRestricted, "frozen the account", status.FailedStatus},
		"40013":                {wechattest.Fault{Errcode: 40013}, v1alpha1.ReasonAppIDInvalid, "does not know this appid", status.FailedStatus},
		"61024":                {wechattest.Fault{Errcode: 61024}, v1alpha1.ReasonUnsupportedAccount, "third-party platform", status.FailedStatus},
		"an unknown code":      {wechattest.Fault{Errcode: 47999}, v1alpha1.ReasonRequestRejected, "does not know", status.FailedStatus},
	} {
		for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
			t.Run(fmt.Sprintf("%s/%s", name, mode), func(t *testing.T) {
				w := newWorld(t)
				w.wechat.Inject(tc.fault)
				o := w.startOperator()
				w.createCredentials(appSecret)
				w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
				var ready metav1.Condition
				w.Eventually(func(g gomega.Gomega) {
					ready = w.condition("shop", v1alpha1.ConditionReady)
					g.Expect(ready.Reason).To(gomega.Equal(tc.reason))
					g.Expect(ready.Message).To(gomega.ContainSubstring(tc.says))
				}).Should(gomega.Succeed())
				w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionRefreshFailing).Reason }).Should(gomega.Equal(tc.reason))
				if tc.kstatus == status.FailedStatus {
					w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionStalled).Reason }).Should(gomega.Equal(tc.reason))
				}
				w.kstatus("shop", tc.kstatus)
				if e := w.token("shop").Status.LastError; e == nil || int(e.Code) != tc.fault.Errcode || e.RetryTime == nil {
					t.Errorf("lastError: %+v", e)
				}
				if got := w.value("shop"); got != "" {
					t.Errorf("the Secret holds %q", got)
				}
				calls := w.wechat.Count(wechattest.Filter{})
				w.advance(2 * time.Second)
				if n := w.wechat.Count(wechattest.Filter{}) - calls; n > 6 {
					t.Errorf("%d calls in 2 s", n)
				}
				if n := w.requests(o)["patch wechatapptokens/status"]; n > 4 {
					t.Errorf("%d status writes", n)
				}
				w.wechat.ClearFaults()
				if n := w.calls(wechattest.EndpointLegacy); n > 0 && tc.fault.Errcode == 0 {
					if n > 3 {
						t.Errorf("%d mints", n)
					}
					return // each may have been a mint, and the next one has to wait
				}
				w.updateSecret("credentials", func(s *corev1.Secret) { s.Labels = map[string]string{"touched": "yes"} })
				w.eventuallyReady("shop")
				w.kstatus("shop", status.CurrentStatus)
			})
		}
	}
}

// An outage of WeChat takes nothing from a valid token, and is not worth a status write before a minute has passed.
func TestOutageWhileTheTokenIsValid(t *testing.T) {
	w, value := readyWorld(t, v1alpha1.ModeStable)
	o := w.operators.last
	w.Eventually(func() int { return w.requests(o)["patch wechatapptokens/status"] }).Should(gomega.Equal(1))
	before := w.requests(o)
	w.wechat.Inject(wechattest.Fault{Errcode: -1})
	if !w.lapse(45*time.Second, func() bool { return w.calls(wechattest.EndpointStable) >= 4 }) {
		t.Errorf("%d calls in 45 s", w.calls(wechattest.EndpointStable))
	}
	if diff := minus(w.requests(o), before); len(diff) != 0 {
		t.Errorf("the outage cost %v", diff)
	}
	if ready := w.condition("shop", v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue || w.value("shop") != value {
		t.Errorf("Ready: %+v", ready)
	}
	w.wechat.ClearFaults()
	w.kstatus("shop", status.CurrentStatus)
}

// When the token expires in an outage, Ready says so within 5 s, and the Secret keeps its data.
func TestOutageUntilTheTokenExpires(t *testing.T) {
	w := newWorld(t, func(o *wechattest.Options) { o.Life = time.Minute })
	value := w.ready(v1alpha1.ModeStable)
	w.wechat.Inject(wechattest.Fault{Cut: wechattest.CutBefore})
	w.readyUntilExpiry("shop", v1alpha1.ReasonUnreachable)
	if w.value("shop") != value {
		t.Error("the data of the Secret was changed")
	}
	w.kstatus("shop", status.InProgressStatus)
	w.wechat.ClearFaults()
	w.advance(time.Minute) // the longest back-off
	w.eventuallyReady("shop")
	w.Eventually(func() []string { return w.events("shop") }).
		Should(gomega.ContainElements(v1alpha1.EventRefreshFailed, v1alpha1.EventRecovered))
}

// A token of 2,000 characters is a token.
func TestLongToken(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("0123456789", 200)
	w.wechat.Inject(wechattest.Fault{Body: `{"access_token":"` + long + `","expires_in":7200}`})
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("shop")
	w.Eventually(func() string { return w.value("shop") }).Should(gomega.Equal(long))
	w.logs.mustNotHold(t, long)
}

// A Secret that the API server refuses to store is somebody's to act on, and in Legacy mode costs no mint.
func TestTargetThatCannotBeWritten(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			w.expectRefusal("create secrets")
			w.createCredentials(appSecret)
			quota := &corev1.ResourceQuota{
				ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "full"},
				Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("0")}},
			}
			w.must(w.Create(w.Context(), quota))
			quota.Status.Hard = quota.Spec.Hard
			w.must(w.Client.Status().Update(w.Context(), quota)) // there is no quota controller here
			o := w.startOperator()
			w.createToken("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			if got := w.eventuallyReason("shop", v1alpha1.ReasonTargetWriteFailed); !strings.Contains(got.Message, "ResourceQuota") {
				t.Errorf("the message is %q", got.Message)
			}
			w.kstatus("shop", status.FailedStatus)
			w.Consistently(func() int { return w.requests(o)["create secrets"] }).Should(gomega.BeNumerically("<=", 2))
			if n := w.calls(wechattest.EndpointLegacy); n != 0 {
				t.Errorf("%d mints for a Secret that cannot be written", n)
			}
			w.must(w.Delete(w.Context(), quota))
			w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval = metav1.Duration{Duration: time.Minute} })
			w.eventuallyReady("shop")
			if n := len(w.wechat.Tokens(appID)); n != 1 {
				t.Errorf("%d tokens were issued", n)
			}
		})
	}
}

// In an outage a Legacy resource that must rotate writes its status once, however often it tries.
func TestLegacyOutageInTheHandoverWindow(t *testing.T) {
	w := newWorld(t, func(o *wechattest.Options) { o.Life = 40 * time.Second })
	value := w.ready(v1alpha1.ModeLegacy)
	o := w.operators.last
	w.Eventually(func() int { return w.requests(o)["patch wechatapptokens/status"] }).Should(gomega.Equal(1))
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Errcode: -1})
	if !w.lapse(40*time.Second, func() bool { return w.calls(wechattest.EndpointLegacy) >= 4 }) {
		t.Errorf("%d mints in 40 s", w.calls(wechattest.EndpointLegacy))
	}
	if n := w.requests(o)["patch wechatapptokens/status"]; n != 2 {
		t.Errorf("%d status writes, want 1 for the outage", n-1)
	}
	if !w.wechat.Valid(value) || w.value("shop") != value {
		t.Error("the outage cost the token")
	}
	w.wechat.ClearFaults()
	w.advance(10 * time.Second)
	w.eventuallyAnother("shop", value)
	w.Eventually(func() string { return w.secret("shop").Annotations[v1alpha1.AnnotationMintStarted] }).Should(gomega.BeEmpty())
}

// WeChat's answer to a mint is remembered beyond the failure, also after a restart: the mark that it left is cleared and
// causes no mint.
func TestMarkOfARefusedMintIsCleared(t *testing.T) {
	w, _ := readyWorld(t, v1alpha1.ModeLegacy)
	o := w.operators.last
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Errcode: 40164})
	w.jump(6 * time.Minute)
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	w.Eventually(func() string { return w.condition("shop", v1alpha1.ConditionRefreshFailing).Reason }).
		Should(gomega.Equal(v1alpha1.ReasonIPNotAllowed))
	o.stop()
	w.wechat.ClearFaults()
	w.startOperator()
	w.update("shop", annotated(v1alpha1.AnnotationCheckRequestedAt, "1"))
	w.Eventually(func() string { return w.handled("shop").Check }).Should(gomega.Equal("1"))
	// A good answer about the token says nothing about the next mint, so the failure stays, and with it the answered mark.
	w.Consistently(func() int { return len(w.wechat.Tokens(appID)) }, time.Second).Should(gomega.Equal(1))
	w.update("shop", annotated(v1alpha1.AnnotationRefreshRequestedAt, "2"))
	w.Eventually(func() string { return w.secret("shop").Annotations[v1alpha1.AnnotationMintStarted] }).Should(gomega.BeEmpty())
	w.Eventually(func() *v1alpha1.RefreshError { return w.token("shop").Status.LastError }).Should(gomega.BeNil())
}
