// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// A mark was noted by a clock that ran ahead, and WeChat's answer, an errcode, put the clock right. The answer was noted at a time
// before the mark's, and answers it all the same: the next process must not mint for it.
func TestMarkByAClockAhead(t *testing.T) {
	m := newMatrix(t, newClerk(t), v1alpha1.ModeLegacy)
	s := m.subject("shop", time.Hour)
	data := s.issued()
	s.clock.advance(10 * time.Minute)
	s.wechat.Inject(wechattest.Fault{AppID: s.app, Endpoint: wechattest.EndpointLegacy, Errcode: 40164})
	s.update(s.name, annotated(v1alpha1.AnnotationRefreshRequestedAt, "1"))
	s.restartWith(time.Hour)
	s.run(0)
	if got := s.handled(s.name).Refresh; got != "1" {
		t.Fatalf("the refresh that was handled is %q", got)
	}
	s.expect("after the errcode", conditions{"Ready": "TokenValid", "RefreshFailing": v1alpha1.ReasonIPNotAllowed}, true)

	s.wechat.ClearFaults()
	s.restart(10 * time.Second)
	s.run(10 * time.Minute)
	if n := len(s.wechat.Tokens(s.app)); n != 1 {
		t.Errorf("%d tokens were minted, want the first alone", n)
	}
	if now := s.secret(s.name).Data["access_token"]; string(now) != string(data["access_token"]) {
		t.Error("the token was replaced")
	}
}

// A member's Secret was given a token of another mode by another process, later than the account's Legacy token was minted. The
// member takes that one from its neighbour, or a new one, and does not read it again and again.
func TestCopyOlderThanTheRecord(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("neighbour", legacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour })
	w.eventuallyReady("neighbour")
	w.createToken("shop", legacy, func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = time.Hour })
	w.eventuallyReady("shop")
	o.stop()
	w.clock.advance(10 * time.Minute)
	stable := w.wechat.RivalForceRefresh(appID).Token
	w.writeAsAnotherLeader("shop", stable, w.clock.now())
	w.updateSecret("shop", func(s *corev1.Secret) { s.Annotations[v1alpha1.AnnotationMode] = string(v1alpha1.ModeStable) })

	o = w.startOperator()
	w.Eventually(func() int { return w.requests(o)["get secrets"] }).Should(gomega.BeNumerically(">", 0))
	time.Sleep(time.Second)
	before := w.requests(o)["get secrets"]
	time.Sleep(4 * time.Second)
	if n := w.requests(o)["get secrets"] - before; n > 2 {
		t.Errorf("%d live reads of Secrets within 4 s", n)
	}
	w.Eventually(func(g gomega.Gomega) {
		s := w.secret("shop")
		g.Expect(s.Annotations).To(gomega.HaveKeyWithValue(v1alpha1.AnnotationMode, string(v1alpha1.ModeLegacy)))
		g.Expect(w.wechat.Valid(string(s.Data["access_token"]))).To(gomega.BeTrue(), "the Secret's token is not valid")
	}, 5*time.Second).Should(gomega.Succeed())
}
