// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"sync/atomic"
	"time"
)

// ignoredOffset: below it the local clock counts as right. Date has whole seconds and the way takes
// time, so smaller differences are noise.
const ignoredOffset = 5 * time.Second

// dateTruncation is what Date, cut to whole seconds, is behind on average.
const dateTruncation = 500 * time.Millisecond

// clock knows WeChat's time. It is safe for concurrent use.
//
// The local wall clock may be set back, and the monotonic clock stands still while a virtual machine
// sleeps. Elapsed time is therefore the larger of both: the result may be ahead of the truth until the
// next answer, which costs a call too early, but not behind it, which would cost a token. While it may be
// ahead the clock does not count as synced, so that a call that ends another token can ask first.
type clock struct {
	wall   func() time.Time
	mono   func() time.Time
	anchor atomic.Pointer[anchor]
}

// instant is one moment on both local clocks.
type instant struct {
	wall time.Time // no monotonic reading
	mono time.Time // only its monotonic reading is used
}

type anchor struct {
	instant
	wechat time.Time
}

func (a *anchor) at(m instant) time.Time { return a.wechat.Add(between(a.instant, m)) }

func newClock(wall, mono func() time.Time) *clock {
	if wall == nil {
		wall = time.Now
	}
	if mono == nil {
		mono = time.Now
	}
	return &clock{wall: wall, mono: mono}
}

// mark is this moment.
func (c *clock) mark() instant {
	// UTC strips the monotonic reading, without which Sub compares the wall clock.
	return instant{wall: c.wall().UTC(), mono: c.mono()}
}

// between is the time from one moment to a later one.
func between(from, to instant) time.Duration {
	return max(to.wall.Sub(from.wall), to.mono.Sub(from.mono))
}

// ahead is by how much more the wall clock moved on than the monotonic one.
func ahead(from, to instant) time.Duration { return to.wall.Sub(from.wall) - to.mono.Sub(from.mono) }

// now is WeChat's time, or the local wall clock before the first answer. It is synced if WeChat has
// answered, and the wall clock has not run away from the monotonic one since.
func (c *clock) now() (now time.Time, synced bool) {
	m, a := c.mark(), c.anchor.Load()
	if a == nil {
		return m.wall, false
	}
	return a.at(m), ahead(a.instant, m) < ignoredOffset
}

// at is WeChat's time at a moment after the last answer.
func (c *clock) at(m instant) time.Time {
	a := c.anchor.Load()
	if a == nil {
		return m.wall
	}
	return a.at(m)
}

// learn takes the Date of an answer, and gives WeChat's time at which the call was started. WeChat is taken to have written the Date
// half-way between started and received, unless nobody knows how long that was: then at its start, which is never behind, and the
// clock is not synced.
func (c *clock) learn(date time.Time, started, received instant) (startedAt time.Time) {
	if ahead(started, received) >= ignoredOffset {
		startedAt = date.Add(dateTruncation).UTC()
		c.setTo(&anchor{instant: started, wechat: startedAt})
		return startedAt
	}
	took := between(started, received)
	wechat := date.Add(dateTruncation + took/2).UTC()
	if offset := wechat.Sub(received.wall); offset.Abs() < ignoredOffset {
		wechat = received.wall
	}
	c.setTo(&anchor{instant: received, wechat: wechat})
	return wechat.Add(-took)
}

// settle takes an answer that does not tell the time, as learn does: no better clock is to be had than the one there is.
func (c *clock) settle(started, received instant) (startedAt time.Time) {
	wechat := c.at(received)
	c.setTo(&anchor{instant: received, wechat: wechat})
	return wechat.Add(-between(started, received))
}

// setTo keeps the anchor, unless there is a later one: calls overlap, and the local clock may have jumped after this one.
func (c *clock) setTo(a *anchor) {
	for {
		last := c.anchor.Load()
		if last != nil && last.mono.After(a.mono) || c.anchor.CompareAndSwap(last, a) {
			return
		}
	}
}
