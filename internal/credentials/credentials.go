// SPDX-License-Identifier: Apache-2.0

// Package credentials reads and judges the Secrets that hold AppSecrets.
package credentials

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// readRefusedAfter is the least time between two reads of a credentials Secret that the cache does not have.
const readRefusedAfter = 10 * time.Second

// Credentials is what a live read of a credentials Secret showed.
type Credentials struct {
	// Version is <uid>/<resourceVersion> of the Secret, and Key that of its data; empty if it was not read yet.
	Version, Key string
	// Secret has the AppSecret, for the appid that the spec named; the zero value if there is a problem.
	Secret token.Credentials
	// Problem is the reason of a condition, and Message what to do; empty if the AppSecret can be used.
	Problem, Message string
	// Generation is that of the spec for which they were read, and ReadAt when.
	Generation int64
	ReadAt     time.Time
}

// IsRefused reports whether the credentials were read for this generation of the spec a short while ago, and could not be used.
func (c Credentials) IsRefused(generation int64, now time.Time) bool {
	return c.Problem != "" && c.Generation == generation && now.Before(refresh.EarliestNext(c.ReadAt, readRefusedAfter, now))
}

// Serves reports whether the credentials were read from this version of the Secret, for this key and appid.
func (c Credentials) Serves(version, key, appID string) bool {
	return c.Version == version && c.Key == key && (c.Problem != "" || c.Secret.AppID == appID)
}

// VersionOf returns <uid>/<resourceVersion> of a Secret.
func VersionOf(secret metav1.Object) string {
	return string(secret.GetUID()) + "/" + secret.GetResourceVersion()
}

// Read reads and judges the credentials Secret of a resource. requireLabel refuses one without the label
// wechat.apptoken.dev/credentials: "true". The error says that the API server could not be read.
func Read(
	ctx context.Context, live client.Reader, resource *v1alpha1.WeChatAppToken, requireLabel bool, now time.Time,
) (Credentials, error) {
	ref := resource.Spec.CredentialsSecretRef
	secret := &corev1.Secret{}
	err := live.Get(ctx, types.NamespacedName{Namespace: resource.Namespace, Name: ref.Name}, secret)
	c := Credentials{Key: ref.Key, Generation: resource.Generation, ReadAt: now}
	refuse := func(reason, format string, args ...any) (Credentials, error) {
		c.Problem, c.Message = reason, fmt.Sprintf(format, args...)
		return c, nil
	}
	if apierrors.IsNotFound(err) {
		return refuse(v1alpha1.ReasonCredentialsNotFound,
			"Secret %q does not exist: create it with the AppSecret under the key %q", ref.Name, ref.Key)
	}
	if err != nil {
		return c, fmt.Errorf("reading credentials Secret %s/%s: %w", resource.Namespace, ref.Name, err)
	}
	c.Version = VersionOf(secret)
	value, found := secret.Data[ref.Key]
	appSecret, wellFormed := token.ParseAppSecret(value)
	switch {
	case secret.Type != corev1.SecretTypeOpaque:
		return refuse(v1alpha1.ReasonCredentialsNotFound,
			"Secret %q is of type %q: put the AppSecret into a Secret of type Opaque", ref.Name, secret.Type)
	case requireLabel && secret.Labels[v1alpha1.LabelCredentials] != "true":
		return refuse(v1alpha1.ReasonCredentialsNotFound,
			"Secret %q lacks the label %s: \"true\", which this operator requires: its owner must add it", ref.Name, v1alpha1.LabelCredentials)
	case !found:
		return refuse(v1alpha1.ReasonCredentialsNotFound,
			"Secret %q has no key %q: add it with the AppSecret, or set spec.credentialsSecretRef.key", ref.Name, ref.Key)
	case !wellFormed:
		return refuse(v1alpha1.ReasonCredentialsMalformed,
			"key %q of Secret %q is no AppSecret: it must be 16 to 128 letters and digits%s; copy it from WeChat's console again",
			ref.Key, ref.Name, butHidden(value))
	}
	c.Secret = token.Credentials{AppID: resource.Spec.AppID, AppSecret: appSecret}
	return c, nil
}

// butHidden names the first invisible character in a malformed AppSecret, which nobody would find otherwise. It shows nothing else of it.
func butHidden(value []byte) string {
	hidden := plain.Hidden(strings.TrimSpace(string(value)))
	if hidden == "" {
		return ""
	}
	return ", but has " + hidden
}
