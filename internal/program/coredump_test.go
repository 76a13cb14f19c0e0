// SPDX-License-Identifier: Apache-2.0

package program

import (
	"syscall"
	"testing"
)

func TestNoCoreDumps(t *testing.T) {
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &before); err != nil {
		t.Fatal(err)
	}
	if before.Max == 0 {
		t.Skip("this process may write no core dumps anyway")
	}
	// The limit of a process without privileges can be set once in its life. This one is the test's.
	if err := noCoreDumps(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &after); err != nil || after != (syscall.Rlimit{}) {
		t.Errorf("the limit is %+v, %v", after, err)
	}
}
