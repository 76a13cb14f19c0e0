// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

const (
	// queuedLines is the number of lines that may wait for a log.
	queuedLines = 4096
	// maxBatch bounds what is written at once, in bytes.
	maxBatch = 64 << 10
	// blockedAfter is how long a log may take nothing before lines are dropped.
	blockedAfter = time.Second
)

// lineWriter writes lines to a log that may block, such as a pipe that nobody reads or a full disk. Callers wait for it a second at most,
// all together: a log that has blocked for longer holds up nobody.
type lineWriter struct {
	w       io.Writer
	queue   chan []byte
	dropped func(lines int)
	// writingSince is when the present write began, in nanoseconds since start, which is before any write; 0 for none.
	writingSince atomic.Int64
	start        time.Time
}

func newLineWriter(w io.Writer, dropped func(lines int)) *lineWriter {
	return &lineWriter{w: w, queue: make(chan []byte, queuedLines), dropped: dropped, start: time.Now().Add(-1)}
}

// add queues a line, or drops it.
func (l *lineWriter) add(line []byte) {
	select {
	case l.queue <- line:
		return
	default:
	}
	wait := blockedAfter
	if since := l.writingSince.Load(); since != 0 {
		wait -= time.Since(l.start) - time.Duration(since)
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case l.queue <- line:
			return
		case <-timer.C:
		}
	}
	l.dropped(1)
}

// run writes lines until ctx ends, and then those that are left, as long as the log takes them.
func (l *lineWriter) run(ctx context.Context) {
	for {
		select {
		case line := <-l.queue:
			l.write(line)
		case <-ctx.Done():
			for {
				select {
				case line := <-l.queue:
					l.write(line)
				default:
					return
				}
			}
		}
	}
}

// write writes a line, and those that wait behind it.
func (l *lineWriter) write(batch []byte) {
	lines := 1
	for len(batch) < maxBatch {
		select {
		case line := <-l.queue:
			batch = append(batch, line...)
			lines++
			continue
		default:
		}
		break
	}
	l.writingSince.Store(int64(time.Since(l.start)))
	_, err := l.w.Write(batch)
	l.writingSince.Store(0)
	if err != nil {
		l.dropped(lines)
	}
}
