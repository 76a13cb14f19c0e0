// SPDX-License-Identifier: Apache-2.0

// Package argocd runs Argo CD's health checks and actions as Argo CD does.
package argocd

import (
	"fmt"
	"maps"
	"slices"

	lua "github.com/yuin/gopher-lua"
)

// libraries are what Argo CD lets a script use: neither strings nor files, and of os the time alone.
var libraries = []struct {
	name string
	open lua.LGFunction
}{
	{lua.LoadLibName, lua.OpenPackage},
	{lua.BaseLibName, lua.OpenBase},
	{lua.TabLibName, lua.OpenTable},
	{lua.OsLibName, openSafeOS},
}

func openSafeOS(l *lua.LState) int {
	lua.OpenOs(l)
	full, ok := l.GetGlobal(lua.OsLibName).(*lua.LTable)
	if !ok {
		l.RaiseError("there is no os")
	}
	full.ForEach(func(key, _ lua.LValue) {
		if name := key.String(); name != "time" && name != "date" {
			full.RawSet(key, lua.LNil)
		}
	})
	l.Push(full)
	return 1
}

// run runs a script on an object and gives what it returns.
func run(script string, object map[string]any) (any, error) {
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer l.Close()
	for _, lib := range libraries {
		if err := l.CallByParam(lua.P{Fn: l.NewFunction(lib.open), NRet: 0, Protect: true}, lua.LString(lib.name)); err != nil {
			return nil, fmt.Errorf("opening the library %s: %w", lib.name, err)
		}
	}
	l.SetGlobal("obj", toLua(l, object))
	if err := l.DoString(script); err != nil {
		return nil, err
	}
	return fromLua(l.Get(-1)), nil
}

func toLua(l *lua.LState, v any) lua.LValue {
	switch v := v.(type) {
	case map[string]any:
		t := l.NewTable()
		for _, key := range slices.Sorted(maps.Keys(v)) {
			t.RawSetString(key, toLua(l, v[key]))
		}
		return t
	case []any:
		t := l.NewTable()
		for _, item := range v {
			t.Append(toLua(l, item))
		}
		return t
	case string:
		return lua.LString(v)
	case bool:
		return lua.LBool(v)
	case float64:
		return lua.LNumber(v)
	}
	return lua.LNil
}

// fromLua takes a table with an item 1 for a list, and an empty one for an empty map.
func fromLua(v lua.LValue) any {
	switch v := v.(type) {
	case *lua.LTable:
		if v.Len() > 0 {
			list := []any{}
			v.ForEach(func(_, item lua.LValue) { list = append(list, fromLua(item)) })
			return list
		}
		m := map[string]any{}
		v.ForEach(func(key, item lua.LValue) { m[key.String()] = fromLua(item) })
		return m
	case lua.LString:
		return string(v)
	case lua.LBool:
		return bool(v)
	case lua.LNumber:
		return float64(v)
	}
	return nil
}
