// SPDX-License-Identifier: Apache-2.0

// Package architecture holds the sizes of the production code below internal/. Its limits are signs that a file or a type has more
// than one job. They do not prove the opposite.
package architecture

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines       = 300
	maxMethods         = 30
	maxFields          = 18
	controller         = "internal/controller"
	maxControllerLines = 2200
)

// source is the text of one file. Its path is relative to the root of the module, with slashes.
type source struct {
	path string
	text []byte
}

// TestSizes checks every production file below internal/, whatever its build constraints are.
func TestSizes(t *testing.T) {
	files, err := production(os.DirFS("../.."), "internal")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(f source) bool { return path.Dir(f.path) == controller }) {
		t.Errorf("no production files were found in %s", controller)
	}
	broken, err := violations(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range broken {
		t.Error(message)
	}
}

// production returns the Go files below folder that are not tests.
func production(root fs.FS, folder string) (files []source, err error) {
	err = fs.WalkDir(root, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		files = append(files, source{path: name, text: text})
		return err
	})
	return files, err
}

// violations returns a sorted list of messages, one for each limit that the files exceed.
func violations(files []source) ([]string, error) {
	var broken []string
	methods := make(map[string]int) // by folder and type
	fields := make(map[string]int)
	inController := 0
	for _, file := range files {
		lines := strings.Count(string(file.text), "\n")
		if lines > maxFileLines {
			broken = append(broken, fmt.Sprintf("%s has %d lines, at most %d are allowed", file.path, lines, maxFileLines))
		}
		folder := path.Dir(file.path)
		if folder == controller || strings.HasPrefix(folder, controller+"/") {
			inController += lines
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.path, file.text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		count(parsed, folder, methods, fields)
	}
	for name, n := range methods {
		if n > maxMethods {
			broken = append(broken, fmt.Sprintf("type %s has %d methods, at most %d are allowed", name, n, maxMethods))
		}
	}
	for name, n := range fields {
		if n > maxFields {
			broken = append(broken, fmt.Sprintf("struct %s has %d fields, at most %d are allowed", name, n, maxFields))
		}
	}
	if inController > maxControllerLines {
		broken = append(broken, fmt.Sprintf("%s has %d lines, at most %d are allowed", controller, inController, maxControllerLines))
	}
	slices.Sort(broken)
	return broken, nil
}

// count adds the methods and fields that a file declares to those of the other files of its folder.
func count(file *ast.File, folder string, methods, fields map[string]int) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv != nil {
				methods[folder+"."+receiver(n.Recv.List[0].Type)]++
			}
		case *ast.TypeSpec:
			switch definition := n.Type.(type) {
			case *ast.StructType:
				fields[folder+"."+n.Name.Name] += leaves(definition)
			case *ast.InterfaceType:
				methods[folder+"."+n.Name.Name] += definition.Methods.NumFields()
			}
		}
		return true
	})
}

// receiver returns the name of a receiver's type without its pointer and its type parameters.
func receiver(expr ast.Expr) string {
	switch e := expr.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.ParenExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// leaves returns the number of fields of a struct. An embedded type counts as one field, and an anonymous struct counts as the
// fields that it contains.
func leaves(s *ast.StructType) int {
	n := 0
	for _, field := range s.Fields.List {
		each := 1
		if inner, ok := field.Type.(*ast.StructType); ok {
			each = leaves(inner)
		}
		n += each * max(1, len(field.Names))
	}
	return n
}

// TestViolations checks that each limit is noticed when it is exceeded by one, and not before.
func TestViolations(t *testing.T) {
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	// padded returns a file with exactly this number of lines.
	padded := func(lines int) string { return "package p\n" + strings.Repeat("\n", lines-1) }
	methods := func(n int, receiver string) string { return repeat(n, "func ("+receiver+") m%d() {}\n") }
	fields := func(n int) string { return repeat(n, "\tf%d int\n") }
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"lines":          {map[string]string{"internal/a/a.go": padded(300)}, ""},
		"too many lines": {map[string]string{"internal/a/a.go": padded(301)}, "internal/a/a.go has 301 lines"},
		"methods":        {map[string]string{"internal/a/a.go": "package a\ntype t int\n" + methods(30, "t")}, ""},
		"too many methods, in two files": {map[string]string{
			"internal/a/a.go": "package a\ntype t int\n" + methods(16, "t"),
			"internal/a/b.go": "package a\n" + methods(15, "x *t"),
		}, "type internal/a.t has 31 methods"},
		"types of the same name in two packages": {map[string]string{
			"internal/a/a.go": "package a\ntype t int\n" + methods(16, "t"),
			"internal/b/b.go": "package b\ntype t int\n" + methods(15, "t"),
		}, ""},
		"too many methods of a generic type": {map[string]string{
			"internal/a/a.go": "package a\ntype t[K, V any] struct{}\n" + methods(31, "*t[K, V]"),
		}, "type internal/a.t has 31 methods"},
		"too many methods of an interface": {map[string]string{
			"internal/a/a.go": "package a\ntype t interface {\n" + repeat(31, "\tm%d()\n") + "}\n",
		}, "type internal/a.t has 31 methods"},
		"fields":          {map[string]string{"internal/a/a.go": "package a\ntype t struct {\n" + fields(18) + "}\n"}, ""},
		"too many fields": {map[string]string{"internal/a/a.go": "package a\ntype t struct {\n" + fields(19) + "}\n"}, "struct internal/a.t has 19 fields"},
		"too many fields on one line, with an embedded one": {map[string]string{
			"internal/a/a.go": "package a\ntype t struct {\n\tu\n\tx" + repeat(17, ", x%d") + " int\n}\n",
		}, "struct internal/a.t has 19 fields"},
		"too many fields, in anonymous structs": {map[string]string{
			"internal/a/a.go": "package a\ntype t struct {\n\ta, b struct {\n" + fields(9) + "}\n\tc int\n}\n",
		}, "struct internal/a.t has 19 fields"},
		"too many fields of a type in a function": {map[string]string{
			"internal/a/a.go": "package a\nfunc f() {\ntype t struct {\n" + fields(19) + "}\n}\n",
		}, "struct internal/a.t has 19 fields"},
		"lines of the controller": {map[string]string{
			"internal/controller/a.go": padded(300), "internal/controller/b.go": padded(300), "internal/controller/c.go": padded(300),
			"internal/controller/d.go": padded(300), "internal/controller/e.go": padded(300), "internal/controller/f.go": padded(300),
			"internal/controller/g.go": padded(300), "internal/controller/h.go": padded(100), "internal/other/a.go": padded(300),
		}, ""},
		"too many lines of the controller": {map[string]string{
			"internal/controller/a.go": padded(300), "internal/controller/b.go": padded(300), "internal/controller/c.go": padded(300),
			"internal/controller/d.go": padded(300), "internal/controller/e.go": padded(300), "internal/controller/f.go": padded(300),
			"internal/controller/g.go": padded(300), "internal/controller/sub/h.go": padded(101),
		}, "internal/controller has 2201 lines"},
	} {
		t.Run(name, func(t *testing.T) {
			var files []source
			for p, text := range test.files {
				files = append(files, source{path: p, text: []byte(text)})
			}
			broken, err := violations(files)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(broken, "\n")
			if test.want == "" && got != "" || test.want != "" && (len(broken) != 1 || !strings.HasPrefix(got, test.want+",")) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	if _, err := violations([]source{{path: "internal/a/a.go", text: []byte("package")}}); err == nil {
		t.Error("a file that cannot be parsed is no error")
	}
}
