// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// account identifies an appid with its AppSecret, by a fingerprint: it holds neither of them.
type account string

// checkCredentials checks that each AppSecret exists and is well-formed, by the operator's own rules.
func (x *examination) checkCredentials(ctx context.Context, r *report) error {
	well := 0
	for _, t := range x.tokens {
		next, err := x.judgeCredentials(ctx, t)
		switch {
		case err != nil && ctx.Err() != nil:
			return err
		case err != nil && next == "":
			r.gap(err)
		case err != nil:
			x.told[t.fullName()] = true
			r.add(levelError, next, "%s: %v", t.fullName(), err)
		default:
			well++
		}
	}
	if well > 0 || len(x.tokens) == 0 {
		r.add(levelOK, "", "%s with a well-formed AppSecret; only WeChat knows if it is the right one", plural(well, "credentials Secret"))
	}
	return nil
}

// judgeCredentials reads the AppSecret of a resource and returns an error if the operator could not use it, with what to do next. If
// next is empty, the AppSecret could not be read.
func (x *examination) judgeCredentials(ctx context.Context, t look) (next string, err error) {
	ref, secret := t.Spec.CredentialsSecretRef, &corev1.Secret{}
	switch err := x.cluster.Get(ctx, client.ObjectKey{Namespace: t.Namespace, Name: ref.Name}, secret); {
	case apierrors.IsNotFound(err):
		return "This creates it. " + pasteSecret + ":\n" + createCredentials(t.WeChatAppToken),
			fmt.Errorf("credentials Secret %q does not exist", ref.Name)
	case err != nil:
		return "", explain(err, fmt.Sprintf("read credentials Secret %s/%s", t.Namespace, ref.Name))
	}
	value, found := secret.Data[ref.Key]
	appSecret, wellFormed := token.ParseAppSecret(value)
	switch {
	case secret.Type != corev1.SecretTypeOpaque:
		return "Put the AppSecret into a Secret of type Opaque.", fmt.Errorf("credentials Secret %q is of type %q", ref.Name, secret.Type)
	case !found:
		return "Add the key with the AppSecret, or set spec.credentialsSecretRef.key.",
			fmt.Errorf("credentials Secret %q has no key %q", ref.Name, ref.Key)
	case !wellFormed:
		return "It must be 16 to 128 letters and digits: copy it from WeChat's console again.",
			fmt.Errorf("key %q of credentials Secret %q is no AppSecret", ref.Key, ref.Name)
	case x.labelRequired(t) && secret.Labels[v1alpha1.LabelCredentials] != "true":
		return fmt.Sprintf("Its owner must add it:\nkubectl label secret %s -n %s %s=true", ref.Name, t.Namespace, v1alpha1.LabelCredentials),
			fmt.Errorf("credentials Secret %q lacks the label that the operator requires", ref.Name)
	}
	x.accounts[t.fullName()] = account(token.Credentials{AppID: t.Spec.AppID, AppSecret: appSecret}.Fingerprint())
	return "", nil
}

func (x *examination) labelRequired(t look) bool {
	return slices.ContainsFunc(x.operators, func(d appsv1.Deployment) bool {
		return serves(&d, t.WeChatAppToken) && flagOf(&d, "require-credentials-label") == "true"
	})
}

// address matches the IP address that WeChat saw, in the operator's message about it.
var address = regexp.MustCompile(`\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:[0-9a-fA-F]{1,4}:){2,7}[0-9a-fA-F:]*[0-9a-fA-F]\b`)

// lastRefusal returns reason and message of the last call that failed, for the token or, without one, for a ticket.
func (l look) lastRefusal() (reason, message string) {
	if e := l.Status.LastError; e != nil {
		return e.Reason, e.Message
	}
	if ticketOf(l.failing) != "" {
		return l.failing.Reason, l.failing.Message
	}
	return "", ""
}

// checkAddresses reports the addresses that are missing from an IP allowlist.
func (x *examination) checkAddresses(_ context.Context, r *report) error {
	apps, checks := map[string][]string{}, map[string][]look{}
	for _, t := range x.tokens {
		reason, message := t.lastRefusal()
		switch reason {
		case v1alpha1.ReasonIPNotAllowed, v1alpha1.ReasonIPBlocked, v1alpha1.ReasonAdminConfirmationRequired:
			x.told[t.fullName()] = true
			ip := address.FindString(message)
			if ip == "" {
				ip = "the operator's address, which WeChat did not name,"
			}
			checks[ip] = append(checks[ip], t)
			if !slices.Contains(apps[ip], t.Spec.AppID) {
				apps[ip] = append(apps[ip], t.Spec.AppID)
			}
		}
	}
	for _, ip := range slices.Sorted(maps.Keys(apps)) {
		r.add(levelError, "Add it to the IP allowlist in WeChat's console; it works some minutes later. Then:\n"+checkCommands(checks[ip]),
			"WeChat does not allow %s for appid %s", ip, strings.Join(apps[ip], ", "))
	}
	if len(apps) == 0 {
		r.add(levelOK, "", "WeChat refuses no address of the operator; those of your pods are not known here")
	}
	return nil
}

// checkCommands returns a command for each namespace that makes the operator check these resources, one a line.
func checkCommands(tokens []look) string {
	byNamespace := map[string][]string{}
	for _, t := range tokens {
		byNamespace[t.Namespace] = append(byNamespace[t.Namespace], t.Name)
	}
	out := make([]string, 0, len(byNamespace))
	for _, namespace := range slices.Sorted(maps.Keys(byNamespace)) {
		out = append(out, commandFor("check", strings.Join(byNamespace[namespace], " "), namespace))
	}
	return strings.Join(out, "\n")
}

// checkLegacy reports appids with more than one fetcher in Legacy mode, where each fetch ends the token of the others.
func (x *examination) checkLegacy(ctx context.Context, r *report) error {
	byApp := map[string][]look{}
	for _, t := range x.tokens {
		if t.Spec.Mode == v1alpha1.ModeLegacy && t.DeletionTimestamp.IsZero() {
			byApp[t.Spec.AppID] = append(byApp[t.Spec.AppID], t)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byApp)) {
		x.checkLegacyApp(id, byApp[id], r)
	}
	if err := x.checkForeignFetchers(ctx, r); err != nil {
		r.gap(err)
	}
	if len(r.findings) == 0 {
		r.add(levelOK, "", "no appid has more than one fetcher")
	}
	return nil
}

func (x *examination) checkLegacyApp(id string, tokens []look, r *report) {
	if len(tokens) < 2 {
		return
	}
	secrets, operators := map[account]bool{}, map[string]bool{}
	for _, t := range tokens {
		if a, known := x.accounts[t.fullName()]; known {
			secrets[a] = true
		}
		for i := range x.operators {
			if d := &x.operators[i]; serves(d, t.WeChatAppToken) {
				operators[d.Namespace+"/"+d.Name] = true
			}
		}
	}
	switch {
	case len(secrets) > 1:
		r.add(levelError, "Write the current AppSecret into all of their credentials Secrets, or use mode Stable.",
			"appid %s is used in Legacy mode by %s with different AppSecrets, so each fetches and ends the other's token", id, names(tokens))
	case len(operators) > 1:
		r.add(levelError, "Let one operator serve all of them, or use mode Stable.",
			"appid %s is used in Legacy mode by %s, which several operators serve: each fetches and ends the other's token", id, names(tokens))
	default:
		r.add(levelNote, "", "appid %s is used in Legacy mode by %s: one of them fetches for all", id, names(tokens))
	}
}

func (x *examination) checkForeignFetchers(ctx context.Context, r *report) error {
	l := &corev1.EventList{}
	err := x.cluster.List(ctx, l, client.InNamespace(x.namespace), client.MatchingFields{
		"involvedObject.kind": v1alpha1.Kind, "reason": v1alpha1.EventForeignFetcher,
	})
	if err != nil {
		return explain(err, "list events")
	}
	for i := range l.Items {
		e := &l.Items[i]
		r.add(levelWarning, "Find and stop what else calls GET /cgi-bin/token, or use mode Stable.",
			"%s/%s, %s: %s", e.InvolvedObject.Namespace, e.InvolvedObject.Name, ago(eventMoment(e).at, x.now()), e.Message)
	}
	return nil
}
