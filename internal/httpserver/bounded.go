// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"net"
	"net/netip"
	"sync"
)

// bounded is a listener with a limited number of open connections. A new connection is always accepted, and if there are too many, the
// oldest one of the address with the most is closed. So a client that holds connections open keeps out only itself, and the kubelet's
// probes get through.
type bounded struct {
	net.Listener

	most int

	mu sync.Mutex
	// open has the connections of each address, the oldest first, and total is their number.
	open  map[netip.Addr][]*connection
	total int
	// accepted is the number of connections so far.
	accepted int
}

func newBounded(l net.Listener, most int) *bounded {
	return &bounded{Listener: l, most: most, open: map[netip.Addr][]*connection{}}
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
	added = &connection{Conn: c, listener: b, from: addressOf(c), number: b.accepted}
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

// remove forgets a connection that was closed.
func (b *bounded) remove(c *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
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

// connection tells its listener when it is closed.
type connection struct {
	net.Conn

	listener *bounded
	from     netip.Addr
	// number is the order in which connections were accepted.
	number int
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.listener.remove(c)
	return c.Conn.Close()
}

// addressOf returns the address that a connection comes from, without the port. An IPv6 address counts as its network of 64 bits, of
// which one client may have all addresses.
func addressOf(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	at := tcp.AddrPort().Addr().Unmap()
	if at.Is6() {
		if p, err := at.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return at
}
