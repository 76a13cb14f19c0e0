// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/credentials"
	"github.com/wechat-token-operator/wechat-token-operator/internal/kube"
	"github.com/wechat-token-operator/wechat-token-operator/internal/report"
)

// observeCredentials finds out, from metadata, whether the credentials are those of the last pass. They are read only when they are
// new; otherwise a step reads them when it needs them.
func (p *observer) observeCredentials(ctx context.Context, o *report.Observation) error {
	if m := p.state.membership; m.id.Mode != p.resource.Spec.Mode || m.id.AppID != p.resource.Spec.AppID {
		p.leaveAccount(p.state) // now, because the rest of this pass may not come to it, and the others would wait for this one's mint
	}
	c := p.state.credentials
	if p.resource.Spec.Suspend {
		o.CredentialsSecret.Version, o.CredentialsSecret.Accepted = c.Version, p.state.accepted
		return nil
	}
	ref := p.resource.Spec.CredentialsSecretRef
	meta, err := kube.CachedMetadata(ctx, p.Client, types.NamespacedName{Namespace: p.resource.Namespace, Name: ref.Name})
	if err != nil {
		return err
	}
	cached := ""
	if meta != nil {
		cached = credentials.VersionOf(meta)
	}
	switch {
	case cached == "" && c.IsRefused(p.resource.Generation, p.WeChat.Now()):
		// An event comes when the Secret is made, and whoever wakes this resource again and again shall not cause a read each time.
	case cached == "":
		err = p.readCredentials(ctx) // the cache is behind, or does not know the Secret, because it holds Opaque ones alone
	case c.Serves(cached, ref.Key, p.resource.Spec.AppID):
		p.joinAccount() // the mode may be another one
	case p.acceptedBefore(cached):
		o.CredentialsSecret.Version, o.CredentialsSecret.Accepted = cached, p.state.accepted
		return nil
	default:
		err = p.readCredentials(ctx)
	}
	if err != nil {
		return err
	}
	c = p.state.credentials
	if s := p.state.target.Token; s != nil && c.Problem == "" && s.Credentials == c.Secret.Fingerprint() {
		p.state.accepted = c.Version // the Secret was touched, its AppSecret is that of the last token
	}
	o.CredentialsSecret.Version, o.CredentialsSecret.Accepted = c.Version, p.state.accepted
	o.CredentialsSecret.Problem, o.CredentialsSecret.Message = c.Problem, c.Message
	o.Credentials.Missing, o.Credentials.Malformed = c.Problem != "", c.Problem == v1alpha1.ReasonCredentialsMalformed
	return nil
}

// acceptedBefore reports whether another process had a token issued with this version of the credentials, for this generation of the spec.
// It returns false if the account has to be known all the same: WeChat named a wait then, which is the account's, or another resource of
// the same Legacy appid has joined one, which may be this one's, and nobody may mint before that is known.
func (p *observer) acceptedBefore(version string) bool {
	f, spec := p.state.failure, p.resource.Spec
	if f != nil && f.Named > 0 || spec.Mode == v1alpha1.ModeLegacy && p.accounts.Knows(spec.Mode, spec.AppID) {
		return false
	}
	return p.state.credentials.Version == "" && version == p.state.accepted && p.resource.Status.ObservedGeneration == p.resource.Generation
}

// haveAppSecret makes sure that the AppSecret is at hand, and reports whether there is one.
func (p *observer) haveAppSecret(ctx context.Context) (bool, error) {
	if c := p.state.credentials; c.Version == "" || p.state.membership.account == nil {
		if err := p.readCredentials(ctx); err != nil {
			return false, err
		}
	}
	return p.state.credentials.Problem == "", nil
}

// readCredentials reads the Secret from the API server and joins the account.
func (p *observer) readCredentials(ctx context.Context) error {
	read, err := credentials.Read(ctx, p.Live, p.resource, p.RequireCredentialsLabel, p.WeChat.Now())
	if err != nil {
		return err
	}
	p.state.credentials = read
	p.joinAccount()
	return nil
}

// joinAccount joins the account of the AppSecret that was read, and leaves any other one.
func (p *observer) joinAccount() {
	c := p.state.credentials
	if c.Problem != "" {
		p.leaveAccount(p.state)
		return
	}
	id := account.ID{Mode: p.resource.Spec.Mode, AppID: c.Secret.AppID, Key: c.Secret.Account()}
	if m := p.state.membership; m.account != nil && m.id == id {
		return
	}
	p.leaveAccount(p.state)
	p.state.membership = membership{id: id, account: p.accounts.Join(id, account.Member{
		UID: p.resource.UID, Name: nameOf(p.resource), Created: p.resource.CreationTimestamp.Time,
	})}
}
