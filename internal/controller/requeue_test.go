// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/internal/refresh"
)

// Work that a token's life depends on goes before checks.
func TestRequeue(t *testing.T) {
	at := func(d time.Duration) time.Time { return unitNow.Add(d) }
	for name, test := range map[string]struct {
		d        refresh.Decision
		after    time.Duration
		priority int // -1 for none
	}{
		"nothing but an event":        {refresh.Decision{}, 0, -1},
		"nothing, and a token is due": {refresh.Decision{DueAt: at(time.Hour)}, 0, -1},
		"a check":                     {refresh.Decision{At: at(time.Minute), DueAt: at(time.Hour)}, time.Minute, 0},
		"no token":                    {refresh.Decision{At: at(time.Minute)}, time.Minute, 0},
		"a rotation":                  {refresh.Decision{At: at(time.Hour), DueAt: at(time.Hour)}, time.Hour, dueRotationPriority},
		"the retry of one":            {refresh.Decision{At: at(2 * time.Hour), DueAt: at(time.Hour)}, 2 * time.Hour, dueRotationPriority},
		"a check just before one": {
			refresh.Decision{At: at(time.Hour - time.Minute), DueAt: at(time.Hour)}, 59 * time.Minute, dueRotationPriority,
		},
		"a check some minutes before": {
			refresh.Decision{At: at(time.Hour - 5*time.Minute), DueAt: at(time.Hour)}, 55 * time.Minute, dueSoonPriority,
		},
		"a check longer before": {refresh.Decision{At: at(54 * time.Minute), DueAt: at(time.Hour)}, 54 * time.Minute, 0},
		"at once":               {refresh.Decision{At: unitNow}, time.Millisecond, 0},
		"long ago":              {refresh.Decision{At: at(-time.Hour)}, time.Millisecond, 0},
	} {
		result := requeue(unitNow, test.d)
		priority := -1
		if result.Priority != nil {
			priority = *result.Priority
		}
		if result.RequeueAfter != test.after || priority != test.priority {
			t.Errorf("%s: after %s with priority %d", name, result.RequeueAfter, priority)
		}
	}
}
