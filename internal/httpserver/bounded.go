// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"time"
)

// mostHeaders is how many bytes of headers a listener's connections may hold for each of them, on average. Headers of few bytes each take
// up to 16 times as much memory once they are parsed.
const mostHeaders = 2 << 10

// mostBuffered is how many bytes of the next request TLS and net/http may have read together with the one before: a record and a
// bufio.Reader.
const mostBuffered = 16<<10 + 4<<10

// bounded is a listener with a limited number of open connections. A new connection is always accepted, and if there are too many, the
// oldest one of the address with the most is closed. So a client that holds connections open keeps out only itself, and the kubelet's
// probes get through. The bytes of the headers that are held are limited in the same way.
type bounded struct {
	net.Listener

	most int

	mu sync.Mutex
	// open has the connections of each address, the oldest first, and total is their number.
	open  map[netip.Addr][]*connection
	total int
	// accepted is the number of connections so far.
	accepted int
	// headers is the sum of all connections' headers.
	headers int
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

// read counts bytes of a header. It returns a connection that has to be closed because too many are held; nil for none.
func (b *bounded) read(c *connection, n int) (evicted *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.phase == serving {
		return nil
	}
	return b.count(c, n)
}

// deadline tells that net/http has set a deadline for reads: one when a connection becomes idle, and the next one when the first bytes
// of a header are there. These may have been read together with the request before, and the rest of the header with them, so that no read
// counts it. It returns what read returns.
func (b *bounded) deadline(c *connection) (evicted *connection) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch c.phase {
	case reading, serving:
	case idle:
		c.phase = waiting
	case waiting:
		c.phase = reading
		return b.count(c, mostBuffered)
	}
	return nil
}

// count is read for callers that hold the mutex.
func (b *bounded) count(c *connection, n int) (evicted *connection) {
	if c.gone {
		return nil
	}
	c.header += n
	b.headers += n
	if b.headers <= b.most*mostHeaders {
		return nil
	}
	evicted = b.oldestOfTheLongest()
	b.forget(evicted)
	return evicted
}

// oldestOfTheLongest returns the oldest connection with a header of the address whose connections hold the most bytes of headers. The
// caller holds the mutex.
func (b *bounded) oldestOfTheLongest() *connection {
	var oldest *connection
	most := 0
	for _, open := range b.open {
		var first *connection
		sum := 0
		for _, c := range open {
			if sum += c.header; first == nil && c.header > 0 {
				first = c
			}
		}
		if sum > most {
			oldest, most = first, sum
		}
	}
	return oldest
}

// enter tells what a connection is about, and how many bytes the header takes that it holds.
func (b *bounded) enter(c *connection, p phase, header int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.gone {
		return
	}
	b.headers += header - c.header
	c.phase, c.header = p, header
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

// phase is what a connection is about.
type phase int

const (
	reading phase = iota // a header is being read
	serving              // the handler is at work, or net/http reads the rest of the body
	idle                 // the answer is out
	waiting              // nothing of the next request has been seen
)

// connection tells its listener when it is closed.
type connection struct {
	net.Conn

	listener *bounded
	from     netip.Addr
	// number is the order in which connections were accepted.
	number int

	// These are guarded by the listener's mutex. header is how many bytes of a header the connection holds, or may hold, and gone reports
	// that it was closed.
	phase  phase
	header int
	gone   bool
}

// connectionOf returns the connection below TLS; nil if it is of another listener.
func connectionOf(c net.Conn) *connection {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	own, _ := c.(*connection)
	return own
}

// Read implements net.Conn.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		if evicted := c.listener.read(c, n); evicted != nil {
			_ = evicted.Close()
		}
	}
	return n, err //nolint:wrapcheck // net/http looks at it
}

// SetReadDeadline implements net.Conn.
func (c *connection) SetReadDeadline(deadline time.Time) error {
	if evicted := c.listener.deadline(c); evicted != nil {
		_ = evicted.Close()
	}
	return c.Conn.SetReadDeadline(deadline) //nolint:wrapcheck // net/http looks at it
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.listener.remove(c)
	return c.Conn.Close()
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
