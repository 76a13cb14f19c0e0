// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

const (
	// callEvery is the time between two calls of the program.
	callEvery = 100 * time.Millisecond
	// callsAfter is how many calls have to end after something happened, before the story goes on.
	callsAfter = 10
)

// caller has the program call WeChat several times a second, and counts what comes of it. A call does not wait for the one before.
type caller struct {
	stop func()

	mu      sync.Mutex
	program *program
	phases  []*phase
	// failures are the texts of the first calls that failed.
	failures []string
}

// phase is the time while something happens. A call belongs to the phase in which it began.
type phase struct {
	what                 string
	calls, ended, failed int
	longest              time.Duration
}

// startCaller starts the calls. They belong to no phase until begin is called.
func startCaller(ctx context.Context, p *program) *caller {
	// The last calls end by themselves, so that none of them is broken off.
	calling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &caller{program: p, phases: []*phase{{}}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(calling)
	}()
	c.stop = sync.OnceFunc(func() { cancel(); <-done })
	return c
}

// run makes calls until ctx ends, and waits until all have been answered.
func (c *caller) run(ctx context.Context) {
	ticker := time.NewTicker(callEvery)
	defer ticker.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	for n := 0; ; n++ {
		path := "/call"
		if n%4 == 3 {
			path = "/image"
		}
		p, during := c.next()
		running.Go(func() {
			defer p.inFlight.Done()
			begin := time.Now()
			_, err := p.get(context.WithoutCancel(ctx), path)
			c.count(during, time.Since(begin), err)
		})
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// next begins a call. Whoever gets it tells the program's inFlight of its end.
func (c *caller) next() (*program, *phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	during := c.phases[len(c.phases)-1]
	during.calls++
	c.program.inFlight.Add(1)
	return c.program, during
}

func (c *caller) count(during *phase, took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	during.ended++
	during.longest = max(during.longest, took)
	if err == nil {
		return
	}
	during.failed++
	if len(c.failures) < 5 {
		c.failures = append(c.failures, fmt.Sprintf("while %s: %v", during.what, err))
	}
}

// begin begins a phase.
func (c *caller) begin(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phases = append(c.phases, &phase{what: what})
}

// ended returns how many calls of the present phase have been answered.
func (c *caller) ended() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phases[len(c.phases)-1].ended
}

// handOver directs new calls to another program and returns when the one before has answered all of its calls, as a Service does when a
// Deployment rolls out.
func (c *caller) handOver(to *program) {
	c.mu.Lock()
	from := c.program
	c.program = to
	c.mu.Unlock()
	from.inFlight.Wait()
}

// table writes a line for each phase.
func (c *caller) table(out io.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "While\tcalls\tfailed\tlongest call")
	for _, p := range c.phases[1:] {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", p.what, p.calls, p.failed, p.longest.Round(time.Millisecond))
	}
	return w.Flush()
}

// judge returns the number of calls, and an error if one failed or if there were none in some phase.
func (c *caller) judge() (calls int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	failed, silent := 0, ""
	for i, p := range c.phases {
		calls += p.calls
		failed += p.failed
		if i > 0 && p.ended == 0 {
			silent = p.what
		}
	}
	switch {
	case failed > 0:
		return calls, fmt.Errorf("%d of %d calls failed, such as:\n%s", failed, calls, strings.Join(c.failures, "\n"))
	case calls == 0:
		return calls, errors.New("the program did not call")
	case silent != "":
		return calls, fmt.Errorf("no call was made while %s", silent)
	}
	return calls, nil
}
