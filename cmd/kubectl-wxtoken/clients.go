// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

const clientsExample = `  # Who may call WeChat, in all namespaces
  kubectl wxtoken clients -A

  # With key Secret, end of the key before and message
  kubectl wxtoken clients -o wide`

// clientsOptions are the flags of the command clients, which are some of those of list.
type clientsOptions struct{ listOptions }

func (a *app) clientsCommand() *cobra.Command {
	o := &clientsOptions{listOptions{app: a, print: genericclioptions.NewPrintFlags("").WithTypeSetter(newScheme())}}
	c := &cobra.Command{
		Use:               "clients [-A] [-l SELECTOR] [-o FORMAT]",
		Aliases:           []string{"client"},
		Short:             "List who may call WeChat through the gateway: token, key, login, reason",
		Example:           clientsExample,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := c.Flags()
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "List the resources of all namespaces.")
	f.StringVarP(&o.selector, "selector", "l", "", "Label selector, such as team=shop,tier!=test.")
	f.BoolVar(&o.noHeaders, "no-headers", false, "Print no header line.")
	o.addPrintFlags(c)
	return c
}

func (o *clientsOptions) run(ctx context.Context) error {
	q, err := o.query()
	if err != nil {
		return err
	}
	l, err := q.listClients(ctx, q.namespace, q.opts...)
	switch {
	case missingKind(err):
		return failed("Install its CRD: kubectl apply --server-side -k config/crd in a clone of the operator's repository.",
			"this cluster does not know the kind WeChatAppClient")
	case err != nil:
		return err
	}
	sortClients(l.Items)
	if q.printer != nil {
		return printAll(o.print, q.printer, l, l.Items, o.app.Out)
	}
	if len(l.Items) == 0 {
		fmt.Fprintf(o.app.ErrOut, "No WeChatAppClients found%s.\n", o.where(q.namespace))
		return nil
	}
	for _, line := range o.table(l.Items, o.app.now()).lines(o.app.paint) {
		fmt.Fprintln(o.app.Out, line)
	}
	return nil
}

// listClients reads the WeChatAppClients of a namespace, or of all namespaces if it is empty.
func (c *cluster) listClients(ctx context.Context, namespace string, opts ...client.ListOption) (*v1alpha1.WeChatAppClientList, error) {
	l := &v1alpha1.WeChatAppClientList{}
	err := c.List(ctx, l, append(opts, client.InNamespace(namespace))...)
	if missingKind(err) {
		return l, err
	}
	return l, explain(err, "list WeChatAppClients"+ofNamespace(namespace))
}

func sortClients(items []v1alpha1.WeChatAppClient) {
	slices.SortFunc(items, func(a, b v1alpha1.WeChatAppClient) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// table returns a table with a row for each client, as it is at the time now.
func (o *clientsOptions) table(items []v1alpha1.WeChatAppClient, now time.Time) *table {
	t := &table{}
	isWide := *o.print.OutputFormat == wide
	if !o.noHeaders {
		t.header = []string{"NAME", "TOKEN", "READY", "KEY", "KEY AGE", "LOGIN", "AGE", "REASON"}
		if isWide {
			t.header = append(t.header, "SECRET", "KEY BEFORE UNTIL", "MESSAGE")
		}
		if o.allNamespaces {
			t.header = append([]string{"NAMESPACE"}, t.header...)
		}
	}
	for i := range items {
		l := clientLook{&items[i], now}
		row := []cell{
			{text: l.Name}, {text: l.Spec.TokenRef.Name}, l.ready(), {text: l.key()}, {text: l.keyAge()}, {text: l.login()},
			{text: age(l.CreationTimestamp.Time, now)}, {text: l.condition().Reason},
		}
		if isWide {
			row = append(row, cell{text: l.secret()}, cell{text: l.before()}, cell{text: l.condition().Message})
		}
		if o.allNamespaces {
			row = append([]cell{{text: l.Namespace}}, row...)
		}
		t.add(row...)
	}
	return t
}

// clientLook is a client at a moment.
type clientLook struct {
	*v1alpha1.WeChatAppClient

	now time.Time
}

// condition returns the condition Ready, or one that says that no operator has seen the client.
func (l clientLook) condition() metav1.Condition {
	if c := apimeta.FindStatusCondition(l.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return *c
	}
	return metav1.Condition{
		Status: metav1.ConditionUnknown, Reason: "NotSeenYet", Message: "no operator that serves WeChatAppClients has seen it",
	}
}

func (l clientLook) ready() cell {
	c := l.condition()
	out := cell{text: string(c.Status), color: yellow}
	switch {
	case c.Status == metav1.ConditionTrue:
		out.color = green
	case apimeta.IsStatusConditionTrue(l.Status.Conditions, v1alpha1.ConditionStalled):
		out.color = red
	}
	return out
}

func (l clientLook) key() string {
	if l.Status.Key == nil {
		return "-"
	}
	return l.Status.Key.Fingerprint
}

func (l clientLook) keyAge() string {
	if l.Status.Key == nil {
		return "-"
	}
	return age(l.Status.Key.CreateTime.Time, l.now)
}

func (l clientLook) login() string {
	if l.Spec.Login {
		return "yes"
	}
	return "no"
}

func (l clientLook) secret() string {
	if l.Spec.Key == nil {
		return "-"
	}
	return l.Spec.Key.SecretName
}

// before returns until when the key before buys tokens.
func (l clientLook) before() string {
	if k := l.Status.Key; k != nil && k.PreviousUntilTime != nil {
		return stamp(k.PreviousUntilTime.Time)
	}
	return "-"
}

// tellClients reads the clients of the story's token. A cluster without their kind has none.
func (c *cluster) tellClients(ctx context.Context, s *story) error {
	l, err := c.listClients(ctx, s.Namespace)
	switch {
	case missingKind(err):
		return nil
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		s.clientGap = firstLine(err)
		return nil
	}
	s.clients = slices.DeleteFunc(l.Items, func(c v1alpha1.WeChatAppClient) bool { return c.Spec.TokenRef.Name != s.Name })
	sortClients(s.clients)
	return nil
}

// clientTable returns a table of the clients that call WeChat with the token.
func (s *story) clientTable() *table {
	t := &table{}
	for i := range s.clients {
		l := clientLook{&s.clients[i], s.now}
		c, who := l.condition(), plural(len(l.Spec.ServiceAccounts), "ServiceAccount")
		if l.Spec.Key != nil {
			who = "key " + l.key() + " in Secret " + l.secret()
			if n := len(l.Spec.ServiceAccounts); n > 0 {
				who += ", " + plural(n, "ServiceAccount")
			}
		}
		if l.Spec.Login {
			who += ", logs users in"
		}
		ready := l.ready()
		ready.text = c.Reason
		t.add(cell{text: l.Name}, ready, cell{text: who})
	}
	return t
}
