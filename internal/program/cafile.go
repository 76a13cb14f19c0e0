// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"time"

	"github.com/go-logr/logr"
)

// caInterval is the time between two reads of --wechat-ca-file.
const caInterval = 5 * time.Second

// CAWatch reads --wechat-ca-file again and again. Certificate authorities are rotated, and a file that is mounted changes without notice.
type CAWatch struct {
	// Reload reads the file and reports whether it has changed.
	Reload func() (changed bool, err error)
	Log    logr.Logger
}

// Start reads the file until ctx ends. It tells of a file that cannot be used once for each reason.
func (w CAWatch) Start(ctx context.Context) error {
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(caInterval):
		}
		changed, err := w.Reload()
		switch {
		case err != nil && err.Error() != told:
			told = err.Error()
			w.Log.Error(err, "--wechat-ca-file cannot be read again, so the certificates that it held before stay in use")
		case err != nil:
		case changed:
			told = ""
			w.Log.Info("--wechat-ca-file has changed, and its new certificates are in use")
		case told != "":
			told = ""
			w.Log.Info("--wechat-ca-file can be read again, and has not changed")
		}
	}
}

// NeedLeaderElection returns false, so that a standby knows the certificates of the day when it takes over.
func (CAWatch) NeedLeaderElection() bool { return false }
