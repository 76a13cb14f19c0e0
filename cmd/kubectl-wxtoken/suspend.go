// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func (a *app) suspendCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "suspend NAME...",
		Short: "Stop all calls to WeChat and all writes of the Secret",
		Long: `Stop all calls to WeChat and all writes of the Secret, by spec.suspend. The token stays as it is and
expires.

If Argo CD or Flux applies the resource, set spec.suspend in Git instead, or they undo it.`,
		Example: "  kubectl wxtoken suspend shop",
		Args:    someNames, ValidArgsFunction: a.completeNames(0),
		RunE: func(cmd *cobra.Command, args []string) error { return a.setSuspend(cmd.Context(), args, true) },
	}
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "resume NAME...",
		Short:   "End a suspension",
		Example: "  kubectl wxtoken resume shop && kubectl wxtoken wait shop",
		Args:    someNames, ValidArgsFunction: a.completeNames(0),
		RunE: func(cmd *cobra.Command, args []string) error { return a.setSuspend(cmd.Context(), args, false) },
	}
}

func (a *app) setSuspend(ctx context.Context, args []string, suspend bool) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	var errs []error
	for _, arg := range args {
		if err := a.setSuspendOf(ctx, c, arg, suspend); err != nil {
			errs = append(errs, err)
		}
	}
	return joinErrors(errs)
}

func (a *app) setSuspendOf(ctx context.Context, c *cluster, arg string, suspend bool) error {
	name, err := bareName(arg)
	if err != nil {
		return err
	}
	t, err := c.get(ctx, name)
	if err != nil {
		return err
	}
	word := map[bool]string{true: "suspended", false: "resumed"}[suspend]
	if t.Spec.Suspend == suspend {
		fmt.Fprintf(a.Out, "%s: nothing to do, it is %s\n", name, map[bool]string{true: "suspended already", false: "not suspended"}[suspend])
		return nil
	}
	if err := c.patch(ctx, t, func(t *v1alpha1.WeChatAppToken) { t.Spec.Suspend = suspend }); err != nil {
		return err
	}
	l := lookAt(t, a.now())
	after := ""
	switch left, has := l.left(); {
	case suspend && has && left > 0:
		after = fmt.Sprintf("; nobody replaces the token, which expires in %s", countdown(left))
	case !suspend:
		after = "; this waits for a valid token:\n  " + a.shell().paste(l.command("wait"))
	}
	fmt.Fprintf(a.Out, "%s: %s%s\n", name, a.paint.in(green, word), after)
	if tool := gitOps(t); tool != "" {
		fmt.Fprintf(a.ErrOut, "%s: %s applies this resource and will undo it: set spec.suspend in Git too\n", name, tool)
	}
	return nil
}

// gitOps returns the name of the tool that applies a resource from Git, which it finds by the tool's labels and annotations. It
// returns an empty string if there is none.
func gitOps(t *v1alpha1.WeChatAppToken) string {
	switch {
	case t.Annotations["argocd.argoproj.io/tracking-id"] != "" || t.Labels["argocd.argoproj.io/instance"] != "":
		return "Argo CD"
	case t.Labels["kustomize.toolkit.fluxcd.io/name"] != "":
		return "Flux's Kustomization " + t.Labels["kustomize.toolkit.fluxcd.io/name"]
	case t.Labels["helm.toolkit.fluxcd.io/name"] != "":
		return "Flux's HelmRelease " + t.Labels["helm.toolkit.fluxcd.io/name"]
	}
	return ""
}
