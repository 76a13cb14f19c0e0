// SPDX-License-Identifier: Apache-2.0

package httpserver

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// parsed is how many bytes of memory a byte of a header may take once net/http has parsed it: a line of three bytes, such as "a:",
	// has its place in a map and in a slice, both of which grow by doubling.
	parsed = 48
	// perValue is how many bytes of memory each value of a parsed header takes at most, without its own bytes.
	perValue = 144
	// mostEarly is how many bytes of a header may have been read together with the request before: a whole one.
	mostEarly = maxHeader + 4<<10
	// quickWrite is how long a write may take for which net/http sets no deadline: a part of a handshake, "100 Continue" or an error.
	quickWrite = 10 * time.Second
)

// phase is what a connection is about.
type phase int

const (
	reading phase = iota // a header is being read
	shaking              // TLS shakes hands
	serving              // the handler is at work, or the rest of the body is read, or the rest of the answer is sent
	idle                 // the answer is out
	waiting              // nothing of the next request has been seen
)

// connection tells its listener what it holds, and when it is closed.
type connection struct {
	net.Conn

	listener *bounded
	from     netip.Addr
	// number is the order in which connections were accepted.
	number int
	// limited reports that net/http has set a deadline for writes.
	limited atomic.Bool

	// These are guarded by the listener's mutex. header is how many bytes of memory the connection's header takes, or may take, last how many
	// bytes the last Read had, and gone reports that the connection was closed.
	phase        phase
	header, last int
	gone         bool
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
		c.listener.update(c, func(c *connection) {
			switch c.last = n; c.phase {
			case shaking:
				c.header += n
			case reading, idle, waiting:
				c.header += n * parsed
			case serving: // it belongs to the body, or comes early
			}
		})
	}
	return n, err //nolint:wrapcheck // net/http looks at it
}

// SetReadDeadline implements net.Conn. What net/http sets, and when, tells what it is about. It takes the deadline of a handshake away when
// that is over; the last Read may have had the beginning of a header, too. It sets a deadline when a connection becomes idle, and the next
// one when the first bytes of a header are there. These may have been read together with the request before, and the rest of the header
// with them, so that no Read counts it.
func (c *connection) SetReadDeadline(deadline time.Time) error {
	c.listener.update(c, func(c *connection) {
		switch c.phase {
		case shaking:
			if deadline.IsZero() {
				c.phase, c.header = reading, c.last*parsed
			}
		case idle:
			c.phase = waiting
		case waiting:
			c.phase = reading
			c.header += mostEarly * parsed
		case reading, serving:
		}
	})
	return c.Conn.SetReadDeadline(deadline) //nolint:wrapcheck // net/http looks at it
}

// serve tells that the handler has the header of a request.
func (c *connection) serve(r *http.Request) {
	n := size(r)
	c.listener.update(c, func(c *connection) { c.phase, c.header = serving, n })
}

// rest tells that a request is over, and its body and answer with it.
func (c *connection) rest() {
	c.listener.update(c, func(c *connection) { c.phase, c.header = idle, 0 })
}

// size returns how many bytes of memory the header of a request takes, nearly.
func size(r *http.Request) int {
	n := perValue + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		n += len(name)
		for _, value := range values {
			n += perValue + len(value)
		}
	}
	for name := range r.Trailer {
		n += perValue + len(name)
	}
	return n
}

// SetWriteDeadline implements net.Conn. A write under way keeps a limit.
func (c *connection) SetWriteDeadline(deadline time.Time) error {
	limited := !deadline.IsZero()
	if c.limited.Store(limited); !limited {
		deadline = time.Now().Add(quickWrite)
	}
	return c.Conn.SetWriteDeadline(deadline) //nolint:wrapcheck // net/http looks at it
}

// Write implements net.Conn.
func (c *connection) Write(p []byte) (int, error) {
	if !c.limited.Load() {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(quickWrite))
	}
	return c.Conn.Write(p) //nolint:wrapcheck // net/http looks at it
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.listener.remove(c)
	return c.Conn.Close()
}
