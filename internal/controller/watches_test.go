// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
)

// neighbourhood returns a reconciler with some resources that have had a pass: shop, which wrote its target last, its rival of another
// name, a resource with another target, and one of another namespace.
func neighbourhood(t *testing.T) *Reconciler {
	t.Helper()
	rival, other, foreign := resourceNamed("rival", v1alpha1.ModeStable), resourceNamed("other", v1alpha1.ModeStable), resourceNamed("shop", v1alpha1.ModeStable)
	rival.Spec.Target.Name, rival.Spec.CredentialsSecretRef.Name = "shop", "others"
	foreign.Namespace, foreign.UID = "elsewhere", "foreign"
	resources := []client.Object{resourceNamed("shop", v1alpha1.ModeStable), rival, other, foreign}
	r, _ := unitReconciler(t, resources...)
	for _, o := range resources {
		if resource, ok := o.(*v1alpha1.WeChatAppToken); ok {
			r.states.of(resource)
		}
	}
	r.states.find(named("shop")).gate.SawTarget(secretAt("shop", "s", "10"), true, unitNow)
	return r
}

// woken returns the names in a queue, in order.
func woken(queue workqueue.TypedRateLimitingInterface[reconcile.Request]) []string {
	names := map[string]bool{}
	for queue.Len() > 0 {
		item, _ := queue.Get()
		names[item.String()] = true
		queue.Done(item)
	}
	return slices.Sorted(maps.Keys(names))
}

func newQueue(t *testing.T) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	t.Helper()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	t.Cleanup(queue.ShutDown)
	return queue
}

// A Secret concerns the resources that use it as credentials or target. The echo of an own write is no reason for another pass.
func TestConcernedBySecrets(t *testing.T) {
	in := func(namespace string, s *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
		s.Namespace = namespace
		return s
	}
	for name, test := range map[string]struct {
		secret *metav1.PartialObjectMetadata
		want   []string
	}{
		"own write":                    {secretAt("shop", "s", "10"), []string{"shop/rival"}},
		"somebody else's write":        {secretAt("shop", "s", "11"), []string{"shop/rival", "shop/shop"}},
		"another Secret of that name":  {secretAt("shop", "x", "10"), []string{"shop/rival", "shop/shop"}},
		"credentials of two":           {secretAt("credentials", "c", "10"), []string{"shop/other", "shop/shop"}},
		"credentials of one":           {secretAt("others", "c", "10"), []string{"shop/rival"}},
		"a target that nobody has yet": {secretAt("other", "o", "10"), []string{"shop/other"}},
		"a Secret of other people":     {secretAt("database", "d", "10"), nil},
		"of another namespace":         {in("elsewhere", secretAt("shop", "s", "10")), []string{"elsewhere/shop"}},
		"of a namespace without any":   {in("nowhere", secretAt("shop", "s", "10")), nil},
	} {
		r := neighbourhood(t)
		var direct []string
		for _, req := range r.concernedBy(t.Context(), test.secret) {
			direct = append(direct, req.String())
		}
		slices.Sort(direct)
		if !slices.Equal(direct, test.want) {
			t.Errorf("%s concerns %v, want %v", name, direct, test.want)
		}
		older := test.secret.DeepCopy()
		older.ResourceVersion = "5"
		handler := kube.EnqueueConcerned(r.concernedBy)
		for kind, send := range map[string]func(workqueue.TypedRateLimitingInterface[reconcile.Request]){
			"create": func(q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
				handler.Create(t.Context(), event.CreateEvent{Object: test.secret}, q)
			},
			"update": func(q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
				handler.Update(t.Context(), event.UpdateEvent{ObjectOld: older, ObjectNew: test.secret}, q)
			},
			"delete": func(q workqueue.TypedRateLimitingInterface[reconcile.Request]) {
				handler.Delete(t.Context(), event.DeleteEvent{Object: test.secret}, q)
			},
		} {
			queue := newQueue(t)
			if send(queue); !slices.Equal(woken(queue), test.want) {
				t.Errorf("%s: its %s does not start passes of %v", name, kind, test.want)
			}
		}
		queue := newQueue(t)
		handler.Create(t.Context(), event.CreateEvent{Object: test.secret, IsInInitialList: true}, queue)
		if got := woken(queue); len(got) != 0 {
			t.Errorf("%s: in the first list it starts passes of %v, which start by themselves", name, got)
		}
	}
}

// A resource that had no pass yet wrote nothing, so each Secret of its own concerns it.
func TestConcernedBeforeTheFirstPass(t *testing.T) {
	r, _ := unitReconciler(t, resourceNamed("shop", v1alpha1.ModeStable))
	if got := r.concernedBy(t.Context(), secretAt("shop", "", "")); len(got) != 1 || got[0].NamespacedName != named("shop") {
		t.Errorf("%v", got)
	}
}

// The resources that wanted the target of one that is gone get their turn.
func TestRivals(t *testing.T) {
	for name, test := range map[string]struct {
		gone client.Object
		want []string
	}{
		"the one that had it":           {resourceNamed("shop", v1alpha1.ModeStable), []string{"shop/rival", "shop/shop"}},
		"one that nobody vies with":     {resourceNamed("other", v1alpha1.ModeStable), []string{"shop/other"}},
		"a target that are credentials": {resourceNamed("credentials", v1alpha1.ModeStable), nil},
		"no resource at all":            {secretAt("shop", "s", "10"), nil},
	} {
		queue := newQueue(t)
		neighbourhood(t).enqueueRivals(t.Context(), event.DeleteEvent{Object: test.gone}, queue)
		if got := woken(queue); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v get their turn, want %v", name, got, test.want)
		}
	}
}

// The deletion of a target is noted for those that it was the target of, before any pass can rely on the cache.
func TestDeletionIsNoted(t *testing.T) {
	for name, test := range map[string]struct {
		secret *metav1.PartialObjectMetadata
		want   []string // who knows that it is gone, whatever the cache says
	}{
		"a target":    {secretAt("shop", "s", "11"), []string{"shop", "rival"}},
		"credentials": {secretAt("credentials", "c", "11"), nil},
		"a stranger":  {secretAt("database", "d", "11"), nil},
	} {
		r := neighbourhood(t)
		if !r.secretChanged(t.Context()).Delete(event.DeleteEvent{Object: test.secret}) {
			t.Errorf("%s: the event is dropped", name)
		}
		shop := &r.states.find(named("shop")).gate
		if own := shop.IsOwnWrite("s", "10"); own == (test.secret.Name == "shop") {
			t.Errorf("%s: the last write counts: %t", name, own)
		}
		for _, resource := range []string{"shop", "rival", "other"} {
			left, _ := r.states.find(named(resource)).gate.Target(test.secret, unitNow)
			if want := slices.Contains(test.want, resource); (left == nil) != want {
				t.Errorf("%s: %s knows that it is gone: %t", name, resource, !want)
			}
		}
	}
}

// An event that repeats what was there says nothing new.
func TestUpdatesThatCount(t *testing.T) {
	r := neighbourhood(t)
	same := event.UpdateEvent{ObjectOld: secretAt("shop", "s", "10"), ObjectNew: secretAt("shop", "s", "10")}
	if r.secretChanged(t.Context()).Update(same) {
		t.Error("the same Secret counts")
	}
	same.ObjectNew = secretAt("shop", "s", "11")
	if !r.secretChanged(t.Context()).Update(same) {
		t.Error("another version of a Secret does not count")
	}
	for name, test := range map[string]struct {
		edit func(*v1alpha1.WeChatAppToken)
		want bool
	}{
		"nothing":               {func(*v1alpha1.WeChatAppToken) {}, false},
		"the status":            {func(r *v1alpha1.WeChatAppToken) { r.Status.CredentialsVersion, r.ResourceVersion = "c/8", "9" }, false},
		"a label":               {func(r *v1alpha1.WeChatAppToken) { r.Labels = map[string]string{"a": "b"} }, false},
		"somebody's annotation": {func(r *v1alpha1.WeChatAppToken) { r.Annotations = map[string]string{"a": "b"} }, false},
		"the spec":              {func(r *v1alpha1.WeChatAppToken) { r.Generation++ }, true},
		"another resource":      {func(r *v1alpha1.WeChatAppToken) { r.UID = "another" }, true},
		"a check": {func(r *v1alpha1.WeChatAppToken) {
			r.Annotations = map[string]string{v1alpha1.AnnotationCheckRequestedAt: "1"}
		}, true},
		"a refresh": {func(r *v1alpha1.WeChatAppToken) {
			r.Annotations = map[string]string{v1alpha1.AnnotationRefreshRequestedAt: "1"}
		}, true},
		"a revoke": {func(r *v1alpha1.WeChatAppToken) {
			r.Annotations = map[string]string{v1alpha1.AnnotationRevokeRequestedAt: "1"}
		}, true},
	} {
		was := resourceNamed("shop", v1alpha1.ModeStable)
		is := was.DeepCopy()
		test.edit(is)
		for _, e := range []event.UpdateEvent{{ObjectOld: was, ObjectNew: is}, {ObjectOld: is, ObjectNew: was}} {
			if got := r.specOrRequestChanged().Update(e); got != test.want {
				t.Errorf("%s: counts %t", name, got)
			}
		}
	}
	if r.specOrRequestChanged().Update(event.UpdateEvent{}) {
		t.Error("an empty event counts")
	}
}
