// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// maxHello is the length of the longest first TLS record that a Carrier passes on. With its headers it fills a packet of 1,360 bytes,
// as networks with tunnels have them.
const maxHello = 1300

// Carrier is a network between a client and a server that loses every packet of a TLS handshake whose ClientHello does not fit into one
// packet, as some networks do. It accepts such a connection and never answers.
type Carrier struct {
	// Dropped and Passed count the connections whose ClientHello was lost, and the others.
	Dropped, Passed atomic.Int32
	// Fixed makes the Carrier pass on every ClientHello, and Cut makes it end the connection of a large one.
	Fixed, Cut atomic.Bool

	target   string
	listener net.Listener

	mu     sync.Mutex // guards conns
	conns  []net.Conn
	served sync.WaitGroup
}

// NewCarrier starts a Carrier to a server, such as "127.0.0.1:8443". The caller must call Close.
func NewCarrier(target string) (*Carrier, error) {
	listener, err := net.Listen("tcp", defaultAddr) //nolint:noctx // listening on a local address does not block
	if err != nil {
		return nil, err
	}
	c := &Carrier{target: target, listener: listener}
	c.served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			c.keep(conn)
			c.served.Go(func() { c.carry(conn) })
		}
	})
	return c, nil
}

// Addr returns the address at which clients reach the server.
func (c *Carrier) Addr() string { return c.listener.Addr().String() }

// Close stops the Carrier and cuts its connections.
func (c *Carrier) Close() {
	_ = c.listener.Close()
	c.CutConnections()
	c.served.Wait()
}

// CutConnections cuts all connections.
func (c *Carrier) CutConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func (c *Carrier) keep(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns = append(c.conns, conn)
}

func (c *Carrier) carry(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	header := make([]byte, 5) // of a TLS record: its type, a version and the length of what follows
	if _, err := io.ReadFull(conn, header); err != nil {
		return
	}
	if binary.BigEndian.Uint16(header[3:]) > maxHello && !c.Fixed.Load() {
		c.Dropped.Add(1)
		if c.Cut.Load() {
			return
		}
		_, _ = io.Copy(io.Discard, conn)
		return
	}
	server, err := net.Dial("tcp", c.target) //nolint:noctx // a local address
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	c.keep(server)
	c.Passed.Add(1)
	if _, err := server.Write(header); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, conn)
		_ = server.Close()
	}()
	_, _ = io.Copy(conn, server)
}
