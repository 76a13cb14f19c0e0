// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Mode is the WeChat endpoint that issues the token.
// +kubebuilder:validation:Enum=Stable;Legacy
type Mode string

const (
	// ModeStable uses POST /cgi-bin/stable_token: repeated calls return the same
	// token until five minutes before its expiry, so several fetchers do not
	// disturb each other.
	ModeStable Mode = "Stable"
	// ModeLegacy uses GET /cgi-bin/token: each call mints a new token and kills
	// older ones.
	ModeLegacy Mode = "Legacy"
)

// Modes returns all modes.
func Modes() []Mode { return []Mode{ModeStable, ModeLegacy} }

// DeletionPolicy says what becomes of the target Secret when its
// WeChatAppToken is deleted.
// +kubebuilder:validation:Enum=Delete;Retain
type DeletionPolicy string

const (
	// DeletionDelete gives the Secret an owner reference, so that it is collected
	// with its WeChatAppToken.
	DeletionDelete DeletionPolicy = "Delete"
	// DeletionRetain leaves the Secret; a WeChatAppToken of the same name and
	// appID takes it over.
	DeletionRetain DeletionPolicy = "Retain"
)

// Delivery is the way in which a new token gets from the target Secret into the
// pods that mount it.
// +kubebuilder:validation:Enum=Kubelet;Prompt
type Delivery string

const (
	// DeliveryKubelet leaves it to the kubelet, which looks about once a minute.
	DeliveryKubelet Delivery = "Kubelet"
	// DeliveryPrompt sets an annotation on each pod, which makes its kubelet look
	// at once.
	DeliveryPrompt Delivery = "Prompt"
)

// TicketType is the kind of a ticket, as WeChat's parameter type names it.
// +kubebuilder:validation:Enum=jsapi;wx_card;sdk
type TicketType string

const (
	// TicketJSAPI signs the configuration of WeChat's JS-SDK in pages that are
	// opened inside WeChat (jsapi_ticket).
	TicketJSAPI TicketType = "jsapi"
	// TicketWXCard signs what cards and coupons need (api_ticket).
	TicketWXCard TicketType = "wx_card"
	// TicketSDK signs what apps with WeChat's OpenSDK need.
	TicketSDK TicketType = "sdk"
)

// TicketTypes returns all types of tickets.
func TicketTypes() []TicketType { return []TicketType{TicketJSAPI, TicketWXCard, TicketSDK} }

// WeChatAppToken keeps a Secret supplied with a valid access token of one
// WeChat app: a Mini Program, an Official Account or another kind of app with
// an appid and an AppSecret. The token is replaced before it expires, so that
// whoever reads the Secret through a volume mount holds a token that WeChat
// accepts.
//
// Whoever may create a WeChatAppToken can obtain an access token with any
// AppSecret of the same namespace. Grant it as you grant the reading of
// Secrets.
//
// +kubebuilder:object:root=true
// +kubebuilder:metadata:annotations="argocd.argoproj.io/sync-options=Prune=false"
// +kubebuilder:metadata:annotations="kustomize.toolkit.fluxcd.io/prune=disabled"
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=wechatapptokens,shortName=wxtoken,categories=wechat,scope=Namespaced
// +kubebuilder:selectablefield:JSONPath=`.spec.appID`
// +kubebuilder:printcolumn:name="App ID",type=string,JSONPath=`.spec.appID`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Failing",type=string,JSONPath=`.status.conditions[?(@.type=="RefreshFailing")].reason`
// +kubebuilder:printcolumn:name="Secret",type=string,JSONPath=`.status.targetSecretName`
// +kubebuilder:printcolumn:name="Expires",type=string,JSONPath=`.status.token.expirationTime`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Next refresh",type=string,priority=1,JSONPath=`.status.nextRefreshTime`
// +kubebuilder:printcolumn:name="Suspended",type=boolean,priority=1,JSONPath=`.spec.suspend`
// +kubebuilder:validation:XValidation:rule="self.spec.credentialsSecretRef.name != (has(self.spec.target.name) ? self.spec.target.name : self.metadata.name)",fieldPath=".spec.target.name",message="the target Secret must not be the credentials Secret: set spec.target.name to another name"
// +kubebuilder:validation:XValidation:rule="(has(self.spec.target.name) ? self.spec.target.name : self.metadata.name) == (has(oldSelf.spec.target.name) ? oldSelf.spec.target.name : oldSelf.metadata.name)",fieldPath=".spec.target.name",message="spec.target.name is immutable, because pods mount the Secret by its name: create a second WeChatAppToken with the new name, move the pods, then delete this one"
// +kubebuilder:validation:XValidation:rule="self.spec.target.accessTokenKey == oldSelf.spec.target.accessTokenKey",fieldPath=".spec.target.accessTokenKey",message="spec.target.accessTokenKey is immutable, because pods read the file of that name: create a second WeChatAppToken with the new key, move the pods, then delete this one"
type WeChatAppToken struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is that of any object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says which token is wanted and where it goes.
	// +required
	Spec WeChatAppTokenSpec `json:"spec"`

	// status is what the operator last saw. Only the operator writes it.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status WeChatAppTokenStatus `json:"status,omitzero"`
}

// WeChatAppTokenSpec says which token is wanted and where it goes.
//
// +kubebuilder:validation:XValidation:rule="!has(self.tickets) || self.tickets.all(t, !((has(t.key) ? t.key : t.type + '_ticket') in ['expires_at', 'app_id', self.target.accessTokenKey]) && (has(t.key) ? t.key : t.type + '_ticket') + '_expires_at' != self.target.accessTokenKey)",fieldPath=".tickets",message="the key of a ticket, or that key and _expires_at, is one that the token, its expiry or the appid is written under: choose another key for the ticket"
// +kubebuilder:validation:XValidation:rule="!has(self.tickets) || self.tickets.all(t, self.tickets.exists_one(u, (has(u.key) ? u.key : u.type + '_ticket') == (has(t.key) ? t.key : t.type + '_ticket')) && !self.tickets.exists(u, (has(u.key) ? u.key : u.type + '_ticket') + '_expires_at' == (has(t.key) ? t.key : t.type + '_ticket')))",fieldPath=".tickets",message="two tickets would be written under the same key, or one under the key of the other's expiry: give each a key of its own"
type WeChatAppTokenSpec struct {
	// appID is the app's AppID (appid) as WeChat's console shows it: wx and 16
	// lower-case letters or digits. The original ID (gh_…) is something else.
	// +required
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self.matches('^wx[0-9a-z]{16}$')",message="must be an AppID such as wx0123456789abcdef: wx and 16 lower-case letters or digits, without spaces; the original ID (gh_…) is something else"
	AppID string `json:"appID"`

	// credentialsSecretRef names the Secret in this namespace that holds the
	// AppSecret. A change of the Secret is acted on at once.
	// +required
	CredentialsSecretRef CredentialsSecretReference `json:"credentialsSecretRef"`

	// mode chooses WeChat's endpoint. Stable, the default, is right for nearly
	// everybody. Legacy is for apps whose token must come from GET
	// /cgi-bin/token; nothing else may then fetch for this appid.
	// +optional
	// +kubebuilder:default=Stable
	Mode Mode `json:"mode,omitempty"`

	// checkInterval is how often the stored token is checked with WeChat, so that
	// a token replaced by somebody else is noticed. From 30s to 1h, by default 2m;
	// the promise about forced refreshes by others needs at most 2m. A check is
	// one call and, in Stable mode, no request to the API server.
	// +optional
	// +kubebuilder:default="2m"
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(s|m|h)){1,3}$') && duration(self) >= duration('30s') && duration(self) <= duration('1h')",message="must be a duration from 30s to 1h in whole hours, minutes and seconds, such as 90s, 2m or 1h"
	CheckInterval metav1.Duration `json:"checkInterval,omitempty,omitzero"`

	// suspend stops all calls to WeChat and all writes of the target Secret. The
	// token stays as it is and will expire.
	// +optional
	// +kubebuilder:default=false
	Suspend bool `json:"suspend,omitempty"`

	// target describes the Secret that receives the token.
	// +optional
	// +kubebuilder:default={}
	Target TargetSpec `json:"target,omitzero"`

	// tickets are derived from the token and written beside it, at most one of
	// each type. Ready is True only while all of them are valid; a ticket that
	// cannot be had does not hold up the token.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=3
	Tickets []TicketSpec `json:"tickets,omitempty"`
}

// TicketSpec asks for a ticket, which WeChat issues to whoever holds the
// token (GET /cgi-bin/ticket/getticket). Official Accounts have tickets, Mini
// Programs have none.
//
// +kubebuilder:validation:XValidation:rule="(has(self.key) ? self.key : self.type + '_ticket') == (has(oldSelf.key) ? oldSelf.key : oldSelf.type + '_ticket')",fieldPath=".key",message="the key of a ticket is immutable, because pods read the file of that name: create a second WeChatAppToken with the new key, move the pods, then delete this one"
type TicketSpec struct {
	// type of the ticket: jsapi for the JS-SDK of pages that are opened inside
	// WeChat, wx_card for cards, sdk for apps with WeChat's OpenSDK.
	// +required
	Type TicketType `json:"type"`

	// key of the Secret's data, and so the name of the mounted file, that holds
	// the ticket; by default the type and _ticket, such as jsapi_ticket. Immutable
	// while the type is listed. The time until which the ticket is taken to be
	// valid is written beside it, under this key and _expires_at.
	// +optional
	// +kubebuilder:validation:MaxLength=242
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="must be a key of a Secret: letters, digits, '-', '_' and '.', neither '.' nor starting with '..'"
	Key string `json:"key,omitempty"`
}

// CredentialsSecretReference names one key of a Secret in the same namespace.
type CredentialsSecretReference struct {
	// name of the Secret. Its type must be Opaque.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be the name of a Secret: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
	Name string `json:"name"`

	// key of the Secret's data that holds the AppSecret, by default appSecret.
	// White space around the value is ignored.
	// +optional
	// +kubebuilder:default=appSecret
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="must be a key of a Secret: letters, digits, '-', '_' and '.', neither '.' nor starting with '..'"
	Key string `json:"key,omitempty"`
}

// LabelValue is the value of a label.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",message="must be a label value: empty, or at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"
type LabelValue string

// AnnotationValue is the value of an annotation.
// +kubebuilder:validation:MaxLength=4096
type AnnotationValue string

// TargetSpec describes the Secret that receives the token.
type TargetSpec struct {
	// name of the Secret; by default the name of this WeChatAppToken. Immutable.
	// An existing Secret is written only if it carries the annotation
	// wechat.apptoken.dev/adopt with the name and the appID of this
	// WeChatAppToken, such as shop/wx0123456789abcdef.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be a name for a Secret: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit; leave it out for the name of this WeChatAppToken"
	Name string `json:"name,omitempty"`

	// accessTokenKey is the key of the Secret's data, and so the name of the
	// mounted file, that holds the token; by default access_token. Immutable. The
	// keys expires_at and app_id are written beside it.
	// +optional
	// +kubebuilder:default=access_token
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="must be a key of a Secret: letters, digits, '-', '_' and '.', neither '.' nor starting with '..'"
	// +kubebuilder:validation:XValidation:rule="!(self in ['expires_at', 'app_id'])",message="expires_at and app_id are written by the operator beside the token: choose another key"
	AccessTokenKey string `json:"accessTokenKey,omitempty"`

	// labels to set on the Secret, at most 32. Labels that others set there stay;
	// one that is removed here is removed there. Keys under wechat.apptoken.dev/
	// belong to the operator.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('wechat.apptoken.dev/'))",message="keys under wechat.apptoken.dev/ belong to the operator: choose another prefix"
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.indexOf('/') <= 253 && k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="each key must be a label key: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit, with a lower-case DNS name and '/' before it if wanted"
	Labels map[string]LabelValue `json:"labels,omitempty"`

	// annotations to set on the Secret, at most 32, with at most 49152 characters
	// together. Annotations that others set there stay; one that is removed here
	// is removed there. Keys under wechat.apptoken.dev/ belong to the operator.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('wechat.apptoken.dev/'))",message="keys under wechat.apptoken.dev/ belong to the operator: choose another prefix"
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.indexOf('/') <= 253 && k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",message="each key must be an annotation key: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit, with a lower-case DNS name and '/' before it if wanted"
	// +kubebuilder:validation:XValidation:rule="self.map(k, size(k) + size(self[k])).sum() <= 49152",message="all keys and values together may have at most 49152 characters, because Kubernetes limits what a Secret can hold: shorten or remove some"
	Annotations map[string]AnnotationValue `json:"annotations,omitempty"`

	// deletionPolicy says what becomes of the Secret when this WeChatAppToken is
	// deleted: Delete, the default, removes it; Retain leaves it. It has no say in
	// anything else.
	// +optional
	// +kubebuilder:default=Delete
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// delivery says how a new token reaches the pods that mount the Secret.
	// Kubelet, the default, leaves it to the kubelet, which looks about once a
	// minute. Prompt makes it look at once: the operator sets the annotation
	// wechat.apptoken.dev/token-fingerprint on each of these pods, which restarts
	// nothing. It works where the operator runs with --prompt-delivery; elsewhere
	// the condition DeliveryDegraded says so.
	// +optional
	// +kubebuilder:default=Kubelet
	Delivery Delivery `json:"delivery,omitempty"`
}

// WeChatAppTokenStatus is what the operator last saw.
type WeChatAppTokenStatus struct {
	// A time that Go cannot parse, in one object, would stop every informer of
	// this kind, and the API server takes some such times for a date-time. A rule
	// that compares a time refuses them, because CEL cannot parse them either. So
	// would a number that does not fit into an int32: the API server of Kubernetes
	// 1.31 does not look at the format, so each has a minimum and a maximum.

	// observedGeneration is the generation that this status speaks of; -1 before
	// the first result.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions are Ready (the Secret holds a valid token and valid tickets),
	// Reconciling, Stalled, RefreshFailing and DeliveryDegraded.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.lastTransitionTime >= timestamp('0001-01-01T00:00:00Z'))",message="each lastTransitionTime must be a time such as 2026-01-02T15:04:05Z"
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// token describes the token in the Secret, without showing it.
	// +optional
	Token *TokenStatus `json:"token,omitempty"`

	// tickets describes the tickets in the Secret, without showing them.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=3
	Tickets []TicketStatus `json:"tickets,omitempty"`

	// delivery tells which pods were told of the token; absent unless
	// spec.target.delivery is Prompt.
	// +optional
	Delivery *DeliveryStatus `json:"delivery,omitempty"`

	// nextRefreshTime is when the token is due to be replaced. For people; no
	// decision reads it.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	NextRefreshTime *metav1.Time `json:"nextRefreshTime,omitempty"`

	// targetSecretName is the name of the Secret that receives the token.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	TargetSecretName string `json:"targetSecretName,omitempty"`

	// targetResourceVersion is the Secret's resourceVersion after the operator's
	// last write, if the Secret held the token of this status then.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	TargetResourceVersion string `json:"targetResourceVersion,omitempty"`

	// credentialsVersion is <uid>/<resourceVersion> of the credentials Secret
	// with which WeChat last issued a token.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	CredentialsVersion string `json:"credentialsVersion,omitempty"`

	// lastError tells why the last attempt failed; absent when it worked.
	// +optional
	LastError *RefreshError `json:"lastError,omitempty"`

	// handledRequests holds the value of each request annotation that was carried
	// out last.
	// +optional
	HandledRequests *HandledRequests `json:"handledRequests,omitempty"`

	// revocation tells how far a revoke has come; present only while it is half
	// done.
	// +optional
	Revocation *RevocationStatus `json:"revocation,omitempty"`

	// forcedRefreshes are the times within 24 hours at which this resource forced
	// a refresh. WeChat grants 20 a day for an account.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.all(t, t >= timestamp('0001-01-01T00:00:00Z'))",message="each must be a time such as 2026-01-02T15:04:05Z"
	ForcedRefreshes []metav1.Time `json:"forcedRefreshes,omitempty"`
}

// TokenStatus describes a token without showing it.
type TokenStatus struct {
	// mode that issued the token.
	// +optional
	Mode Mode `json:"mode,omitempty"`
	// issueTime is when the call that first returned the token was started.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	IssueTime metav1.Time `json:"issueTime"`
	// expirationTime is when WeChat stops accepting the token.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	ExpirationTime metav1.Time `json:"expirationTime"`
	// fingerprint is the first 16 hex digits of the token's SHA-256. It is empty
	// for a Legacy token that was found in the Secret after a crash, because
	// nobody saw WeChat issue it.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Fingerprint string `json:"fingerprint,omitempty"`
}

// TicketStatus describes a ticket without showing it.
type TicketStatus struct {
	// type of the ticket.
	// +required
	Type TicketType `json:"type"`
	// issueTime is when the operator first saw WeChat return this ticket. WeChat
	// does not say when it issued it.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	IssueTime metav1.Time `json:"issueTime"`
	// expirationTime is until when the ticket is taken to be valid: two hours from
	// issueTime, and longer while WeChat goes on returning it.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	ExpirationTime metav1.Time `json:"expirationTime"`
	// fingerprint is the first 16 hex digits of the ticket's SHA-256.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	Fingerprint string `json:"fingerprint"`
}

// DeliveryStatus tells which of the pods that mount the Secret were told of a
// token or a ticket. The delivery is complete when reached equals pods.
type DeliveryStatus struct {
	// fingerprint of what they were told of: token.fingerprint or, with tickets,
	// one of the token and its tickets.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	Fingerprint string `json:"fingerprint"`
	// pods that mount the Secret in a way that is updated, and are on a node.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	Pods int32 `json:"pods"`
	// reached is how many of them carry the annotation.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	Reached int32 `json:"reached"`
	// time at which the last of them was reached.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	Time metav1.Time `json:"time"`
}

// RefreshError tells why an attempt failed and when the next one follows.
type RefreshError struct {
	// code is WeChat's errcode; absent when WeChat gave none.
	// +optional
	// +kubebuilder:validation:Minimum=-2147483648
	// +kubebuilder:validation:Maximum=2147483647
	Code int32 `json:"code,omitempty"`
	// reason is the same word that the conditions use.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`
	// message says what happened, why, and what to do next.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
	// requestID is the rid of WeChat's answer, which WeChat's support asks for.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	RequestID string `json:"requestID,omitempty"`
	// time of the attempt.
	// +required
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	Time metav1.Time `json:"time"`
	// retryTime is when the next attempt is due. A change of the spec or of the
	// credentials makes one at once.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	RetryTime *metav1.Time `json:"retryTime,omitempty"`
	// attempts that failed in a row for this reason.
	// +optional
	// +kubebuilder:validation:Minimum=-2147483648
	// +kubebuilder:validation:Maximum=2147483647
	Attempts int32 `json:"attempts,omitempty"`
	// generation of the spec that failed.
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// credentialsVersion of the credentials that failed.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	CredentialsVersion string `json:"credentialsVersion,omitempty"`
}

// HandledRequests holds the value of each request annotation that was carried
// out last.
type HandledRequests struct {
	// check is the last handled value of wechat.apptoken.dev/check-requested-at.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Check string `json:"check,omitempty"`
	// refresh is the last handled value of
	// wechat.apptoken.dev/refresh-requested-at.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Refresh string `json:"refresh,omitempty"`
	// revoke is the last handled value of wechat.apptoken.dev/revoke-requested-at.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Revoke string `json:"revoke,omitempty"`
}

// RevocationStatus tells how far a revoke has come. WeChat asks for two forced
// calls, at least 30 seconds apart, to kill a leaked token.
type RevocationStatus struct {
	// value of wechat.apptoken.dev/revoke-requested-at that is being carried out.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Value string `json:"value"`
	// victim is the fingerprint of the leaked token, as in token.fingerprint.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Victim string `json:"victim,omitempty"`
	// firstForcedTime is when the latest forced call was made that another one has
	// to follow; absent while there was none.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self >= timestamp('0001-01-01T00:00:00Z')",message="must be a time such as 2026-01-02T15:04:05Z"
	FirstForcedTime *metav1.Time `json:"firstForcedTime,omitempty"`
}

// TargetName is the name of the Secret that receives the token.
func (t *WeChatAppToken) TargetName() string {
	if t.Spec.Target.Name != "" {
		return t.Spec.Target.Name
	}
	return t.Name
}

// KeyName returns the key of the Secret's data that holds the ticket.
func (t TicketSpec) KeyName() string {
	if t.Key != "" {
		return t.Key
	}
	return string(t.Type) + "_ticket"
}

// ExpiresAtKeyName returns the key of the Secret's data that holds the ticket's
// expiry in RFC 3339, UTC.
func (t TicketSpec) ExpiresAtKeyName() string { return t.KeyName() + "_" + ExpiresAtKey }

// WeChatAppTokenList is a list of WeChatAppTokens.
// +kubebuilder:object:root=true
type WeChatAppTokenList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitzero"`
	Items           []WeChatAppToken `json:"items"`
}
