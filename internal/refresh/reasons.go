// SPDX-License-Identifier: Apache-2.0

package refresh

// Action is what the reconciler does now.
type Action string

const (
	// Wait does nothing until Decision.At.
	Wait Action = "Wait"
	// Issue gets a token the ordinary way: a normal Stable call, or a Legacy mint.
	Issue Action = "Issue"
	// Check asks WeChat about the stored token: a normal Stable call, or a Legacy probe.
	Check Action = "Check"
	// Write stores what is known without calling WeChat.
	Write Action = "Write"
	// FetchTickets gets the tickets that are due, with a token that WeChat accepts.
	FetchTickets Action = "FetchTickets"
	// Force replaces the token on request.
	Force Action = "Force"
	// Revoke makes the next step of a revoke.
	Revoke Action = "Revoke"
	// Decline ends a request without an attempt, because WeChat named a time before which it will not answer.
	Decline Action = "Decline"
)

// Reason names the rule that matched.
type Reason string

// The rules, in the order in which they are tried. The first that matches, and may be carried out now, decides.
const (
	Deleting           Reason = "Deleting"
	Suspended          Reason = "Suspended"
	CredentialsMissing Reason = "CredentialsMissing"
	NotOwner           Reason = "NotOwner"
	TokenUnwritten     Reason = "TokenUnwritten"
	RequestExecutable  Reason = "RequestExecutable"
	TargetMissing      Reason = "TargetMissing"
	AppIDChanged       Reason = "AppIDChanged"
	CredentialsChanged Reason = "CredentialsChanged"
	ModeChanged        Reason = "ModeChanged"
	MemberWaiting      Reason = "MemberWaiting"
	MintUnfinished     Reason = "MintUnfinished"
	TargetTampered     Reason = "TargetTampered"
	TargetOutdated     Reason = "TargetOutdated"
	Expired            Reason = "Expired"
	RefreshDue         Reason = "RefreshDue"
	TicketUnwritten    Reason = "TicketUnwritten"
	BackingOff         Reason = "BackingOff"
	CheckDue           Reason = "CheckDue"
	TicketDue          Reason = "TicketDue"
	UpToDate           Reason = "UpToDate"
)

// FetchReasons returns the rules that may call WeChat.
func FetchReasons() []Reason {
	return []Reason{
		RequestExecutable, TargetMissing, AppIDChanged, CredentialsChanged, ModeChanged, MemberWaiting, MintUnfinished,
		TargetTampered, Expired, RefreshDue, CheckDue, TicketDue,
	}
}
