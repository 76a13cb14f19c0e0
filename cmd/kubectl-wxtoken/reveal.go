// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func (a *app) revealCommand() *cobra.Command {
	yes, kind := false, ""
	c := &cobra.Command{
		Use:   "reveal NAME --yes",
		Short: "Print the token, or a ticket",
		Long: `Print the token, and nothing else, to the standard output. Whoever has it can act as the app until it
expires, so it must not get into a log, a shell history or a chat; if it did, "revoke" ends it.

With --ticket print a ticket instead. Whoever has it can sign as the app until it expires, and WeChat has
no way to end it.`,
		Example: `  kubectl wxtoken reveal shop --yes

  kubectl wxtoken reveal shop --ticket=jsapi --yes`,
		Args: oneName, ValidArgsFunction: a.completeNames(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reveal(cmd.Context(), args[0], v1alpha1.TicketType(kind), yes)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "Confirm that it is to be printed.")
	c.Flags().StringVar(&kind, "ticket", "", "Print the ticket of this type instead of the token: jsapi, wx_card or sdk.")
	must(c.RegisterFlagCompletionFunc("ticket", cobra.FixedCompletions(ticketTypes(), cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// revelation is what reveal prints: the token, or a ticket.
type revelation struct {
	what, key string
	// fingerprint and expires are those of the value that the operator wrote; known is false if it wrote none.
	fingerprint string
	expires     time.Time
	known       bool
}

// revealed names what reveal prints: the token, if no type of a ticket is named.
func revealed(kind v1alpha1.TicketType) string {
	if kind == "" {
		return "token"
	}
	return string(kind) + " ticket"
}

// revelation returns what to print of a resource: its token if no type of a ticket is named.
func (l look) revelation(kind v1alpha1.TicketType) (revelation, error) {
	if kind == "" {
		r := revelation{what: revealed(kind), key: l.Spec.Target.AccessTokenKey}
		if k := l.Status.Token; k != nil {
			r.fingerprint, r.expires, r.known = k.Fingerprint, k.ExpirationTime.Time, true
		}
		return r, nil
	}
	for _, t := range l.tickets() {
		if t.Type != kind {
			continue
		}
		r := revelation{what: revealed(kind), key: t.KeyName()}
		if k := t.status; k != nil {
			r.fingerprint, r.expires, r.known = k.Fingerprint, k.ExpirationTime.Time, true
		}
		return r, nil
	}
	return revelation{}, failed("spec.tickets lists the tickets that a Secret holds.", "%s asks for no %s ticket", l.Name, kind)
}

func (a *app) reveal(ctx context.Context, arg string, kind v1alpha1.TicketType, yes bool) error {
	name, err := bareName(arg)
	if err != nil {
		return err
	}
	if kind != "" && !slices.Contains(v1alpha1.TicketTypes(), kind) {
		return usage("--ticket: there is no type %q; the types are jsapi, wx_card and sdk", kind)
	}
	if !yes {
		return usage("the %s of %s was not printed: whoever sees it can act as the app. If you want that, add --yes.", revealed(kind), name)
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	t, err := c.get(ctx, name)
	if err != nil {
		return err
	}
	l := lookAt(t, a.now())
	r, err := l.revelation(kind)
	if err != nil {
		return err
	}
	value, err := c.readTarget(ctx, t, r)
	if err != nil {
		return err
	}
	more := "This tells why:\n  " + a.shell().paste(l.command("status"))
	switch {
	case !r.known || r.fingerprint != "" && r.fingerprint != value.Fingerprint():
		fmt.Fprintf(a.ErrOut, "warning: this is not the %s that the operator wrote; it may be worthless. %s\n", r.what, more)
	case !r.expires.After(l.now):
		fmt.Fprintf(a.ErrOut, "warning: this %s expired %s. %s\n", r.what, ago(r.expires, l.now), more)
	}
	fmt.Fprintln(a.Out, value.Reveal())
	return nil
}

// readTarget reads a token or ticket from the target Secret of a resource. It returns an error if there is none that may be printed.
func (c *cluster) readTarget(ctx context.Context, t *v1alpha1.WeChatAppToken, r revelation) (token.Value, error) {
	more := "This tells why:\n" + commandFor("status", t.Name, t.Namespace)
	secret := &corev1.Secret{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: t.Namespace, Name: t.TargetName()}, secret); apierrors.IsNotFound(err) {
		return token.Value{}, failed(more, "there is no %s: Secret %q does not exist", r.what, t.TargetName())
	} else if err != nil {
		return token.Value{}, explain(err, fmt.Sprintf("read Secret %q", t.TargetName()))
	}
	value := token.NewValue(string(secret.Data[r.key]))
	if value.IsZero() {
		return token.Value{}, failed(more, "there is no %s: Secret %q has no key %q", r.what, t.TargetName(), r.key)
	}
	// Whoever may write the Secret could send escape sequences to the terminal.
	if strings.ContainsFunc(value.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return token.Value{}, failed("This makes the operator repair it:\n"+commandFor("check", t.Name, t.Namespace),
			"the value in Secret %q was not printed: it has characters that no %s has", t.TargetName(), r.what)
	}
	return value, nil
}
