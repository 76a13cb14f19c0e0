// SPDX-License-Identifier: Apache-2.0

// Package report turns what a pass saw and decided into the status of a resource, its conditions and its events. It does no I/O and
// judges nothing: whether a token is valid and which problem is told first is part of the decision (package refresh).
package report

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/account"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
)

// Observation is everything that a pass knows about a resource at one moment. It is made whole, or not at all, and holds neither an
// AppSecret nor a token.
type Observation struct {
	// Inputs is what the decision depends on.
	refresh.Inputs

	// Now is WeChat's time of the observation.
	Now time.Time
	// Resource has the status that was written last.
	Resource *v1alpha1.WeChatAppToken

	CredentialsSecret CredentialsSecret

	// Secret is the metadata of the target; nil if it does not exist. Nobody may change it.
	Secret *metav1.PartialObjectMetadata
	// SecretIsLatest reports that Secret comes from the API server, by a read or a write of this pass.
	SecretIsLatest bool

	Record    target.Record
	Ownership target.Ownership
	Holding   target.Holding
	// Unanswered is the mark on the Secret of a mint that may have happened, and Intent what is known of the marks.
	Unanswered account.Mark
	Intent     account.Intent
	// Stored is the token that the target holds, or ought to hold; the zero value for none.
	Stored target.Token
	// WrittenVersion is the target's resourceVersion after the last write of this process; empty if it wrote none.
	WrittenVersion string
	Metadata       Metadata

	// Failed is what the last attempt ended with; nil when it worked.
	Failed *Failure
	// Progress is how far requests have come, and Ended what was found to have ended since the last pass.
	Progress Progress
	Ended    []Outcome
	Delivery Delivery
}

// CredentialsSecret is what is known of the credentials Secret.
type CredentialsSecret struct {
	// Version is <uid>/<resourceVersion>; empty if the Secret does not exist. Accepted is the version with which WeChat last issued a
	// token.
	Version, Accepted string
	// Problem is the reason of the condition, and Message what to do; empty if the AppSecret can be used.
	Problem, Message string
}

// Failure is a failed attempt, with what a status says about it.
type Failure struct {
	refresh.Failure

	Message   string
	RequestID string
	// Generation of the spec, and version and account of the credentials that failed. The account is the HMAC of the AppSecret;
	// empty if it is not known, because the failure was read from a status.
	Generation         int64
	CredentialsVersion string
	Account            string
}

// WithAccount returns a copy of f with the account that failed.
func (f *Failure) WithAccount(key string) *Failure {
	named := *f
	named.Account = key
	return &named
}

// Progress is how far requests have come. A status keeps it.
type Progress struct {
	Handled    v1alpha1.HandledRequests
	Revocation *v1alpha1.RevocationStatus
	// Forced are the times of this resource's forced calls and requested mints.
	Forced []time.Time
}

// Delivery is how far pods were told of the stored token.
type Delivery struct {
	// Wanted reports that the spec asks for prompt delivery, Disabled that the operator runs without it.
	Wanted, Disabled bool
	// Known reports that an attempt for the stored token has ended; the rest is its outcome.
	Known bool
	// Counted reports that the pods could be listed.
	Counted       bool
	Pods, Reached int
	At            time.Time
	// Reason and Message say why the delivery is not complete; empty when it is.
	Reason, Message string
}

// Member describes the observed resource to the other members of its account.
func (o *Observation) Member() account.Member {
	r := o.Resource
	m := account.Member{
		UID: r.UID, Name: types.NamespacedName{Namespace: r.Namespace, Name: r.Name}, Created: r.CreationTimestamp.Time,
		Receives: !o.Suspended && !o.Deleting && !o.Target.Conflict && !o.Target.Terminating && !o.Credentials.Missing,
	}
	m.Fetches = m.Receives
	if f := o.Failure; f != nil && f.Binds {
		unable := f.OfWrite || f.Reason == v1alpha1.ReasonAppSecretInvalid || f.Reason == v1alpha1.ReasonAppIDInvalid
		m.Fetches = m.Fetches && !unable
	}
	if o.Requests.Refresh {
		m.Refresh = o.Requested(refresh.RequestRefresh)
	}
	return m
}
