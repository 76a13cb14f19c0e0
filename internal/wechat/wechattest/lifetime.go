// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"net/http"
	"sync"
	"time"
)

// lifetime is the time between the start of a Server and its Close, which ends requests that wait and waits for all to end.
type lifetime struct {
	done     chan struct{} // closed by end
	inFlight sync.WaitGroup

	mu    sync.Mutex // guards ended
	ended bool
}

func newLifetime() *lifetime { return &lifetime{done: make(chan struct{})} }

// enter registers a request, so that Close waits for it until leave is called. It returns false after end.
func (l *lifetime) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.inFlight.Add(1)
	}
	return !l.ended
}

// leave is called at the end of each request that has entered.
func (l *lifetime) leave() { l.inFlight.Done() }

// end makes wait and hang return. It may be called more than once.
func (l *lifetime) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		close(l.done)
	}
	l.ended = true
}

// wait waits for d of real time. It returns false if the client gives up or the server is closed before.
func (l *lifetime) wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-l.done:
	}
	return false
}

// hang waits until the client gives up or the server is closed.
func (l *lifetime) hang(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-l.done:
	}
}
