// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
)

// requested returns the value of the annotation that makes a request of this kind.
func (l look) requested(kind refresh.RequestKind) string {
	return l.Annotations[request.Annotation(kind)]
}

// handled returns the last value of that annotation that was processed.
func (l look) handled(kind refresh.RequestKind) string {
	if l.Status.HandledRequests == nil {
		return ""
	}
	return *request.Handled(l.Status.HandledRequests, kind)
}

// requests returns a table of the requests that the annotations hold, and their progress.
func (s *story) requests() *table {
	t := &table{}
	for _, kind := range [...]refresh.RequestKind{refresh.RequestCheck, refresh.RequestRefresh, refresh.RequestRevoke} {
		wanted := s.requested(kind)
		if wanted == "" {
			continue
		}
		c := cell{text: s.requestState(kind, wanted)}
		if wanted != s.handled(kind) {
			c.color = yellow
		}
		t.add(cell{string(kind), dim}, cell{text: clean(wanted)}, c)
	}
	return t
}

func (s *story) requestState(kind refresh.RequestKind, wanted string) string {
	switch {
	case wanted == s.handled(kind):
		return "processed"
	case len(wanted) > v1alpha1.RequestValueMaxLength:
		return "ignored: the value is longer than 64 characters"
	case s.Spec.Suspend:
		return "waits until the resource is resumed"
	case kind == refresh.RequestRevoke && !s.secondForcedCall(wanted).IsZero():
		return "half done: the second forced call is due " + relative(s.secondForcedCall(wanted), s.now)
	}
	if at := s.allowedAt(kind); at.After(s.now) {
		return "waits until " + stamp(at) + ": " + s.limits()
	}
	return "waits for the operator"
}

// secondForcedCall returns when the second forced call of a revoke is due; zero if the first one was not made.
func (l look) secondForcedCall(value string) time.Time {
	r := l.Status.Revocation
	if r == nil || r.Value != value || r.FirstForcedTime == nil {
		return time.Time{}
	}
	return r.FirstForcedTime.Add(refresh.RevokeSpacing)
}

// allowedAt returns when the limits on forced calls, or on mints of Legacy mode, allow a request. It counts the calls of this resource
// only, although the limits hold for the account, which may have others.
func (l look) allowedAt(kind refresh.RequestKind) time.Time {
	calls := map[refresh.RequestKind]int{refresh.RequestRefresh: 1, refresh.RequestRevoke: 2}[kind]
	if calls == 0 {
		return time.Time{}
	}
	if l.Spec.Mode == v1alpha1.ModeStable {
		return refresh.ForcedAt(l.now, l.forced(), calls, refresh.ForcedSpacing)
	}
	at := refresh.ForcedAt(l.now, l.forced(), calls, 0)
	if k := l.Status.Token; k != nil && kind == refresh.RequestRefresh {
		at = refresh.Later(at, k.IssueTime.Add(refresh.RefreshAfterMint))
	}
	return at
}

// limits says what allowedAt follows from.
func (l look) limits() string {
	if l.Spec.Mode == v1alpha1.ModeStable {
		return fmt.Sprintf("WeChat's limits (%s between forced calls, %d in 24 hours)", short(refresh.ForcedSpacing), refresh.ForcedPerDay)
	}
	return fmt.Sprintf("the limits of Legacy mode (%s after the last mint, %d on request in 24 hours)",
		short(refresh.RefreshAfterMint), refresh.ForcedPerDay)
}

// advice returns what a person should do, the most urgent first. See paste.go for its form.
func (s *story) advice() []string {
	out := append(s.stateAdvice(), s.otherAdvice()...)
	if len(out) == 0 {
		out = append(out, "Nothing. The operator replaces the token in time.")
		if s.found && !s.podsUnread && len(s.pods) == 0 {
			out = append(out, fmt.Sprintf("To use it, mount Secret %s as a volume in your pods; none does yet.", s.TargetName()))
		}
	}
	return out
}

// stateAdvice returns what to do about the state.
func (s *story) stateAdvice() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch s.state() {
	case stateDeleting:
		add("The resource is being deleted. If it stays, something has put a finalizer on it. This shows it:\n"+
			"kubectl get wxtoken %s -n %s -o yaml", s.Name, s.Namespace)
	case stateUnanswered:
		if s.unseen() {
			add("No operator has seen this resource. This tells whether one runs and serves this namespace:\n%s", s.doctorCommand())
		} else {
			add("Wait a moment:\n%s", s.command("wait"))
		}
	case stateExpired:
		add("Find out why no operator runs:\n%s", s.doctorCommand())
	case stateSuspended:
		add("%s", s.suspendAdvice())
	case stateRefreshFailing, stateStalled, stateReconciling:
		if s.lacking() != "" {
			out = append(out, s.ticketAdvice()...)
		} else {
			out = append(out, s.failureAdvice()...)
		}
	case stateReady:
	}
	return out
}

// otherAdvice returns what to do besides, whatever the state.
func (s *story) otherAdvice() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if s.overdue() && s.state() != stateExpired {
		add("The refresh is overdue and the status gives no reason. This tells whether an operator runs:\n%s", s.doctorCommand())
	}
	if n := len(s.forced()); n >= refresh.ForcedPerDay-5 && s.Spec.Mode == v1alpha1.ModeStable {
		add("Only %d forced calls are left for today: keep them for a revoke.", refresh.ForcedPerDay-n)
	}
	if s.degraded != nil {
		add("Pods are not told of a new token at once: %s.", clean(s.degraded.Message))
	}
	for _, p := range s.pods {
		switch {
		case p.next != "":
			add("%s: %s. %s", p.workload, clean(p.text), p.next)
		case p.notRunning != "":
			add("%s: %s not running (%s). This shows why:\nkubectl describe pod %s -n %s",
				p.workload, plural(len(p.names), "pod"), p.notRunning, p.names[0], s.Namespace)
		}
	}
	return slices.Compact(out) // two containers of a pod may say the same
}

func (s *story) suspendAdvice() string {
	if left, has := s.left(); has && left > 0 {
		return fmt.Sprintf("Nobody replaces the token, and it expires in %s. If that is not wanted:\n%s", countdown(left), s.command("resume"))
	}
	return "There is no valid token, and nobody fetches one. If that is not wanted:\n" + s.command("resume")
}

func (s *story) failureAdvice() []string {
	if s.isReady() && s.tokenFailing() == nil {
		return s.ticketAdvice()
	}
	reason, message := s.reason(), s.message()
	if f := s.tokenFailing(); f != nil {
		message = f.Message
		if s.tokenValid() {
			reason = f.Reason
		}
	}
	message = clean(sentence(message))
	var out []string
	left, has := s.left()
	switch {
	case s.tokenValid() && has && left > 0:
		out = append(out, fmt.Sprintf("The token works for another %s, but cannot be replaced: %s", countdown(left), message))
	default:
		out = append(out, message)
	}
	return append(out, s.afterRepair(reason))
}

// afterRepair says what follows once the cause of a failure is gone.
func (s *story) afterRepair(reason string) string {
	switch reason {
	case v1alpha1.ReasonUnreachable, v1alpha1.ReasonSystemBusy, v1alpha1.ReasonRateLimited, v1alpha1.ReasonBadResponse,
		v1alpha1.ReasonTokenNotIssued, v1alpha1.ReasonTokenExpired, v1alpha1.ReasonTargetTerminating,
		v1alpha1.ReasonTicketNotIssued, v1alpha1.ReasonTicketExpired, v1alpha1.ReasonKubernetesAPIError:
		return "The operator goes on trying by itself."
	case v1alpha1.ReasonCredentialsNotFound: // or of the wrong type, or without the label, which the message says
		return actsAtOnce + " If the Secret or its key is missing, this writes it. " + pasteSecret + ":\n" + writeCredentials(s.WeChatAppToken)
	case v1alpha1.ReasonCredentialsMalformed, v1alpha1.ReasonAppSecretInvalid:
		return actsAtOnce + " This writes the AppSecret into it. " + pasteSecret + ":\n" + writeCredentials(s.WeChatAppToken)
	}
	return "Once that is done you need not wait for the next attempt:\n" + s.command("check")
}

const (
	actsAtOnce = "The operator acts on a change of the credentials Secret at once."
	// pasteSecret says how to answer the commands of createCredentials and writeCredentials.
	pasteSecret = "Paste the AppSecret, press Enter and Ctrl-D"
)

// createCredentials returns the command that creates the credentials Secret of a resource. It reads the AppSecret from the terminal, so
// that it gets into no shell history.
func createCredentials(t *v1alpha1.WeChatAppToken) string {
	ref := t.Spec.CredentialsSecretRef
	key := ref.Key
	if key == "" {
		key = defaultCredentialsKey
	}
	return fmt.Sprintf("kubectl create secret generic %s -n %s --from-file=%s=/dev/stdin", ref.Name, t.Namespace, key)
}

// writeCredentials returns the command that writes the AppSecret into the credentials Secret of a resource, whether that exists or not.
// It applies server-side, because a client-side apply would leave a copy of the AppSecret in an annotation.
func writeCredentials(t *v1alpha1.WeChatAppToken) string {
	return createCredentials(t) + " --dry-run=client -o yaml | kubectl apply --server-side --force-conflicts -f -"
}
