// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package main

import (
	"io"

	"k8s.io/cli-runtime/pkg/printers"
)

// understandsEscapes reports whether a writer is a terminal.
func understandsEscapes(w io.Writer) bool { return printers.IsTerminal(w) }
