// SPDX-License-Identifier: Apache-2.0

// Package file reads files that the operator is given by its flags, and that may be anything by the time they are read again.
package file

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// most is the size of the largest file that is read, in bytes. The bundles of certificates of operating systems have a quarter of a MiB.
const most = 4 << 20

// Read returns the content of a regular file of at most 4 MiB. It returns an error for any other: a pipe could keep the caller waiting
// for ever, and a device or a large file could fill the memory.
func Read(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a pipe would wait for a writer
	if err != nil {
		return nil, err //nolint:wrapcheck // it has the name and what was tried
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err //nolint:wrapcheck // it has the name and what was tried
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	switch {
	case err != nil:
		return nil, err //nolint:wrapcheck // it has the name and what was tried
	case len(content) > most:
		return nil, fmt.Errorf("%s is larger than %d MiB", name, most>>20)
	}
	return content, nil
}
