// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func TestMapper(t *testing.T) {
	mapper, err := NewMapper(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	core := corev1.SchemeGroupVersion
	for kind, want := range map[schema.GroupVersionKind]schema.GroupVersionResource{
		v1alpha1.GroupVersion.WithKind("WeChatAppToken"):  v1alpha1.GroupVersion.WithResource("wechatapptokens"),
		v1alpha1.GroupVersion.WithKind("WeChatAppClient"): v1alpha1.GroupVersion.WithResource("wechatappclients"),
		core.WithKind("Secret"):                           core.WithResource("secrets"),
		core.WithKind("Pod"):                              core.WithResource("pods"),
	} {
		got, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
			continue
		}
		if got.Resource != want || got.GroupVersionKind != kind || got.Scope != apimeta.RESTScopeNamespace {
			t.Errorf("%s: got %v", kind.Kind, got)
		}
	}
	for _, list := range []runtime.Object{&v1alpha1.WeChatAppTokenList{}, &v1alpha1.WeChatAppClientList{}, &corev1.SecretList{}, &corev1.PodList{}} {
		scheme := runtime.NewScheme()
		if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
			t.Fatal(err)
		}
		if namespaced, err := apiutil.IsObjectNamespaced(list, scheme, mapper); err != nil || !namespaced {
			t.Errorf("%T: namespaced %t, error %v", list, namespaced, err)
		}
	}
	if _, err := mapper.RESTMapping(schema.GroupKind{Kind: "Node"}, "v1"); !apimeta.IsNoMatchError(err) {
		t.Errorf("a kind that no program uses: got error %v, want no match", err)
	}
}
