// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"syscall"
)

// enableVirtualTerminalProcessing is the mode of a console that interprets escape sequences. Windows 10 and later have it, and it is off
// unless a program turns it on.
const enableVirtualTerminalProcessing = 0x4

var setConsoleMode = syscall.NewLazyDLL("kernel32.dll").NewProc("SetConsoleMode")

// understandsEscapes reports whether a writer is a console that interprets escape sequences, and makes it do so.
func understandsEscapes(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	var mode uint32
	if syscall.GetConsoleMode(syscall.Handle(f.Fd()), &mode) != nil {
		return false
	}
	if mode&enableVirtualTerminalProcessing != 0 {
		return true
	}
	done, _, _ := setConsoleMode.Call(f.Fd(), uintptr(mode|enableVirtualTerminalProcessing))
	return done != 0
}
