// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	setting "github.com/wechat-token-operator/wechat-token-operator/internal/plain"
	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// wide is the only output format besides those of cli-runtime.
const wide = "wide"

type listOptions struct {
	app *app

	allNamespaces bool
	selector      string
	fieldSelector string
	watch         bool
	noHeaders     bool
	print         *genericclioptions.PrintFlags
}

const listExample = `  # All tokens of all namespaces, with a countdown that goes on until Ctrl-C
  kubectl wxtoken list -A -w

  # Those with a label, with Secret, age and message
  kubectl wxtoken list -l team=shop -o wide

  # Who has this appid?
  kubectl wxtoken list -A --field-selector spec.appID=wx0123456789abcdef`

func (a *app) listCommand() *cobra.Command {
	o := &listOptions{app: a, print: genericclioptions.NewPrintFlags("").WithTypeSetter(newScheme())}
	c := &cobra.Command{
		Use:               "list [-A] [-w] [-l SELECTOR] [-o FORMAT]",
		Short:             "List tokens: state, countdown to the expiry, next attempt, reason",
		Example:           listExample,
		Args:              noArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := c.Flags()
	f.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "List the resources of all namespaces.")
	f.StringVarP(&o.selector, "selector", "l", "", "Label selector, such as team=shop,tier!=test.")
	f.StringVar(&o.fieldSelector, "field-selector", "", "Field selector; spec.appID, metadata.name and metadata.namespace are supported.")
	f.BoolVarP(&o.watch, "watch", "w", false,
		"Watch until Ctrl-C. On a terminal the table is redrawn each second; otherwise each change is a line.")
	f.BoolVar(&o.noHeaders, "no-headers", false, "Print no header line.")
	o.addPrintFlags(c)
	return c
}

// addPrintFlags adds the flags for the output format.
func (o *listOptions) addPrintFlags(c *cobra.Command) {
	o.print.AddFlags(c)
	c.Flag("output").Usage = "Output format: wide, or one of kubectl's: json, yaml, name, jsonpath=…, go-template=… and so on."
	// cli-runtime's own descriptions take three lines each.
	c.Flag("template").Usage = "Template, or the path of a file with one, for -o go-template and go-template-file."
	c.Flag("allow-missing-template-keys").Usage = "Ignore keys in a go-template or jsonpath that a resource does not have."
	must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		append([]string{wide}, o.print.AllowedFormats()...), cobra.ShellCompDirectiveNoFileComp)))
}

func must(err error) {
	if err != nil {
		panic(err) // only a bug in this program can name a flag that does not exist
	}
}

// printer returns the printer for the output format, or nil for the table.
func (o *listOptions) printer() (printers.ResourcePrinter, error) {
	if f := *o.print.OutputFormat; (f == "" || f == wide) && !o.templated() {
		return nil, nil //nolint:nilnil // nil stands for the table
	}
	p, err := o.print.ToPrinter()
	if err != nil {
		return nil, usage("-o %s: %v; wide is known too", *o.print.OutputFormat, err)
	}
	return p, nil
}

func (o *listOptions) templated() bool {
	t := o.print.TemplatePrinterFlags
	return t != nil && t.TemplateArgument != nil && *t.TemplateArgument != ""
}

// options returns the selectors of the flags as options for a list request.
func (o *listOptions) options() ([]client.ListOption, error) {
	var out []client.ListOption
	if o.selector != "" {
		s, err := labels.Parse(setting.Trim(o.selector))
		if err != nil {
			return nil, usage("--selector: %v", err)
		}
		out = append(out, client.MatchingLabelsSelector{Selector: s})
	}
	if o.fieldSelector != "" {
		s, err := fields.ParseSelector(setting.Trim(o.fieldSelector))
		if err != nil {
			return nil, usage("--field-selector: %v", err)
		}
		out = append(out, client.MatchingFieldsSelector{Selector: s})
	}
	return out, nil
}

// query is what the flags ask for: the resources of a namespace, or of all namespaces if it is empty.
type query struct {
	*cluster

	namespace string
	opts      []client.ListOption
	// printer is nil for the table.
	printer printers.ResourcePrinter
}

// query reads the flags and connects to the cluster.
func (o *listOptions) query() (q query, err error) {
	if q.printer, err = o.printer(); err != nil {
		return q, err
	}
	if q.opts, err = o.options(); err != nil {
		return q, err
	}
	if q.cluster, err = o.app.connect(); err != nil {
		return q, err
	}
	if !o.allNamespaces {
		q.namespace = q.cluster.namespace
	}
	return q, nil
}

func (o *listOptions) run(ctx context.Context) error {
	q, err := o.query()
	if err != nil {
		return err
	}
	if o.watch {
		return o.follow(ctx, q.cluster, q.namespace, q.printer, q.opts)
	}
	l, err := q.list(ctx, q.namespace, q.opts...)
	if err != nil {
		return err
	}
	sortTokens(l.Items)
	if q.printer != nil {
		return printAll(o.print, q.printer, l, l.Items, o.app.Out)
	}
	if len(l.Items) == 0 {
		fmt.Fprintf(o.app.ErrOut, "No WeChatAppTokens found%s.\n", o.where(q.namespace))
		return nil
	}
	for _, line := range o.table(l.Items, o.app.now(), o.noHeaders).lines(o.app.paint) {
		fmt.Fprintln(o.app.Out, line)
	}
	return nil
}

// printAll prints the resources as a list, except with -o name, whose printer in cli-runtime takes no list.
func printAll[T any, P interface {
	*T
	runtime.Object
}](flags *genericclioptions.PrintFlags, printer printers.ResourcePrinter, list runtime.Object, items []T, to io.Writer) error {
	if *flags.OutputFormat != "name" {
		return printer.PrintObj(list, to)
	}
	for i := range items {
		if err := printer.PrintObj(P(&items[i]), to); err != nil {
			return err
		}
	}
	return nil
}

func (o *listOptions) where(namespace string) string {
	if namespace == "" {
		return ""
	}
	return fmt.Sprintf(" in namespace %q; -A looks into all", namespace)
}

func sortTokens(items []v1alpha1.WeChatAppToken) {
	slices.SortFunc(items, func(a, b v1alpha1.WeChatAppToken) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// table returns a table with a row for each resource, as it is at the time now.
func (o *listOptions) table(items []v1alpha1.WeChatAppToken, now time.Time, noHeaders bool) *table {
	t := &table{}
	isWide := *o.print.OutputFormat == wide
	if !noHeaders {
		t.header = []string{"NAME", "APP ID", "MODE", "STATE", "EXPIRES IN", "NEXT ATTEMPT", "REASON"}
		if isWide {
			t.header = append(t.header, "SECRET", "FINGERPRINT", "FORCED", "TICKETS", "AGE", "MESSAGE")
		}
		if o.allNamespaces {
			t.header = append([]string{"NAMESPACE"}, t.header...)
		}
	}
	for i := range items {
		l := lookAt(&items[i], now)
		s := l.state()
		row := []cell{
			{text: l.Name}, {text: l.Spec.AppID}, {text: string(l.Spec.Mode)}, {text: string(s), color: s.color()},
			l.expiry(), l.attemptCell(), {text: clean(l.reason())},
		}
		if isWide {
			row = append(row, l.wideCells()...)
		}
		if o.allNamespaces {
			row = append([]cell{{text: l.Namespace}}, row...)
		}
		t.add(row...)
	}
	return t
}

func (l look) wideCells() []cell {
	fingerprint := "-"
	if t := l.Status.Token; t != nil && t.Fingerprint != "" {
		fingerprint = t.Fingerprint
	}
	return []cell{
		{text: l.TargetName()}, {text: clean(fingerprint)}, {text: fmt.Sprintf("%d/%d", len(l.forced()), refresh.ForcedPerDay)},
		l.ticketsCell(), {text: age(l.CreationTimestamp.Time, l.now)}, {text: clean(l.message())},
	}
}
