// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// readRefusedAfter is the least time between two reads of a credentials Secret that the cache does not have.
const readRefusedAfter = 10 * time.Second

// credentials is the last live read of a credentials Secret. It is kept while the resource refers to that version of the Secret.
type credentials struct {
	// version is <uid>/<resourceVersion> of the Secret, and key that of its data; empty if it was not read yet.
	version, key string
	// secret has the AppSecret, for the appid that the spec named; the zero value if there is a problem.
	secret token.Credentials
	// problem is the reason of a condition, and message what to do; empty if the AppSecret can be used.
	problem, message string
	// generation is that of the spec for which they were read, and readAt when.
	generation int64
	readAt     time.Time
}

// observeCredentials finds out, from metadata, whether the credentials are those of the last pass. They are read only when they are
// new; otherwise a step reads them when it needs them.
func (p *observer) observeCredentials(ctx context.Context, o *report.Observation) error {
	c := p.state.credentials
	if p.resource.Spec.Suspend {
		o.CredentialsSecret.Version, o.CredentialsSecret.Accepted = c.version, p.state.accepted
		return nil
	}
	ref := p.resource.Spec.CredentialsSecretRef
	meta, err := p.cachedMetadata(ctx, types.NamespacedName{Namespace: p.resource.Namespace, Name: ref.Name})
	if err != nil {
		return err
	}
	cached := ""
	if meta != nil {
		cached = versionOf(meta)
	}
	switch {
	case cached == "" && c.isRefused(p.resource.Generation, p.WeChat.Now()):
		// An event comes when the Secret is made, and whoever wakes this resource again and again shall not cause a read each time.
	case cached == "":
		err = p.readCredentials(ctx) // the cache is behind, or does not know the Secret, because it holds Opaque ones alone
	case c.serves(cached, ref.Key, p.resource.Spec.AppID):
		p.joinAccount() // the mode may be another one
	case p.acceptedBefore(cached) && !p.accountIsKnown():
		o.CredentialsSecret.Version, o.CredentialsSecret.Accepted = cached, p.state.accepted
		return nil
	default:
		err = p.readCredentials(ctx)
	}
	if err != nil {
		return err
	}
	c = p.state.credentials
	if s := p.state.target.Token; s != nil && c.problem == "" && s.Credentials == c.secret.Fingerprint() {
		p.state.accepted = c.version // the Secret was touched, its AppSecret is that of the last token
	}
	o.CredentialsSecret.Version, o.CredentialsSecret.Accepted = c.version, p.state.accepted
	o.CredentialsSecret.Problem, o.CredentialsSecret.Message = c.problem, c.message
	o.Credentials.Missing, o.Credentials.Malformed = c.problem != "", c.problem == v1alpha1.ReasonCredentialsMalformed
	return nil
}

// acceptedBefore reports whether another process had a token issued with this version of the credentials, for this generation of the spec.
func (p *observer) acceptedBefore(version string) bool {
	return p.state.credentials.version == "" && version == p.state.accepted && p.resource.Status.ObservedGeneration == p.resource.Generation
}

// isRefused reports whether the credentials were read for this generation of the spec a short while ago, and could not be used.
func (c credentials) isRefused(generation int64, now time.Time) bool {
	return c.problem != "" && c.generation == generation && now.Before(refresh.EarliestNext(c.readAt, readRefusedAfter, now))
}

// serves reports whether the credentials were read from this version of the Secret, for this key and appid.
func (c credentials) serves(version, key, appID string) bool {
	return c.version == version && c.key == key && (c.problem != "" || c.secret.AppID == appID)
}

// accountIsKnown reports whether another resource of the same Legacy appid has joined an account. Then this one has to find out
// whether the account is its own before anything is minted.
func (p *observer) accountIsKnown() bool {
	return p.resource.Spec.Mode == v1alpha1.ModeLegacy && p.state.membership.account == nil &&
		p.accounts.Knows(v1alpha1.ModeLegacy, p.resource.Spec.AppID)
}

// haveAppSecret makes sure that the AppSecret is at hand, and reports whether there is one.
func (p *observer) haveAppSecret(ctx context.Context) (bool, error) {
	if c := p.state.credentials; c.version == "" || p.state.membership.account == nil {
		if err := p.readCredentials(ctx); err != nil {
			return false, err
		}
	}
	return p.state.credentials.problem == "", nil
}

// readCredentials reads the Secret from the API server and joins the account.
func (p *observer) readCredentials(ctx context.Context) error {
	read, err := p.liveCredentials(ctx)
	if err != nil {
		return err
	}
	p.state.credentials = read
	p.joinAccount()
	return nil
}

// liveCredentials reads and judges the credentials Secret.
func (p *observer) liveCredentials(ctx context.Context) (credentials, error) {
	ref := p.resource.Spec.CredentialsSecretRef
	secret := &corev1.Secret{}
	err := p.Live.Get(ctx, types.NamespacedName{Namespace: p.resource.Namespace, Name: ref.Name}, secret)
	c := credentials{key: ref.Key, generation: p.resource.Generation, readAt: p.WeChat.Now()}
	refuse := func(reason, format string, args ...any) (credentials, error) {
		c.problem, c.message = reason, fmt.Sprintf(format, args...)
		return c, nil
	}
	if apierrors.IsNotFound(err) {
		return refuse(v1alpha1.ReasonCredentialsNotFound,
			"Secret %q does not exist: create it with the AppSecret under the key %q", ref.Name, ref.Key)
	}
	if err != nil {
		return c, fmt.Errorf("reading credentials Secret %s/%s: %w", p.resource.Namespace, ref.Name, err)
	}
	c.version = versionOf(secret)
	value, found := secret.Data[ref.Key]
	appSecret, wellFormed := token.ParseAppSecret(value)
	switch {
	case secret.Type != corev1.SecretTypeOpaque:
		return refuse(v1alpha1.ReasonCredentialsNotFound,
			"Secret %q is of type %q: put the AppSecret into a Secret of type Opaque", ref.Name, secret.Type)
	case p.RequireCredentialsLabel && secret.Labels[v1alpha1.LabelCredentials] != "true":
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
	c.secret = token.Credentials{AppID: p.resource.Spec.AppID, AppSecret: appSecret}
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

// joinAccount joins the account of the AppSecret that was read, and leaves any other one.
func (p *observer) joinAccount() {
	c := p.state.credentials
	if c.problem != "" {
		p.leaveAccount(p.state)
		return
	}
	id := account.ID{Mode: p.resource.Spec.Mode, AppID: c.secret.AppID, Key: c.secret.Account()}
	if m := p.state.membership; m.account != nil && m.id == id {
		return
	}
	p.leaveAccount(p.state)
	p.state.membership = membership{id: id, account: p.accounts.Join(id, account.Member{
		UID: p.resource.UID, Name: nameOf(p.resource), Created: p.resource.CreationTimestamp.Time,
	})}
}

func versionOf(meta metav1.Object) string {
	return string(meta.GetUID()) + "/" + meta.GetResourceVersion()
}
