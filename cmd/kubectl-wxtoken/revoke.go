// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// forcedByRevoke is the number of forced calls that end a leaked token according to WeChat's documentation.
const forcedByRevoke = 2

func (a *app) revokeCommand() *cobra.Command {
	o, yes := &waitOptions{}, false
	c := &cobra.Command{
		Use:   "revoke NAME",
		Short: "End a leaked token: two forced calls, half a minute apart",
		Long: fmt.Sprintf(`End a leaked token. WeChat does so upon two forced calls at least 30 s apart; the operator makes them
%s apart.

Pods get errcode 40001 from the second call until their volume has the new token, which can take 90 s.
In Stable mode the two calls come out of the %d that WeChat grants an account in 24 hours.
Tickets are fetched anew, but WeChat has no way to end one that leaked.

If the AppSecret leaked too, first reset it in WeChat's console and write the new one into the
credentials Secret. Then revoke: the reset may leave issued tokens alive.`, short(refresh.RevokeSpacing), refresh.ForcedPerDay),
		Example: `  # Asks first, then shows the progress
  kubectl wxtoken revoke shop

  # For scripts
  kubectl wxtoken revoke shop --yes --timeout=2m`,
		Args: oneName, ValidArgsFunction: a.completeNames(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.revoke(cmd.Context(), args[0], yes, o) },
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "Do not ask for confirmation.")
	o.addFlags(c, 2*time.Minute)
	return c
}

func (a *app) revoke(ctx context.Context, arg string, yes bool, o *waitOptions) error {
	c, t, err := a.find(ctx, arg)
	if err != nil {
		return err
	}
	l := lookAt(t, a.now())
	if err := revocable(l); err != nil {
		return err
	}
	if err := a.announceRevoke(ctx, c, l); err != nil {
		return err
	}
	if !yes {
		if err := a.confirm(ctx, fmt.Sprintf("End this token of %s/%s?", t.Namespace, t.Name)); err != nil {
			return err
		}
	}
	p, err := a.annotate(ctx, c, refresh.RequestRevoke, t)
	if err != nil {
		return err
	}
	if !o.wait {
		fmt.Fprintf(a.Out, "Revoke requested. This shows the outcome:\n  %s\n", a.shell().paste(l.command("status")))
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return (&revocation{app: a, cluster: c, pending: p, timeout: o.timeout, started: time.Now()}).watch(ctx)
}

func revocable(l look) error {
	if err := requestable(l, refresh.RequestRevoke); err != nil {
		return err
	}
	if l.Status.Token == nil {
		return failed("This tells why:\n"+l.command("status"), "%s has no token to revoke", l.Name)
	}
	if old := l.requested(refresh.RequestRevoke); old != "" && old != l.handled(refresh.RequestRevoke) {
		return failed("This shows how far it is:\n"+l.command("status"), "a revoke of %s is under way already", l.Name)
	}
	return nil
}

// announceRevoke prints what a revoke will do and what it costs.
func (a *app) announceRevoke(ctx context.Context, c *cluster, l look) error {
	t := &table{}
	add := func(key, format string, args ...any) {
		t.add(cell{key, dim}, cell{text: clean(fmt.Sprintf(format, args...))})
	}
	k := l.Status.Token
	left, _ := l.left()
	add("token", "%s in Secret %s/%s, appid %s, %s mode", k.Fingerprint, l.Namespace, l.TargetName(), l.Spec.AppID, l.Spec.Mode)
	if left > 0 {
		add("without it", "it works for another %s", countdown(left))
	}
	add("pods", "get errcode 40001 from the second call until their volume has the new token, up to 90 s")
	if types := l.ticketNames(); types != "" {
		add("tickets", "%s: fetched anew, but one that leaked works until it expires: WeChat has no way to end it", types)
	}
	if l.Spec.Mode == v1alpha1.ModeStable {
		used, at := c.budget(ctx, l)
		add("forced calls", "%d of %d of the last 24 hours are used, this takes %d", used, refresh.ForcedPerDay, forcedByRevoke)
		if at.After(l.now) {
			add("begins", "in %s, when WeChat's limits allow it", countdown(at.Sub(l.now)))
		}
	}
	printTable(a.Out, t, a.paint)
	fmt.Fprintln(a.Out)
	return ctx.Err()
}

// budget returns how many forced calls the account has used, and when two more are allowed. WeChat counts them for the account, so
// all Stable resources with the appid count, as far as the user may list them.
func (c *cluster) budget(ctx context.Context, l look) (used int, at time.Time) {
	sameApp := client.MatchingFields{"spec.appID": l.Spec.AppID}
	all, err := c.list(ctx, "", sameApp)
	if err != nil {
		all, err = c.list(ctx, l.Namespace, sameApp)
	}
	forced := l.forced()
	if err == nil {
		forced = nil
		for i := range all.Items {
			if all.Items[i].Spec.Mode == v1alpha1.ModeStable {
				forced = append(forced, lookAt(&all.Items[i], l.now).forced()...)
			}
		}
	}
	return len(forced), refresh.ForcedAt(l.now, forced, forcedByRevoke, refresh.ForcedSpacing)
}

// confirm asks a question on the terminal and returns an error unless the answer is yes. Ctrl-C ends ctx, but not the reading of a
// terminal, which goes on until the process ends.
func (a *app) confirm(ctx context.Context, question string) error {
	fmt.Fprintf(a.Out, "%s [y/N] ", question)
	if !printers.IsTerminal(a.In) {
		defer fmt.Fprintln(a.Out) // there is no terminal that echoes the end of the answer
	}
	var line string
	var err error
	read := make(chan struct{})
	go func() {
		defer close(read)
		line, err = bufio.NewReader(a.In).ReadString('\n')
	}()
	select {
	case <-read:
	case <-ctx.Done():
		fmt.Fprintln(a.Out)
		return ctx.Err()
	}
	if err != nil && line == "" {
		return usage("nobody answered, so nothing was done; a script must pass --yes")
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return usage("the answer was not yes, so nothing was done")
}

// revocation prints the progress of a revoke.
type revocation struct {
	*app

	cluster *cluster
	pending *pending
	timeout time.Duration
	started time.Time
	// first reports whether the first forced call was made.
	first bool
	told  bool
	// live reports whether the next output replaces the last line.
	live bool
}

// say prints a line that stays.
func (r *revocation) say(c color, format string, args ...any) {
	r.wipe()
	fmt.Fprintf(r.Out, "%6.1f s  %s\n", time.Since(r.started).Seconds(), r.paint.in(c, clean(fmt.Sprintf(format, args...))))
}

// tick prints a line that the next one replaces. It prints nothing if the output does not understand escape sequences.
func (r *revocation) tick(format string, args ...any) {
	if !r.escapes {
		return
	}
	r.wipe()
	fmt.Fprintf(r.Out, "%6.1f s  %s", time.Since(r.started).Seconds(), r.paint.in(dim, clean(fmt.Sprintf(format, args...))))
	r.live = true
}

func (r *revocation) wipe() {
	if r.live {
		fmt.Fprint(r.Out, "\r\x1b[K")
		r.live = false
	}
}

func (r *revocation) watch(ctx context.Context) error {
	r.say(plain, "revoke requested")
	var last look
	for {
		t, err := r.cluster.get(ctx, r.pending.before.Name)
		if err != nil && ctx.Err() == nil {
			r.wipe()
			return err
		}
		if err == nil {
			last = lookAt(t, r.now())
			if done, err := r.step(ctx, last); done {
				return err
			}
		}
		if !pause(ctx, pollEvery) {
			r.wipe()
			return r.gaveUp(ctx, r.pending, last, r.timeout)
		}
	}
}

// step reports new progress of the revoke. It returns true once the revoke has ended.
func (r *revocation) step(ctx context.Context, l look) (done bool, err error) {
	second := l.secondForcedCall(r.pending.value)
	switch {
	case l.handled(refresh.RequestRevoke) == r.pending.value:
		return true, r.finish(ctx, l)
	case !second.IsZero() && !r.first:
		r.first = true
		fingerprint := ""
		if t := l.Status.Token; t != nil {
			fingerprint = t.Fingerprint
		}
		r.say(plain, "first forced call made: Secret %s holds another token (%s); the leaked one still works", l.TargetName(), fingerprint)
	case !second.IsZero():
		if left := second.Sub(l.now); left > 0 {
			r.tick("second forced call in %s", countdown(left+time.Second))
		} else {
			r.tick("second forced call is due")
		}
	case !r.first && !r.told && time.Since(r.started) > silentAfter:
		r.told = true
		r.say(yellow, "waiting: %s", l.whyNot(refresh.RequestRevoke))
	}
	return false, nil
}

func (r *revocation) finish(ctx context.Context, l look) error {
	victim, is := r.pending.before.Status.Token.Fingerprint, l.Status.Token
	if is == nil || is.Fingerprint == victim || !r.first && r.failedEvent(ctx) {
		r.wipe()
		_, err := r.outcome(ctx, r.cluster, r.pending)
		if err != nil {
			return err
		}
		return bad("This tells more:\n"+l.command("status"), "%s: the token was not revoked", l.Name)
	}
	left, _ := l.left()
	r.say(green, "second forced call made: the leaked token (%s) is dead", victim)
	r.say(green, "Secret %s holds the new token (%s), valid for %s", l.TargetName(), is.Fingerprint, countdown(left))
	fmt.Fprint(r.Out, `
Pods that mount the Secret have it within 90 s. If the AppSecret leaked too, reset it in WeChat's console, write the new one into
the credentials Secret, and revoke again: who had it could read this token too.
`)
	return nil
}

func (r *revocation) failedEvent(ctx context.Context) bool {
	e := r.cluster.newEvent(ctx, r.pending)
	return e != nil && e.Type == "Warning"
}
