// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/onsi/gomega"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// While the operator's cache still has a target that was deleted, the operator does not patch it again and again.
//
// What a process remembers of resources that are gone cannot be seen from outside, so no test here tells whether it grows.
func TestTargetDeletedWhileTheCacheLags(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			watch := &lag{}
			o := w.startOperatorThrough(watch.wrap)
			w.createCredentials(appSecret)
			w.createToken("shop", hourly, func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.eventuallyReady("shop")
			time.Sleep(time.Second) // for the echo of the operator's own write

			w.clock.advance(6 * time.Minute) // so that no pace holds the refresh back
			watch.begin()
			defer watch.end()
			w.must(w.Delete(w.Context(), w.secret("shop")))
			before := w.requests(o)
			w.ask("shop", v1alpha1.AnnotationRefreshRequestedAt, "1")
			const span = 4 * time.Second
			time.Sleep(span)
			made := minus(w.requests(o), before)
			if made["patch secrets"]+made["create secrets"] == 0 {
				t.Error("the operator did not try to write the target")
			}
			if made["patch secrets"] > 8 || made["get secrets"] > 10 {
				t.Errorf("%d PATCH and %d GET requests for the deleted target in %s", made["patch secrets"], made["get secrets"], span)
			}
			watch.end()
			w.eventuallyReady("shop")
		})
	}
}

// Another leader has written the Secret, and the cache does not get to know it for long. The rotation is made all the same, from what the
// API server says: a call and its write do not wait for the cache in between, or the token would count as older than the Secret each time.
func TestRotationWhileTheCacheLags(t *testing.T) {
	for _, mode := range []v1alpha1.Mode{v1alpha1.ModeStable, v1alpha1.ModeLegacy} {
		t.Run(string(mode), func(t *testing.T) {
			w := newWorld(t)
			watch := &lag{}
			w.startOperatorThrough(watch.wrap)
			w.createCredentials(appSecret)
			w.createToken("shop", hourly, func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = mode })
			w.eventuallyReady("shop")
			time.Sleep(time.Second) // for the echo of the operator's own write

			w.clock.advance(2*time.Hour - 4*time.Minute) // the token is due in both modes
			watch.begin()
			defer watch.end()
			w.writeAsAnotherLeader("shop", "a-token-that-the-status-does-not-know", w.clock.now().Add(-2*time.Hour+5*time.Minute))
			before := w.calls("")
			w.ask("shop", v1alpha1.AnnotationCheckRequestedAt, "1")
			w.Eventually(func() bool {
				w.clock.advance(3 * time.Second) // a cache that is behind for 5 s is not waited for any more
				return w.wechat.Valid(w.value("shop"))
			}).Should(gomega.BeTrue())
			if n := w.calls("") - before; n > 4 {
				t.Errorf("%d calls for one rotation", n)
			}
		})
	}
}

// A process that was thought to be gone learns of a refresh and of its outcome at the same time, and does not repeat it: two forced calls
// more than 30 s apart are a revoke, and pods still hold the token before.
func TestRefreshThatAnotherLeaderHandled(t *testing.T) {
	w, old := readyWorld(t, v1alpha1.ModeStable, hourly)
	behind := &lag{of: "wechatapptokens"}
	w.startOperatorThrough(behind.wrap)
	w.Eventually(func() int { return w.calls(wechattest.EndpointStable) }).Should(gomega.BeNumerically(">=", 1))
	time.Sleep(2 * time.Second) // for the first passes of the second process
	behind.begin()
	defer behind.end()
	w.ask("shop", v1alpha1.AnnotationRefreshRequestedAt, 1)
	w.eventuallyAnother("shop", old)
	w.Eventually(func() string { return w.handled("shop").Refresh }).Should(gomega.Equal("1"))
	status := w.token("shop").Status
	w.jump(40 * time.Second)
	behind.end()
	w.Consistently(func() int { return w.forcedCalls() }, 3*time.Second).Should(gomega.Equal(1))
	if !w.wechat.Valid(old) {
		t.Error("the token before is revoked")
	}
	now := w.token("shop").Status
	if !reflect.DeepEqual(now.ForcedRefreshes, status.ForcedRefreshes) || !reflect.DeepEqual(now.HandledRequests, status.HandledRequests) {
		t.Errorf("the status forgot the refresh: %v, %v", now.ForcedRefreshes, now.HandledRequests)
	}
}
