// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"net"
	"net/netip"
	"sync"
)

// headersPerConnection is how many bytes of memory the headers of a listener's connections may take for each of them, on average.
const headersPerConnection = 32 << 10

// bounded is a listener with a limited number of open connections. A new connection is always accepted, and if there are too many, the
// oldest one of the address with the most is closed. So a client that holds connections open keeps out only itself, and the kubelet's
// probes get through. The memory that headers take is limited in the same way.
type bounded struct {
	net.Listener

	most int
	// first is the phase in which connections begin.
	first phase

	mu sync.Mutex
	// open has the connections of each address, the oldest first, and total is their number.
	open  map[netip.Addr][]*connection
	total int
	// accepted is the number of connections so far.
	accepted int
	// headers is the sum of all connections' headers.
	headers int
}

func newBounded(l net.Listener, most int, first phase) *bounded {
	return &bounded{Listener: l, most: most, first: first, open: map[netip.Addr][]*connection{}}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	c, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	added, evicted := b.add(c)
	if evicted != nil {
		_ = evicted.Close()
	}
	return added, nil
}

// add counts a connection, and returns it with the one that has to be closed for it; nil for none.
func (b *bounded) add(c net.Conn) (added, evicted *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accepted++
	added = &connection{Conn: c, listener: b, from: addressOf(c), number: b.accepted, phase: b.first}
	if b.total >= b.most {
		evicted = b.oldestOfTheMost()
	}
	b.open[added.from] = append(b.open[added.from], added)
	b.total++
	return added, evicted
}

// oldestOfTheMost returns the oldest connection of the address that has the most, or of all addresses that have as many. The caller holds
// the mutex.
func (b *bounded) oldestOfTheMost() *connection {
	var oldest *connection
	most := 0
	for _, open := range b.open {
		if n := len(open); n > most || n == most && open[0].number < oldest.number {
			oldest, most = open[0], n
		}
	}
	return oldest
}

// update calls change, which may change the connection's phase and header, and closes connections until the headers of all take no more
// memory than they may.
func (b *bounded) update(c *connection, change func(*connection)) {
	b.mu.Lock()
	if c.gone {
		b.mu.Unlock()
		return
	}
	before := c.header
	change(c)
	b.headers += c.header - before
	var evicted []*connection
	for b.headers > b.most*headersPerConnection {
		longest := b.longestOfTheMost()
		b.forget(longest)
		evicted = append(evicted, longest)
	}
	b.mu.Unlock()
	for _, e := range evicted {
		_ = e.Close()
	}
}

// longestOfTheMost returns the connection with the longest header of the address whose headers take the most memory. The caller holds the
// mutex.
func (b *bounded) longestOfTheMost() *connection {
	var longest *connection
	most := 0
	for _, open := range b.open {
		first, sum := open[0], 0
		for _, c := range open {
			if sum += c.header; c.header > first.header {
				first = c
			}
		}
		if sum > most {
			longest, most = first, sum
		}
	}
	return longest
}

// remove forgets a connection that was closed.
func (b *bounded) remove(c *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(c)
}

// forget is remove for callers that hold the mutex.
func (b *bounded) forget(c *connection) {
	b.headers -= c.header
	c.header, c.gone = 0, true
	open := b.open[c.from]
	for i := range open {
		if open[i] != c {
			continue
		}
		b.total--
		if len(open) == 1 {
			delete(b.open, c.from)
			return
		}
		b.open[c.from] = append(open[:i:i], open[i+1:]...)
		return
	}
}

// abort closes all connections below TLS, so that nobody waits for an alert to be sent.
func (b *bounded) abort() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, open := range b.open {
		for _, c := range open {
			_ = c.Conn.Close()
		}
	}
}

// addressOf returns what a connection is counted by: the whole address, also of IPv6, because the pods of a node share a network of 64
// bits.
func addressOf(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}
