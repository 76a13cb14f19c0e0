// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io/fs"
	"math"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare is the part of the container's memory that Go's heap may take before the collector works harder. The rest is for what
// Go does not count.
const memoryShare = 0.9

// setMemoryLimit sets Go's limit from that of the container, unless GOMEMLIMIT does. Go's runtime has read that one.
func setMemoryLimit(root fs.FS, getenv func(string) string) {
	if limit := memoryLimit(root); limit > 0 && getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
}

// memoryLimit returns the limit for Go's memory, in bytes, or 0 if the container has none. root is the root of the file system, where the
// kernel shows the limits of a control group of version 2 or 1.
func memoryLimit(root fs.FS) int64 {
	for _, name := range [...]string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		if err != nil || limit <= 0 || limit > math.MaxInt64/2 { // "max", or the number that version 1 has for it
			return 0
		}
		return int64(memoryShare * float64(limit))
	}
	return 0
}
