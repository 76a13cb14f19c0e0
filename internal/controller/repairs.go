// SPDX-License-Identifier: Apache-2.0

package controller

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

// repairs paces the repair of a target that somebody keeps rewriting.
type repairs struct {
	last  time.Time
	count int
}

// noted returns the state after somebody else's change was found.
func (r repairs) noted(now time.Time) repairs {
	if now.Sub(r.last) > repairCalm {
		r.count = 0
	}
	return repairs{last: now, count: r.count + 1}
}

// notBefore returns when the next repair may be made: at once the first time, then after 1 s, 2 s and so on.
func (r repairs) notBefore(now time.Time) time.Time {
	if r.count <= 1 {
		return time.Time{}
	}
	return refresh.EarliestNext(r.last, min(repairMax, time.Second<<min(r.count-2, 10)), now)
}

// contested reports whether the target is repaired again and again.
func (r repairs) contested(now time.Time) bool {
	return r.count >= contestedAfter && now.Sub(r.last) <= repairCalm
}
