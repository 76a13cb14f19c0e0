// SPDX-License-Identifier: Apache-2.0

package readers_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// version is what the volume holds at one time. All of it follows from its number.
type version struct{ token, expiresAt, appID string }

func versionOf(n int) version {
	return version{
		// Longer and shorter in turn, so that a mixture of two would show too.
		token:     fmt.Sprintf("%d_%s", n, strings.Repeat("x", 100+n%400)),
		expiresAt: time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC).Format(time.RFC3339),
		appID:     fmt.Sprintf("wx%016d", n),
	}
}

func (v version) fingerprint() string {
	sum := sha256.Sum256([]byte(v.token))
	return hex.EncodeToString(sum[:8])
}

// volume is a mounted Secret as the kubelet keeps it: files are links through ..data, and ..data is a link to a folder that is
// replaced as a whole.
type volume struct {
	dir     string
	current int
	folder  string
}

func newVolume(t *testing.T) *volume {
	t.Helper()
	v := &volume{dir: t.TempDir()}
	for _, name := range []string{"access_token", "expires_at", "app_id"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(v.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.swap(); err != nil {
		t.Fatal(err)
	}
	return v
}

// swap does what the kubelet's AtomicWriter does on an update: a new folder, a new link renamed over the old one, and the old
// folder is removed.
func (v *volume) swap() error {
	v.current++
	folder, err := os.MkdirTemp(v.dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	next := versionOf(v.current)
	for name, value := range map[string]string{"access_token": next.token, "expires_at": next.expiresAt, "app_id": next.appID} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(value), 0o600); err != nil {
			return err
		}
	}
	link := filepath.Join(v.dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(folder), link); err != nil {
		return err
	}
	if err := os.Rename(link, filepath.Join(v.dir, "..data")); err != nil {
		return err
	}
	old := v.folder
	v.folder = folder
	if old == "" {
		return nil
	}
	return os.RemoveAll(old)
}
