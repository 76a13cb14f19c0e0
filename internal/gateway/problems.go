// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
)

// problemInterval is how often a problem with the connection to WeChat is logged. While WeChat is away, every call has one.
const problemInterval = 10 * time.Second

// LogProblems returns a function for RelayOptions.Problem that logs a problem at most once in ten seconds, with how many others there were.
func LogProblems(log logr.Logger, now func() time.Time) func(error) {
	var mu sync.Mutex
	var last time.Time
	others := 0
	return func(err error) {
		at := now()
		mu.Lock()
		if !last.IsZero() && at.Sub(last) < problemInterval {
			others++
			mu.Unlock()
			return
		}
		n := others
		last, others = at, 0
		mu.Unlock()
		log.Info("a call was not answered by WeChat", "problem", err.Error(), "othersSince", n)
	}
}
