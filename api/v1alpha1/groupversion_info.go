// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 is the contract of the operator: the WeChatAppToken kind, the
// annotations that carry requests and bookkeeping, and the condition types and
// reasons that a resource can report.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +groupName=wechat.apptoken.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of all kinds of this package.
const GroupName = "wechat.apptoken.dev"

// GroupVersion is the group and version of all kinds of this package.
var GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// SchemeGroupVersion is GroupVersion under the name that client generators expect.
var SchemeGroupVersion = GroupVersion

// AddToScheme registers the kinds of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &WeChatAppToken{}, &WeChatAppTokenList{}, &WeChatAppClient{}, &WeChatAppClientList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// Kind is the kind of a WeChatAppToken.
const Kind = "WeChatAppToken"
