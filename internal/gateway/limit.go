// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

// strangersShare is the part of all calls in flight, as a divisor, that callers may have who prove nothing. They have no rate of their own.
const strangersShare = 8

// sweepInterval is how often clients that are gone are forgotten.
const sweepInterval = time.Minute

// limits bounds the calls that are passed on: by the rate of each client, by how many of each client are in flight, and by how many are in
// all.
type limits struct {
	most, mostPerClient int
	source              Source
	now                 func() time.Time

	mu    sync.Mutex // guards the fields below
	total int
	// strangers is the number of calls in flight without a client.
	strangers int
	byClient  map[types.UID]*clientLimit
	swept     time.Time
}

// clientLimit is what is known of one client.
type clientLimit struct {
	rate     *rate.Limiter
	inFlight int
}

func newLimits(most, mostPerClient int, source Source, now func() time.Time) *limits {
	return &limits{most: most, mostPerClient: mostPerClient, source: source, now: now, byClient: map[types.UID]*clientLimit{}, swept: now()}
}

func (l *limits) inFlight() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// admit counts a call, until leave is called with what it returns, or says why it must not be passed on. All
// calls without a client share a small part, so that they keep no client out.
func (l *limits) admit(client *Client) (c *clientLimit, refused *refusal) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	if l.total >= l.most {
		return nil, &refusalInFlight
	}
	if client != nil {
		c = l.of(client)
		switch {
		case c.inFlight >= l.mostPerClient:
			return nil, &refusalClientInFlight
		case !c.rate.AllowN(now, 1):
			return nil, &refusalRate
		}
		c.inFlight++
	} else {
		if l.strangers >= max(1, l.most/strangersShare) {
			return nil, &refusalInFlight
		}
		l.strangers++
	}
	l.total++
	return c, nil
}

// leave ends the counting of a call.
func (l *limits) leave(c *clientLimit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if c != nil {
		c.inFlight--
	} else {
		l.strangers--
	}
}

// of returns the limit of a client, by the rate that it has now. The caller holds the mutex.
func (l *limits) of(client *Client) *clientLimit {
	perSecond, burst := rate.Limit(client.Rate.RequestsPerSecond), int(client.Rate.Burst)
	c := l.byClient[client.UID]
	if c == nil {
		c = &clientLimit{rate: rate.NewLimiter(perSecond, burst)}
		l.byClient[client.UID] = c
	}
	if c.rate.Limit() != perSecond {
		c.rate.SetLimitAt(l.now(), perSecond)
	}
	if c.rate.Burst() != burst {
		c.rate.SetBurstAt(l.now(), burst)
	}
	return c
}

// sweep forgets the clients that are gone, so that the map has no more than the policy. The caller holds the mutex.
func (l *limits) sweep(now time.Time) {
	if now.Sub(l.swept) < sweepInterval {
		return
	}
	l.swept = now
	policy, _ := l.source.Policy()
	for uid, c := range l.byClient {
		if c.inFlight == 0 && policy.ByUID(uid) == nil {
			delete(l.byClient, uid)
		}
	}
}
