// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"sync"
	"time"
)

// StartTime is the time of a process's first pass: a standby that becomes leader starts then. The zero value has not started.
type StartTime struct {
	mu sync.Mutex
	at time.Time
}

// NotLater returns the time of the start. If the clock turns out to have run ahead at the first pass, that is now.
func (s *StartTime) NotLater(now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || IsInFuture(s.at, now) {
		s.at = now
	}
	return s.at
}
