// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	setting "github.com/wechat-token-operator/wechat-token-operator/internal/plain"
)

// terminal is everything that a command uses besides the cluster. Tests replace it.
type terminal struct {
	genericiooptions.IOStreams

	now    func() time.Time
	getenv func(string) string
	// knowsEscapes reports whether a writer is a terminal that understands escape sequences. If it is nil, none is.
	knowsEscapes func(io.Writer) bool
}

// app is one run of the plugin.
type app struct {
	terminal

	flags *genericclioptions.ConfigFlags
	// escapes reports whether Out understands escape sequences, and paint colours the text that goes there.
	escapes bool
	paint   palette
}

func newApp(t terminal) *app {
	a := &app{terminal: t, flags: genericclioptions.NewConfigFlags(true)}
	a.escapes = t.knowsEscapes != nil && t.knowsEscapes(t.Out) && setting.Trim(t.getenv("TERM")) != "dumb"
	a.paint = palette{on: a.escapes && t.getenv("NO_COLOR") == ""}
	return a
}

// run carries out a command line and returns the exit code.
func run(ctx context.Context, t terminal, args []string) int {
	a := newApp(t)
	root := a.command() //nolint:contextcheck // each command gets the context when it runs
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	if err != nil && !bareInterrupt(err) {
		printError(t.ErrOut, a.shell(), err)
	}
	return code
}

// bareInterrupt reports whether the command ended by Ctrl-C and has nothing more to say about it.
func bareInterrupt(err error) bool {
	var p *problem
	return errors.Is(err, context.Canceled) && !errors.As(err, &p)
}

// printError prints an error, with each command that it advises on a line of its own.
func printError(w io.Writer, s shell, err error) {
	lines := cleanLines(err.Error())
	for i, line := range lines {
		lines[i] = s.paste(line)
	}
	fmt.Fprintln(w, "error: "+strings.Join(lines, "\n  "))
}

const rootHelp = `Look after WeChatAppTokens, each of which keeps a Secret supplied with a WeChat access token.

Nothing here prints a token, a ticket or an AppSecret, except "reveal --yes".

kubectl's own flags, such as -n, --context, --kubeconfig and --as, work with every command;
"kubectl wxtoken options" lists them.`

// command returns the root command with all of its subcommands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "kubectl-wxtoken",
		Short:         "Look after WeChatAppTokens",
		Long:          rootHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl wxtoken"},
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		PersistentPreRun: a.trimArguments,
	}
	root.SuggestionsMinimumDistance = 2
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.ErrOut)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%v\n%s --help", err, cmd.CommandPath())
	})
	a.flags.AddFlags(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupAct, Title: "Act:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupLook, a.listCommand(), a.statusCommand(), a.waitCommand(), a.clientsCommand(), a.doctorCommand())
	add(groupAct, a.createCommand())
	add(groupAct, a.checkCommand(), a.refreshCommand(), a.revokeCommand(), a.suspendCommand(), a.resumeCommand(), a.revealCommand())
	add(groupOther, optionsCommand(), a.versionCommand())
	a.completeFlags(root)
	root.SetUsageTemplate(usageTemplate)
	return root
}

// trimArguments trims the arguments and the values of kubectl's own flags, which may come from a file with a newline at its end.
func (a *app) trimArguments(_ *cobra.Command, args []string) {
	for i := range args {
		args[i] = setting.Trim(args[i])
	}
	f := a.flags
	for _, value := range []*string{
		f.KubeConfig, f.CacheDir, f.ClusterName, f.AuthInfoName, f.Context, f.Namespace, f.APIServer, f.TLSServerName, f.CertFile, f.KeyFile,
		f.CAFile, f.BearerToken, f.Impersonate, f.ImpersonateUID, f.Username, f.Timeout,
	} {
		if value != nil {
			*value = setting.Trim(*value)
		}
	}
}

const (
	groupLook  = "look"
	groupAct   = "act"
	groupOther = "other"
)

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf(" Did you mean %s?", strings.Join(near, " or "))
	}
	return usage("unknown command %q.%s\n%s --help", args[0], hint, cmd.CommandPath())
}

// oneName, someNames and noArguments check the arguments as cobra's functions do, but with exit code 2 and a hint.
func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usage("name one WeChatAppToken: %s\nThis shows their names:\nkubectl wxtoken list", cmd.Use)
	}
	return nil
}

func someNames(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usage("name a WeChatAppToken: %s\nThis shows their names:\nkubectl wxtoken list", cmd.Use)
	}
	return nil
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no argument, but %q was given\n%s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}

func optionsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "options",
		Short: "List kubectl's own flags, which every command takes",
		Args:  noArguments,
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		fmt.Fprintf(cmd.OutOrStdout(), "These flags work with every command:\n\n%s", cmd.InheritedFlags().FlagUsages())
		return nil
	}
	return c
}

// usageTemplate is cobra's own without the long list of kubectl's flags.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) .IsAvailableCommand)}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasParent}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalNonPersistentFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{end}}{{if .HasAvailableSubCommands}}

Use "{{.CommandPath}} [command] --help" for more about a command.{{end}}
`

// joinErrors returns one error for all, or nil if there are none. It has the exit code of the first. That the user pressed Ctrl-C is said
// of none, and is the error only if there is no other.
func joinErrors(errs []error) error {
	told := slices.DeleteFunc(slices.Clone(errs), bareInterrupt)
	if len(told) == 0 && len(errs) > 0 {
		return errs[0]
	}
	errs = told
	texts := make([]string, 0, len(errs))
	code := exitFailed
	for i, err := range errs {
		var p *problem
		if errors.As(err, &p) && i == 0 {
			code = p.code
		}
		texts = append(texts, err.Error())
	}
	if len(texts) == 0 {
		return nil
	}
	return &problem{code: code, what: strings.Join(texts, "\n"), err: errors.Join(errs...)}
}
