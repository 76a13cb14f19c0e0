// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func (a *app) doctorCommand() *cobra.Command {
	format := ""
	c := &cobra.Command{
		Use:   "doctor [-o json]",
		Short: "Find what keeps tokens from their pods, in the whole cluster",
		Long: fmt.Sprintf(`Find what keeps tokens from their pods: an operator that does not run or does not serve a namespace,
credentials that are missing or malformed, addresses that WeChat does not allow, Legacy accounts that
are used twice, pods that never see a new token, and versions that do not fit.

It looks at the whole cluster, or with -n at one namespace, and changes nothing. Credentials are read
to judge their form; they are never printed. What you may not read is left out, and said. Exit code %d
means that an error was found.`, exitBad),
		Example: `  kubectl wxtoken doctor
  kubectl wxtoken doctor -n shop`,
		Args: noArguments, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := knownFormat(format); err != nil {
				return err
			}
			return a.doctor(cmd.Context(), cmd.Flag("namespace").Changed, format)
		},
	}
	addFormat(c, &format)
	return c
}

type level int

const (
	levelOK level = iota
	levelNote
	levelWarning
	levelError
)

// String returns the word for a level in the output for programs.
func (l level) String() string { return [...]string{"ok", "note", "warning", "error"}[l] }

func (l level) mark() cell {
	return [...]cell{{"✓", green}, {"·", dim}, {"!", yellow}, {"✗", red}}[l]
}

// finding is one line of doctor's output.
type finding struct {
	level level
	// text says what was found, and next what to do about it, as advice does.
	text, next string
}

// examination is one run of doctor.
type examination struct {
	*app

	cluster *cluster
	// namespace is the one to examine, or empty for all.
	namespace string
	tokens    []look
	operators []appsv1.Deployment
	// accounts holds the account of each resource whose credentials could be read, by namespace/name of the resource.
	accounts map[string]account
	// told holds the namespace/name of each resource whose problem an earlier chapter reports.
	told     map[string]bool
	chapters []chapter
}

type chapter struct {
	title    string
	findings []finding
}

// report collects the findings of a check.
type report struct{ findings []finding }

func (r *report) add(l level, next, format string, args ...any) {
	r.findings = append(r.findings, finding{level: l, text: fmt.Sprintf(format, args...), next: next})
}

// gap adds a finding about something that could not be read.
func (r *report) gap(err error) {
	r.add(levelNote, "", "not looked at: %s", firstLine(err))
}

func (a *app) doctor(ctx context.Context, oneNamespace bool, format string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	x := &examination{app: a, cluster: c, accounts: map[string]account{}, told: map[string]bool{}}
	if oneNamespace {
		x.namespace = c.namespace
	}
	narrowed, err := x.load(ctx)
	if err != nil {
		return err
	}
	for _, check := range []struct {
		title string
		run   func(context.Context, *report) error
	}{
		{"Operator", x.checkOperator},
		{"Credentials", x.checkCredentials},
		{"IP allowlist", x.checkAddresses},
		{"Legacy accounts", x.checkLegacy},
		{"Tokens", x.checkTokens},
		{"Pods", x.checkPods},
		{"Versions", x.checkVersions},
	} {
		r := &report{}
		if err := check.run(ctx, r); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.gap(err)
		}
		x.chapters = append(x.chapters, chapter{check.title, r.findings})
	}
	if format == formatJSON {
		err = x.writeJSON(narrowed)
	} else {
		x.write(narrowed)
	}
	if n := x.count(levelError); err == nil && n > 0 {
		err = bad("", "doctor found %s", plural(n, "error"))
	}
	return err
}

// load lists the resources. If the user may not list those of all namespaces, it lists those of the current one, and narrowed is
// true.
func (x *examination) load(ctx context.Context) (narrowed bool, err error) {
	l, err := x.cluster.list(ctx, x.namespace)
	if err != nil && x.namespace == "" && forbidden(err) {
		narrowed, x.namespace = true, x.cluster.namespace
		l, err = x.cluster.list(ctx, x.namespace)
	}
	if err != nil {
		return narrowed, err
	}
	sortTokens(l.Items)
	for i := range l.Items {
		x.tokens = append(x.tokens, lookAt(&l.Items[i], x.now()))
	}
	return narrowed, nil
}

func forbidden(err error) bool {
	var p *problem
	return errors.As(err, &p) && apierrors.IsForbidden(p.err)
}

func (x *examination) namespaces() []string {
	set := map[string]bool{}
	for _, t := range x.tokens {
		set[t.Namespace] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func (l look) fullName() string { return l.Namespace + "/" + l.Name }

// count returns the number of findings of a level.
func (x *examination) count(l level) int {
	n := 0
	for _, c := range x.chapters {
		for _, f := range c.findings {
			if f.level == l {
				n++
			}
		}
	}
	return n
}

func (x *examination) write(narrowed bool) {
	for i, c := range x.chapters {
		if i > 0 {
			fmt.Fprintln(x.Out)
		}
		fmt.Fprintln(x.Out, x.paint.in(bold, c.title))
		for _, f := range c.findings {
			x.writeFinding(f)
		}
	}
	where := fmt.Sprintf("%s in %s", plural(len(x.tokens), "token"), plural(len(x.namespaces()), "namespace"))
	if narrowed {
		where += fmt.Sprintf("; you may not list those of all namespaces, so only %q was looked at", x.namespace)
	}
	fmt.Fprintf(x.Out, "\n%s, %s. Looked at %s.\n", plural(x.count(levelError), "error"), plural(x.count(levelWarning), "warning"), where)
}

func (x *examination) writeFinding(f finding) {
	m := f.level.mark()
	for i, line := range wrap(clean(f.text), textWidth-4) {
		mark := " "
		if i == 0 {
			mark = x.paint.in(m.color, m.text)
		}
		fmt.Fprintf(x.Out, "  %s %s\n", mark, line)
	}
	if f.next == "" {
		return
	}
	for i, line := range x.shell().paragraph(f.next, textWidth-7) {
		arrow := "  "
		if i == 0 {
			arrow = "→ "
		}
		fmt.Fprintf(x.Out, "    %s%s\n", x.paint.in(cyan, arrow), line)
	}
}

// names returns the full names of resources, separated by commas.
func names(tokens []look) string {
	out := make([]string, len(tokens))
	for i, t := range tokens {
		out[i] = t.fullName()
	}
	return strings.Join(out, ", ")
}

// soFar says what works of a resource whose last attempt failed.
func (l look) soFar() string {
	if l.tokenFailing() == nil {
		return "the token is valid" // the attempt was for a ticket
	}
	left, _ := l.left()
	return fmt.Sprintf("works for another %s", countdown(left))
}

// warn reports what is wrong with a resource besides its state.
func (l look) warn(r *report) {
	if l.degraded != nil {
		r.add(levelWarning, l.command("status"),
			"%s: pods are not told of a new token at once: %s: %s", l.fullName(), l.degraded.Reason, l.degraded.Message)
	}
	if n := len(l.forced()); n > 15 && l.Spec.Mode == v1alpha1.ModeStable {
		r.add(levelWarning, "Keep the rest for a revoke.", "%s: %d of the 20 forced calls of 24 hours are used", l.fullName(), n)
	}
}

// checkTokens reports the problems that the resources' own statuses name, unless an earlier chapter has reported them.
func (x *examination) checkTokens(_ context.Context, r *report) error {
	well := 0
	for _, t := range x.tokens {
		status := t.command("status")
		switch s := t.state(); {
		case x.told[t.fullName()]:
		case t.lacking() != "" && (s == stateStalled || s == stateReconciling):
			r.add(levelError, status, "%s: the token is valid, but a ticket is not: %s: %s", t.fullName(), t.reason(), t.message())
		case s == stateStalled:
			r.add(levelError, status, "%s: no valid token: %s: %s", t.fullName(), t.reason(), t.message())
		case s == stateReconciling:
			r.add(levelError, status, "%s: no valid token yet: %s: %s", t.fullName(), t.reason(), t.message())
		case s == stateRefreshFailing:
			r.add(levelWarning, status, "%s: %s, but %s: %s", t.fullName(), t.soFar(), t.failing.Reason, t.failing.Message)
		case s == stateSuspended:
			r.add(levelWarning, t.command("resume"),
				"%s: suspended, its token is not replaced", t.fullName())
		case t.degraded == nil:
			well++
		}
		t.warn(r)
	}
	if well > 0 || len(x.tokens) == 0 {
		r.add(levelOK, "", "%s in order", plural(well, "token"))
	} else if len(r.findings) == 0 {
		r.add(levelNote, "", "%s, reported above", plural(len(x.tokens), "token"))
	}
	return nil
}
