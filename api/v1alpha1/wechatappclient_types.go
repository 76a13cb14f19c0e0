// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClientKind is the kind of a WeChatAppClient.
const ClientKind = "WeChatAppClient"

// WeChatAppClient lets programs call WeChat's API through the gateway as the
// app of a WeChatAppToken: by ServiceAccounts, or by a key that takes the
// place of the AppSecret in SDKs that nobody has to change.
//
// Whoever may create a WeChatAppClient can call WeChat as the app. Grant it as
// you grant the reading of Secrets.
//
// +kubebuilder:object:root=true
// +kubebuilder:metadata:annotations="argocd.argoproj.io/sync-options=Prune=false"
// +kubebuilder:metadata:annotations="kustomize.toolkit.fluxcd.io/prune=disabled"
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=wechatappclients,shortName=wxclient,categories=wechat,scope=Namespaced
// +kubebuilder:printcolumn:name="Token",type=string,JSONPath=`.spec.tokenRef.name`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Key Secret",type=string,JSONPath=`.spec.key.secretName`
// +kubebuilder:printcolumn:name="Login",type=boolean,JSONPath=`.spec.login`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,priority=1,JSONPath=`.spec.suspend`
type WeChatAppClient struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is that of any object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says who may call what.
	// +required
	Spec WeChatAppClientSpec `json:"spec"`

	// status is what the operator and the gateway last saw.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status WeChatAppClientStatus `json:"status,omitzero"`
}

// WeChatAppClientSpec says who may call what.
//
// +kubebuilder:validation:XValidation:rule="has(self.key) || (has(self.serviceAccounts) && size(self.serviceAccounts) > 0)",message="nobody could call: list serviceAccounts, or ask for a key"
// +kubebuilder:validation:XValidation:rule="has(self.key) == has(oldSelf.key) || !has(oldSelf.key)",fieldPath=".key",message="spec.key cannot be removed, because programs read the Secret: set suspend, or delete this WeChatAppClient"
type WeChatAppClientSpec struct {
	// tokenRef names the WeChatAppToken of this namespace whose app the calls are
	// made as. Immutable.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.tokenRef is immutable, because programs hold keys for that app: create another WeChatAppClient"
	TokenRef TokenReference `json:"tokenRef"`

	// serviceAccounts may call with a token of the gateway's audience.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	ServiceAccounts []ServiceAccountReference `json:"serviceAccounts,omitempty"`

	// key asks for a Secret with a key that takes the place of the AppSecret, for
	// SDKs that nobody has to change.
	// +optional
	Key *ClientKeySpec `json:"key,omitempty"`

	// paths are those of WeChat's API that may be called: whole paths such as
	// /cgi-bin/user/info, or /wxa/* for all below /wxa.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Paths []ClientPath `json:"paths"`

	// login allows the login paths (/sns/jscode2session, /sns/oauth2/access_token,
	// /sns/oauth2/refresh_token), on which the gateway uses the AppSecret. The
	// credentials Secret must then have the label
	// wechat.apptoken.dev/credentials: "true".
	// +optional
	// +kubebuilder:default=false
	Login bool `json:"login,omitempty"`

	// rate limits the calls.
	// +optional
	// +kubebuilder:default={}
	Rate ClientRate `json:"rate,omitzero"`

	// suspend ends the client's calls within seconds. Nothing else changes.
	// +optional
	// +kubebuilder:default=false
	Suspend bool `json:"suspend,omitempty"`
}

// TokenReference names a WeChatAppToken of the same namespace.
type TokenReference struct {
	// name of the WeChatAppToken.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a WeChatAppToken: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
	Name string `json:"name"`
}

// ServiceAccountReference names a ServiceAccount of any namespace.
type ServiceAccountReference struct {
	// namespace of the ServiceAccount.
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be the name of a namespace: lower-case letters, digits and '-', starting and ending with a letter or digit"
	Namespace string `json:"namespace"`
	// name of the ServiceAccount.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a ServiceAccount: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
	Name string `json:"name"`
}

// ClientPath is a path of WeChat's API; a * may be its last segment.
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:XValidation:rule="self.matches('^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*|/[*])$')",message="must be a path such as /cgi-bin/user/info, or /wxa/* for all below /wxa: letters, digits, '_', '.' and '-', and a * only as the last segment"
type ClientPath string

// ClientKeySpec describes the key and its Secret.
//
// +kubebuilder:validation:XValidation:rule="!has(self.rotationInterval) || !self.rotationInterval.matches('^([0-9]{1,5}(s|m|h)){1,3}$') || !self.overlap.matches('^([0-9]{1,5}(s|m|h)){1,3}$') || duration(self.rotationInterval) > duration(self.overlap)",fieldPath=".rotationInterval",message="rotationInterval must be longer than overlap, or two old keys would be good at a time"
type ClientKeySpec struct {
	// secretName is the Secret of this namespace that the operator makes, with the
	// keys app_id, app_secret (the client's key), previous_app_secret while there
	// is one, host, and ca.crt where the gateway has a private CA. Immutable.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be a name for a Secret: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec.key.secretName is immutable, because pods mount the Secret by its name: create another WeChatAppClient"
	SecretName string `json:"secretName"`

	// overlap is how long the key before a rotation goes on buying tokens, from 1h
	// to 168h, by default 24h. Programs that read their configuration once must
	// restart within it.
	// +optional
	// +kubebuilder:default="24h"
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(s|m|h)){1,3}$') && duration(self) >= duration('1h') && duration(self) <= duration('168h')",message="must be a duration from 1h to 168h in whole hours, minutes and seconds, such as 24h"
	Overlap metav1.Duration `json:"overlap,omitempty,omitzero"`

	// rotationInterval is how often the key is replaced by itself, longer than
	// overlap, such as 2160h. Without it, only a request does so.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(s|m|h)){1,3}$')",message="must be a duration in whole hours, minutes and seconds, such as 2160h"
	RotationInterval *metav1.Duration `json:"rotationInterval,omitempty"`

	// deletionPolicy says what becomes of the Secret when this WeChatAppClient is
	// deleted: Delete, the default, removes it; Retain leaves it. Its key is dead
	// in either case.
	// +optional
	// +kubebuilder:default=Delete
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
}

// ClientRate limits a client's calls.
type ClientRate struct {
	// perReplica limits the calls that each replica of the gateway passes on.
	// +optional
	// +kubebuilder:default={}
	PerReplica RateLimit `json:"perReplica,omitzero"`
}

// RateLimit is a rate and a burst.
type RateLimit struct {
	// requestsPerSecond is the rate, from 1 to 10000, by default 50.
	// +optional
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	RequestsPerSecond int32 `json:"requestsPerSecond,omitempty"`
	// burst is how many calls may come at once, from 1 to 10000, by default 100.
	// +optional
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Burst int32 `json:"burst,omitempty"`
}

// WeChatAppClientStatus is what the operator and the gateway last saw.
type WeChatAppClientStatus struct {
	// observedGeneration is the generation that this status speaks of; -1 before
	// the first result.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready (the client can call), Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="each lastTransitionTime must be a time such as 2026-01-02T15:04:05Z"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// key describes the client's key, without showing it.
	// +optional
	Key *ClientKeyStatus `json:"key,omitempty"`

	// hint is written by the gateway: WeChat refused the token that the store has.
	// The operator checks that token at once, and believes nothing else of it.
	// +optional
	Hint *ClientHint `json:"hint,omitempty"`

	// handledRequests holds the value of each request annotation that was carried
	// out last.
	// +optional
	HandledRequests *HandledClientRequests `json:"handledRequests,omitempty"`
}

// ClientKeyStatus describes a client's key without showing it. A value in the
// Secret whose fingerprint is not here is no key.
type ClientKeyStatus struct {
	// fingerprint is the first 16 hex digits of the key's SHA-256.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	Fingerprint string `json:"fingerprint"`
	// createTime is when the key was made.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	CreateTime metav1.Time `json:"createTime"`
	// previousFingerprint is that of the key before the last rotation; empty for
	// none.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	PreviousFingerprint string `json:"previousFingerprint,omitempty"`
	// previousUntilTime is until when the key before buys tokens and logs in.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	PreviousUntilTime *metav1.Time `json:"previousUntilTime,omitempty"`
}

// ClientHint says that WeChat refused a token.
type ClientHint struct {
	// refusedFingerprint is the fingerprint of the token that WeChat refused, as
	// in the status of the WeChatAppToken.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	RefusedFingerprint string `json:"refusedFingerprint"`
	// time at which the gateway saw it.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	Time metav1.Time `json:"time"`
}

// HandledClientRequests holds the value of each request annotation of a
// WeChatAppClient that was carried out last.
type HandledClientRequests struct {
	// rotateKey is the last handled value of
	// wechat.apptoken.dev/rotate-key-requested-at.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	RotateKey string `json:"rotateKey,omitempty"`
	// revokeKey is the last handled value of
	// wechat.apptoken.dev/revoke-key-requested-at.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	RevokeKey string `json:"revokeKey,omitempty"`
}

// WeChatAppClientList is a list of WeChatAppClients.
// +kubebuilder:object:root=true
type WeChatAppClientList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []WeChatAppClient `json:"items"`
}
