// SPDX-License-Identifier: Apache-2.0

package architecture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module         = "github.com/wechat-token-operator/wechat-token-operator/"
	maxStateFields = 40
	maxAssigners   = 2
)

// TestState holds what a process remembers of a resource and its account: few fields, and few functions that change each of them.
//
// A struct whose fields are set only while a local value is built or copied counts as one field, because it changes only as a whole.
// Adding an element to a map is no assignment of the map.
func TestState(t *testing.T) {
	code, err := load("../..", "./internal/...")
	if err != nil {
		t.Fatal(err)
	}
	fields := code.fields(module+"internal/controller", "resourceState")
	for _, path := range []string{"gate.target", "membership.account.minted", "target"} {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.path == path }) {
			t.Errorf("%s is not found among the fields", path)
		}
	}
	if len(fields) > maxStateFields {
		t.Errorf("the state has %d fields, at most %d are allowed", len(fields), maxStateFields)
	}
	for _, f := range fields {
		if len(f.assigners) > maxAssigners {
			t.Errorf("%s is assigned in %d functions, at most %d are allowed: %s", f.path, len(f.assigners), maxAssigners, f.assigners)
		}
	}
}

// field is a field that is reachable from the state, with the functions that assign it.
type field struct {
	path      string
	assigners []string
}

// code is type-checked source.
type code struct {
	packages  map[string]*types.Package
	info      types.Info
	assigners map[*types.Var]map[string]bool
}

// load type-checks the packages of this module that match the pattern, and finds all assignments to fields in them.
func load(dir, pattern string) (*code, error) {
	list := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", pattern) //nolint:gosec // constants
	list.Dir = dir
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	exports := map[string]string{}
	files := token.NewFileSet()
	others := importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	c := &code{
		packages:  map[string]*types.Package{},
		info:      types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}, Types: map[ast.Expr]types.TypeAndValue{}},
		assigners: map[*types.Var]map[string]bool{},
	}
	config := &types.Config{Importer: importerFunc(func(path string) (*types.Package, error) {
		if p := c.packages[path]; p != nil {
			return p, nil
		}
		return others.Import(path)
	})}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; { // in the order of the imports
		var p struct {
			ImportPath, Dir, Export string
			GoFiles                 []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return c, nil
		} else if err != nil {
			return nil, err
		}
		exports[p.ImportPath] = p.Export
		if !strings.HasPrefix(p.ImportPath, module) {
			continue
		}
		var parsed []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			parsed = append(parsed, file)
		}
		if c.packages[p.ImportPath], err = config.Check(p.ImportPath, files, parsed, &c.info); err != nil {
			return nil, err
		}
		for _, file := range parsed {
			if !ast.IsGenerated(file) {
				c.noteAssignments(strings.TrimPrefix(p.ImportPath, module), file)
			}
		}
	}
}

type importerFunc func(string) (*types.Package, error)

func (f importerFunc) Import(path string) (*types.Package, error) { return f(path) }

func (c *code) noteAssignments(folder string, file *ast.File) {
	for _, declaration := range file.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		name := folder + "." + f.Name.Name
		if f.Recv != nil {
			name = folder + "." + receiver(f.Recv.List[0].Type) + "." + f.Name.Name
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, left := range n.Lhs {
					c.noteAssignment(name, left)
				}
			case *ast.IncDecStmt:
				c.noteAssignment(name, n.X)
			}
			return true
		})
	}
}

// noteAssignment records that a function assigns a field, unless it is one of a local value.
func (c *code) noteAssignment(function string, left ast.Expr) {
	for {
		if star, ok := left.(*ast.StarExpr); ok {
			left = star.X
		} else if paren, ok := left.(*ast.ParenExpr); ok {
			left = paren.X
		} else {
			break
		}
	}
	selector, ok := left.(*ast.SelectorExpr)
	if !ok || c.info.Selections[selector] == nil || c.isLocalValue(selector.X) {
		return
	}
	if v, ok := c.info.Selections[selector].Obj().(*types.Var); ok {
		if c.assigners[v] == nil {
			c.assigners[v] = map[string]bool{}
		}
		c.assigners[v][function] = true
	}
}

// isLocalValue reports whether an expression is a variable, or a field of one, that no pointer leads to.
func (c *code) isLocalValue(e ast.Expr) bool {
	if _, isPointer := c.info.Types[e].Type.Underlying().(*types.Pointer); isPointer {
		return false
	}
	switch e := e.(type) {
	case *ast.Ident:
		return true
	case *ast.ParenExpr:
		return c.isLocalValue(e.X)
	case *ast.SelectorExpr:
		return c.isLocalValue(e.X)
	}
	return false
}

// fields returns the fields that are reachable from a type.
func (c *code) fields(importPath, name string) []field {
	var found []field
	seen := map[types.Type]bool{}
	var walk func(path string, v *types.Var)
	walk = func(path string, v *types.Var) {
		t := element(v.Type())
		s, isStruct := c.ours(t)
		switch {
		case t.String() == "sync.Mutex":
		case !isStruct || c.isValue(t, nil):
			found = append(found, field{path: path, assigners: slices.Sorted(maps.Keys(c.assigners[v]))})
		case !seen[t]:
			seen[t] = true
			for f := range s.Fields() {
				walk(path+"."+f.Name(), f)
			}
		}
	}
	s, _ := c.ours(c.packages[importPath].Scope().Lookup(name).Type())
	for f := range s.Fields() {
		walk(f.Name(), f)
	}
	return found
}

// isValue reports whether a struct of this module, with all that it holds, changes only as a whole.
func (c *code) isValue(t types.Type, outer []types.Type) bool {
	s, isStruct := c.ours(t)
	if !isStruct || slices.Contains(outer, t) {
		return true
	}
	for f := range s.Fields() {
		if len(c.assigners[f]) > 0 || !c.isValue(element(f.Type()), append(outer, t)) {
			return false
		}
	}
	return true
}

// ours returns the struct that a type of this module is.
func (c *code) ours(t types.Type) (*types.Struct, bool) {
	named, ok := types.Unalias(t).(*types.Named)
	if !ok || named.Obj().Pkg() == nil || c.packages[named.Obj().Pkg().Path()] == nil {
		return nil, false
	}
	s, ok := named.Underlying().(*types.Struct)
	return s, ok
}

// element returns what a pointer, slice or map leads to.
func element(t types.Type) types.Type {
	switch u := t.Underlying().(type) {
	case *types.Pointer:
		return element(u.Elem())
	case *types.Slice:
		return element(u.Elem())
	case *types.Map:
		return element(u.Elem())
	}
	return types.Unalias(t)
}

// TestFields checks what counts as a field and as an assignment.
func TestFields(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module " + module + "fixture\n\ngo 1.26\n",
		"state.go": `package fixture

import "sync"

type state struct {
	mu      sync.Mutex
	place   point
	counter *counter
	again   []counter
	names   map[string]bool
	unused  int
}

type point struct{ x, y int }

type counter struct {
	n     int
	total *int
}

func (s *state) whole() {
	p := s.place
	p.x = 3
	s.place = p
	s.names["a"] = true
	local := counter{}
	local.total = new(int)
	*local.total = 1
}

func (s *state) parts() {
	s.place = point{}
	s.counter.n++
	func() { s.again[0].n = 2 }()
	*s.counter.total = 4
	s.names = nil
}

func reset(c *counter) { (c.n), c.total = 0, nil }
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := load(dir, "./...")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(c.fields(module+"fixture", "state"))
	want := "[{place [fixture.state.parts fixture.state.whole]} " +
		"{counter.n [fixture.reset fixture.state.parts]} {counter.total [fixture.reset fixture.state.parts]} " +
		"{names [fixture.state.parts]} {unused []}]"
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if _, err := load(dir, "./absent"); err == nil {
		t.Error("a package that does not exist is no error")
	}
}
