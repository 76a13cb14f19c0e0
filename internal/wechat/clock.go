// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"sync/atomic"
	"time"
)

// ignoredOffset is the difference between WeChat's clock and the local one below which the local clock is considered correct. Smaller
// differences are noise, because a Date header has whole seconds and the transfer takes time.
const ignoredOffset = 5 * time.Second

// dateTruncation is the average error of a Date header that was truncated to whole seconds.
const dateTruncation = 500 * time.Millisecond

// earliestDate and latestDate bound the Date headers that are believed. Any other comes from a gateway whose clock was never set, or is
// made up. No status can hold the times of a token from before the year 1 or after the year 9999.
var (
	earliestDate = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	latestDate   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
)

// clock estimates WeChat's time. It is safe for concurrent use.
//
// The local wall clock may be set back, and the monotonic clock stops while a virtual machine is suspended. The clock therefore takes
// the larger of the two elapsed times. Until the next answer it may be ahead of WeChat's, which causes a call too early, but never
// behind, which could cost a token. While it may be ahead it is not synced, so that the caller can
// probe before a call that invalidates another token.
type clock struct {
	wall   func() time.Time
	mono   func() time.Time
	anchor atomic.Pointer[anchor]
}

// instant is a reading of both local clocks.
type instant struct {
	wall time.Time // no monotonic reading
	mono time.Time // only its monotonic reading is used
}

// anchor pairs an instant with WeChat's time at that instant.
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

// mark returns the current instant.
func (c *clock) mark() instant {
	// UTC strips the monotonic reading, so that Sub compares wall clocks.
	return instant{wall: c.wall().UTC(), mono: c.mono()}
}

// between returns the time from one instant to a later one.
func between(from, to instant) time.Duration {
	return max(to.wall.Sub(from.wall), to.mono.Sub(from.mono))
}

// ahead returns by how much the wall clock advanced more than the monotonic one.
func ahead(from, to instant) time.Duration { return to.wall.Sub(from.wall) - to.mono.Sub(from.mono) }

// now returns WeChat's time, or the local time before the first answer. synced reports whether WeChat has answered and the wall
// clock has not jumped ahead of the monotonic one since.
func (c *clock) now() (now time.Time, synced bool) {
	m, a := c.mark(), c.anchor.Load()
	if a == nil {
		return m.wall, false
	}
	return a.at(m), ahead(a.instant, m) < ignoredOffset
}

// at returns WeChat's time at an instant after the last answer.
func (c *clock) at(m instant) time.Time {
	a := c.anchor.Load()
	if a == nil {
		return m.wall
	}
	return a.at(m)
}

// learn adjusts the clock by the Date header of an answer and returns WeChat's time when the call was started. It assumes that WeChat
// wrote the header half-way between started and received. If the local clock jumped in between, it assumes that WeChat wrote the
// header at the start. The result is then never behind WeChat's clock, and the clock is not synced.
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

// settle does the same as learn for an answer without a Date header. It confirms the current reading of the clock.
func (c *clock) settle(started, received instant) (startedAt time.Time) {
	wechat := c.at(received)
	c.setTo(&anchor{instant: received, wechat: wechat})
	return wechat.Add(-between(started, received))
}

// setTo replaces the anchor unless the present one is later. Calls overlap, and the local clock may have jumped after the older one.
func (c *clock) setTo(a *anchor) {
	for {
		last := c.anchor.Load()
		if last != nil && last.mono.After(a.mono) || c.anchor.CompareAndSwap(last, a) {
			return
		}
	}
}
