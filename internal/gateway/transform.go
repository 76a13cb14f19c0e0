// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// maxValue bounds a value of a Secret's data in bytes, and maxValues their number. A target has nine of ours: the token, three tickets,
	// their expiries, and the appid. One that was adopted may have more.
	maxValue  = 4 << 10
	maxValues = 64
	// maxKept bounds all values of a Secret in bytes, because whoever may write Secrets can label as many as he likes. The values of a
	// target have about 3 KiB.
	maxKept = 16 << 10
	// maxAnnotation bounds an annotation: UIDs have 36 characters.
	maxAnnotation = 63

	// Among a Secret's values, stripManaged keeps the annotations that name its owner, because a map for two of them takes 300 bytes. The API
	// server allows no space in a key of a Secret, so nobody else can write these.
	ownerUID  = "owner UID"
	ownerKind = "owner kind"
)

// ObjectCache returns what the cache of WeChatAppTokens, WeChatAppClients and the operator's Secrets has to hold.
func ObjectCache() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&v1alpha1.WeChatAppToken{}:  {Transform: stripToken},
		&v1alpha1.WeChatAppClient{}: {Transform: stripClient},
		&corev1.Secret{}: {
			Label:     labels.SelectorFromSet(labels.Set{v1alpha1.LabelManagedBy: v1alpha1.ManagedByValue}),
			Field:     fields.OneTermEqualSelector("type", string(corev1.SecretTypeOpaque)),
			Transform: stripManaged,
		},
	}
}

// CredentialsCache returns what the cache of credentials Secrets has to hold: those whose owner labelled them for it.
func CredentialsCache() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&corev1.Secret{}: {
			Label:     labels.SelectorFromSet(labels.Set{v1alpha1.LabelCredentials: "true"}),
			Field:     fields.OneTermEqualSelector("type", string(corev1.SecretTypeOpaque)),
			Transform: stripCredentials,
		},
	}
}

// bare returns the metadata that tells versions of an object apart.
func bare(o metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: o.Name, Namespace: o.Namespace, UID: o.UID, ResourceVersion: o.ResourceVersion, Generation: o.Generation,
		DeletionTimestamp: o.DeletionTimestamp,
	}
}

func stripToken(in any) (any, error) {
	t, ok := in.(*v1alpha1.WeChatAppToken)
	if !ok {
		return in, nil // the note of an informer that it missed a deletion
	}
	return &v1alpha1.WeChatAppToken{ObjectMeta: bare(t.ObjectMeta), Spec: v1alpha1.WeChatAppTokenSpec{
		AppID:                t.Spec.AppID,
		CredentialsSecretRef: t.Spec.CredentialsSecretRef,
		Target:               v1alpha1.TargetSpec{Name: t.Spec.Target.Name, AccessTokenKey: t.Spec.Target.AccessTokenKey},
		Tickets:              t.Spec.Tickets,
	}}, nil
}

func stripClient(in any) (any, error) {
	c, ok := in.(*v1alpha1.WeChatAppClient)
	if !ok {
		return in, nil
	}
	return &v1alpha1.WeChatAppClient{
		ObjectMeta: bare(c.ObjectMeta), Spec: c.Spec, Status: v1alpha1.WeChatAppClientStatus{Key: c.Status.Key},
	}, nil
}

// stripManaged keeps of a target, or of the Secret of a client's key, who owns it and the values that calls need. Like each transform of a
// cache, it may get what it made before.
func stripManaged(in any) (any, error) {
	s, ok := in.(*corev1.Secret)
	if !ok {
		return notASecret(in)
	}
	if s.Data[ownerUID] != nil {
		return s, nil
	}
	out := &corev1.Secret{ObjectMeta: bare(s.ObjectMeta), Type: s.Type}
	isKey := s.Annotations[v1alpha1.AnnotationOwnerKind] == v1alpha1.ClientKind
	out.Data = keep(s.Data, func(key string, value []byte) []byte {
		switch {
		case isKey && key != v1alpha1.AppSecretKey && key != v1alpha1.PreviousAppSecretKey, !isPlain(value):
			return nil
		}
		return value
	})
	for _, kept := range [...]struct{ key, annotation string }{
		{ownerUID, v1alpha1.AnnotationOwnerUID}, {ownerKind, v1alpha1.AnnotationOwnerKind},
	} {
		if v := s.Annotations[kept.annotation]; v != "" && len(v) <= maxAnnotation {
			out.Data[kept.key] = []byte(v)
		}
	}
	return out, nil
}

// stripCredentials keeps of a credentials Secret what can be an AppSecret.
func stripCredentials(in any) (any, error) {
	s, ok := in.(*corev1.Secret)
	if !ok {
		return notASecret(in)
	}
	out := &corev1.Secret{ObjectMeta: bare(s.ObjectMeta), Type: s.Type}
	if s.Labels[v1alpha1.LabelCredentials] == "true" {
		out.Labels = map[string]string{v1alpha1.LabelCredentials: "true"}
	}
	out.Data = keep(s.Data, func(_ string, value []byte) []byte {
		secret, ok := token.ParseAppSecret(value[:min(len(value), maxValue)])
		if !ok {
			return nil
		}
		return []byte(secret.Reveal())
	})
	return out, nil
}

// notASecret lets the notes of informers pass, and nothing that may have data.
func notASecret(in any) (any, error) {
	if o, ok := in.(client.Object); ok {
		return nil, fmt.Errorf("refusing to cache a %T in the place of a Secret", o)
	}
	return in, nil
}

// keep returns what pick makes of the values, up to maxValues and maxKept. The well-known keys come first, so that no others can push
// them
// out.
func keep(data map[string][]byte, pick func(key string, value []byte) []byte) map[string][]byte {
	first := make([]string, 0, maxValues)
	first = append(first, v1alpha1.AppIDKey, v1alpha1.ExpiresAtKey, v1alpha1.DefaultAccessTokenKey,
		v1alpha1.AppSecretKey, v1alpha1.PreviousAppSecretKey)
	for _, kind := range v1alpha1.TicketTypes() {
		spec := v1alpha1.TicketSpec{Type: kind}
		first = append(first, spec.KeyName(), spec.ExpiresAtKeyName())
	}
	out := map[string][]byte{}
	size := 0
	for _, key := range slices.Concat(first, slices.Sorted(maps.Keys(data))) {
		if len(out) == maxValues {
			break
		}
		if value, found := data[key]; found {
			if value = pick(key, value); value != nil && out[key] == nil && size+len(key)+len(value) <= maxKept {
				size += len(key) + len(value)
				out[key] = value
			}
		}
	}
	return out
}

// isPlain reports whether a value can be a token, a ticket, a time or an appid: not long, and of printable ASCII without spaces.
func isPlain(value []byte) bool {
	for _, c := range value {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(value) > 0 && len(value) <= maxValue
}
