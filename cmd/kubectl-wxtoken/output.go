// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

// formatJSON is the output format of doctor and status for programs. docs/plugin.md describes its fields.
const formatJSON = "json"

// addFormat adds the flag -o of a command whose output is no Kubernetes object.
func addFormat(c *cobra.Command, format *string) {
	c.Flags().StringVarP(format, "output", "o", "", "Output format: json, or empty for people.")
	must(c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{formatJSON}, cobra.ShellCompDirectiveNoFileComp)))
}

func knownFormat(format string) error {
	if format != "" && format != formatJSON {
		return usage("-o %s: the only format is json", format)
	}
	return nil
}

func writeJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// adviceJSON is what to do about something.
type adviceJSON struct {
	Text     string   `json:"text,omitempty"`
	Commands []string `json:"commands,omitempty"`
}

// findingJSON is a finding of doctor, or a link of the chain of status.
type findingJSON struct {
	// Level is ok, note, warning or error.
	Level string      `json:"level"`
	Name  string      `json:"name,omitempty"`
	Text  string      `json:"text"`
	Next  *adviceJSON `json:"next,omitempty"`
}

type chapterJSON struct {
	Title    string        `json:"title"`
	Findings []findingJSON `json:"findings"`
}

type doctorJSON struct {
	Chapters []chapterJSON `json:"chapters"`
	Errors   int           `json:"errors"`
	Warnings int           `json:"warnings"`
	// Tokens is the number of resources that were looked at, in Namespaces.
	Tokens     int      `json:"tokens"`
	Namespaces []string `json:"namespaces"`
	// Narrowed is the only namespace that was looked at because the user may not list the resources of all.
	Narrowed string `json:"narrowedToNamespace,omitempty"`
}

func (s shell) adviceJSON(advice string) *adviceJSON {
	if advice == "" {
		return nil
	}
	text, commands := s.split(advice)
	return &adviceJSON{Text: text, Commands: commands}
}

func (x *examination) writeJSON(narrowed bool) error {
	out := doctorJSON{
		Chapters: []chapterJSON{}, Errors: x.count(levelError), Warnings: x.count(levelWarning), Tokens: len(x.tokens),
		Namespaces: append([]string{}, x.namespaces()...),
	}
	if narrowed {
		out.Narrowed = x.namespace
	}
	for _, c := range x.chapters {
		findings := make([]findingJSON, 0, len(c.findings))
		for _, f := range c.findings {
			findings = append(findings, findingJSON{Level: f.level.String(), Text: clean(f.text), Next: x.shell().adviceJSON(f.next)})
		}
		out.Chapters = append(out.Chapters, chapterJSON{c.title, findings})
	}
	return writeJSON(x.Out, out)
}

type podsJSON struct {
	findingJSON

	Workload string   `json:"workload"`
	Pods     []string `json:"pods"`
}

type statusJSON struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	AppID     string `json:"appID"`
	Mode      string `json:"mode"`
	State     string `json:"state"`
	Reason    string `json:"reason"`
	Message   string `json:"message"`
	// Token and Tickets are as in the status of the resource.
	Token   *v1alpha1.TokenStatus   `json:"token,omitempty"`
	Tickets []v1alpha1.TicketStatus `json:"tickets,omitempty"`
	// NextAttemptTime is when the operator next asks WeChat.
	NextAttemptTime *metav1.Time  `json:"nextAttemptTime,omitempty"`
	Chain           []findingJSON `json:"chain"`
	Pods            []podsJSON    `json:"pods"`
	WhatToDo        []*adviceJSON `json:"whatToDo"`
	NotShown        []string      `json:"notShown,omitempty"`
}

func (s *story) writeJSON(w io.Writer) error {
	out := statusJSON{
		Namespace: s.Namespace, Name: s.Name, AppID: s.Spec.AppID, Mode: string(s.Spec.Mode),
		State: string(s.state()), Reason: s.reason(), Message: s.message(), Token: s.Status.Token, Tickets: s.Status.Tickets,
		Pods: []podsJSON{}, NotShown: s.gaps,
	}
	if at, _, has := s.nextAttempt(); has {
		out.NextAttemptTime = &metav1.Time{Time: at}
	}
	for _, l := range s.chain() {
		out.Chain = append(out.Chain, findingJSON{Level: l.level.String(), Name: l.name, Text: clean(l.text)})
	}
	for _, p := range s.pods {
		l, text := p.judge()
		f := findingJSON{Level: l.String(), Text: clean(text), Next: s.shell.adviceJSON(p.next)}
		out.Pods = append(out.Pods, podsJSON{findingJSON: f, Workload: p.workload, Pods: p.names})
	}
	for _, advice := range s.advice() {
		out.WhatToDo = append(out.WhatToDo, s.shell.adviceJSON(advice))
	}
	return writeJSON(w, out)
}
