// SPDX-License-Identifier: Apache-2.0

package program

import (
	"io/fs"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
)

// gcPercent is the default of GOGC in these programs. Go's own is 100.
const gcPercent = 40

// memoryShare is the part of the container's memory that Go's heap may take before the collector works harder. The rest is for what
// Go does not count.
const memoryShare = 0.9

// setMemory sets the memory limit and the pace of the garbage collector, unless the environment does.
func setMemory(logger logr.Logger) {
	setGC(os.Getenv("GOGC"), logger)
	setMemoryLimit(os.DirFS("/"), os.Getenv)
}

// setMemoryLimit sets Go's limit from that of the container, unless GOMEMLIMIT does. Go's runtime has read that one.
func setMemoryLimit(root fs.FS, getenv func(string) string) {
	if limit := memoryLimit(root); limit > 0 && getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
}

// setGC sets the garbage collector's percentage to the value of GOGC. Go's runtime reads it too, but ignores one that is not exactly a
// number.
func setGC(value string, logger logr.Logger) {
	percent, err := strconv.Atoi(value)
	switch {
	case value == "":
		// Most of the heap is caches, which live long. A more frequent collection costs little (docs/performance.md).
		percent = gcPercent
	case value == "off":
		percent = -1
	case err != nil:
		logger.Info("GOGC is not a number and is ignored", "value", value)
		percent = gcPercent
	}
	debug.SetGCPercent(percent)
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
