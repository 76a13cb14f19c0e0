// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

func (a *app) revealCommand() *cobra.Command {
	yes := false
	c := &cobra.Command{
		Use:   "reveal NAME --yes",
		Short: "Print the token",
		Long: `Print the token, and nothing else, to the standard output. Whoever has it can act as the app until it
expires, so it must not get into a log, a shell history or a chat; if it did, "revoke" ends it.`,
		Example: "  kubectl wxtoken reveal shop --yes",
		Args:    oneName, ValidArgsFunction: a.completeNames(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.reveal(cmd.Context(), args[0], yes) },
	}
	c.Flags().BoolVar(&yes, "yes", false, "Confirm that the token is to be printed.")
	return c
}

func (a *app) reveal(ctx context.Context, arg string, yes bool) error {
	name, err := bareName(arg)
	if err != nil {
		return err
	}
	if !yes {
		return usage("the token of %s was not printed: whoever sees it can act as the app. If you want that, add --yes.", name)
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
	more := fmt.Sprintf("kubectl wxtoken status %s -n %s tells why.", name, t.Namespace)
	secret := &corev1.Secret{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: t.Namespace, Name: t.TargetName()}, secret); apierrors.IsNotFound(err) {
		return failed(more, "there is no token: Secret %q does not exist", t.TargetName())
	} else if err != nil {
		return explain(err, fmt.Sprintf("read Secret %q", t.TargetName()))
	}
	tok := token.NewValue(string(secret.Data[t.Spec.Target.AccessTokenKey]))
	if tok.IsZero() {
		return failed(more, "there is no token: Secret %q has no key %q", t.TargetName(), t.Spec.Target.AccessTokenKey)
	}
	// Whoever may write the Secret could send escape sequences to the terminal.
	if strings.ContainsFunc(tok.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return failed(fmt.Sprintf("kubectl wxtoken check %s -n %s makes the operator repair it.", name, t.Namespace),
			"the value in Secret %q was not printed: it has characters that no token has", t.TargetName())
	}
	k := t.Status.Token
	switch left, has := l.left(); {
	case !has || k.Fingerprint != "" && k.Fingerprint != tok.Fingerprint():
		fmt.Fprintf(a.ErrOut, "warning: this is not the token that the operator wrote; it may be worthless. %s\n", more)
	case left <= 0:
		fmt.Fprintf(a.ErrOut, "warning: this token expired %s. %s\n", ago(k.ExpirationTime.Time, l.now), more)
	}
	fmt.Fprintln(a.Out, tok.Reveal())
	return nil
}
