// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// The echo of an own write is no reason for another pass, and leaves no second copy of what the informer holds.
func TestOwnWritesStartNothing(t *testing.T) {
	name := types.NamespacedName{Namespace: "shop", Name: "shop"}
	r := &Reconciler{memories: newMemories()}
	secret := func(name, version string) *metav1.PartialObjectMetadata {
		s := secretAt(version)
		s.Namespace, s.Name, s.UID = "shop", name, types.UID(name)
		return s
	}
	update := func(name, from, to string) event.UpdateEvent {
		return event.UpdateEvent{ObjectOld: secret(name, from), ObjectNew: secret(name, to)}
	}
	for title, tc := range map[string]struct {
		event event.UpdateEvent
		wakes bool
	}{
		"own write":                {update("shop", "9", "10"), false},
		"somebody else's write":    {update("shop", "10", "11"), true},
		"credentials":              {update("credentials", "9", "10"), true},
		"a Secret of other people": {update("database", "9", "10"), false},
	} {
		t.Run(title, func(t *testing.T) {
			mem, _ := r.memories.of(name, "u")
			r.memories.lookAt(name, looks{credentials: "credentials", target: "shop"})
			mem.rememberTarget(secret("shop", "10"), time.Unix(1_000, 0))
			queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
			defer queue.ShutDown()
			r.enqueueConcerned().Update(t.Context(), tc.event, queue)
			if got := queue.Len() == 1; got != tc.wakes {
				t.Errorf("a pass was started: %t, want %t", got, tc.wakes)
			}
		})
	}
}

func TestStatusOfTheLastOwnWrite(t *testing.T) {
	at := func(version, target string) *v1alpha1.WeChatAppToken {
		return &v1alpha1.WeChatAppToken{
			ObjectMeta: metav1.ObjectMeta{ResourceVersion: version, Generation: 7},
			Status:     v1alpha1.WeChatAppTokenStatus{TargetSecretName: target},
		}
	}
	m := &memory{}
	freshen := func(version, want string, settled bool) {
		t.Helper()
		got := at(version, "cached")
		if ok := m.freshen(got); ok != settled || got.Status.TargetSecretName != want || got.Generation != 7 {
			t.Errorf("with the cache at %s: status of %q, settled %t, generation %d", version, got.Status.TargetSecretName, ok, got.Generation)
		}
	}
	kept := func(want bool) {
		t.Helper()
		if got := m.ownStatus.status != nil; got != want {
			t.Errorf("the own status is kept: %t", got)
		}
	}
	freshen("9", "cached", true)
	m.wroteStatus("10", v1alpha1.WeChatAppTokenStatus{TargetSecretName: "own"})
	freshen("9", "own", true)
	m.statusSeen("9")
	kept(true)
	m.statusSeen("10")
	kept(false)
	freshen("9", "cached", false) // read before its event came: the cache has it by now
	freshen("10", "cached", true)
	m.wroteStatus("12", v1alpha1.WeChatAppTokenStatus{TargetSecretName: "own"})
	freshen("12", "cached", true) // its event came before the answer to the write
	kept(false)
}
