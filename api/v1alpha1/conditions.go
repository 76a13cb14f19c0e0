// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types. Ready is always present after the first result; the others are
// present only while they are True (kstatus conventions).
const (
	// ConditionReady: the target Secret holds a token that is valid now, and so are all tickets that the spec asks for.
	ConditionReady = "Ready"
	// ConditionReconciling: not Ready yet, and the operator expects to get there alone.
	ConditionReconciling = "Reconciling"
	// ConditionStalled: not Ready, and somebody has to act.
	ConditionStalled = "Stalled"
	// ConditionRefreshFailing: the last attempt to get or store a token failed. The
	// token in the Secret may well be valid still; Ready tells.
	ConditionRefreshFailing = "RefreshFailing"
	// ConditionDeliveryDegraded: spec.target.delivery is Prompt, and pods are not told of
	// a new token. They get it the usual way; Ready does not depend on it.
	ConditionDeliveryDegraded = "DeliveryDegraded"
)

// Reasons of the conditions that do not come from an answer of WeChat.
const (
	ReasonTokenValid   = "TokenValid"
	ReasonTokenExpired = "TokenExpired"
	// ReasonTokenNotIssued: no token has been stored yet.
	ReasonTokenNotIssued = "TokenNotIssued"

	// ReasonTicketNotIssued: the token is valid, and a ticket that the spec asks for has not been stored yet.
	ReasonTicketNotIssued = "TicketNotIssued"
	// ReasonTicketExpired: the token is valid, and WeChat has not returned the stored ticket for too long.
	ReasonTicketExpired = "TicketExpired"

	// ReasonCredentialsNotFound: the credentials Secret or its key does not exist, is not
	// of type Opaque, or lacks the label that this operator requires.
	ReasonCredentialsNotFound = "CredentialsNotFound"
	// ReasonCredentialsMalformed: the value is no AppSecret.
	ReasonCredentialsMalformed = "CredentialsMalformed"

	// ReasonTargetConflict: the target Secret is not ours to write.
	ReasonTargetConflict = "TargetConflict"
	// ReasonTargetTerminating: the target Secret waits to be collected.
	ReasonTargetTerminating = "TargetTerminating"
	// ReasonTargetContested: somebody keeps rewriting the target Secret.
	ReasonTargetContested = "TargetContested"
	// ReasonTargetWriteFailed: the API server refuses the write of the target Secret.
	ReasonTargetWriteFailed = "TargetWriteFailed"

	// ReasonKubernetesAPIError: the API server could not be read for 60 seconds.
	ReasonKubernetesAPIError = "KubernetesAPIError"
)

// Reasons of DeliveryDegraded.
const (
	// ReasonPromptDeliveryDisabled: the operator runs without --prompt-delivery, or no admission policy confines what it changes on pods.
	ReasonPromptDeliveryDisabled = "PromptDeliveryDisabled"
	// ReasonPodsForbidden: the operator may not list the pods, or not annotate them.
	ReasonPodsForbidden = "PodsForbidden"
	// ReasonPodsNotReached: some or all pods could not be annotated.
	ReasonPodsNotReached = "PodsNotReached"
)

// Reasons that stand for an answer of WeChat, or for the lack of one.
const (
	// ReasonSystemBusy: WeChat answered that it is busy.
	ReasonSystemBusy = "SystemBusy"
	// ReasonUnreachable: there was no answer, or an HTTP status of 500 or more.
	ReasonUnreachable = "Unreachable"
	// ReasonBadResponse: the answer is not one of WeChat's. It may be a redirect or no JSON, or fields may be missing or malformed.
	ReasonBadResponse = "BadResponse"
	// ReasonRequestRejected: WeChat answered with an errcode that the operator does not know, or that means that something changed the
	// request on the way.
	ReasonRequestRejected = "RequestRejected"

	ReasonRateLimited               = "RateLimited"
	ReasonDailyQuotaExhausted       = "DailyQuotaExhausted"
	ReasonIPBlocked                 = "IPBlocked"
	ReasonAppSecretInvalid          = "AppSecretInvalid"
	ReasonAppIDInvalid              = "AppIDInvalid"
	ReasonIPNotAllowed              = "IPNotAllowed"
	ReasonAdminConfirmationRequired = "AdminConfirmationRequired"
	ReasonAppSecretFrozen           = "AppSecretFrozen"
	ReasonAccountRestricted         = "AccountRestricted"
	ReasonUnsupportedAccount        = "UnsupportedAccount"
)

// Reasons of the conditions of a WeChatAppClient.
const (
	// ReasonClientReady: the client can call.
	ReasonClientReady = "ClientReady"
	// ReasonTokenNotFound: the WeChatAppToken does not exist.
	ReasonTokenNotFound = "TokenNotFound"
	// ReasonKeySecretConflict: the Secret for the key is not ours to write.
	ReasonKeySecretConflict = "KeySecretConflict"
	// ReasonKeySecretWriteFailed: the API server does not take the Secret for the key.
	ReasonKeySecretWriteFailed = "KeySecretWriteFailed"
	// ReasonCredentialsNotLabelled: spec.login needs the label on the credentials Secret.
	ReasonCredentialsNotLabelled = "CredentialsNotLabelled"
	// ReasonGatewayNotInstalled: the operator runs without --gateway-url, or could not read --gateway-ca-file yet.
	ReasonGatewayNotInstalled = "GatewayNotInstalled"
	// ReasonSuspended: the client is suspended.
	ReasonSuspended = "Suspended"
)

// Reasons of events. The ordinary path (first issue, rotation, check) sends none.
const (
	EventRefreshFailed    = "RefreshFailed"
	EventRecovered        = "Recovered"
	EventRequestedCheck   = "RequestedCheck"
	EventRequestedRefresh = "RequestedRefresh"
	EventRequestedRevoke  = "RequestedRevoke"
	EventForeignFetcher   = "ForeignFetcher"
	EventTargetConflict   = "TargetConflict"
	EventTargetContested  = "TargetContested"
)

// Reasons of events about a WeChatAppClient. The first key sends none.
const (
	// EventKeyRotated: programs that read the Secret before must restart.
	EventKeyRotated = "KeyRotated"
	EventKeyRevoked = "KeyRevoked"
	// EventKeyRepaired: somebody changed or deleted the Secret.
	EventKeyRepaired       = "KeyRepaired"
	EventKeySecretConflict = "KeySecretConflict"
)
