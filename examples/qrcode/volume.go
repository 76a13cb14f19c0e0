// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// token is what the Secret holds at one time. It prints as nothing, so that no log can show it.
type token struct {
	value     string
	expiresAt time.Time
}

// String hides the value from every way of printing.
func (token) String() string { return "[token]" }

// GoString hides it from %#v.
func (token) GoString() string { return "[token]" }

// volume is the mounted Secret.
type volume struct {
	dir string

	mu      sync.Mutex
	current token
}

func newVolume(dir string) *volume { return &volume{dir: dir} }

// dataLink is the link that the kubelet turns to a new folder when the Secret changes.
const dataLink = "..data"

// token is the newest one that is known.
func (v *volume) token() (token, error) {
	v.mu.Lock()
	t := v.current
	v.mu.Unlock()
	if t.value == "" {
		return v.read()
	}
	return t, nil
}

// read looks at the files. Token and expiry come from one folder, so the link is resolved once; a folder that vanishes meanwhile
// has a successor.
func (v *volume) read() (token, error) {
	for {
		folder, err := os.Readlink(filepath.Join(v.dir, dataLink))
		if err != nil {
			return token{}, fmt.Errorf("%s is no mounted Secret: %w", v.dir, err)
		}
		t, err := readFolder(filepath.Join(v.dir, folder))
		if err == nil {
			v.mu.Lock()
			v.current = t
			v.mu.Unlock()
			return t, nil
		}
		if now, _ := os.Readlink(filepath.Join(v.dir, dataLink)); now == folder {
			return token{}, fmt.Errorf("the Secret holds no token: %w", err)
		}
	}
}

func readFolder(dir string) (t token, err error) {
	value, valueErr := os.ReadFile(filepath.Join(dir, "access_token"))
	expiry, expiryErr := os.ReadFile(filepath.Join(dir, "expires_at"))
	if err := errors.Join(valueErr, expiryErr); err != nil {
		return t, err
	}
	t.value = string(value)
	if t.expiresAt, err = time.Parse(time.RFC3339, string(expiry)); err != nil {
		return token{}, fmt.Errorf("expires_at: %w", err)
	}
	return t, nil
}

// follow reads the volume now and whenever it changes, until ctx ends.
func (v *volume) follow(ctx context.Context, log *slog.Logger) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close() //nolint:errcheck // nothing is lost
	// The folder and not a file in it: a file is replaced by turning a link, which a watch of the file does not see.
	if err := watcher.Add(v.dir); err != nil {
		return fmt.Errorf("following %s: %w", v.dir, err)
	}
	v.readAndSay(log) // after the watch began, so that no change is missed
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-watcher.Events:
			if !open {
				return errors.New("the watch of the volume ended")
			}
			if filepath.Base(event.Name) == dataLink && event.Has(fsnotify.Create) {
				v.readAndSay(log)
			}
		case err := <-watcher.Errors:
			log.Warn("following the volume", "error", err)
			v.readAndSay(log) // a change may have been missed
		}
	}
}

func (v *volume) readAndSay(log *slog.Logger) {
	t, err := v.read()
	if err != nil {
		log.Warn("no token yet", "error", err)
		return
	}
	log.Info("token read", "expiresAt", t.expiresAt)
}
