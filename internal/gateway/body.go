// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Stall is how long a caller may send none of its body, or take none of its answer. The server that serves a gateway must keep the second
// limit, as httpserver.NewStreaming does.
const Stall = 30 * time.Second

const (
	// maxRepeated is the largest body of a known length that is held so that the call can be repeated. Larger ones are media files.
	maxRepeated = 256 << 10
	// firstRoom is the room for a body of unknown length at first. It doubles when it is full.
	firstRoom = 8 << 10
	// roomWait is how long a body of unknown length waits for room.
	roomWait = 5 * time.Second
	// drainWithin is how long the rest of a body is read that nobody needs any more.
	drainWithin = 2 * time.Second
)

// errNoRoom means that a body of unknown length found no room in time.
var errNoRoom = errors.New("no room for the body")

// budget is the memory for the bodies that are held.
type budget struct {
	room *semaphore.Weighted
	max  int64
	held atomic.Int64
}

func newBudget(size int64) *budget { return &budget{room: semaphore.NewWeighted(size), max: size} }

func (b *budget) used() int64 { return b.held.Load() }

// try takes room if there is any.
func (b *budget) try(n int64) bool {
	if !b.room.TryAcquire(n) {
		return false
	}
	b.held.Add(n)
	return true
}

// take waits for room until ctx is done.
func (b *budget) take(ctx context.Context, n int64) error {
	if n > b.max || b.room.Acquire(ctx, n) != nil {
		return errNoRoom
	}
	b.held.Add(n)
	return nil
}

func (b *budget) give(n int64) {
	b.held.Add(-n)
	b.room.Release(n)
}

// body is the body of a request. WeChat refuses bodies without a Content-Length, so those are held until their end. Others are held if they
// are small and there is room, so that the call can be repeated, and are otherwise sent on as they come.
type body struct {
	// length is known once the body is open.
	length int64

	// caller is not used if there is no body.
	caller  callerBody
	empty   bool
	budget  *budget
	held    []byte
	isHeld  bool
	streams bool
	room    int64
	waiting time.Duration
}

// from begins with a request. Nothing is read before open.
func (b *body) from(r *http.Request, control *http.ResponseController, room *budget) {
	b.length, b.budget = r.ContentLength, room
	b.empty = r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0
	b.caller.from, b.caller.control = r.Body, control
}

// open reads the body if it is to be held.
func (b *body) open(ctx context.Context) *refusal {
	var err error
	switch {
	case b.empty:
		b.length = 0
	case b.length < 0:
		err = b.hold(ctx)
	case b.length <= maxRepeated && b.budget.try(b.length):
		b.room, b.isHeld, b.held = b.length, true, make([]byte, b.length)
		_, err = io.ReadFull(&b.caller, b.held)
		if err == nil {
			b.caller.whole() // net/http reports the end only to those who read on
		}
	default:
		b.streams = true
		// Without it net/http would read the rest of the body itself once WeChat's answer begins, although the transport may not have all.
		_ = b.caller.control.EnableFullDuplex()
	}
	if err == nil {
		return nil
	}
	f := bodyRefusal(err)
	return &f
}

// hold reads a body of unknown length.
func (b *body) hold(ctx context.Context) error {
	b.isHeld = true
	for {
		if len(b.held) == cap(b.held) {
			if err := b.grow(ctx); err != nil {
				return err
			}
		}
		n, err := b.caller.Read(b.held[len(b.held):cap(b.held)])
		b.held = b.held[:len(b.held)+n]
		if err == io.EOF { //nolint:errorlint // a reader returns it as it is
			b.length = int64(len(b.held))
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// grow doubles the room for a body of unknown length. It waits for roomWait in all.
func (b *body) grow(ctx context.Context) error {
	more := max(b.room, min(firstRoom, b.budget.max))
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, roomWait-b.waiting)
	defer cancel()
	if err := b.budget.take(ctx, more); err != nil {
		if errors.Is(context.Cause(ctx), context.Canceled) {
			return io.ErrUnexpectedEOF // the caller went away
		}
		return err
	}
	b.waiting += time.Since(begun)
	b.room += more
	larger := make([]byte, len(b.held), b.room)
	copy(larger, b.held)
	b.held = larger
	return nil
}

// reader returns the body from its beginning, if it has not been read yet or may be read again.
func (b *body) reader() io.Reader {
	if b.isHeld {
		return bytes.NewReader(b.held)
	}
	return &b.caller
}

// again reports whether the body may be sent twice.
func (b *body) again() bool { return b.empty || b.isHeld }

// unread reports whether the caller may still send a part of a body that is sent on as it comes.
func (b *body) unread() bool { return b.streams && !b.caller.ended() }

// close ends the reading of the body, which the transport may still do, and gives the room back.
func (b *body) close() {
	if !b.empty {
		b.caller.stop()
	}
	if b.room > 0 {
		b.budget.give(b.room)
		b.room = 0
	}
}

// sent returns how many bytes of the body were read.
func (b *body) sent() int64 {
	return b.caller.count.Load()
}

// waited returns how long the caller was waited for.
func (b *body) waited() time.Duration {
	return time.Duration(b.caller.waited.Load())
}

// failure returns why the caller's body could not be read; nil if it could.
func (b *body) failure() error {
	if err := b.caller.err.Load(); err != nil {
		return *err
	}
	return nil
}

// bodyRefusal returns the answer to a call whose body could not be read.
func bodyRefusal(err error) refusal {
	switch {
	case errors.Is(err, errNoRoom):
		return refusalBuffer
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusalBodySlow
	}
	return refusalGone
}

// callerBody reads from the caller, who must make progress. The transport may read from another goroutine, and even after the call has
// ended, when the connection belongs to the next request.
type callerBody struct {
	from    io.Reader
	control *http.ResponseController

	// count is in bytes, and waited in nanoseconds.
	count, waited atomic.Int64
	err           atomic.Pointer[error]

	// reading is held during a read, and mu while the deadline is set.
	reading, mu   sync.Mutex
	stopped, done bool
}

var errStopped = errors.New("the call has ended")

func (c *callerBody) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if err := c.extend(); err != nil {
		return 0, err
	}
	begun := time.Now()
	n, err := c.from.Read(p)
	c.waited.Add(int64(time.Since(begun)))
	c.count.Add(int64(n))
	switch {
	case err == io.EOF:
		c.whole()
	case err != nil:
		failure := err // a copy, so that reads which do not fail allocate nothing
		c.err.CompareAndSwap(nil, &failure)
	}
	return n, err
}

// extend moves the deadline. It returns an error if nothing is left to read, or the call has ended. The transport reads once more behind
// the end, and by then net/http may have closed the body, which must not look like a failure.
func (c *callerBody) extend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.done:
		return io.EOF
	case c.stopped:
		return errStopped
	}
	_ = c.control.SetReadDeadline(time.Now().Add(Stall))
	return nil
}

// whole ends the deadline when all was read. net/http goes on reading, to see whether the caller goes away, and would take the end of the
// deadline for that.
func (c *callerBody) whole() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.done && !c.stopped {
		c.done = true
		_ = c.control.SetReadDeadline(time.Time{})
	}
}

// ended reports whether all was read.
func (c *callerBody) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done
}

// stop ends a read that is under way, and returns when no more can begin.
func (c *callerBody) stop() {
	c.mu.Lock()
	c.stopped = true
	wait := !c.done && c.control.SetReadDeadline(time.Unix(1, 0)) == nil
	c.mu.Unlock()
	if wait {
		c.reading.Lock()
		defer c.reading.Unlock()
		// net/http reads a part of the rest, so that the caller gets the answer before the connection is closed.
		_ = c.control.SetReadDeadline(time.Now().Add(drainWithin))
	}
}
