// SPDX-License-Identifier: Apache-2.0

package program

import (
	"flag"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/wechat-token-operator/wechat-token-operator/internal/plain"
)

// ParseFlags parses the arguments of the command line. Values of flags that come from a ConfigMap or a Secret may have invisible
// characters around them, which are removed. Those inside a value are refused and shown, except in the flags whose values are lists: these
// may have several lines, and their entries are checked.
func ParseFlags(fs *flag.FlagSet, args []string, lists ...string) (err error) {
	if err := fs.Parse(plain.Args(args)); err != nil {
		return err //nolint:wrapcheck // it names the flag
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%q is not a flag, and everything behind it would be ignored", fs.Arg(0))
	}
	fs.Visit(func(f *flag.Flag) {
		if slices.Contains(lists, f.Name) {
			return
		}
		if hidden := plain.Hidden(f.Value.String()); hidden != "" {
			err = fmt.Errorf("--%s: %q has %s", f.Name, f.Value, hidden)
		}
	})
	return err
}

// Namespaces returns the sorted names of a list with commas, each once.
func Namespaces(list string) ([]string, error) {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		name = plain.Trim(name)
		if name == "" {
			continue
		}
		if problems := validation.IsDNS1123Label(name); len(problems) > 0 {
			return nil, fmt.Errorf("--namespaces: %q is not a valid name of a namespace: %s", name, problems[0])
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
