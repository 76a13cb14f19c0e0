// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/intern"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// CacheOptions returns what the manager's cache has to hold: of WeChatAppTokens the spec, the status and the requests, and of Opaque
// Secrets the metadata that decisions need. AppSecrets and tokens are never cached.
func CacheOptions(selector labels.Selector) map[client.Object]cache.ByObject {
	shared := &texts{}
	stripper := target.NewStripper(&shared.namespaces)
	return map[client.Object]cache.ByObject{
		&v1alpha1.WeChatAppToken{}: {
			Label: selector,
			Transform: func(in any) (any, error) {
				if token, ok := in.(*v1alpha1.WeChatAppToken); ok {
					shrink(token, shared)
				}
				return in, nil
			},
		},
		&corev1.Secret{}: {
			Field: fields.OneTermEqualSelector("type", string(corev1.SecretTypeOpaque)),
			Transform: func(in any) (any, error) {
				if m, ok := in.(*metav1.PartialObjectMetadata); ok {
					return stripper.Strip(m), nil
				}
				return nil, fmt.Errorf("refusing to cache a %T: Secrets are cached as metadata only", in)
			},
		},
	}
}

// texts are what cached objects share. Users choose keys and namespaces freely, so these have pools of their own and cannot fill that
// of the others.
type texts struct {
	namespaces, keys, words intern.Pool
}

// shrink leaves out what no decision needs, and lets resources share what they have in common.
func shrink(token *v1alpha1.WeChatAppToken, shared *texts) {
	request.Shrink(&token.ObjectMeta, request.Annotations())
	intern.Share(&shared.namespaces, &token.Namespace)
	intern.Share(&shared.keys, &token.Spec.CredentialsSecretRef.Key)
	intern.Share(&shared.keys, &token.Spec.Target.AccessTokenKey)
	words := &shared.words
	intern.Share(words, &token.Kind)
	intern.Share(words, &token.APIVersion)
	intern.Share(words, &token.Spec.Mode)
	intern.Share(words, &token.Spec.Target.DeletionPolicy)
	intern.Share(words, &token.Spec.Target.Delivery)
	if token.Status.TargetSecretName == token.Name {
		token.Status.TargetSecretName = token.Name
	}
	if token.Status.Token != nil {
		intern.Share(words, &token.Status.Token.Mode)
	}
	for i := range token.Status.Conditions {
		c := &token.Status.Conditions[i]
		intern.Share(words, &c.Type)
		intern.Share(words, &c.Status)
		intern.Share(words, &c.Reason)
	}
}
