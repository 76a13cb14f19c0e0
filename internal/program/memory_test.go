// SPDX-License-Identifier: Apache-2.0

package program

import (
	"runtime/debug"
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	const v2, v1 = "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"
	for name, test := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no control group":     {nil, 0},
		"256 MiB":              {map[string]string{v2: "268435456\n"}, 241591910},
		"no limit":             {map[string]string{v2: "max\n"}, 0},
		"version 1":            {map[string]string{v1: "268435456\n"}, 241591910},
		"version 1, no limit":  {map[string]string{v1: "9223372036854771712\n"}, 0},
		"both":                 {map[string]string{v2: "1000\n", v1: "2000\n"}, 900},
		"something else":       {map[string]string{v2: "-1\n"}, 0},
		"version 2 has no max": {map[string]string{v2: "max\n", v1: "2000\n"}, 0},
	} {
		root := fstest.MapFS{}
		for path, text := range test.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := memoryLimit(root); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// TestMemoryLimitIsSet reads back what Go's runtime was told. A GOMEMLIMIT, which the runtime has read itself, stays.
func TestMemoryLimitIsSet(t *testing.T) {
	before := debug.SetMemoryLimit(-1) // asks only
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const ours, theirs = 3_600_000_000, 8 << 30
	limited := fstest.MapFS{"sys/fs/cgroup/memory.max": {Data: []byte("4000000000\n")}}
	for name, test := range map[string]struct {
		root fstest.MapFS
		env  string
		want int64
	}{
		"the container's":  {limited, "", ours},
		"GOMEMLIMIT":       {limited, "8GiB", theirs},
		"GOMEMLIMIT=off":   {limited, "off", theirs},
		"no limit to take": {fstest.MapFS{}, "", theirs},
	} {
		debug.SetMemoryLimit(theirs)
		setMemoryLimit(test.root, func(name string) string { return map[string]string{"GOMEMLIMIT": test.env}[name] })
		if got := debug.SetMemoryLimit(-1); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
