// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// completeNames completes the names of WeChatAppTokens that are not on the command line yet. It stops once there are limit
// arguments; a limit of 0 means that there may be any number.
func (a *app) completeNames(limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		l, err := c.list(cmd.Context(), c.namespace)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []cobra.Completion
		for i := range l.Items {
			t := lookAt(&l.Items[i], a.now())
			if strings.HasPrefix(t.Name, prefix) && !slices.Contains(args, t.Name) {
				out = append(out, cobra.CompletionWithDesc(t.Name, string(t.state())+", appid "+t.Spec.AppID))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlags completes the values of kubectl's own flags, as kubectl does.
func (a *app) completeFlags(root *cobra.Command) {
	fromConfig := func(flag string, names func(clientcmdapi.Config) []string) {
		must(root.RegisterFlagCompletionFunc(flag,
			func(_ *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
				raw, err := a.flags.ToRawKubeConfigLoader().RawConfig()
				if err != nil {
					return nil, cobra.ShellCompDirectiveError
				}
				found := slices.DeleteFunc(names(raw), func(n string) bool { return !strings.HasPrefix(n, prefix) })
				return found, cobra.ShellCompDirectiveNoFileComp
			}))
	}
	fromConfig("context", func(c clientcmdapi.Config) []string { return slices.Sorted(maps.Keys(c.Contexts)) })
	fromConfig("cluster", func(c clientcmdapi.Config) []string { return slices.Sorted(maps.Keys(c.Clusters)) })
	fromConfig("user", func(c clientcmdapi.Config) []string { return slices.Sorted(maps.Keys(c.AuthInfos)) })
	must(root.RegisterFlagCompletionFunc("namespace",
		func(cmd *cobra.Command, _ []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
			c, err := a.connect()
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			l := &metav1.PartialObjectMetadataList{}
			l.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
			if err := c.List(cmd.Context(), l); err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			var out []cobra.Completion
			for _, ns := range l.Items {
				if strings.HasPrefix(ns.Name, prefix) {
					out = append(out, ns.Name)
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		}))
}
