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

// A fetcher that leaves Legacy and is suspended in one edit mints for nobody any more: the next member takes its place.
func TestFetcherThatLeavesSuspended(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("older", legacy)
	value := w.eventuallyReady("older")
	w.createToken("younger", legacy)
	w.eventuallyReady("younger")
	w.update("older", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode, t.Spec.Suspend = v1alpha1.ModeStable, true })
	w.advance(2*time.Hour - 5*time.Minute)
	w.eventuallyAnother("younger", value)
}

// endDuringAMint tells the operator to end while it mints for "older", so that "younger" is not given the token. It returns the tokens that
// both hold then.
func (w *world) endDuringAMint(begin func()) (older, younger string) {
	w.Helper()
	o := w.startOperator()
	w.legacyMembers("older", "younger")
	younger = w.value("younger")
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Delay: time.Second, Times: 1})
	begin()
	w.Eventually(func() int { return w.calls(wechattest.EndpointLegacy) }).Should(gomega.Equal(2))
	o.stop()
	older = w.value("older")
	if older == younger || w.value("younger") != younger || len(w.wechat.Tokens(appID)) != 2 {
		w.Fatal("the mint did not end as it was meant to")
	}
	return older, younger
}

// followed checks that "younger" takes the token that "older" has, without a mint, and before the one that it held ends.
func (w *world) followed(newer, old string) {
	w.Helper()
	w.Eventually(func() string { return w.value("younger") }).Should(gomega.Equal(newer))
	if n := len(w.wechat.Tokens(appID)); n != 2 {
		w.Errorf("%d tokens were minted, want 2", n)
	}
	if !w.wechat.ValidAt(old, w.clock.now().Add(volumeLag)) {
		w.Error("a pod may still hold the old token, and WeChat does not accept it")
	}
}

// An operator was told to end while it minted, so that only the member that minted has the new token. The next one gives it to a member
// that is due, whether or not the other one has had a pass: another mint would end the token that volumes hold.
func TestDueAfterAMintOfTheLastProcess(t *testing.T) {
	w := newWorld(t)
	newer, old := w.endDuringAMint(func() {
		w.jump(2*time.Hour - 10*time.Minute + time.Second)
		w.wakeTargets("older", "younger")
	})
	w.startOperator()
	w.advance(15 * time.Second)
	w.followed(newer, old)
}

// As above, but nothing is due: the member that was not given the token follows before the one that it holds ends.
func TestRefreshInTheLastProcess(t *testing.T) {
	w := newWorld(t)
	newer, old := w.endDuringAMint(func() {
		w.jump(6 * time.Minute)
		w.ask("older", v1alpha1.AnnotationRefreshRequestedAt, 1)
	})
	w.startOperator()
	w.advance(time.Minute)
	w.followed(newer, old)
}

// The Secret of the fetcher is deleted while no operator runs. The next one finds the token in the Secret of the other member.
func TestSecretDeletedBetweenProcesses(t *testing.T) {
	w := newWorld(t)
	o := w.startOperator()
	w.legacyMembers("older", "younger")
	value := w.eventuallyReady("younger")
	o.stop()
	w.must(w.Delete(w.Context(), &corev1.Secret{ObjectMeta: w.secret("older").ObjectMeta}))
	w.startOperator()
	w.advance(10 * time.Second)
	w.Eventually(func() string { return w.value("older") }).ShouldNot(gomega.BeEmpty())
	if n := len(w.wechat.Tokens(appID)); n != 1 || w.value("older") != value {
		t.Errorf("%d tokens were minted, want 1", n)
	}
}
