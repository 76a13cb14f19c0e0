// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	vocab "github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// credentialState is what is known of the credentials in this pass.
type credentialState struct {
	// version is <uid>/<resourceVersion> of the Secret.
	version string
	// known: value was read from the API server under this version. It is read when a call needs it.
	known bool
	value vocab.Credentials
	// problem is a condition reason; "" for none.
	problem, message string
}

// resolved is the last live read of a credentials Secret, kept while the resource refers to it, so that a change
// is a miss.
type resolved struct {
	version, key string
	state        credentialState
}

// resolveCredentials finds out, from metadata, whether the credentials are those of the last pass. They are read only
// when they are new; otherwise when a call needs them.
func (p *pass) resolveCredentials(ctx context.Context) error {
	status := &p.token.Status
	if p.token.Spec.Suspend {
		p.credentials = credentialState{version: status.CredentialsVersion}
		return nil
	}
	version, err := p.credentialsVersion(ctx, p.token)
	if err != nil {
		return err
	}
	last := p.mem.credentials
	switch {
	case version != "" && last.version == version && last.key == p.token.Spec.CredentialsSecretRef.Key &&
		last.state.value.AppID == p.token.Spec.AppID:
		p.credentials = last.state
	case version != "" && last.version == "" && version == status.CredentialsVersion && status.ObservedGeneration == p.token.Generation:
		p.credentials = credentialState{version: version}
		p.joinAsPeer(version)
	default:
		// The informer lags, or knows only Secrets of type Opaque: a live read tells which.
		return p.readCredentials(ctx)
	}
	return nil
}

// credentialsVersion is <uid>/<resourceVersion> as the informer knows it; "" for none.
func (r *Reconciler) credentialsVersion(ctx context.Context, token *v1alpha1.WeChatAppToken) (string, error) {
	key := types.NamespacedName{Namespace: token.Namespace, Name: token.Spec.CredentialsSecretRef.Name}
	meta, err := secretMetadata(ctx, r.Client, key)
	switch {
	case err != nil:
		return "", fmt.Errorf("reading metadata of credentials Secret %s: %w", key, err)
	case meta == nil:
		return "", nil
	}
	return versionOf(meta), nil
}

func versionOf(meta metav1.Object) string {
	return string(meta.GetUID()) + "/" + meta.GetResourceVersion()
}

// readCredentials reads the Secret from the API server and joins the account.
func (p *pass) readCredentials(ctx context.Context) error {
	state, err := p.liveCredentials(ctx, p.token)
	if err != nil {
		return err
	}
	p.credentials = state
	p.mem.credentials = resolved{version: state.version, key: p.token.Spec.CredentialsSecretRef.Key, state: state}
	if state.problem != "" {
		p.leaveAccount(p.mem)
		return nil
	}
	p.joinAccount(state.value)
	return nil
}

// needCredentials makes sure that the AppSecret itself is at hand; false when there is none to use.
func (p *pass) needCredentials(ctx context.Context) (bool, error) {
	if !p.credentials.known {
		if err := p.readCredentials(ctx); err != nil {
			return false, err
		}
	} else if p.credentials.problem == "" {
		p.joinAccount(p.credentials.value) // the mode may be another one
	}
	return p.credentials.problem == "", nil
}

// liveCredentials reads and judges the credentials Secret of a resource.
func (r *Reconciler) liveCredentials(ctx context.Context, token *v1alpha1.WeChatAppToken) (credentialState, error) {
	ref := token.Spec.CredentialsSecretRef
	secret := &corev1.Secret{}
	err := r.Live.Get(ctx, types.NamespacedName{Namespace: token.Namespace, Name: ref.Name}, secret)
	if apierrors.IsNotFound(err) {
		return refuseCredentials("", v1alpha1.ReasonCredentialsNotFound,
			"Secret %q does not exist: create it with the AppSecret under the key %q", ref.Name, ref.Key), nil
	}
	if err != nil {
		return credentialState{}, fmt.Errorf("reading credentials Secret %s/%s: %w", token.Namespace, ref.Name, err)
	}
	version := versionOf(secret)
	value, found := secret.Data[ref.Key]
	appSecret, wellFormed := vocab.ParseAppSecret(value)
	switch {
	case secret.Type != corev1.SecretTypeOpaque:
		return refuseCredentials(version, v1alpha1.ReasonCredentialsNotFound,
			"Secret %q is of type %q: put the AppSecret into a Secret of type Opaque", ref.Name, secret.Type), nil
	case r.RequireCredentialsLabel && secret.Labels[v1alpha1.LabelCredentials] != "true":
		return refuseCredentials(version, v1alpha1.ReasonCredentialsNotFound,
			"Secret %q lacks the label %s: \"true\", which this operator requires: its owner must add it", ref.Name, v1alpha1.LabelCredentials), nil
	case !found:
		return refuseCredentials(version, v1alpha1.ReasonCredentialsNotFound,
			"Secret %q has no key %q: add it with the AppSecret, or set spec.credentialsSecretRef.key", ref.Name, ref.Key), nil
	case !wellFormed:
		return refuseCredentials(version, v1alpha1.ReasonCredentialsMalformed,
			"key %q of Secret %q is no AppSecret: it must be 16 to 128 letters and digits; copy it from WeChat's console again",
			ref.Key, ref.Name), nil
	}
	return credentialState{
		version: version,
		known:   true,
		value:   vocab.Credentials{AppID: token.Spec.AppID, AppSecret: appSecret},
	}, nil
}

func refuseCredentials(version, reason, format string, args ...any) credentialState {
	return credentialState{version: version, known: true, problem: reason, message: fmt.Sprintf(format, args...)}
}

func (p *pass) joinAccount(c vocab.Credentials) {
	p.join(accountID{legacy: p.legacy(), appID: c.AppID, credentials: c.Fingerprint()})
}

func (p *pass) join(id accountID) {
	if p.mem.account != nil && p.mem.accountID == id {
		return
	}
	p.leaveAccount(p.mem)
	p.mem.accountID = id
	p.mem.account = p.accounts.join(id, p.token.UID, nameOf(p.token))
}

func (p *pass) legacy() bool { return p.token.Spec.Mode == v1alpha1.ModeLegacy }

func nameOf(token *v1alpha1.WeChatAppToken) types.NamespacedName {
	return types.NamespacedName{Namespace: token.Namespace, Name: token.Name}
}
