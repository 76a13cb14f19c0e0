// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// defaultCredentialsKey is the CRD's default for spec.credentialsSecretRef.key.
const defaultCredentialsKey = "appSecret"

type createOptions struct {
	app *app

	appID          string
	credentials    string
	credentialsKey string
	secret         string
	mode           string
	checkInterval  time.Duration
	tickets        []string
	dryRun         string
	print          *genericclioptions.PrintFlags
}

const (
	dryRunNone   = "none"
	dryRunClient = "client"
	dryRunServer = "server"
)

func (a *app) createCommand() *cobra.Command {
	o := &createOptions{app: a, print: genericclioptions.NewPrintFlags("").WithTypeSetter(newScheme())}
	c := &cobra.Command{
		Use:   "create NAME --app-id=APPID",
		Short: "Create a WeChatAppToken, or print its manifest",
		Long: `Create a WeChatAppToken. With --dry-run=client -o yaml only print its manifest, for Git.

The AppSecret is no argument: it belongs into a Secret, NAME-wechat if no other is named. If that does
not exist, the command says how to create it.`,
		Example: `  kubectl wxtoken create shop --app-id=wx0123456789abcdef

  # A manifest for Git
  kubectl wxtoken create shop --app-id=wx0123456789abcdef --dry-run=client -o yaml > shop.yaml`,
		Args: oneNewName, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), args[0]) },
	}
	f := c.Flags()
	f.StringVar(&o.appID, "app-id", "", "AppID (appid) of the app, such as wx0123456789abcdef. Required.")
	f.StringVar(&o.credentials, "credentials-secret", "", "Secret that holds the AppSecret; by default NAME-wechat.")
	f.StringVar(&o.credentialsKey, "credentials-key", "", "Key of that Secret; by default appSecret.")
	f.StringVar(&o.secret, "secret", "", "Secret that receives the token; by default NAME-token.")
	f.StringVar(&o.mode, "mode", "", "Stable or Legacy; by default Stable.")
	f.DurationVar(&o.checkInterval, "check-interval", 0, "How often the token is checked with WeChat, from 30s to 1h; by default 2m.")
	f.StringSliceVar(&o.tickets, "ticket", nil, "Tickets to keep beside the token: jsapi, wx_card or sdk. Can be repeated.")
	f.StringVar(&o.dryRun, "dry-run", dryRunNone, "none, client (only print) or server (let the API server check it).")
	o.print.AddFlags(c)
	c.Flag("output").Usage = "Output format: yaml, json, name and so on."
	for _, name := range []string{"template", "allow-missing-template-keys", "show-managed-fields"} {
		must(f.MarkHidden(name))
	}
	fixed := func(flag string, values ...string) {
		must(c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
	}
	fixed("dry-run", dryRunNone, dryRunClient, dryRunServer)
	fixed("mode", string(v1alpha1.ModeStable), string(v1alpha1.ModeLegacy))
	fixed("ticket", ticketTypes()...)
	fixed("output", o.print.AllowedFormats()...)
	return c
}

// oneNewName checks the arguments of create.
func oneNewName(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage("give the new resource one name: create NAME --app-id=APPID")
	}
	return nil
}

// ticketTypes returns the types of tickets that WeChat has.
func ticketTypes() []string {
	out := make([]string, 0, len(v1alpha1.TicketTypes()))
	for _, t := range v1alpha1.TicketTypes() {
		out = append(out, string(t))
	}
	return out
}

// manifest returns the resource that the flags describe. What they leave out is left to the defaults of the CRD.
func (o *createOptions) manifest(name, namespace string) *v1alpha1.WeChatAppToken {
	or := func(value, fallback string) string {
		if value == "" {
			return fallback
		}
		return value
	}
	t := &v1alpha1.WeChatAppToken{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.Kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.WeChatAppTokenSpec{
			AppID: o.appID,
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{
				Name: or(o.credentials, name+"-wechat"), Key: o.credentialsKey,
			},
			Mode:          v1alpha1.Mode(o.mode),
			CheckInterval: metav1.Duration{Duration: o.checkInterval},
			Target:        v1alpha1.TargetSpec{Name: or(o.secret, name+"-token")},
		},
	}
	for _, kind := range o.tickets {
		t.Spec.Tickets = append(t.Spec.Tickets, v1alpha1.TicketSpec{Type: v1alpha1.TicketType(kind)})
	}
	return t
}

func (o *createOptions) run(ctx context.Context, name string) error {
	switch {
	case o.appID == "":
		return usage("--app-id is required: WeChat's console shows it")
	case o.dryRun != dryRunNone && o.dryRun != dryRunClient && o.dryRun != dryRunServer:
		return usage("--dry-run must be none, client or server, not %q", o.dryRun)
	}
	format := *o.print.OutputFormat
	printer, err := o.print.ToPrinter()
	if format != "" && err != nil {
		return usage("-o %s: %v", format, err)
	}
	c, err := o.app.connect()
	if err != nil {
		return err
	}
	t := o.manifest(name, c.namespace)
	if o.dryRun == dryRunClient && !c.explicit {
		t.Namespace = "" // the manifest is for whatever namespace it is applied to
	}
	if o.dryRun != dryRunClient {
		opts := []client.CreateOption{client.FieldOwner(fieldManager)}
		if o.dryRun == dryRunServer {
			opts = append(opts, client.DryRunAll)
		}
		if err := c.Create(ctx, t, opts...); err != nil {
			return explain(err, fmt.Sprintf("create WeChatAppToken %q", name))
		}
		t.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.Kind))
	}
	if format != "" {
		return printer.PrintObj(t, o.app.Out)
	}
	return o.tell(ctx, c, t)
}

// tell says what was created and what comes next.
func (o *createOptions) tell(ctx context.Context, c *cluster, t *v1alpha1.WeChatAppToken) error {
	how := map[string]string{dryRunClient: " (dry run)", dryRunServer: " (server dry run)"}[o.dryRun]
	fmt.Fprintf(o.app.Out, "%s: created%s\n", t.Name, how)
	if o.dryRun != dryRunNone {
		return nil
	}
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	err := c.Get(ctx, client.ObjectKey{Namespace: t.Namespace, Name: t.Spec.CredentialsSecretRef.Name}, m)
	next := "This waits for the token:\n" + commandFor("wait", t.Name, t.Namespace)
	if apierrors.IsNotFound(err) {
		next = fmt.Sprintf("Secret %s does not exist yet; this creates it. %s:\n%s\n%s", t.Spec.CredentialsSecretRef.Name, pasteSecret,
			createCredentials(t), next)
	}
	fmt.Fprintln(o.app.Out, strings.Join(o.app.shell().paragraph(next, textWidth), "\n"))
	return nil
}
