// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this plugin",
		Long:  `Print the version of this plugin. "doctor" compares it with the operators of the cluster.`,
		Args:  noArguments, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(a.Out, "kubectl-wxtoken %s for %s, %s/%s, %s\n",
				releaseVersion(), v1alpha1.GroupVersion, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return nil
		},
	}
}

// releaseVersion returns the version that the linker set, or else the one of "go install …@version".
func releaseVersion() string {
	if version != "dev" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}
