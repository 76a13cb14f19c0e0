// SPDX-License-Identifier: Apache-2.0

package wechat

import (
	"context"
	"errors"
	"time"

	"github.com/wechat-token-operator/wechat-token-operator/api/v1alpha1"
	"github.com/wechat-token-operator/wechat-token-operator/internal/token"
)

const (
	// mintTimeout is the deadline of a mint from the moment it has a slot.
	mintTimeout = 10 * time.Second
	// mintStart is how much of it connecting may take; the rest is for the answer.
	mintStart = mintTimeout / 2
	// noLimit stands for a mint that may start at any time.
	noLimit = 100 * 365 * 24 * time.Hour
)

// fetch makes a call that may be repeated.
func (c *Client) fetch(ctx context.Context, r request) (reply, error) {
	if err := c.acquire(ctx); err != nil {
		return reply{}, notStarted(err)
	}
	defer c.release()
	r.transport, r.repeatable = c.shared, true

	var last *token.Error
	for _, i := range c.order() {
		answer, err := c.fetchFrom(ctx, i, r)
		if err == nil {
			return answer, nil
		}
		last = err
		if err.Reason != v1alpha1.ReasonUnreachable && err.Reason != v1alpha1.ReasonBadResponse || ctx.Err() != nil {
			break
		}
	}
	return reply{}, last
}

// fetchFrom makes one attempt.
func (c *Client) fetchFrom(ctx context.Context, endpoint int, r request) (reply, *token.Error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	answer, err := c.attempt(ctx, endpoint, r)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		// What made this connection silent may have done so to all, and each would cost a call its time.
		c.closeIdle()
	}
	return answer, err
}

// mint makes a call that must not be repeated once any of it may have been sent.
func (c *Client) mint(ctx context.Context, r request, startBy time.Time) (reply, error) {
	if startBy.IsZero() {
		startBy = c.Now().Add(noLimit)
	}
	// The time left is measured too: an answer to another call may set WeChat's clock back meanwhile.
	begin, left := c.clock.mark(), startBy.Sub(c.Now())
	elapsed := func() time.Duration { return between(begin, c.clock.mark()) }
	inTime := func() bool { return elapsed() < left && !c.Now().After(startBy) }

	wait, stop := context.WithTimeout(ctx, left)
	defer stop()
	if err := c.acquire(wait); err != nil {
		if ctx.Err() == nil {
			return reply{}, ErrStartedTooLate
		}
		return reply{}, notStarted(err)
	}
	defer c.release()
	connectBy := time.Now().Add(min(mintStart, left-elapsed()))

	// From here on the caller may go: an answer that nobody waits for is a lost token.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mintTimeout)
	defer cancel()
	r.transport = c.fresh

	var last *token.Error
	order := c.order()
	for n, i := range order {
		// Shared out evenly, so that one dead endpoint does not use up the time of the next.
		limit := time.Until(connectBy) / time.Duration(len(order)-n)
		g := &gate{allowed: inTime}
		answer, err := c.mintFrom(ctx, i, r, g, min(limit, c.timeout))
		if err == nil {
			return answer, nil
		}
		if g.passed() {
			if err.MaybeSent = !err.Answered; err.MaybeSent {
				// It is not sent again, so the next mint is the one to try another endpoint.
				c.preferred.CompareAndSwap(int64(i), int64(order[(n+1)%len(order)]))
			}
			return reply{}, err
		}
		last = err
		if !inTime() {
			last.Cause = ErrStartedTooLate
			break
		}
	}
	return reply{}, last
}

// mintFrom makes one attempt, given up when its connection is not ready within limit.
func (c *Client) mintFrom(ctx context.Context, endpoint int, r request, g *gate, limit time.Duration) (reply, *token.Error) {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, gateKey{}, g))
	defer cancel(nil)
	timer := time.AfterFunc(limit, func() {
		if g.shut() {
			cancel(context.DeadlineExceeded)
		}
	})
	defer timer.Stop()
	r.onConn = g.pass
	return c.attempt(ctx, endpoint, r)
}

// order lists the endpoints, the one that worked last first.
func (c *Client) order() []int {
	preferred := int(c.preferred.Load())
	order := make([]int, 1, len(c.endpoints))
	order[0] = preferred
	for i := range c.endpoints {
		if i != preferred {
			order = append(order, i)
		}
	}
	return order
}

// acquire waits for a slot, as long as ctx lasts.
func (c *Client) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Client) release() { <-c.slots }

// notStarted is the error of a call whose context ended before anything was done.
func notStarted(err error) *token.Error {
	e := &token.Error{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable, Cause: context.Canceled,
		Message: "The call to WeChat was cancelled before it was started."}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Cause = context.DeadlineExceeded
		e.Message = "The call to WeChat could not be started in time, because too many others are in flight."
	}
	return e
}
