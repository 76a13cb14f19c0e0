// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// auditQueue is how many lines wait for the sink at most.
	auditQueue = 1024
	// auditWait is how long a line waits for its place in the queue before it is dropped.
	auditWait = time.Second
	// auditGather is how long a line waits for others to be written with it, and auditBatch the size in bytes of what is written at once.
	auditGather = 10 * time.Millisecond
	auditBatch  = 32 << 10
	// auditEnd is how long Close waits for the sink.
	auditEnd = 5 * time.Second

	// denialRate and denialBurst bound the lines on calls that were denied or limited, for each peer. maxAuditPeers bounds the peers that are
	// told apart.
	denialRate    = 1
	denialBurst   = 20
	maxAuditPeers = 4096
)

// OpenAudit opens the file of --audit-log for appending; "-" is the standard output.
func OpenAudit(path string) (io.WriteCloser, error) {
	if path == "-" {
		return os.Stdout, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // the flag names it
	if err != nil {
		return nil, fmt.Errorf("--audit-log: %w", err)
	}
	return f, nil
}

// Audit writes a line of JSON for each call and each denial. It is safe for concurrent use. One goroutine writes, so that lines never mix
// and no call waits for the sink, but for a moment if that is slow. A sink that does not take lines for a second loses them, and Dropped
// tells how many.
type Audit struct {
	now     func() time.Time
	lines   chan *[]byte
	spare   sync.Pool
	dropped atomic.Uint64
	// blocked reports that the sink took no line for a while, so that the next one does not wait.
	blocked atomic.Bool
	ended   chan struct{}

	closing sync.RWMutex // held for writing while lines is closed
	closed  bool

	denials denials
}

// NewAudit returns an Audit that writes to a sink, until Close.
func NewAudit(sink io.Writer, now func() time.Time) *Audit {
	a := &Audit{
		now: now, lines: make(chan *[]byte, auditQueue), ended: make(chan struct{}),
		spare:   sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }},
		denials: denials{byPeer: map[netip.Addr]*peerDenials{}, swept: now()},
	}
	go a.write(sink)
	return a
}

// Dropped returns how many lines were lost.
func (a *Audit) Dropped() uint64 { return a.dropped.Load() }

// Record writes a line about a call that has ended.
func (a *Audit) Record(c *Call) {
	suppressed := 0
	// Callers who are not known must not fill the log, whatever became of their calls, nor anybody with what spec.rate does not limit.
	if c.Outcome != OutcomeRelayed && (c.Client == nil || !c.Admitted || c.Outcome == OutcomeDenied) {
		var shown bool
		if shown, suppressed = a.denials.admit(a.now(), c.Peer, a.summarize); !shown {
			return
		}
	}
	line := a.line()
	*line = appendCall(*line, c, suppressed)
	a.enqueue(line, true)
}

// summarize writes a line about denials of a peer that had no line.
func (a *Audit) summarize(peer netip.Addr, suppressed int) {
	line := a.line()
	*line = appendSuppressed(*line, a.now(), peer, suppressed)
	a.enqueue(line, false)
}

func (a *Audit) line() *[]byte {
	line, _ := a.spare.Get().(*[]byte)
	*line = (*line)[:0]
	return line
}

// enqueue hands a line to the writer. It may wait for a place in the queue.
func (a *Audit) enqueue(line *[]byte, wait bool) {
	a.closing.RLock()
	defer a.closing.RUnlock()
	if a.closed {
		a.dropped.Add(1)
		return
	}
	select {
	case a.lines <- line:
		return
	default:
	}
	if wait && !a.blocked.Load() {
		timer := time.NewTimer(auditWait)
		defer timer.Stop()
		select {
		case a.lines <- line:
			return
		case <-timer.C:
			a.blocked.Store(true)
		}
	}
	a.dropped.Add(1)
}

// write writes lines until there are no more.
func (a *Audit) write(sink io.Writer) {
	defer close(a.ended)
	batch := make([]byte, 0, 2*auditBatch)
	for line := range a.lines {
		if len(a.lines) == 0 {
			time.Sleep(auditGather)
		}
		batch = a.take(batch[:0], line)
		n := uint64(1)
	more:
		for len(batch) < auditBatch {
			select {
			case line, ok := <-a.lines:
				if !ok {
					break more
				}
				batch = a.take(batch, line)
				n++
			default:
				break more
			}
		}
		if _, err := sink.Write(batch); err != nil {
			a.dropped.Add(n)
		} else {
			a.blocked.Store(false)
		}
	}
}

func (a *Audit) take(batch []byte, line *[]byte) []byte {
	batch = append(batch, *line...)
	a.spare.Put(line)
	return batch
}

// Close writes the lines that wait, and returns within five seconds. Later lines are dropped.
func (a *Audit) Close() {
	a.closing.Lock()
	if !a.closed {
		a.closed = true
		close(a.lines)
	}
	a.closing.Unlock()
	select {
	case <-a.ended:
	case <-time.After(auditEnd):
	}
}

// denials bounds the lines about denied calls of each peer.
type denials struct {
	mu     sync.Mutex
	byPeer map[netip.Addr]*peerDenials
	swept  time.Time
}

type peerDenials struct {
	rate       *rate.Limiter
	last       time.Time
	suppressed int
}

// admit reports whether a denial gets a line, and how many before it got none. Peers beyond maxAuditPeers count as one. Each minute it
// forgets the peers that were quiet, and hands those with suppressed denials to tell.
func (d *denials) admit(now time.Time, peer netip.Addr, tell func(netip.Addr, int)) (shown bool, suppressed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.swept) >= sweepInterval {
		d.swept = now
		for other, p := range d.byPeer {
			if now.Sub(p.last) >= sweepInterval {
				if p.suppressed > 0 {
					tell(other, p.suppressed)
				}
				delete(d.byPeer, other)
			}
		}
	}
	p := d.byPeer[peer]
	if p == nil && len(d.byPeer) >= maxAuditPeers {
		peer = netip.Addr{}
		p = d.byPeer[peer]
	}
	if p == nil {
		p = &peerDenials{rate: rate.NewLimiter(denialRate, denialBurst)}
		d.byPeer[peer] = p
	}
	p.last = now
	if !p.rate.AllowN(now, 1) {
		p.suppressed++
		return false, 0
	}
	suppressed, p.suppressed = p.suppressed, 0
	return true, suppressed
}
