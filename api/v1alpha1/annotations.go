// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// AnnotationPrefix starts every label and annotation key that belongs to the operator.
const AnnotationPrefix = GroupName + "/"

// Requests: annotations that a person or a pipeline sets on a WeChatAppToken. Each
// new value makes one attempt and is then recorded in status.handledRequests. A
// timestamp is a good value. At most RequestValueMaxLength characters.
const (
	// AnnotationCheckRequestedAt asks for a check of the stored token with WeChat.
	AnnotationCheckRequestedAt = AnnotationPrefix + "check-requested-at"
	// AnnotationRefreshRequestedAt asks for a new token now. It spends one of the 20
	// forced refreshes that WeChat grants an account each day, unless WeChat already
	// has a newer token than the Secret.
	AnnotationRefreshRequestedAt = AnnotationPrefix + "refresh-requested-at"
	// AnnotationRevokeRequestedAt asks to kill a leaked token: two forced calls at
	// least 30 seconds apart, as WeChat documents.
	AnnotationRevokeRequestedAt = AnnotationPrefix + "revoke-requested-at"

	// AnnotationRotateKeyRequestedAt on a WeChatAppClient asks for a new key; the one
	// before goes on for spec.key.overlap.
	AnnotationRotateKeyRequestedAt = AnnotationPrefix + "rotate-key-requested-at"
	// AnnotationRevokeKeyRequestedAt on a WeChatAppClient asks to end its keys, and the
	// tokens that were bought with them, at once.
	AnnotationRevokeKeyRequestedAt = AnnotationPrefix + "revoke-key-requested-at"

	// RequestValueMaxLength is the longest request value that is carried out.
	RequestValueMaxLength = 64
)

// Keys that the operator reads on Secrets, set by the Secret's owner.
const (
	// AnnotationAdopt on an existing Secret consents that a WeChatAppToken writes its
	// token into it. The value is "<resource name>/<appid>".
	AnnotationAdopt = AnnotationPrefix + "adopt"
	// LabelCredentials with the value "true" marks a Secret as WeChat credentials. It is
	// required only where the operator runs with --require-credentials-label.
	LabelCredentials = AnnotationPrefix + "credentials"
)

// Keys that the operator writes on target Secrets. They let a fresh process schedule
// without reading the data. They are hints and never proof: whoever may edit the
// Secret may edit them.
const (
	// LabelManagedBy marks a target Secret; its value is ManagedByValue.
	LabelManagedBy = AnnotationPrefix + "managed-by"
	ManagedByValue = "wechat-token-operator"

	// AnnotationOwnerUID and AnnotationOwnerName tell whose token the Secret holds.
	AnnotationOwnerUID  = AnnotationPrefix + "owner-uid"
	AnnotationOwnerName = AnnotationPrefix + "owner-name"
	// AnnotationOwnerKind is the owner's kind where that is no WeChatAppToken: a
	// Secret with the key of a WeChatAppClient says so.
	AnnotationOwnerKind = AnnotationPrefix + "owner-kind"
	// AnnotationDeletionPolicy repeats spec.target.deletionPolicy.
	AnnotationDeletionPolicy = AnnotationPrefix + "deletion-policy"
	// AnnotationAppID and AnnotationMode tell what the token was issued for, and how.
	AnnotationAppID = AnnotationPrefix + "app-id"
	AnnotationMode  = AnnotationPrefix + "mode"
	// AnnotationIssuedAt and AnnotationExpiresAt are RFC 3339 times in UTC.
	AnnotationIssuedAt  = AnnotationPrefix + "issued-at"
	AnnotationExpiresAt = AnnotationPrefix + "expires-at"
	// AnnotationTokenFingerprint is the first 16 hex digits of the token's SHA-256. With
	// prompt delivery it is also set on the pods that mount the Secret.
	AnnotationTokenFingerprint = AnnotationPrefix + "token-fingerprint"
	// AnnotationCredentialsFingerprint is the first 16 hex digits of the HMAC-SHA256,
	// keyed by the AppSecret, over the appid.
	AnnotationCredentialsFingerprint = AnnotationPrefix + "credentials-fingerprint"
	// AnnotationAppliedMetadata lists the keys of spec.target.labels and
	// spec.target.annotations and the types and keys of spec.tickets that were set,
	// so that those the spec drops can go.
	AnnotationAppliedMetadata = AnnotationPrefix + "applied-metadata"
	// AnnotationMintStarted marks a Legacy mint whose result is not written yet:
	// <time>/<random id>.
	AnnotationMintStarted = AnnotationPrefix + "mint-started"
)

// Keys of the data of a WeChatAppClient's Secret, besides AppIDKey. They are named
// as SDKs name their settings.
const (
	// AppSecretKey holds the client's key, which takes the place of the AppSecret.
	AppSecretKey = "app_secret"
	// PreviousAppSecretKey holds the key before the last rotation, while tokens that
	// were bought with it may be in use.
	PreviousAppSecretKey = "previous_app_secret"
	// HostKey holds the URL of the gateway.
	HostKey = "host"
	// CAKey holds the certificate authorities of the gateway, if these are private.
	CAKey = "ca.crt"
)

// Keys of the target Secret's data besides spec.target.accessTokenKey.
const (
	DefaultAccessTokenKey = "access_token"
	// ExpiresAtKey holds the token's expiry in RFC 3339, UTC.
	ExpiresAtKey = "expires_at"
	// AppIDKey holds the appid.
	AppIDKey = "app_id"
)
