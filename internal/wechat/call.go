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
	// mintTimeout limits the duration of a mint, counted from the moment when it has a slot.
	mintTimeout = 10 * time.Second
	// mintStart is the part of mintTimeout that connecting may take. The rest is reserved for the answer.
	mintStart = mintTimeout / 2
	// noLimit is added to the current time for a mint without a startBy.
	noLimit = 100 * 365 * 24 * time.Hour
)

// fetch sends a request that may be repeated, to one endpoint after the other until one of WeChat's answers is received.
func (c *Client) fetch(ctx context.Context, r request) (reply, error) {
	if err := c.slots.acquire(ctx); err != nil {
		return reply{}, notStarted(err)
	}
	defer c.slots.release()
	r.transports, r.repeatable = c.network.Load().shared, true

	var last *token.Error
	for _, i := range c.order() {
		answer, err := c.fetchFrom(ctx, i, r)
		if err == nil {
			return answer, nil
		}
		if last == nil || last.Code == 0 || err.Code != 0 { // an errcode says more than what another endpoint failed with
			last = err
		}
		if err.Answered || ctx.Err() != nil {
			break
		}
	}
	return reply{}, last
}

// fetchFrom sends the request of a fetch to one endpoint.
func (c *Client) fetchFrom(ctx context.Context, endpoint int, r request) (reply, *token.Error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	answer, err := c.attempt(ctx, endpoint, r)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		// The other idle connections may be dead for the same reason, and each would cost a later call its whole timeout.
		c.network.Load().closeIdle()
	}
	return answer, err
}

// mint sends a request that must not be repeated once any part of it may have been sent.
func (c *Client) mint(ctx context.Context, r request, startBy time.Time) (reply, error) {
	if startBy.IsZero() {
		startBy = c.Now().Add(noLimit)
	}
	// Elapsed time is measured as well, because the answer to another call may set WeChat's clock back in the meantime.
	begin, left := c.clock.mark(), startBy.Sub(c.Now())
	elapsed := func() time.Duration { return between(begin, c.clock.mark()) }
	inTime := func() bool { return elapsed() < left && !c.Now().After(startBy) }

	wait, stop := context.WithTimeout(ctx, left)
	defer stop()
	if err := c.slots.acquire(wait); err != nil {
		if ctx.Err() == nil {
			return reply{}, ErrStartedTooLate
		}
		return reply{}, notStarted(err)
	}
	defer c.slots.release()
	connectBy := time.Now().Add(min(mintStart, left-elapsed()))

	// From here on the mint ignores the caller's context, because abandoning it could lose a token.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), mintTimeout)
	defer cancel()
	r.transports = c.network.Load().fresh

	var last *token.Error
	order := c.order()
	for n, i := range order {
		// Each endpoint gets an equal share of the remaining time, so that a dead one leaves time for the others.
		limit := time.Until(connectBy) / time.Duration(len(order)-n)
		r.once = &once{allowed: inTime, by: time.Now().Add(min(limit, c.timeout))}
		answer, err := c.attempt(ctx, i, r)
		if err == nil {
			return answer, nil
		}
		if r.once.sent() {
			if err.MaybeSent = !err.Answered; err.MaybeSent {
				// This request is not sent again, so let the next mint start with another endpoint.
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

// once is one attempt at a request that must be sent at most once. Only the goroutine that makes the attempt uses it.
type once struct {
	// allowed reports whether the request may still be sent. It is called when a connection is ready.
	allowed func() bool
	// by is when the connection has to be ready.
	by time.Time
	// last is the gate of the newest connection. The gates of all earlier ones are shut.
	last *gate
}

// sent reports whether the request may have been sent.
func (o *once) sent() bool { return o.last != nil && o.last.passed() }

// mayConnect reports whether the request may be tried on another connection. A request that may be repeated has no once and always may.
func (o *once) mayConnect() bool { return o == nil || !o.sent() && time.Now().Before(o.by) }

// sendOnce sends a request that must be sent at most once. It gives up if the connection is not ready within its share of the time that
// is left. If it returns an error and the request cannot have been sent, it never will be.
func (c *Client) sendOnce(ctx context.Context, endpoint int, r request, share int) (exchange, error) {
	g := &gate{allowed: r.once.allowed}
	r.once.last = g
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, gateKey{}, g))
	defer cancel(nil)
	defer g.shut()
	timer := time.AfterFunc(time.Until(r.once.by)/time.Duration(share), func() {
		if g.shut() {
			cancel(context.DeadlineExceeded)
		}
	})
	defer timer.Stop()
	r.onConn = g.pass
	return c.roundTrip(ctx, c.endpoints[endpoint], r)
}

// order returns the indices of the endpoints, beginning with the preferred one.
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

// slots limits the number of requests in flight. It holds one element for each of them.
type slots chan struct{}

// acquire waits for a slot until ctx is done.
func (s slots) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slots) release() { <-s }

// notStarted returns the error of a call whose context was done before anything was sent.
func notStarted(err error) *token.Error {
	e := &token.Error{Class: token.Transient, Reason: v1alpha1.ReasonUnreachable, Cause: context.Canceled,
		Message: "The call to WeChat was cancelled before it was started."}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Cause = context.DeadlineExceeded
		e.Message = "The call to WeChat could not be started in time, because too many others are in flight."
	}
	return e
}
