// SPDX-License-Identifier: Apache-2.0

package observability_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var logRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (?:info|debug|error)[^|]*\\|([^|]*)\\|$")

// docs/metrics.md has each line that the operator or the gateway may log, with its keys.
func TestLogLines(t *testing.T) {
	documented := map[string]string{}
	for _, m := range logRow.FindAllStringSubmatch(string(read(t, root+"/docs/metrics.md")), -1) {
		documented[m[1]] = strings.TrimSpace(m[2])
	}
	written := map[string]string{}
	for _, dir := range []string{"/cmd/operator", "/cmd/gateway", "/internal"} {
		maps.Copy(written, logLines(t, root+dir))
	}
	if len(written) < 8 {
		t.Fatalf("only %d lines were found in the code", len(written))
	}
	for _, message := range slices.Sorted(maps.Keys(written)) {
		if keys, there := documented[message]; !there || keys != written[message] {
			t.Errorf("line %q has the keys %s; the documentation says %s", message, written[message], keys)
		}
		delete(documented, message)
	}
	if len(documented) > 0 {
		t.Errorf("nobody logs %q", slices.Sorted(maps.Keys(documented)))
	}
}

// logLines finds the calls of a logger below a folder: message and keys as the documentation writes them.
func logLines(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if message, keys, found := logLine(call); found {
				out[message] = keys
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// logLine takes apart logger.Info(message, key, value, …) and logger.Error(err, message, key, value, …).
func logLine(call *ast.CallExpr) (message, keys string, found bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return "", "", false
	}
	args := call.Args
	switch {
	case method.Sel.Name == "Info" && len(args) > 0:
	case method.Sel.Name == "Error" && len(args) > 1:
		args = args[1:]
	default:
		return "", "", false
	}
	if message, found = text(args[0]); !found {
		return "", "", false
	}
	var names []string
	for i := 1; i < len(args); i += 2 {
		if key, ok := text(args[i]); ok {
			names = append(names, "`"+key+"`")
		}
	}
	return message, strings.Join(names, ", "), true
}

func text(e ast.Expr) (string, bool) {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(literal.Value)
	return s, err == nil
}
