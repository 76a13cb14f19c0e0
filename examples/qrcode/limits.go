// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// Whoever reaches the service must not be able to use up its memory, of which the manifest allows 64 MiB.
const (
	// maxPictures is the number of pictures in memory at a time, each of at most maxPicture bytes.
	maxPictures = 8
	// maxWait is how long a caller waits for its turn.
	maxWait = 3 * time.Second
	// maxConnections is the number of connections at a time, and maxHeader the size of a request's header.
	maxConnections = 1024
	maxHeader      = 8 << 10
)

// newServer returns a server whose connections are limited in time and memory. Two calls to WeChat, of 15 s each, fit into the time for
// an answer.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      45 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    maxHeader,
	}
}

// limit returns a listener that has at most n connections open.
func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, slots: make(chan struct{}, n)}
}

type limited struct {
	net.Listener

	slots chan struct{}
}

// Accept waits for a free slot and then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	free := sync.OnceFunc(func() { <-l.slots })
	conn, err := l.Listener.Accept()
	if err != nil {
		free()
		return nil, err
	}
	return &limitedConn{Conn: conn, free: free}, nil
}

type limitedConn struct {
	net.Conn

	free func()
}

func (c *limitedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
