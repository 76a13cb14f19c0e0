// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestShow turns the link of a mounted Secret, as the kubelet does, and reads what is printed.
func TestShow(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "access_token")
	if err := os.Symlink("..data/access_token", file); err != nil {
		t.Fatal(err)
	}
	turn := func(folder, token string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, folder, "access_token"), []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(folder, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	in, out := io.Pipe()
	go func() {
		show(ctx, out, file, time.Millisecond)
		_ = out.Close()
	}()
	lines := bufio.NewScanner(in)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("nothing was printed, want %q", want)
		}
		if _, shown, _ := strings.Cut(lines.Text(), " "); shown != want {
			t.Fatalf("it printed %q, want %q after the time", lines.Text(), want)
		}
	}
	expect("open " + file + ": no such file or directory")
	turn("..1", "first")
	expect("first")
	time.Sleep(20 * time.Millisecond) // it looks again and has nothing to say
	turn("..2", "second")
	expect("second")
	cancel()
	if lines.Scan() {
		t.Errorf("it goes on with %q", lines.Text())
	}
}
