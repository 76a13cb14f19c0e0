// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// link is one link of the chain by which a token gets from WeChat into pods.
type link struct {
	name  string
	level level
	text  string
}

// The links of the chain, in their order.
const (
	linkCredentials = "credentials"
	linkWeChat      = "WeChat"
	linkSecret      = "Secret"
	linkPods        = "pods"
)

// broken returns the link that keeps the resource from a valid token or from its next one, with the reason. It returns an empty name if
// none does.
func (l look) broken() (name, reason string) {
	switch c := l.tokenFailing(); {
	case c != nil:
		reason = c.Reason
	case l.ready != nil && !l.isReady() && l.lacking() == "":
		reason = l.ready.Reason
	case l.failing != nil:
		return linkWeChat, string(ticketOf(l.failing)) + " ticket: " + l.failing.Reason
	case l.lacking() != "":
		return linkWeChat, string(l.lacking()) + " ticket: " + l.ready.Reason
	default:
		return "", ""
	}
	switch reason {
	case v1alpha1.ReasonCredentialsNotFound, v1alpha1.ReasonCredentialsMalformed, v1alpha1.ReasonAppSecretInvalid:
		return linkCredentials, reason
	case v1alpha1.ReasonTargetConflict, v1alpha1.ReasonTargetTerminating, v1alpha1.ReasonTargetContested,
		v1alpha1.ReasonTargetWriteFailed, v1alpha1.ReasonKubernetesAPIError:
		return linkSecret, reason
	}
	return linkWeChat, reason
}

// chain returns the links from the credentials to the pods, each with a mark.
func (s *story) chain() []link {
	return []link{s.credentialsLink(), s.weChatLink(), s.secretLink(), s.podsLink()}
}

// linkLevel returns the level of a broken link: an error if there is no valid token.
func (s *story) linkLevel() level {
	left, has := s.left()
	if s.tokenValid() && has && left > 0 {
		return levelWarning
	}
	return levelError
}

func (s *story) credentialsLink() link {
	l := link{name: linkCredentials, text: fmt.Sprintf("Secret %s, key %s", s.Spec.CredentialsSecretRef.Name, s.Spec.CredentialsSecretRef.Key)}
	switch name, reason := s.broken(); {
	case name == linkCredentials:
		l.level, l.text = s.linkLevel(), l.text+": "+reason
	case s.Status.CredentialsVersion == "" && s.Status.Token == nil:
		l.level = levelNote
		l.text += ": not accepted by WeChat yet"
	}
	return l
}

func (s *story) weChatLink() link {
	l := link{name: linkWeChat}
	name, reason := s.broken()
	_, has := s.left()
	switch {
	case s.unseen() || s.state() == stateExpired || s.overdue():
		return link{linkWeChat, levelError, "not asked: no operator looks after this resource"}
	case s.Spec.Suspend:
		return link{linkWeChat, levelWarning, "not asked: the resource is suspended"}
	case !has && (name != linkWeChat || reason == v1alpha1.ReasonTokenNotIssued):
		return link{linkWeChat, levelNote, "has issued no token yet"}
	case name == linkWeChat:
		l.level, l.text = s.linkLevel(), reason
	default:
		l.text = "issued the token " + ago(s.Status.Token.IssueTime.Time, s.now)
	}
	if at, retry, known := s.nextAttempt(); known {
		what := ", next refresh "
		if retry {
			what = ", next attempt "
		}
		switch late := s.now.Sub(at); {
		case late <= -time.Second:
			l.text += what + relative(at, s.now)
		case late < lateness:
			l.text += what + "due now"
		default:
			l.level = max(l.level, levelWarning)
			l.text += what + "was due " + ago(at, s.now)
		}
	}
	return l
}

func (s *story) secretLink() link {
	l := link{name: linkSecret, text: fmt.Sprintf("%s, key %s", s.TargetName(), s.Spec.Target.AccessTokenKey)}
	name, reason := s.broken()
	left, has := s.left()
	switch {
	case name == linkSecret:
		l.level, l.text = s.linkLevel(), l.text+": "+reason
	case s.secretUnread:
		l.level, l.text = levelNote, l.text+": not looked at"
	case !s.found:
		l.level, l.text = levelNote, l.text+": does not exist yet"
		if has {
			l.level = levelError
			l.text = fmt.Sprintf("%s, key %s: does not exist", s.TargetName(), s.Spec.Target.AccessTokenKey)
		}
	case !s.owner:
		l.level, l.text = levelWarning, l.text+": not written by this resource"
	case has && left <= 0:
		l.level, l.text = levelError, fmt.Sprintf("%s: the token in it expired %s", l.text, ago(s.Status.Token.ExpirationTime.Time, s.now))
	case has:
		l.text += ", valid for " + countdown(left)
	}
	if s.Spec.Target.DeletionPolicy == v1alpha1.DeletionRetain {
		l.text += "; stays when this resource is deleted"
	}
	return l
}

func (s *story) podsLink() link {
	n, blind, idle := map[string]bool{}, map[string]bool{}, map[string]string{}
	for _, p := range s.pods {
		for _, name := range p.names {
			n[name] = true
			if p.next != "" {
				blind[name] = true
			}
			if p.notRunning != "" {
				idle[name] = p.notRunning
			}
		}
	}
	running, rest, l := plural(len(n), "pod"), "", levelOK
	if len(idle) > 0 {
		reasons := slices.Compact(slices.Sorted(maps.Values(idle)))
		running, l = plural(len(n)-len(idle), "running pod"), levelWarning
		rest = fmt.Sprintf("; %d not running (%s)", len(idle), strings.Join(reasons, ", "))
	}
	switch {
	case s.podsUnread:
		return link{linkPods, levelNote, "not looked at"}
	case len(n) == 0:
		return link{linkPods, levelNote, "none uses Secret " + s.TargetName()}
	case len(blind) > 0:
		return link{linkPods, levelError, fmt.Sprintf("%d of %s will never see a new token", len(blind), plural(len(n), "pod")) + rest}
	case s.degraded != nil:
		return link{linkPods, levelWarning, running + " with the Secret, not told of a new token at once: " + s.degraded.Reason + rest}
	}
	return link{linkPods, l, running + " with the Secret as a volume" + rest}
}

// users is a group of pods with the same controller that use the Secret in the same way.
type users struct {
	use

	workload string
	names    []string
}

// usersOf returns the pods that use the target Secret of a resource, grouped by their controllers.
func (c *cluster) usersOf(ctx context.Context, t *v1alpha1.WeChatAppToken) ([]users, error) {
	var out []users
	targets := map[string]bool{t.TargetName(): true}
	err := c.eachPod(ctx, t.Namespace, func(p *corev1.Pod) {
		for _, u := range usesOf(p, targets) {
			i := slices.IndexFunc(out, func(g users) bool { return g.use == u && g.workload == workload(p) })
			if i < 0 {
				i = len(out)
				out = append(out, users{use: u, workload: workload(p)})
			}
			out[i].names = append(out[i].names, p.Name)
		}
	})
	return out, explain(err, "list pods")
}

// chainTable returns a table with a row for each link.
func (s *story) chainTable() *table {
	t := &table{}
	for _, l := range s.chain() {
		t.add(l.level.mark(), cell{l.name, dim}, cell{text: l.text})
	}
	return t
}

// podTable returns a table with a row for each group of pods that use the Secret.
func (s *story) podTable() *table {
	t := &table{}
	for _, p := range s.pods {
		l, text := p.judge()
		t.add(l.mark(), cell{text: p.workload}, cell{text: plural(len(p.names), "pod")}, cell{text: text})
	}
	return t
}

// judge returns whether a container sees new tokens, and what it does with the Secret.
func (u use) judge() (level, string) {
	l, text := levelOK, u.text
	if u.notRunning != "" {
		l, text = levelWarning, text+"; not running ("+u.notRunning+")"
	}
	if u.next != "" {
		l = levelError
	}
	return l, text
}
