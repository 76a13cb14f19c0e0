// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat/wechattest"
)

// collectGarbage runs Kubernetes' garbage collector until the scenario ends.
func (w *world) collectGarbage() {
	stop, err := env.StartControllers("garbage-collector-controller")
	w.must(err)
	w.Cleanup(func() {
		if err := stop(); err != nil {
			w.Error(err)
		}
	})
}

// recreated deletes resources and makes them again, at once or later. With Delete the target goes too, and is made anew; with
// Retain it stays, and nothing may happen to its token.
func (w *world) recreated() {
	w.collectGarbage()
	w.operate(1, false, plan{})
	refs := w.mixed(8, 4)
	retain := func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.DeletionPolicy = v1alpha1.DeletionRetain }
	for i := range 12 {
		account, mode := len(w.targets), v1alpha1.ModeStable
		if i >= 8 {
			mode = v1alpha1.ModeLegacy
			w.wechat.SetApp(wechattest.App{ID: w.appID(account), Life: legacyLife})
		}
		w.addToken(w.namespaces[0], account, fmt.Sprintf("t%03d", account), mode, retain)
	}
	if !w.ready(w.targets...) {
		w.Error("not all targets got a token")
		return
	}
	kept := w.targets[len(refs):]
	for i := 0; w.sleep(w.between(5*time.Second, 15*time.Second)); i++ {
		switch {
		case i%3 > 0:
			w.recreate(kept[w.rng.IntN(len(kept))])
		case i/3 < 4:
			w.recreate(refs[8+i/3]) // Legacy: each costs a mint, so once for each
		default:
			w.recreate(refs[w.rng.IntN(8)])
		}
	}
	for _, ref := range kept {
		w.mintedWhenDue(ref)
	}
}

// mintedWhenDue: no Legacy token was minted before half of the last one's life, which is when a short one is due.
func (w *world) mintedWhenDue(ref *targetRef) {
	var last wechattest.IssuedToken
	for i, t := range w.wechat.Tokens(ref.appID) {
		due := last.IssuedAt.Add(last.ExpiresAt.Sub(last.IssuedAt) / 2)
		if i > 0 && t.Mode == wechattest.Legacy && t.IssuedAt.Before(due.Add(-5*time.Second)) {
			w.Errorf("%s: a token was minted at %s, but the one before was due at %s", ref.name, clockTime(t.IssuedAt), clockTime(due))
		}
		last = t
	}
}

// recreate deletes the resource and makes it again. When its target went with it, that is an edit, from the moment at which the
// observer saw it go.
func (w *world) recreate(ref *targetRef) {
	t := ref.token()
	w.must(w.Get(w.ctx, types.NamespacedName{Namespace: ref.name.Namespace, Name: ref.resource}, t))
	deleted := time.Now()
	w.must(w.Delete(w.ctx, ref.token()))
	if w.rng.IntN(2) == 0 {
		w.sleep(w.between(0, 10*time.Second))
	}
	again := ref.token()
	again.Spec = t.Spec
	w.must(w.Create(w.ctx, again))
	if t.Spec.Target.DeletionPolicy == v1alpha1.DeletionRetain {
		return
	}
	gone := func() (time.Time, bool) {
		for _, v := range watching.history(ref.name) {
			if v.gone && !v.at.Before(deleted) {
				return v.at, true
			}
		}
		return time.Time{}, false
	}
	w.until(time.Minute, func() bool { _, is := gone(); return is })
	if at, is := gone(); is {
		w.mu.Lock()
		defer w.mu.Unlock()
		f := w.factsOf(ref.name)
		f.edits = append(f.edits, span{at, at})
	} else if w.ctx.Err() == nil {
		w.Errorf("%s was not collected", ref.name)
	}
}

// swaps lets two resources change targets, and one get a target that it wanted in vain while its owner was there. A target is
// judged for one resource after the other.
func (w *world) swaps() {
	w.collectGarbage()
	w.operate(1, false, plan{})
	refs := w.mixed(10, 6)
	for i := 0; w.sleep(w.between(15*time.Second, 30*time.Second)); i++ {
		switch {
		case i < 3:
			refs[10+2*i], refs[11+2*i] = w.swap(refs[10+2*i], refs[11+2*i]) // Legacy: each costs a mint
		case i%2 == 0:
			at := 2 * w.rng.IntN(4)
			refs[at], refs[at+1] = w.swap(refs[at], refs[at+1])
		default:
			at := 8 + w.rng.IntN(2)
			refs[at] = w.inherit(refs[at], i)
		}
	}
}

// swap makes each of the two again with the other's target.
func (w *world) swap(a, b *targetRef) (*targetRef, *targetRef) {
	w.end(a)
	w.end(b)
	if w.rng.IntN(2) == 0 {
		w.sleep(w.between(0, 3*time.Second))
	}
	x := w.addToken(a.name.Namespace, a.account, a.resource, v1alpha1.Mode(a.mode), aimedAt(b.name.Name), withTickets(a.tickets...))
	y := w.addToken(b.name.Namespace, b.account, b.resource, v1alpha1.Mode(b.mode), aimedAt(a.name.Name), withTickets(b.tickets...))
	if !w.ready(x, y) && w.ctx.Err() == nil {
		w.Errorf("%s and %s were swapped, and have no token", a.name, b.name)
	}
	return x, y
}

// inherit makes a younger resource for a target that is taken. It gets it when the older one is gone, and not before.
func (w *world) inherit(owner *targetRef, i int) *targetRef {
	heir := w.addToken(owner.name.Namespace, 1000+i, fmt.Sprintf("heir%03d", i), v1alpha1.ModeStable, aimedAt(owner.name.Name))
	w.sleep(w.between(0, 5*time.Second))
	w.end(owner)
	if !w.ready(heir) && w.ctx.Err() == nil {
		w.Errorf("%s has no token, although its target is free", heir.resource)
	}
	return heir
}

// end deletes the resource for good.
func (w *world) end(ref *targetRef) {
	w.mu.Lock()
	ref.until = time.Now()
	w.mu.Unlock()
	w.must(w.Delete(w.ctx, ref.token()))
}

func aimedAt(target string) func(*v1alpha1.WeChatAppToken) {
	return func(t *v1alpha1.WeChatAppToken) { t.Spec.Target.Name = target }
}
