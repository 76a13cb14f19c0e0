// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
)

func TestQuiet(t *testing.T) {
	var lines []string
	logger := Quiet(funcr.New(func(prefix, args string) { lines = append(lines, prefix+" "+args) },
		funcr.Options{Verbosity: 20, LogCaller: funcr.All}))
	for name, tc := range map[string]struct {
		log  func(logr.Logger)
		want string // without the line of the caller
	}{
		"plain":         {func(l logr.Logger) { l.Info("m", "a", 1) }, `"level"=0 "msg"="m" "a"=1`},
		"an error":      {func(l logr.Logger) { l.WithValues("a", 1).Error(errors.New("e"), "m", "b", 2) }, `"msg"="m" "error"="e" "a"=1 "b"=2`},
		"values, name":  {func(l logr.Logger) { l.WithValues("a", 1).WithName("n").WithValues("b", 2).V(3).Info("m", "c", 3) }, `n "level"=3 "msg"="m" "a"=1 "b"=2 "c"=3`},
		"an odd number": {func(l logr.Logger) { l.WithValues("a").Info("m", "b", 2) }, `"level"=0 "msg"="m" "a"="(missing)" "b"=2`},
		"siblings": {func(l logr.Logger) {
			parent := l.WithValues("a", 1)
			first := parent.WithValues("b", 2)
			parent.WithValues("b", 3)
			first.Info("m")
		}, `"level"=0 "msg"="m" "a"=1 "b"=2`},
		"bodies":         {func(l logr.Logger) { l.V(bodies).Info("m") }, ""},
		"with a helper":  {func(l logr.Logger) { helper(l.WithValues("a", 1)) }, `"level"=0 "msg"="m" "a"=1`},
		"below an error": {func(l logr.Logger) { l.V(bodies - 1).Info("m") }, `"level"=7 "msg"="m"`},
	} {
		t.Run(name, func(t *testing.T) {
			lines = nil
			tc.log(logger)
			got := strings.TrimSpace(strings.Join(lines, "\n"))
			if tc.want == "" {
				if got != "" {
					t.Errorf("logged %s", got)
				}
				return
			}
			caller, rest, _ := strings.Cut(got, "} ")
			prefix, caller, _ := strings.Cut(caller, `"caller"=`)
			if got := prefix + rest; got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if !strings.Contains(caller, "quiet_sink_test.go") {
				t.Errorf("the caller is %s", caller)
			}
		})
	}
	if l := Quiet(logr.Discard()); l.GetSink() != nil {
		t.Error("what discards everything got a sink")
	}
}

// helper logs in the name of its caller.
func helper(l logr.Logger) { l.WithCallDepth(1).Info("m") }
