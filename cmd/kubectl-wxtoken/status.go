// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
	"github.com/wechat-token-operator/wechat-token-operator/internal/target"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

// textWidth is the width at which long texts are wrapped.
const textWidth = 100

func (a *app) statusCommand() *cobra.Command {
	o := &statusOptions{}
	c := &cobra.Command{
		Use:   "status NAME [-w] [-o json]",
		Short: "Tell the story of one token: what happened, what comes next, what to do",
		Long: `Tell the story of one token: what happened, what comes next, and what to do.

It is made from the resource's status, the annotations of the target Secret, the events and the pods. The
Secret's data is not read.`,
		Example: `  kubectl wxtoken status shop -n shop

  # Go on until Ctrl-C
  kubectl wxtoken status shop -n shop -w`,
		Args: oneName, ValidArgsFunction: a.completeNames(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.status(cmd.Context(), args[0], o) },
	}
	c.Flags().BoolVarP(&o.watch, "watch", "w", false,
		"Watch until Ctrl-C. On a terminal the story is redrawn each second; otherwise it is printed again after each change.")
	addFormat(c, &o.format)
	return c
}

type statusOptions struct {
	watch  bool
	format string
}

func (a *app) status(ctx context.Context, arg string, o *statusOptions) error {
	if err := knownFormat(o.format); err != nil {
		return err
	}
	c, t, err := a.find(ctx, arg)
	if err != nil {
		return err
	}
	if o.watch {
		return a.followStatus(ctx, c, t, o)
	}
	s, err := a.storyOf(ctx, c, t)
	if err != nil {
		return err
	}
	return s.print(a.Out, o.format)
}

// storyOf reads what there is to tell about a resource.
func (a *app) storyOf(ctx context.Context, c *cluster, t *v1alpha1.WeChatAppToken) (*story, error) {
	s := &story{look: lookAt(t, a.now()), paint: a.paint, shell: a.shell()}
	return s, c.tell(ctx, s)
}

// print writes the story in a format, for people if it is empty.
func (s *story) print(w io.Writer, format string) error {
	if format == formatJSON {
		return s.writeJSON(w)
	}
	s.write(w)
	return nil
}

// story is everything that the status command knows about a resource.
type story struct {
	look

	paint palette
	shell shell
	// secret is the record in the annotations of the target Secret. found is false if there is no such Secret.
	secret target.Record
	found  bool
	owner  bool
	events []corev1.Event
	// clients call WeChat with the token.
	clients []v1alpha1.WeChatAppClient
	// pods are those that use the target Secret.
	pods []users
	// secretUnread and podsUnread report that the Secret's metadata or the pods could not be read.
	secretUnread, podsUnread bool
	// gaps says what could not be read, and why; clientGap says so of the clients.
	gaps      []string
	clientGap string
}

// tell reads the target Secret's metadata, the events of a resource and the pods. What the user may not read becomes a gap of the story.
func (c *cluster) tell(ctx context.Context, s *story) error {
	secret, err := c.targetMetadata(ctx, s.WeChatAppToken)
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		s.secretUnread = true
		s.gaps = append(s.gaps, firstLine(err))
	case secret != nil:
		s.found, s.secret = true, target.DecodeRecord(secret.Annotations)
		s.owner = s.secret.OwnerUID == s.UID
	}
	events := &corev1.EventList{}
	err = c.List(ctx, events, client.InNamespace(s.Namespace), client.MatchingFields{"involvedObject.uid": string(s.UID)})
	if err != nil && ctx.Err() != nil {
		return err
	} else if err != nil {
		s.gaps = append(s.gaps, firstLine(explain(err, "list events")))
	}
	s.events = events.Items
	s.pods, err = c.usersOf(ctx, s.WeChatAppToken)
	if err != nil && ctx.Err() != nil {
		return err
	} else if err != nil {
		s.podsUnread = true
		s.gaps = append(s.gaps, firstLine(err))
	}
	return c.tellClients(ctx, s)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

func (s *story) write(w io.Writer) {
	heading := func(text string) { fmt.Fprintf(w, "\n%s\n", s.paint.in(bold, text)) }
	st := s.state()
	fmt.Fprintf(w, "%s   %s\n", s.paint.in(bold, s.Namespace+"/"+s.Name), s.paint.in(st.color(), string(st)+": "+clean(s.reason())))
	for _, line := range wrap(clean(sentence(s.message())), textWidth-2) {
		fmt.Fprintf(w, "  %s\n", line)
	}

	heading("From the credentials to the pods")
	printTable(w, s.chainTable(), s.paint)

	if t := s.podTable(); len(t.rows) > 0 {
		heading("Pods")
		printTable(w, t, s.paint)
	}

	heading("Token")
	printTable(w, s.facts(), s.paint)

	if t := s.ticketTable(); len(t.rows) > 0 {
		heading("Tickets")
		printTable(w, t, s.paint)
	}

	if t := s.clientTable(); len(t.rows) > 0 {
		heading("Clients")
		printTable(w, t, s.paint)
	}

	heading("Timeline")
	printTable(w, s.timeline(), s.paint)

	if t := s.requests(); len(t.rows) > 0 {
		heading("Requests")
		printTable(w, t, s.paint)
	}

	heading("What to do")
	for _, advice := range s.advice() {
		for i, line := range s.shell.paragraph(advice, textWidth-4) {
			mark := "- "
			if i > 0 {
				mark = "  "
			}
			fmt.Fprintf(w, "  %s%s\n", mark, line)
		}
	}
	gaps := s.gaps
	if s.clientGap != "" {
		gaps = append(gaps, s.clientGap)
	}
	for _, gap := range gaps {
		fmt.Fprintf(w, "\n%s\n", s.paint.in(yellow, "Not shown: "+clean(gap)))
	}
}

func printTable(w io.Writer, t *table, p palette) {
	for _, line := range t.lines(p) {
		fmt.Fprintln(w, "  "+line)
	}
}

// facts returns a table that describes the token.
func (s *story) facts() *table {
	t := &table{}
	add := func(key, format string, args ...any) {
		t.add(cell{key, dim}, cell{text: fmt.Sprintf(format, args...)})
	}
	add("appid", "%s, %s mode, checked every %s", s.Spec.AppID, s.Spec.Mode, short(s.Spec.CheckInterval.Duration))
	if k := s.Status.Token; k != nil {
		if k.Fingerprint != "" {
			add("fingerprint", "%s (SHA-256 of the token, its first 16 digits)", k.Fingerprint)
		}
		if left, _ := s.left(); left > 0 {
			add("expires", "in %s, at %s", countdown(left), stamp(k.ExpirationTime.Time))
		} else {
			add("expired", "%s, at %s", ago(k.ExpirationTime.Time, s.now), stamp(k.ExpirationTime.Time))
		}
	}
	if text := s.delivery(); text != "" {
		add("delivery", "%s", text)
	}
	if forced := len(s.forced()); forced > 0 && s.Spec.Mode == v1alpha1.ModeStable {
		add("forced calls", "%d of the %d that WeChat grants an account in 24 hours", forced, refresh.ForcedPerDay)
	}
	return t
}

// storedFingerprint identifies the token and the tickets that the status says are in the Secret.
func (l look) storedFingerprint() string {
	tickets := make([]string, 0, len(l.Status.Tickets))
	for _, t := range l.Status.Tickets {
		tickets = append(tickets, t.Fingerprint)
	}
	return token.CombinedFingerprint(l.Status.Token.Fingerprint, tickets)
}

// delivery says how many pods were told of the token. It returns an empty string if spec.target.delivery is not Prompt.
func (l look) delivery() string {
	if l.Spec.Target.Delivery != v1alpha1.DeliveryPrompt {
		return ""
	}
	d, text := l.Status.Delivery, "prompt"
	switch current := d != nil && l.Status.Token != nil && d.Fingerprint == l.storedFingerprint(); {
	case current && d.Pods == 0:
		text += ": no pod mounts the Secret"
	case current:
		text += fmt.Sprintf(": %d of %s told of this token, at %s", d.Reached, plural(int(d.Pods), "pod"), stamp(d.Time.Time))
	case l.degraded == nil && l.Status.Token != nil:
		text += ": pods were not told of this token yet"
	}
	if l.degraded != nil {
		text += "; degraded: " + l.degraded.Reason
	}
	return text
}
