// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// storeUnderTest is a Store with informers that the test drives.
type storeUnderTest struct {
	*Store

	clients, tokens, managed, credentials *controllertest.FakeInformer
}

func newStoreUnderTest(t *testing.T) *storeUnderTest {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	s := &storeUnderTest{
		clients: controllertest.NewFakeInformer(), tokens: controllertest.NewFakeInformer(),
		managed: controllertest.NewFakeInformer(), credentials: controllertest.NewFakeInformer(),
	}
	secrets := corev1.SchemeGroupVersion.WithKind("Secret")
	s.Store = NewStore(StoreOptions{
		Objects: &informertest.FakeInformers{Scheme: scheme, InformersByGVK: map[schema.GroupVersionKind]toolscache.SharedIndexInformer{
			v1alpha1.GroupVersion.WithKind(v1alpha1.ClientKind): s.clients,
			v1alpha1.GroupVersion.WithKind(v1alpha1.Kind):       s.tokens,
			secrets: s.managed,
		}},
		Credentials: &informertest.FakeInformers{Scheme: scheme, InformersByGVK: map[schema.GroupVersionKind]toolscache.SharedIndexInformer{
			secrets: s.credentials,
		}},
	})
	go func() {
		if err := s.Start(t.Context()); err != nil {
			t.Errorf("Start: %v", err)
		}
	}()
	synctest.Wait()
	return s
}

// fill adds a world and says that this is all.
func (s *storeUnderTest) fill(t *testing.T, w *world) {
	t.Helper()
	s.clients.Add(w.client)
	s.tokens.Add(w.token)
	s.managed.Add(kept(t, w.keys))
	s.managed.Add(kept(t, w.target))
	s.credentials.Add(w.appCreds)
	for _, informer := range []*controllertest.FakeInformer{s.clients, s.tokens, s.managed, s.credentials} {
		informer.Synced()
	}
	time.Sleep(time.Second) // the informers are asked from time to time
	synctest.Wait()
}

// replacedAfter waits for the time that changes are gathered, and reports whether another policy is in force.
func (s *storeUnderTest) replacedAfter(change func()) bool {
	_, replaced := s.Policy()
	change()
	time.Sleep(gatherMost)
	synctest.Wait()
	select {
	case <-replaced:
		return true
	default:
		return false
	}
}

func TestStoreIsReadyWhenItsCachesAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStoreUnderTest(t)
		w := newWorld()
		s.clients.Add(w.client)
		s.tokens.Add(w.token)
		for _, informer := range []*controllertest.FakeInformer{s.clients, s.tokens, s.managed} {
			informer.Synced()
		}
		time.Sleep(time.Hour)
		if policy, _ := s.Policy(); s.Ready() || policy.ByUID("uid-of-client") != nil {
			t.Errorf("ready without the credentials: %t, %v", s.Ready(), policy)
		}
		s.credentials.Synced()
		time.Sleep(time.Second)
		synctest.Wait()
		if policy, _ := s.Policy(); !s.Ready() || policy.ByUID("uid-of-client") == nil {
			t.Errorf("ready: %t, %v", s.Ready(), policy)
		}
	})
}

func TestStoreFollows(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*storeUnderTest, *world)
		want   bool
	}{
		"a client that is suspended": {func(s *storeUnderTest, w *world) {
			is := w.client.DeepCopy()
			is.Generation++
			is.Spec.Suspend = true
			s.clients.Update(w.client, is)
		}, true},
		"a client that is being deleted": {func(s *storeUnderTest, w *world) {
			is := w.client.DeepCopy()
			is.DeletionTimestamp = &metav1.Time{Time: now}
			s.clients.Update(w.client, is)
		}, true},
		"a client that is gone": {func(s *storeUnderTest, w *world) { s.clients.Delete(w.client) }, true},
		"a key that is revoked": {func(s *storeUnderTest, w *world) {
			is := w.client.DeepCopy()
			is.Status.Key = &v1alpha1.ClientKeyStatus{Fingerprint: "another"}
			s.clients.Update(w.client, is)
		}, true},
		"a hint": {func(s *storeUnderTest, w *world) {
			is := w.client.DeepCopy()
			is.ResourceVersion, is.Status.Hint = "2", &v1alpha1.ClientHint{RefusedFingerprint: "x"}
			s.clients.Update(w.client, is)
		}, false},
		"a status of the token": {func(s *storeUnderTest, w *world) {
			is := w.token.DeepCopy()
			is.ResourceVersion, is.Status.TargetSecretName = "2", "x"
			s.tokens.Update(w.token, is)
		}, false},
		"a token in the target": {func(s *storeUnderTest, w *world) {
			is := w.target.DeepCopy()
			is.Data["token"] = []byte("58_new")
			s.managed.Update(kept(t, w.target), kept(t, is))
		}, true},
		"the same data again": {func(s *storeUnderTest, w *world) {
			is := w.target.DeepCopy()
			is.ResourceVersion = "2"
			s.managed.Update(kept(t, w.target), kept(t, is))
		}, false},
		"another owner": {func(s *storeUnderTest, w *world) {
			is := w.keys.DeepCopy()
			is.Annotations[v1alpha1.AnnotationOwnerUID] = "x"
			s.managed.Update(kept(t, w.keys), kept(t, is))
		}, true},
		"a label that is removed": {func(s *storeUnderTest, w *world) {
			is := w.appCreds.DeepCopy()
			is.Labels = nil
			s.credentials.Update(w.appCreds, is)
		}, true},
		"credentials that are gone": {func(s *storeUnderTest, w *world) { s.credentials.Delete(w.appCreds) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, w := newStoreUnderTest(t), newWorld()
				s.fill(t, w)
				before, _ := s.Policy()
				if before.ByUID("uid-of-client") == nil {
					t.Fatal("no client")
				}
				if got := s.replacedAfter(func() { test.change(s, w) }); got != test.want {
					t.Errorf("another policy: %t, want %t", got, test.want)
				}
				if after, _ := s.Policy(); (after != before) != test.want {
					t.Errorf("the policy changed: %t, want %t", after != before, test.want)
				}
			})
		})
	}
}

// An informer that lost its watch may only have a note of what was deleted.
func TestStoreForgetsWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := newStoreUnderTest(t), newWorld()
		s.fill(t, w)
		handlerFor(s.Store, s.in.Clients, clientDiffers).OnDelete(toolscache.DeletedFinalStateUnknown{Obj: w.client})
		time.Sleep(gatherMost)
		synctest.Wait()
		if policy, _ := s.Policy(); policy.ByUID("uid-of-client") != nil {
			t.Error("the client is still there")
		}
	})
}

// Many changes make few policies.
func TestStoreGathersChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := newStoreUnderTest(t), newWorld()
		s.fill(t, w)
		policies := 0
		_, replaced := s.Policy()
		for i := range 1000 {
			is := w.target.DeepCopy()
			is.Data["token"] = fmt.Appendf(nil, "58_%d", i)
			s.managed.Update(kept(t, w.target), kept(t, is))
			time.Sleep(time.Millisecond)
			synctest.Wait()
			select {
			case <-replaced:
				policies++
				_, replaced = s.Policy()
			default:
			}
		}
		if policies < 15 || policies > 21 {
			t.Errorf("%d policies in a second", policies)
		}
		time.Sleep(gatherMost)
		synctest.Wait()
		if policy, _ := s.Policy(); policy.ByUID("uid-of-client").Account.Token.Reveal() != "58_999" {
			t.Error("the last change is missing")
		}
	})
}

// BenchmarkBuild measures a policy of 10,000 clients and tokens.
func BenchmarkBuild(b *testing.B) {
	in := Inputs{
		Clients:     map[types.NamespacedName]*v1alpha1.WeChatAppClient{},
		Tokens:      map[types.NamespacedName]*v1alpha1.WeChatAppToken{},
		Managed:     map[types.NamespacedName]*corev1.Secret{},
		Credentials: map[types.NamespacedName]*corev1.Secret{},
	}
	for i := range 10_000 {
		w, name := newWorld(), fmt.Sprintf("n%d", i)
		value := fmt.Sprintf("%032x", i)
		w.client.Name, w.client.UID, w.client.Spec.TokenRef.Name, w.client.Spec.Key.SecretName = name, types.UID("c"+name), name, name+"-key"
		w.client.Status.Key.Fingerprint = fingerprint(value)
		w.token.Name, w.token.UID = name, types.UID("t"+name)
		w.token.Spec.Target.Name = name + "-token"
		w.keys.Annotations[v1alpha1.AnnotationOwnerUID], w.keys.Data["app_secret"] = "c"+name, []byte(value)
		w.target.Annotations[v1alpha1.AnnotationOwnerUID] = "t" + name
		in.Clients[account("shop", name)], in.Tokens[account("shop", name)] = w.client, w.token
		in.Managed[account("shop", name+"-key")], in.Managed[account("shop", name+"-token")] = kept(b, w.keys), kept(b, w.target)
		in.Credentials[account("shop", "creds")] = w.appCreds
	}
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			build(in, nil).policy()
		}
	})
	b.Run("one that changed", func(b *testing.B) {
		last := build(in, nil)
		name := account("shop", "n7-token")
		b.ReportAllocs()
		for b.Loop() {
			in.Managed[name] = in.Managed[name].DeepCopy()
			last = build(in, last)
			last.policy()
		}
	})
}
