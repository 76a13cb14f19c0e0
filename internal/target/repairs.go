// SPDX-License-Identifier: Apache-2.0

package target

import (
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

const (
	// repairCalm is how long nobody may touch the target until repairs are prompt again.
	repairCalm = 10 * time.Minute
	// repairMax is the longest wait between two repairs.
	repairMax = time.Minute
	// contestedAfter is the number of repairs in a row from which the status speaks of them.
	contestedAfter = 3
)

// Repairs paces the repair of a target that somebody keeps rewriting. The zero value is one that nobody touches.
type Repairs struct {
	last  time.Time
	count int
}

// Noted returns the state after somebody else's change was found.
func (r Repairs) Noted(now time.Time) Repairs {
	if now.Sub(r.last) > repairCalm {
		r.count = 0
	}
	return Repairs{last: now, count: r.count + 1}
}

// NotBefore returns when the next repair may be made: at once the first time, then after 1 s, 2 s and so on.
func (r Repairs) NotBefore(now time.Time) time.Time {
	if r.count <= 1 {
		return time.Time{}
	}
	return refresh.EarliestNext(r.last, min(repairMax, time.Second<<min(r.count-2, 10)), now)
}

// Contested reports whether the target is repaired again and again.
func (r Repairs) Contested(now time.Time) bool {
	return r.count >= contestedAfter && now.Sub(r.last) <= repairCalm
}
