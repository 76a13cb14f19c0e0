// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"testing"
	"time"

	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// volumeLag is how long a pod may hold what was in the Secret before.
const volumeLag = 90 * time.Second

// TestMigration: each way of docs/migrating.md leaves no reader without a valid token. The old fetcher's token is good for
// longer than volumes lag behind, and what is in the Secret is good at any moment.
func TestMigration(t *testing.T) {
	for name, tc := range map[string]struct {
		// old fetches as what ran before the operator.
		old  func(*world) string
		mode v1alpha1.Mode
		// same: the operator gets the token that the old fetcher has.
		same bool
	}{
		"from the old endpoint":       {old: oldFetch, mode: v1alpha1.ModeStable},
		"from the Stable endpoint":    {old: stableFetch, mode: v1alpha1.ModeStable, same: true},
		"and the token stays Legacy":  {old: oldFetch, mode: v1alpha1.ModeLegacy},
		"from Stable to Legacy, even": {old: stableFetch, mode: v1alpha1.ModeLegacy},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.startOperator()
			w.createCredentials(appSecret)
			old := tc.old(w)
			// The CronJob's Secret, with its own key and its owner's consent.
			w.createSecret("shop-token", map[string]string{"token": old}, func(s *corev1.Secret) {
				s.Annotations = map[string]string{v1alpha1.AnnotationAdopt: "shop/" + appID}
			})
			gaps := w.watchForGaps("shop-token", "token")
			token := w.createToken("shop", func(r *v1alpha1.WeChatAppToken) {
				r.Spec.Mode = tc.mode
				r.Spec.Target = v1alpha1.TargetSpec{Name: "shop-token", AccessTokenKey: "token"}
			})
			w.Eventually(func() *v1alpha1.TokenStatus { return w.token("shop").Status.Token }).ShouldNot(gomega.BeNil())
			value := string(w.secret("shop-token").Data["token"])
			if !w.wechat.Valid(value) || (value == old) != tc.same {
				t.Errorf("a valid token in the Secret: %t, the old one: %t", w.wechat.Valid(value), value == old)
			}
			if !w.wechat.ValidAt(old, w.clock.now().Add(volumeLag)) {
				t.Error("a pod may still hold the old token, and WeChat does not accept it")
			}
			// The way back.
			w.must(w.Delete(w.Context(), token))
			w.Consistently(func() string { return string(w.secret("shop-token").Data["token"]) }, time.Second).Should(gomega.Equal(value))
			if refs := w.secret("shop-token").OwnerReferences; len(refs) > 0 {
				t.Errorf("the adopted Secret would be deleted with the resource: %v", refs)
			}
			if n := gaps(); n > 0 {
				t.Errorf("%d looks into the Secret found no valid token", n)
			}
		})
	}
}

// TestLeavingLegacy: the last Legacy token serves on while volumes get the first Stable one.
func TestLeavingLegacy(t *testing.T) {
	w, old := readyWorld(t, v1alpha1.ModeLegacy)
	gaps := w.watchForGaps("shop", "access_token")
	w.update("shop", func(t *v1alpha1.WeChatAppToken) { t.Spec.Mode = v1alpha1.ModeStable })
	w.eventuallyAnother("shop", old)
	if !w.wechat.ValidAt(old, w.clock.now().Add(volumeLag)) {
		t.Error("a pod may still hold the old token, and WeChat does not accept it")
	}
	if n := gaps(); n > 0 {
		t.Errorf("%d looks into the Secret found no valid token", n)
	}
}

func oldFetch(w *world) string { return w.wechat.RivalMint(appID).Token }

func stableFetch(w *world) string {
	w.Helper()
	api, err := wechat.New(wechat.Options{Endpoints: []string{w.wechat.URL()}, Timeout: 2 * time.Second, MaxInFlight: 1, Wall: w.clock.now, Monotonic: w.clock.now})
	w.must(err)
	_, err = api.StableToken(w.Context(), vocab.Credentials{AppID: appID, AppSecret: vocab.NewValue(appSecret)}, false)
	w.must(err)
	issued, _ := w.wechat.Current(appID, wechattest.Stable)
	return issued.Token
}

// watchForGaps reads a Secret again and again. The result ends it and tells how often it held no valid token.
func (w *world) watchForGaps(secret, key string) (gaps func() int) {
	stop, found := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for {
			s := &corev1.Secret{}
			// A failure to read says nothing about the token.
			if err := w.Get(w.Context(), client.ObjectKey{Namespace: w.namespace, Name: secret}, s); err == nil && !w.wechat.Valid(string(s.Data[key])) {
				n++
			}
			select {
			case <-stop:
				found <- n
				return
			case <-w.Context().Done(): // the test failed before it asked
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() int { close(stop); return <-found }
}
