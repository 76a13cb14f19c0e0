// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// Advice is a text of one or more lines. A line that begins with kubectl is a command: it is printed on a line of its own, is never
// wrapped and has no full stop, so that it can be pasted into a shell as it stands. Texts of the cluster must be clean before they get
// into advice, so that none of their lines is taken for a command.

// commandPrefix is how a command in advice begins.
const commandPrefix = "kubectl "

// commandFor returns a command of this plugin for a resource. The name may be that of several resources, separated by spaces.
func commandFor(verb, name, namespace string) string {
	return fmt.Sprintf("kubectl wxtoken %s %s -n %s", verb, name, namespace)
}

// command returns a command of this plugin for the resource.
func (l look) command(verb string) string { return commandFor(verb, l.Name, l.Namespace) }

// doctorCommand returns the command that finds out why nobody looks after the resource.
func (l look) doctorCommand() string { return "kubectl wxtoken doctor -n " + l.Namespace }

// shell completes commands by the flags with which the user chose the cluster, so that a pasted command goes to the same one.
type shell struct {
	// namespace is added to commands of this plugin that name none, and cluster to all commands. Both may be empty.
	namespace, cluster string
}

// shell returns the shell for the flags of this run.
func (a *app) shell() shell {
	var s shell
	if a.flags == nil {
		return s
	}
	add := func(to *string, flag string, value *string) {
		if value != nil && *value != "" {
			*to += " " + flag + " " + quote(*value)
		}
	}
	add(&s.namespace, "-n", a.flags.Namespace)
	add(&s.cluster, "--context", a.flags.Context)
	add(&s.cluster, "--kubeconfig", a.flags.KubeConfig)
	return s
}

// paste returns a line of advice. A command is completed; other lines stay as they are.
func (s shell) paste(line string) string {
	if !strings.HasPrefix(line, commandPrefix) || strings.HasSuffix(line, "--help") {
		return line
	}
	if strings.HasPrefix(line, "kubectl wxtoken ") && !strings.Contains(line, " -n ") && !strings.HasSuffix(line, " -A") {
		line += s.namespace
	}
	return line + s.cluster
}

// quote returns a value as a POSIX shell reads it back, in quotation marks if it needs them.
func quote(value string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+=,"
	if strings.Trim(value, plain) == "" {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// paragraph returns the lines of an advice. Text is wrapped at the width; a command is completed, indented below
// its text, and not wrapped.
func (s shell) paragraph(advice string, width int) []string {
	var out []string
	for line := range strings.SplitSeq(advice, "\n") {
		if strings.HasPrefix(line, commandPrefix) {
			if len(out) > 0 {
				out = append(out, "  "+s.paste(clean(line)))
			} else {
				out = append(out, s.paste(clean(line)))
			}
			continue
		}
		out = append(out, wrap(clean(line), width)...)
	}
	return out
}

// split returns the text of an advice and its commands, for programs.
func (s shell) split(advice string) (text string, commands []string) {
	var texts []string
	for line := range strings.SplitSeq(advice, "\n") {
		if strings.HasPrefix(line, commandPrefix) {
			commands = append(commands, s.paste(clean(line)))
		} else if line != "" {
			texts = append(texts, clean(line))
		}
	}
	return strings.Join(texts, " "), commands
}
