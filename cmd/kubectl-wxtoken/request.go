// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/request"
)

const (
	// pollEvery is the time between two reads of a resource by a command that waits.
	pollEvery = 250 * time.Millisecond
	// outcomeWithin is how long a command waits for the token or the event that shows the outcome, once the status says that the
	// request was handled.
	outcomeWithin = 3 * time.Second
	// silentAfter is how long a command waits before it says what it is waiting for.
	silentAfter = 5 * time.Second
	// lastLook is how long a command reads the resources for which no time is left.
	lastLook = 5 * time.Second
)

type waitOptions struct {
	wait    bool
	timeout time.Duration
}

func (o *waitOptions) addFlags(c *cobra.Command, timeout time.Duration) {
	c.Flags().BoolVar(&o.wait, "wait", true, "Wait for the outcome.")
	c.Flags().DurationVar(&o.timeout, "timeout", timeout, "How long to wait.")
}

func (a *app) checkCommand() *cobra.Command {
	o, s := &waitOptions{}, &selection{}
	c := &cobra.Command{
		Use:   "check NAME... | -l SELECTOR | -A",
		Short: "Ask WeChat now whether the token in the Secret is the right one",
		Long: `Ask WeChat now whether the token in the Secret is the right one. The operator does so by itself at each
check interval; use it when you have repaired something, such as the IP allowlist, and do not want to
wait for the next attempt. With -l or -A it checks all resources that are not suspended.`,
		Example: `  kubectl wxtoken check shop

  # After a repair of the IP allowlist
  kubectl wxtoken check -A`,
		Args: func(cmd *cobra.Command, args []string) error { return s.check(cmd, args) }, ValidArgsFunction: a.completeNames(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.request(cmd.Context(), refresh.RequestCheck, args, s, o)
		},
	}
	c.Flags().BoolVarP(&s.allNamespaces, "all-namespaces", "A", false, "Check the resources of all namespaces.")
	c.Flags().StringVarP(&s.selector, "selector", "l", "", "Check the resources with these labels, such as team=shop,tier!=test.")
	o.addFlags(c, 30*time.Second)
	return c
}

func (a *app) refreshCommand() *cobra.Command {
	o := &waitOptions{}
	c := &cobra.Command{
		Use:   "refresh NAME...",
		Short: "Replace the token now",
		Long: fmt.Sprintf(`Replace the token now. The one before works for some minutes more, so pods are not disturbed.

In Stable mode it spends one of the %d forced calls that WeChat grants an account in 24 hours, unless
WeChat has a newer token already. If the token leaked, use "revoke": a refresh alone does not end it
at once.`, refresh.ForcedPerDay),
		Example: "  kubectl wxtoken refresh shop",
		Args:    someNames, ValidArgsFunction: a.completeNames(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.request(cmd.Context(), refresh.RequestRefresh, args, &selection{}, o)
		},
	}
	o.addFlags(c, time.Minute)
	return c
}

// pending is a request that was made.
type pending struct {
	kind  refresh.RequestKind
	value string
	// name is that of the resource, with its namespace if the command looks at all namespaces.
	name string
	// before is the resource as it was when the request was made. events maps the UID of each event that existed then to its
	// resourceVersion.
	before *v1alpha1.WeChatAppToken
	events map[types.UID]string
}

// request makes a request of one kind for each resource that args names or s selects, and waits for the outcomes.
func (a *app) request(ctx context.Context, kind refresh.RequestKind, args []string, s *selection, o *waitOptions) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	var (
		made []*pending
		errs []error
	)
	targets, err := a.targets(ctx, c, kind, args, s)
	if err != nil {
		errs = append(errs, err)
	}
	for i := range targets {
		p, err := a.annotate(ctx, c.in(targets[i].Namespace), kind, &targets[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.name = s.nameOf(&targets[i])
		made = append(made, p)
		if !o.wait {
			fmt.Fprintf(a.Out, "%s: %s requested. This shows the outcome:\n  %s\n", p.name, kind,
				a.shell().paste(commandFor("status", p.before.Name, p.before.Namespace)))
		}
	}
	if !o.wait {
		return joinErrors(errs)
	}
	ctx, late, end := withPatience(ctx, o.timeout)
	defer end()
	for _, p := range made {
		text, err := a.await(ctx, late, c.in(p.before.Namespace), p, o.timeout)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(a.Out, "%s: %s\n", p.name, a.paint.in(green, clean(text)))
	}
	return joinErrors(errs)
}

func (a *app) annotate(ctx context.Context, c *cluster, kind refresh.RequestKind, t *v1alpha1.WeChatAppToken) (*pending, error) {
	p := &pending{
		kind: kind, name: t.Name, value: a.now().UTC().Format(time.RFC3339Nano), before: t.DeepCopy(), events: map[types.UID]string{},
	}
	for _, e := range c.requestEvents(ctx, t, kind) {
		p.events[e.UID] = e.ResourceVersion
	}
	return p, c.patch(ctx, t, func(t *v1alpha1.WeChatAppToken) {
		metav1.SetMetaDataAnnotation(&t.ObjectMeta, request.Annotation(kind), p.value)
	})
}

// requestable returns an error if the operator would not carry out a request for the resource.
func requestable(l look, kind refresh.RequestKind) error {
	switch {
	case !l.DeletionTimestamp.IsZero():
		return failed("Create it anew if you need it.", "%s is being deleted, so no %s is made", l.Name, kind)
	case l.Spec.Suspend:
		return failed("Resume it first:\n"+l.command("resume"),
			"%s is suspended, so no %s is made", l.Name, kind)
	case l.ready == nil:
		return failed("Wait a moment. If it lasts, this tells whether an operator runs:\n"+l.doctorCommand(),
			"no operator has seen %s yet, and what is requested before that is not carried out", l.Name)
	}
	return nil
}

// withPatience returns the context for waiting for several resources, and the one that it was made from, which ends a little later: when
// the time of all is over, because one has used it up, the others are still judged by what they are.
func withPatience(parent context.Context, timeout time.Duration) (ctx, late context.Context, end context.CancelFunc) {
	late, endLate := context.WithTimeout(parent, timeout+lastLook)
	ctx, cancel := context.WithTimeout(late, timeout)
	return ctx, late, func() {
		cancel()
		endLate()
	}
}

// reading returns the context for a read.
func reading(ctx, late context.Context) context.Context {
	if ctx.Err() == context.DeadlineExceeded {
		return late
	}
	return ctx
}

// await waits until a request was handled, and returns its outcome.
func (a *app) await(ctx, late context.Context, c *cluster, p *pending, timeout time.Duration) (string, error) {
	var last look
	started, told := time.Now(), false
	for {
		t, err := c.get(reading(ctx, late), p.before.Name)
		if err != nil && ctx.Err() == nil {
			return "", err
		}
		if err == nil {
			last = lookAt(t, a.now())
			if last.handled(p.kind) == p.value {
				return a.outcome(reading(ctx, late), c, p)
			}
		}
		if !told && time.Since(started) > silentAfter && err == nil {
			told = true
			fmt.Fprintf(a.Out, "%s: waiting: %s\n", p.name, a.paint.in(yellow, clean(last.whyNot(p.kind))))
		}
		if !pause(ctx, pollEvery) {
			return "", a.gaveUp(ctx, p, last, timeout)
		}
	}
}

func (a *app) gaveUp(ctx context.Context, p *pending, last look, timeout time.Duration) error {
	if ctx.Err() != context.DeadlineExceeded {
		return &problem{code: exitInterrupted, err: ctx.Err(),
			what: fmt.Sprintf("interrupted; the %s of %s stays requested", p.kind, p.name),
			next: "This shows the outcome:\n" + commandFor("status", p.before.Name, p.before.Namespace)}
	}
	why := "the resource could not be read"
	if last.WeChatAppToken != nil {
		why = last.whyNot(p.kind)
	}
	next := fmt.Sprintf("The request stays. These show the outcome, and whether an operator runs:\n%s\nkubectl wxtoken doctor -n %s",
		commandFor("status", p.before.Name, p.before.Namespace), p.before.Namespace)
	return timedOut(next, "%s: no %s within %s: %s", p.name, p.kind, short(timeout), why)
}

// whyNot returns why a request was not carried out yet.
func (l look) whyNot(kind refresh.RequestKind) string {
	at := l.allowedAt(kind)
	switch {
	case l.Spec.Suspend:
		return "the resource was suspended"
	case at.After(l.now):
		return fmt.Sprintf("%s allow it in %s", l.limits(), countdown(at.Sub(l.now)))
	case !l.tokenValid():
		return l.reason() + ": " + clean(l.message())
	case l.tokenFailing() != nil:
		return l.failing.Reason + ": " + clean(l.failing.Message)
	}
	return "the operator has not carried it out"
}

// outcome returns the outcome of a request that was handled, as a new token, an event or the status shows it.
func (a *app) outcome(ctx context.Context, c *cluster, p *pending) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, outcomeWithin)
	defer cancel()
	var last look
	for {
		if t, err := c.get(ctx, p.before.Name); err == nil {
			last = lookAt(t, a.now())
		} else if ctx.Err() == nil {
			return "", err
		}
		text, event := "", c.newEvent(ctx, p)
		if last.WeChatAppToken != nil {
			text = last.success(p)
		}
		switch {
		case event != nil && event.Type == corev1.EventTypeWarning:
			return "", bad(p.again(), "%s: %s", p.name, clean(event.Message))
		case text != "" && (event != nil || p.kind != refresh.RequestCheck):
			return text, nil
		}
		if !pause(ctx, pollEvery) {
			return last.silently(p, text)
		}
	}
}

// silently returns the outcome of a request for which no event was found. There may be none, because a third attempt within minutes
// only raises the count of an older event, or because the user may not read events.
func (l look) silently(p *pending, success string) (string, error) {
	switch {
	case l.WeChatAppToken == nil:
		return "", failed("Look at it:\n"+commandFor("status", p.before.Name, p.before.Namespace), "%s: the outcome could not be read", p.name)
	case success != "" && l.tokenFailing() == nil:
		return success, nil
	case l.tokenFailing() != nil:
		return "", bad(p.again(), "%s: %s: %s", p.name, l.failing.Reason, clean(l.failing.Message))
	}
	return "", bad("This tells more:\n"+l.command("status"), "%s: the attempt was made, and the token is the same as before", p.name)
}

// again advises to repeat a request that failed.
func (p *pending) again() string {
	return "Once that is repaired:\n" + commandFor(string(p.kind), p.before.Name, p.before.Namespace)
}

// success returns the good outcome of a request that the status shows, or an empty string if it shows none.
func (l look) success(p *pending) string {
	was, is := p.before.Status.Token, l.Status.Token
	if is == nil {
		return ""
	}
	left, _ := l.left()
	changed := was == nil || was.Fingerprint != is.Fingerprint
	switch {
	case changed && p.kind == refresh.RequestCheck:
		return fmt.Sprintf("WeChat had another token; Secret %s holds it now (%s), valid for %s", l.TargetName(), is.Fingerprint, countdown(left))
	case changed:
		return fmt.Sprintf("token replaced; Secret %s holds the new one (%s), valid for %s", l.TargetName(), is.Fingerprint, countdown(left))
	case p.kind == refresh.RequestCheck && l.tokenValid():
		return fmt.Sprintf("the token in Secret %s is the right one (%s), valid for %s", l.TargetName(), is.Fingerprint, countdown(left))
	}
	return ""
}

// requestEvents returns the events about requests of one kind, or none if they cannot be read.
func (c *cluster) requestEvents(ctx context.Context, t *v1alpha1.WeChatAppToken, kind refresh.RequestKind) []corev1.Event {
	l := &corev1.EventList{}
	about := client.MatchingFields{"involvedObject.uid": string(t.UID), "reason": request.Event(kind)}
	if err := c.List(ctx, l, client.InNamespace(t.Namespace), about); err != nil {
		return nil
	}
	return l.Items
}

// newEvent returns an event that was made or counted again since the request was made, or nil.
func (c *cluster) newEvent(ctx context.Context, p *pending) *corev1.Event {
	for _, e := range c.requestEvents(ctx, p.before, p.kind) {
		if p.events[e.UID] != e.ResourceVersion {
			return &e
		}
	}
	return nil
}
