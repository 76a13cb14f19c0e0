// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/credentials"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
	"github.com/wechat-token-operator/wechat-token-operator/internal/wechat"
)

const (
	unitAppID     = "wx0123456789abcdef"
	unitAppSecret = "0123456789abcdef0123456789abcdef"
)

// unitNow is WeChat's time in tests that let no time pass.
var unitNow = time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)

// ago returns the time so much before unitNow.
func ago(d time.Duration) time.Time { return unitNow.Add(-d) }

func named(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "shop", Name: name}
}

// resourceNamed returns a resource of the namespace shop whose UID is its name. Its credentials are in the Secret "credentials".
func resourceNamed(name string, mode v1alpha1.Mode) *v1alpha1.WeChatAppToken {
	return &v1alpha1.WeChatAppToken{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID(name), Generation: 1, CreationTimestamp: metav1.NewTime(ago(time.Hour)),
		},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID: unitAppID, Mode: mode, CheckInterval: metav1.Duration{Duration: 2 * time.Minute},
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "credentials", Key: "appSecret"},
			Target:               v1alpha1.TargetSpec{AccessTokenKey: "access_token", DeletionPolicy: v1alpha1.DeletionDelete},
		},
		Status: v1alpha1.WeChatAppTokenStatus{ObservedGeneration: -1},
	}
}

// secretAt returns the metadata of a Secret of the namespace shop.
func secretAt(name, uid, version string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid), ResourceVersion: version},
	}
}

// unitClient returns a fake client with the operator's indexes.
func unitClient(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	builder := fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.WeChatAppToken{}).
		WithInterceptorFuncs(funcs).WithObjects(objects...)
	for name, values := range indexes() {
		builder.WithIndex(&v1alpha1.WeChatAppToken{}, name, func(o client.Object) []string {
			if resource, ok := o.(*v1alpha1.WeChatAppToken); ok {
				return values(resource)
			}
			return nil
		})
	}
	return builder.Build()
}

// unitReconciler returns a Reconciler whose time is unitNow, and the recorder of its events.
func unitReconciler(t *testing.T, objects ...client.Object) (*Reconciler, *events.FakeRecorder) {
	t.Helper()
	now := func() time.Time { return unitNow }
	api, err := wechat.New(wechat.Options{Endpoints: []string{"http://127.0.0.1:1"}, Wall: now, Monotonic: now})
	if err != nil {
		t.Fatal(err)
	}
	c := unitClient(t, interceptor.Funcs{}, objects...)
	recorder := events.NewFakeRecorder(100)
	return New(Options{Client: c, Live: c, WeChat: api, Events: recorder}), recorder
}

// unitPass returns a pass over a resource that has joined its account.
func unitPass(t *testing.T, mode v1alpha1.Mode) *pass {
	t.Helper()
	resource := resourceNamed("shop", mode)
	r, _ := unitReconciler(t, resource.DeepCopy())
	state, _ := r.states.of(resource)
	p := &pass{observer: observer{Reconciler: r, state: state, resource: resource}}
	appSecret, _ := token.ParseAppSecret([]byte(unitAppSecret))
	state.credentials = credentials.Credentials{Version: "c/1", Key: "appSecret", Secret: token.Credentials{AppID: unitAppID, AppSecret: appSecret}}
	p.joinAccount()
	if state.membership.account == nil || state.membership.id != (account.ID{Mode: mode, AppID: unitAppID, Key: state.credentials.Secret.Account()}) {
		t.Fatalf("joined %+v", state.membership.id)
	}
	return p
}
