// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// fetchers makes the fetcher of each Legacy account unable to write its target, in each way that there is, and later the member
// that took its place. The members that are left must go on as if nothing had happened.
func (w *world) fetchers() {
	w.operate(1, false, plan{})
	ways := []func(*targetRef){w.endNamespace, w.exhaustQuota, w.makeImmutable, w.lock, w.deleteInForeground}
	members := make([][]*targetRef, len(ways))
	for rank := range 4 {
		for account := range ways {
			w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: legacyLife})
			namespace := w.namespaces[len(ways)]
			if rank == 0 {
				namespace = w.namespaces[account] // so that what happens to it happens to the fetcher alone
			}
			members[account] = append(members[account],
				w.addToken(namespace, account, fmt.Sprintf("a%d-m%d", account, rank), v1alpha1.ModeLegacy))
		}
		w.sleep(1100 * time.Millisecond) // the oldest one fetches, and a second is the least difference in age
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token")
		return
	}
	w.sleep(w.between(5*time.Second, 20*time.Second))
	w.breakAll(members, 0, ways)
	w.sleep(legacyLife / 2)
	w.breakAll(members, 1, []func(*targetRef){w.makeImmutable, w.lock, w.deleteInForeground})
}

// breakAll ends one member of each account. Nobody can write its target any more, so it is not judged from then on.
func (w *world) breakAll(members [][]*targetRef, rank int, ways []func(*targetRef)) {
	for account := range members {
		ref := members[account][rank]
		ref.until = time.Now()
		ways[account%len(ways)](ref)
		w.sleep(w.between(0, 5*time.Second))
	}
}

func (w *world) makeImmutable(ref *targetRef) { w.must(w.merge(ref.name, object{"immutable": true})) }

// lock makes the admission policy refuse each change of the target.
func (w *world) lock(ref *targetRef) {
	w.must(w.merge(ref.name, object{"metadata": object{"labels": object{"locked": "true"}}}))
}

// deleteInForeground leaves the resource in deletion for good: it has a finalizer that nobody removes.
func (w *world) deleteInForeground(ref *targetRef) {
	w.must(w.Patch(w.ctx, ref.token(), client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":["example.com/stays"]}}`))))
	w.must(w.Delete(w.ctx, ref.token(), client.PropagationPolicy(metav1.DeletePropagationForeground)))
}

// endNamespace deletes the namespace, in which nothing can be made from then on, and the target. No controller removes the rest.
func (w *world) endNamespace(ref *targetRef) {
	w.must(w.Delete(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ref.name.Namespace}}))
	w.must(w.Delete(w.ctx, secretNamed(ref.name)))
}

// exhaustQuota lets the namespace have no more Secrets than it has, and deletes the target, in whose place another one is made at
// once.
func (w *world) exhaustQuota(ref *targetRef) {
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: ref.name.Namespace, Name: "secrets"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("2")}},
	}
	w.must(w.Create(w.ctx, quota))
	// In place of the controller that counts.
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: quota.Spec.Hard}
	w.must(w.Status().Update(w.ctx, quota))
	w.must(w.Delete(w.ctx, secretNamed(ref.name)))
}
