// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) waitCommand() *cobra.Command {
	timeout := time.Minute
	c := &cobra.Command{
		Use:   "wait NAME...",
		Short: "Wait until the Secret holds a valid token, and valid tickets",
		Long: fmt.Sprintf(`Wait until the Secret holds a valid token for the spec as it is now, and the tickets that it asks for.
Unlike "kubectl wait" it gives up at once, with exit code %d, when somebody has to act first, and says
what to do.`, exitBad),
		Example: "  kubectl apply -f token.yaml && kubectl wxtoken wait shop",
		Args:    someNames, ValidArgsFunction: a.completeNames(0),
		RunE: func(cmd *cobra.Command, args []string) error { return a.wait(cmd.Context(), args, timeout) },
	}
	c.Flags().DurationVar(&timeout, "timeout", timeout, "How long to wait for all of them together.")
	return c
}

func (a *app) wait(ctx context.Context, args []string, timeout time.Duration) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	ctx, late, end := withPatience(ctx, timeout)
	defer end()
	var errs []error
	for _, arg := range args {
		if err := a.waitFor(ctx, late, c, arg, timeout); err != nil {
			errs = append(errs, err)
		}
	}
	return joinErrors(errs)
}

func (a *app) waitFor(ctx, late context.Context, c *cluster, arg string, timeout time.Duration) error {
	name, err := bareName(arg)
	if err != nil {
		return err
	}
	told := ""
	var last look
	for {
		t, err := c.get(reading(ctx, late), name)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil {
			last = lookAt(t, a.now())
			if done, err := a.waitedEnough(last); done {
				return err
			}
			if why := last.reason(); why != told {
				told = why
				fmt.Fprintf(a.Out, "%s: waiting: %s\n", name, clean(last.message()))
			}
		}
		if !pause(ctx, pollEvery) {
			break
		}
	}
	if ctx.Err() != context.DeadlineExceeded {
		return ctx.Err()
	}
	why := "the resource could not be read"
	if last.WeChatAppToken != nil {
		why = clean(last.message())
	}
	return timedOut(wholeStory(name, c.namespace), "%s: no valid %s within %s: %s", name, last.missing(), short(timeout), why)
}

// missing returns what the resource is not ready for want of: the token, or a ticket while the token is valid.
func (l look) missing() string {
	if l.WeChatAppToken != nil && l.lacking() != "" {
		return string(l.lacking()) + " ticket"
	}
	return "token"
}

func wholeStory(name, namespace string) string {
	return "This tells the whole story:\n" + commandFor("status", name, namespace)
}

// waitedEnough reports whether there is a valid token for the current spec, with the tickets that it asks for. It returns true and an
// error if that will not be so without help.
func (a *app) waitedEnough(l look) (done bool, err error) {
	current := l.Status.ObservedGeneration == l.Generation
	left, has := l.left()
	switch {
	case current && l.isReady() && has && left > 0:
		text := fmt.Sprintf("Secret %s holds a token that is valid for %s", l.TargetName(), countdown(left))
		if types := l.ticketNames(); types != "" {
			text += ", and valid tickets: " + types
		}
		fmt.Fprintf(a.Out, "%s: %s\n", l.Name, a.paint.in(green, clean(text)))
		return true, nil
	case l.state() == stateDeleting:
		return true, bad("Create it anew if you need it.", "%s is being deleted", l.Name)
	case current && l.stalled && l.state() == stateStalled:
		return true, bad(wholeStory(l.Name, l.Namespace), "%s: %s: %s", l.Name, l.reason(), clean(l.message()))
	case current && l.Spec.Suspend:
		return true, bad("Resume it first:\n"+l.command("resume"),
			"%s is suspended and has no valid %s", l.Name, l.missing())
	}
	return false, nil
}
