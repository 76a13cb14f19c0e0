// SPDX-License-Identifier: Apache-2.0

// Package browser runs Chromium, so that tests see a page as a person does.
package browser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// deadline is how long one page may take. A machine that is busy with other tests needs many times the usual second.
const deadline = 2 * time.Minute

// Path returns Chromium's path, which the environment variable CHROMIUM may name; empty if it is not installed.
func Path() string {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && name != "" {
			return path
		}
	}
	return ""
}

// Need skips the test where Chromium is not installed. CI installs it, see .ci/run, so there it is a failure.
func Need(t *testing.T) {
	t.Helper()
	if Path() != "" {
		return
	}
	const missing = "no browser: install Chromium (Debian's package chromium), or name it in CHROMIUM"
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip("not run, " + missing)
}

// DOM returns the document of a page after its scripts have run, as HTML. Chromium gets the arguments besides its usual ones.
func DOM(t *testing.T, address string, args ...string) string {
	t.Helper()
	// Virtual time stands still while the page waits for an answer, and passes at once while it waits for a timer.
	return run(t, append(args, "--dump-dom", "--virtual-time-budget=30000", address))
}

// Screenshot writes a picture of a page to a file, as PNG.
func Screenshot(t *testing.T, address, file string, args ...string) {
	t.Helper()
	run(t, append(args, "--hide-scrollbars", "--screenshot="+file, address))
}

// run runs Chromium with a profile of its own, and returns what it printed. It ends all processes that Chromium started.
func run(t *testing.T, args []string) string {
	t.Helper()
	// Not t.TempDir, which fails the test if a process that is about to end still writes.
	profile, err := os.MkdirTemp("", "wechat-token-operator-browser-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(profile) //nolint:errcheck // see above
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, Path(), append([]string{
		// Chromium's sandbox does not run as root, and a container has little shared memory.
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		// Nobody else is called.
		"--no-first-run", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-default-apps", "--disable-extensions", "--no-proxy-server",
		"--user-data-dir=" + filepath.Join(profile, "profile"), "--window-size=800,800",
	}, args...)...)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = end
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(fmt.Errorf("chromium: %w: %s", errors.Join(err, ctx.Err()), bytes.TrimSpace(complaint.Bytes())))
	}
	_ = end() // helpers that outlive it
	return out.String()
}
