// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"time"

	"github.com/go-logr/logr"
)

// caInterval is the time between two reads of a file.
const caInterval = 5 * time.Second

// CAWatch reads a file with certificate authorities again and again. They are rotated, and a file that is mounted changes without notice.
type CAWatch struct {
	// Flag names the file, for the log.
	Flag string
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
			w.Log.Error(err, "a file with certificate authorities cannot be read, so those that it held before, if any, stay in use", "flag", w.Flag)
		case err != nil:
		case changed:
			told = ""
			w.Log.Info("a file with certificate authorities has changed, and its new ones are in use", "flag", w.Flag)
		case told != "":
			told = ""
			w.Log.Info("a file with certificate authorities can be read again, and has not changed", "flag", w.Flag)
		}
	}
}

// NeedLeaderElection returns false, so that a standby knows the certificates of the day when it takes over.
func (CAWatch) NeedLeaderElection() bool { return false }
