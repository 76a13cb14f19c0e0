// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, size int) []byte {
		content := bytes.Repeat([]byte("x"), size)
		if err := os.WriteFile(at(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		return content
	}
	full := write("full", most)
	write("large", most+1)
	write("huge", 0)
	for _, err := range []error{
		os.Symlink("full", at("link")),
		os.Symlink("loop", at("loop")),
		os.Truncate(at("huge"), 64<<20), // it takes no space on the disk
		syscall.Mkfifo(at("pipe"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"full", "link"} {
		if got, err := Read(at(name)); err != nil || !bytes.Equal(got, full) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for name, says := range map[string]string{
		at("large"):   "is larger than 4 MiB",
		at("huge"):    "is larger than 4 MiB",
		at("pipe"):    "is not a regular file",
		dir:           "is not a regular file",
		"/dev/zero":   "is not a regular file",
		at("loop"):    "too many levels of symbolic links",
		at("missing"): "no such file",
	} {
		got, err := Read(name)
		if err == nil || got != nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %d bytes, %v, want %q", name, len(got), err, says)
		}
	}
}
