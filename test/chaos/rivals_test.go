// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// addLegacy makes a Legacy resource whose tokens have that life.
func (w *world) addLegacy(life time.Duration) *targetRef {
	account := len(w.targets)
	w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: life})
	return w.addToken(w.namespaces[account%len(w.namespaces)], account, fmt.Sprintf("t%03d", account), v1alpha1.ModeLegacy)
}

// rivals lets somebody else force a refresh of each Stable token, once in its life, and mint a Legacy token twice.
func (w *world) rivals() {
	w.operate(1, false, plan{})
	slow := func(t *v1alpha1.WeChatAppToken) { t.Spec.CheckInterval.Duration = 2 * time.Minute }
	for i := range 12 {
		w.addToken(w.namespaces[0], i, fmt.Sprintf("t%03d", i), v1alpha1.ModeStable, slow)
	}
	for range 12 {
		w.addLegacy(legacyLife)
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token")
		return
	}
	for i := 0; w.sleep(w.between(20*time.Second, 40*time.Second)) && i < 12; i++ {
		w.wechat.RivalForceRefresh(w.targets[i].appID)
		if i == 2 || i == 7 {
			w.wechat.RivalMint(w.targets[12+i].appID)
		}
	}
}

// clocks runs two leaders whose clocks are 20 minutes apart, jump, and are an hour off after a restart.
func (w *world) clocks() {
	w.operate(2, true, plan{})
	w.must(w.replicas[0].setPlan(func(p *plan) { p.Offset = 10 * time.Minute }))
	w.must(w.replicas[1].setPlan(func(p *plan) { p.Offset = -10 * time.Minute }))
	w.mixed(8, 8)
	offsets := []time.Duration{-time.Hour, -10 * time.Minute, -time.Minute, 0, time.Minute, 10 * time.Minute, time.Hour}
	for w.sleep(w.between(10*time.Second, 40*time.Second)) {
		r := w.replicas[w.rng.IntN(2)]
		w.must(r.setPlan(func(p *plan) { p.Offset = offsets[w.rng.IntN(len(offsets))] }))
		if w.rng.IntN(3) == 0 {
			r.kill()
		}
	}
}

// requests asks for refresh and revoke, and kills the operator while it is about them.
func (w *world) requests() {
	w.operate(1, false, plan{})
	w.mixed(12, 6)
	for i := 0; w.sleep(w.between(40*time.Second, 70*time.Second)); i++ {
		ref := w.targets[i%len(w.targets)]
		key := []string{v1alpha1.AnnotationRefreshRequestedAt, v1alpha1.AnnotationRevokeRequestedAt}[w.rng.IntN(2)]
		w.asked(ref.name)
		w.request(ref, key)
		if w.rng.IntN(2) == 0 {
			w.sleep(w.between(0, 500*time.Millisecond))
			w.replicas[0].kill()
		}
	}
}

func (w *world) request(ref *targetRef, key string) {
	t := &v1alpha1.WeChatAppToken{ObjectMeta: metav1.ObjectMeta{Namespace: ref.name.Namespace, Name: ref.name.Name}}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, time.Now().Format(time.RFC3339Nano))
	w.must(w.Patch(w.ctx, t, client.RawPatch("application/merge-patch+json", []byte(patch))))
}

// writeRefused refuses, after each mint, the first writes of the token.
func (w *world) writeRefused(first plan, life time.Duration) {
	w.operate(1, false, first)
	for range 8 {
		w.addLegacy(life)
	}
	w.ready(w.targets...)
	w.replicas[0].api.refuseData.Store(24)
}

// sharedAccount lets four resources share one Legacy account.
func (w *world) sharedAccount(first plan, life time.Duration) {
	w.operate(1, false, first)
	w.wechat.SetApp(wechattest.App{ID: w.appID(0), Life: life})
	for i := range 4 {
		w.addToken(w.namespaces[0], 0, fmt.Sprintf("t%03d", i), v1alpha1.ModeLegacy)
	}
}

// planted writes what is no token, and tells nobody: the samples must find it.
func (w *world) planted() {
	w.operate(1, false, plan{})
	w.mixed(3, 0)
	for w.sleep(5 * time.Second) {
		ref := w.targets[w.rng.IntN(3)]
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ref.name.Namespace, Name: ref.name.Name}}
		w.must(w.Patch(w.ctx, s, client.RawPatch("application/merge-patch+json", []byte(`{"stringData":{"access_token":"planted"}}`))))
	}
}
