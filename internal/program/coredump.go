// SPDX-License-Identifier: Apache-2.0

package program

import "syscall"

// noCoreDumps keeps the kernel from writing the memory of the process, which has tokens and AppSecrets, to a file when it crashes.
func noCoreDumps() error {
	return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{})
}
