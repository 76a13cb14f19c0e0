// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// WeChat's servers may disagree for a while about which token is the newest. Two members of an account that are given different tokens do
// not call in turn as fast as they can.
func TestAnswersThatDisagree(t *testing.T) {
	const (
		span = 4 * time.Second
		most = 12 // in 10 s
	)
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("first", hourly)
	w.eventuallyReady("first")
	w.createToken("second", hourly)
	w.eventuallyReady("second")
	for range 2 {
		w.wechat.RivalForceRefresh(appID)
		w.jump(31 * time.Second)
	}
	tokens := w.wechat.Tokens(appID)
	for range 4000 { // each answer is used once
		for _, issued := range tokens[len(tokens)-2:] {
			w.wechat.Inject(wechattest.Fault{
				Endpoint: wechattest.EndpointStable, Times: 1, Body: fmt.Sprintf(`{"access_token":%q,"expires_in":7000}`, issued.Token),
			})
		}
	}
	start := time.Now()
	w.ask("first", v1alpha1.AnnotationCheckRequestedAt, "1")
	w.Eventually(func() string { return w.handled("first").Check }).Should(gomega.Equal("1"))
	time.Sleep(span)
	if n := w.wechat.Count(wechattest.Filter{Endpoint: wechattest.EndpointStable, Since: start}); n > most {
		t.Errorf("%d calls in %s", n, time.Since(start).Round(time.Second))
	}
}

// An answer that was under way when a newer one came says nothing about the token of now: it must not send the member that has the newer
// token to WeChat again.
func TestOlderAnswerComesLast(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("slow", hourly)
	w.eventuallyReady("slow")
	w.createToken("quick", hourly)
	before := w.eventuallyReady("quick")
	w.pass(time.Minute, "slow", "quick")

	start := time.Now()
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointStable, DelayAnswer: 1800 * time.Millisecond, Times: 1})
	w.ask("slow", v1alpha1.AnnotationCheckRequestedAt, "1")
	w.Eventually(func() int { return w.wechat.Count(wechattest.Filter{Since: start}) }).Should(gomega.Equal(1))
	time.Sleep(100 * time.Millisecond) // by now the answer is made, with the token of before
	w.ask("quick", v1alpha1.AnnotationRevokeRequestedAt, "1")
	value := w.eventuallyAnother("quick", before)
	w.Eventually(func() string { return w.handled("slow").Check }).Should(gomega.Equal("1"))
	w.pass(11*time.Second, "slow", "quick") // whatever is paced may follow
	w.Eventually(func() string { return w.value("slow") }).Should(gomega.Equal(value))
	w.Consistently(func() string { return w.value("quick") }).Should(gomega.Equal(value))
	calls := w.wechat.Calls(wechattest.Filter{Since: start})
	forced := slices.IndexFunc(calls, func(c wechattest.Call) bool { return c.Forced })
	if forced < 1 || calls[forced].At.Sub(calls[0].At) > 1500*time.Millisecond {
		t.Skip("the forced call waited for the slow one, or the machine was slow: no answer was late")
	}
	// After the forced call only the slow member has to ask again.
	if n := len(calls) - forced - 1; n != 1 {
		t.Errorf("%d calls after the forced one, want 1", n)
	}
}

// A Legacy member that waits for a mint, which the account's pace holds back, does not keep the other members from their checks.
func TestHeldBackMintAndChecks(t *testing.T) {
	w := newWorld(t)
	w.startOperator()
	w.createCredentials(appSecret)
	w.createToken("fetcher", legacy, hourly)
	value := w.eventuallyReady("fetcher")
	w.createToken("waiting", legacy, hourly)
	w.eventuallyReady("waiting")
	w.createToken("healthy", legacy)
	w.eventuallyReady("healthy")

	// A mark that another process left asks for a mint. It gets no answer, as often as the pace allows.
	w.wechat.Inject(wechattest.Fault{Endpoint: wechattest.EndpointLegacy, Cut: wechattest.CutBefore})
	w.updateSecret("waiting", func(s *corev1.Secret) {
		s.Annotations[v1alpha1.AnnotationMintStarted] = w.clock.now().UTC().Format(time.RFC3339Nano) + "/abcdefgh"
	})
	for range 12 {
		w.pass(30*time.Second, "waiting", "fetcher")
		if w.holdsWithin(500*time.Millisecond, func() bool { return w.calls(wechattest.EndpointLegacy) >= 3 }) {
			break
		}
	}
	if n := w.calls(wechattest.EndpointLegacy); n < 2 {
		t.Fatalf("%d mints were tried", n)
	}
	for round := range 3 {
		probes := w.calls(wechattest.EndpointProbe)
		// The clock may be moved while the check of the round before is under way, which then counts as made now. A second pass shows
		// that a check is late, and not that it is not due yet.
		checked := func() bool { return w.calls(wechattest.EndpointProbe) > probes }
		for pass := 0; pass < 3 && !checked(); pass++ {
			w.pass(40*time.Second, "healthy")
			w.holdsWithin(4*time.Second, checked)
		}
		if !checked() {
			t.Errorf("round %d: no check although one was due", round)
		}
	}
	if w.value("healthy") != value || !w.wechat.Valid(value) {
		t.Error("the token was replaced, or died")
	}
}
