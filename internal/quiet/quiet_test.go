// SPDX-License-Identifier: Apache-2.0

package quiet_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/wechat-token-operator/wechat-token-operator/internal/quiet"
)

// TestLogger checks that every logger made from a quiet one hides level 8, from which client-go logs bodies.
func TestLogger(t *testing.T) {
	var lines []string
	l := quiet.Logger(funcr.New(func(prefix, args string) { lines = append(lines, prefix+" "+args) }, funcr.Options{Verbosity: 20}))
	for name, derived := range map[string]logr.Logger{
		"itself":       l,
		"with values":  l.WithValues("a", 1),
		"with a name":  l.WithName("n"),
		"at a depth":   l.WithCallDepth(1),
		"with a level": l.V(2),
		"all of them":  l.V(1).WithName("n").WithCallDepth(1).WithValues("a", 1),
	} {
		lines = nil
		derived.V(8).Info("a body")
		derived.V(20).Info("a body")
		derived.Info("shown")
		derived.Error(errors.New("e"), "shown")
		if len(lines) != 2 || slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "body") }) {
			t.Errorf("%s: logged %q", name, lines)
		}
	}
	lines = nil
	l.WithName("n").WithValues("a", 1).V(7).Info("m", "b", 2)
	if want := `n "level"=7 "msg"="m" "a"=1 "b"=2`; len(lines) != 1 || lines[0] != want {
		t.Errorf("logged %q, want %q", lines, want)
	}
}

// TestCaller checks that each line of the log names the line of code that logged it.
func TestCaller(t *testing.T) {
	var lines []string
	l := quiet.Logger(funcr.New(func(_, args string) { lines = append(lines, args) }, funcr.Options{LogCaller: funcr.All}))
	_, _, here, _ := runtime.Caller(0)
	l.Info("m")
	l.WithValues("a", 1).Error(errors.New("e"), "m")
	helper(l)
	if len(lines) != 3 {
		t.Fatalf("logged %q", lines)
	}
	for i, line := range lines {
		if want := fmt.Sprintf(`{"file"="quiet_test.go" "line"=%d}`, here+1+i); !strings.Contains(line, want) {
			t.Errorf("logged %s, want %s", line, want)
		}
	}
}

// helper logs in the name of its caller.
func helper(l logr.Logger) { l.WithCallDepth(1).Info("m") }

func TestDiscard(t *testing.T) {
	if l := quiet.Logger(logr.Discard()); l.GetSink() != nil {
		t.Error("a logger that discards everything got a sink")
	}
}
